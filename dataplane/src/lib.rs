//! Moves packets between the TAP and the underlay.
//!
//! One process, `dmvpn-datapath`, holds what must outlive the agent: the interface's queues, the sockets, the tables. Each
//! tunnel has worker threads that own a queue and a set of sockets each and share nothing but a snapshot of the tables,
//! read once a batch. The packet walks are numbered in [`outbound`] and [`inbound`].
#![forbid(unsafe_code)]

pub mod codec;
pub mod control;
pub mod directory;
pub mod exchange;
pub mod hairpin;
pub mod handover;
pub mod inbound;
pub mod io;
pub mod lane;
pub mod limiter;
pub mod mailbox;
pub mod messages;
pub mod mtu;
pub mod neighbour;
pub mod opening;
pub mod outbound;
pub mod owners;
pub mod partial;
pub mod punt;
pub mod router;
pub mod sa;
pub mod standby;
pub mod stats;
pub mod tables;
pub mod transmit;
pub mod tunnel;
pub mod worker;

#[cfg(test)]
mod testing;
