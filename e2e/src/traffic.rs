//! Traffic between hosts: a UDP flow that counts what is lost, a ping, and a TCP transfer.

mod flow;
mod ping;
mod tcp;

pub use flow::{Arrival, Flow, Report};
pub use ping::{Ping, PingReport};
pub use tcp::{Transfer, transfer};
