//! NHRP (RFC 2332) with the extensions that Cisco DMVPN added, as a machine without I/O.
//!
//! One [`Node`] is one station on one tunnel: a client of its next hop servers (NHS), itself a server when
//! `Config::serve` is set, and always the responder for what lies behind it.
//!
//! After any call that takes `&mut self`, drain [`Node::poll_transmit`] and [`Node::poll_event`] until both are
//! empty, then ask [`Node::poll_timeout`] when to call [`Node::handle_timeout`].
#![forbid(unsafe_code)]

mod answered;
mod cache;
mod commands;
mod compose;
pub mod config;
mod counters;
pub mod environment;
pub mod error;
mod error_indication;
pub mod event;
pub mod extension;
mod forward;
mod indication;
mod limits;
mod node;
pub mod packet;
mod purge;
mod registration;
mod resolution;
mod responder;
mod server;
mod state;
mod timer;
pub mod vendor;

pub use answered::AnsweredEntry;
pub use cache::{CacheEntry, EntryKind};
pub use commands::Clear;
pub use config::{Config, NhsConfig, NhsId, Quirks, StaticEntry};
pub use counters::Counters;
pub use environment::{AnswerClaim, Environment, Refusal, RegistrationClaim, Route};
pub use error::{Blame, Error};
pub use event::{Event, PeerInfo, ResolutionFailure, ResolutionId, Transmit};
pub use node::Node;
pub use registration::{NhsState, NhsStatus};
pub use state::Checkpoint;
