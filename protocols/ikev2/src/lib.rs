//! IKEv2 (RFC 7296) without I/O, initiator and responder, for ESP in transport mode over GRE.
#![forbid(unsafe_code)]

mod bucket;
mod checkpoint;
pub mod codes;
pub mod config;
mod cookie;
mod counters;
mod credentials;
pub mod crypto;
mod endpoint;
mod event;
mod exchange;
pub mod fragment;
mod malformed;
pub mod message;
pub mod payload;
pub mod proposal;
mod reader;
pub mod rules;
mod session;
mod settings;
mod timer;
mod writer;

pub use checkpoint::Checkpoint;
pub use config::Config;
pub use counters::{Counters, Drop};
pub use credentials::{
    AuthMethod, Authentication, CertificateError, Credentials, HashAlgorithm, Identification,
};
pub use endpoint::Endpoint;
pub use event::{Address, ChildView, Event, Failure, LocalPort, SessionView, Transmit, TransmitKind};
pub use malformed::{Malformed, TooLong};
pub use message::{Header, Message};
pub use settings::ConfigError;
