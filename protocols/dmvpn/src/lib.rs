//! The DMVPN engine of one tunnel, without I/O: which peers there are, by which paths they are reached, and which
//! path carries. It composes NHRP, IKE and claims, and answers one question: how does a packet go now?
#![forbid(unsafe_code)]

pub mod action;
mod binding;
mod checkpoint;
pub mod config;
mod echo;
mod explain;
mod farewell;
mod gate;
mod guard;
mod hub;
mod identity;
mod leave;
mod limits;
mod nat;
mod next_hop;
mod outside;
mod peer;
mod peers;
mod probe;
mod reconfigure;
mod registered;
mod resting;
mod routes;
mod session;
mod shortcut;
mod slots;
mod timer;
mod tunnel;
mod verdict;
pub mod view;
mod world;

pub use action::{Action, Activity, Event, Input, PeerEntry, RouteTarget, SourceCheck};
pub use checkpoint::RestoreError;
pub use config::{Config, Credentials, HubConfig, NhrpConfig, Phase, Security, StaticPeer};
pub use echo::ProbeDrops;
pub use gate::GateDrops;
pub use nhrp::{CacheEntry, Counters as NhrpCounters, EntryKind, NhsId, Quirks};
pub use outside::Standing;
pub use resting::Resting;
pub use tunnel::{Clear, Tunnel};
