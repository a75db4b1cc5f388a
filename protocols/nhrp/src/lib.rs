//! NHRP (RFC 2332) with the extensions that Cisco DMVPN added, as a machine without I/O.
//!
//! One [`Node`] is one station on one tunnel: a client of its next hop servers (NHS), itself a server when
//! `Config::serve` is set, and always the responder for what lies behind it.
//!
//! After any call that takes `&mut self`, drain [`Node::poll_transmit`] and [`Node::poll_event`] until both are
//! empty, then ask [`Node::poll_timeout`] when to call [`Node::handle_timeout`].
#![forbid(unsafe_code)]

pub mod config;
pub mod environment;
pub mod event;

pub use config::{Config, NhsConfig, NhsId, Quirks, StaticEntry};
pub use environment::{AnswerClaim, Environment, Refusal, RegistrationClaim, Route};
pub use event::{Event, PeerInfo, ResolutionFailure, ResolutionId, Transmit};
