//! What every protocol crate and the dataplane share: views of packets, checksums, segmentation and
//! coalescing, and the types that name a path, a peer and a moment.
//!
//! | for | see |
//! |---|---|
//! | headers as they stand in a packet | [`eth`], [`ipv4`], [`ipv6`], [`udp`], [`tcp`], [`gre`], [`vnet`] |
//! | either IP version at once | [`ip`] |
//! | queries of the kernel, and answers | [`arp`], [`nd`] |
//! | what a router says | [`icmp`] |
//! | is this path good? | [`probe`] |
//! | super-frames, out and in | [`segment`], [`coalesce`] |
//! | what a tunnel does to a packet | [`ecn`], [`mss`], [`checksum`] |
//! | names | [`path`], [`peer`], [`time`] |
//!
//! Nothing here reads a clock, a socket or OS randomness, nothing here allocates per packet, and nothing here panics on
//! bytes from the network.
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod error;
pub mod eth;
pub mod gre;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod mss;
pub mod nd;
pub mod path;
pub mod peer;
pub mod probe;
pub mod segment;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod time;
pub mod udp;
pub mod vnet;

pub use error::{Malformed, NoRoom};
pub use path::{Encapsulation, Path};
pub use peer::PeerId;
pub use time::Instant;
