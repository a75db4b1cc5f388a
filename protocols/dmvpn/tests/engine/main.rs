//! The engine, driven by virtual time: registration, phases, failover, NATs, restarts.

mod chained;
mod dual_stack;
mod foreign;
mod hubs;
mod leaving;
mod limits;
mod moving;
mod nat;
mod net;
mod next_hop;
mod probing;
mod restart;
mod shortcut;
