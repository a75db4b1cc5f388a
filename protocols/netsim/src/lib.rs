//! A virtual network with a virtual clock, from a seed: stations run the real engine ([`dmvpn::Tunnel`]) against a small,
//! faithful model of the datapath and the kernel, over links with latency, jitter, loss, reordering, duplication and MTU,
//! and through translators of several kinds.
//!
//! A test builds a [`Net`], lets time pass, and asks what became of each packet and which way it took. The tests are in
//! `tests/`, one behaviour each; `SEEDS=1000 cargo test -p dmvpn-netsim random` tries as many networks that nobody
//! thought of.
//!
//! What the model leaves out: GRE headers (a datagram carries its protocol number beside its payload), ESP but for its
//! SPI (a packet leaves only by an outbound SA, and is received only by the inbound SA of that number), ICMP errors, and
//! threads. What it keeps, because control can tell: that everything takes time (messages to control, each step of the
//! executor, in order), that neighbours go stale and are asked for again, that control dies and the datapath doesn't.
#![forbid(unsafe_code)]

mod datapath;
mod flow;
mod kernel;
mod link;
mod nat;
mod net;
mod plan;
mod queue;
mod sa;
mod security;
mod station;
mod underlay;

pub use flow::{FlowId, Report};
pub use link::Link;
pub use nat::NatKind;
pub use net::Net;
pub use net::orders::EPOCH;
pub use plan::PORT;
pub use station::StationId;
pub use underlay::NatId;
