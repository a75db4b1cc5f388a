//! The DMVPN engine of one tunnel, without I/O: which peers there are, by which paths they are reached, and which
//! path carries. It composes NHRP and claims (IKE later), and answers one question: how does a packet go now?
#![forbid(unsafe_code)]

pub mod action;
pub mod config;

pub use action::{Action, Event, Input, PeerEntry, SourceCheck};
pub use config::{Config, HubConfig, NhrpConfig, Phase, StaticPeer};
