//! The lab: hubs, spokes, hosts and NAT routers as network namespaces, links with delay and loss, packets captured
//! on the wire, and the stories that are told with them.
//!
//! A story builds a topology ([`Lab`]), starts agents on its nodes, sends traffic, and asserts on what was on
//! the wire ([`Capture`]) and on what the agents say. It leaves nothing behind, whether it succeeds, fails or panics.
#![forbid(unsafe_code)]

pub mod agent;
pub mod attack;
pub mod capture;
pub mod crowd;
pub mod decode;
pub mod distant;
pub mod error;
pub mod interop;
pub mod keys;
pub mod kubernetes;
pub mod leaks;
mod losses;
pub mod manifest;
pub mod narration;
pub mod nat;
pub mod netns;
pub mod network;
mod priority;
pub mod relay;
pub mod security;
pub mod story;
pub mod topology;
pub mod traffic;
pub mod wait;

pub use agent::{Agent, End};
pub use capture::{Capture, Packet};
pub use distant::Distant;
pub use error::{Error, Result};
pub use manifest::Manifest;
pub use nat::{Nat, NatRouter};
pub use network::Site;
pub use relay::{Link, Shape};
pub use security::Proof;
pub use story::{heavy_story, story};
pub use topology::{Lab, Node, Uplink};
