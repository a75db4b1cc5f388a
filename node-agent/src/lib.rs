//! The node agent: acts on one node.
//!
//! `control` is the loop: the only place that reads a clock, between the engine (which thinks), the datapath (which
//! moves packets), the kernel (which routes) and those who ask. Everything around it is an adapter, or pure.
#![forbid(unsafe_code)]

pub mod clock;
pub mod datapath;
pub mod desired;
pub mod dns;
pub mod executor;
pub mod guard;
pub mod hairpin;
pub mod kernel;
pub mod rib;
pub mod routing;
pub mod underlay;
