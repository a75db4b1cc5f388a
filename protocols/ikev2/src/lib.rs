//! IKEv2 (RFC 7296) without I/O, initiator and responder, for ESP in transport mode over GRE.
#![forbid(unsafe_code)]

pub mod codes;
pub mod config;
mod credentials;
pub mod crypto;
mod event;
pub mod fragment;
mod malformed;
pub mod message;
pub mod payload;
pub mod proposal;
mod reader;
pub mod rules;
mod writer;

pub use config::Config;
pub use credentials::{
    AuthMethod, Authentication, CertificateError, Credentials, HashAlgorithm, Identification,
};
pub use event::{Address, ChildView, Event, Failure, LocalPort, SessionView, Transmit, TransmitKind};
pub use malformed::{Malformed, TooLong};
pub use message::{Header, Message};
