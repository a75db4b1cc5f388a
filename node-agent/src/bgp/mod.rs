//! The built-in BGP speaker's feet on the ground: TCP on the tunnel interface, and the seam to the control loop.
//!
//! The speaker itself (`bgp::Speaker`) does no I/O. The driver here is a task per tunnel: it hands the speaker what
//! arrives, and does what it says. Each connection has a task that reads and one that writes.

mod claims;
mod config;
mod connection;
mod driver;
mod events;
mod socket;

pub use config::Setup;
pub use driver::start;
