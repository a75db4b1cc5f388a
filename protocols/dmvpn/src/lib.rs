//! The DMVPN engine of one tunnel, without I/O: which peers there are, by which paths they are reached, and which
//! path carries. It composes NHRP and claims (IKE later), and answers one question: how does a packet go now?
#![forbid(unsafe_code)]

pub mod action;
pub mod config;
mod routes;
mod shortcut;
mod slots;
mod timer;
mod tunnel;
pub mod view;

pub use action::{Action, Activity, Event, Input, PeerEntry, RouteTarget, SourceCheck};
pub use config::{Config, HubConfig, NhrpConfig, Phase, StaticPeer};
pub use shortcut::Resting;
pub use tunnel::{Clear, RestoreError, Standing, Tunnel};
