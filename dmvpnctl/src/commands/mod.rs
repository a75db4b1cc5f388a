//! One file a command: a pure function from the agent's reply to what people read.

pub mod cache;
pub mod clear;
pub mod diagnose;
pub mod path;
pub mod peers;
pub mod pki;
pub mod rekey;
pub mod sa;
pub mod shortcuts;
pub mod status;
pub mod watch;
