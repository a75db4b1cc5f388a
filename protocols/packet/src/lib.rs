//! What every protocol crate and the dataplane share: views of packets, checksums, segmentation and
//! coalescing, and the types that name a path, a peer and a moment.
//!
//! Nothing here reads a clock, a socket or OS randomness, and nothing here panics on bytes from the network.
#![forbid(unsafe_code)]

pub mod path;
pub mod peer;
pub mod time;

pub use path::{Encapsulation, Path};
pub use peer::PeerId;
pub use time::Instant;
