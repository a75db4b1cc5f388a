//! The node agent: acts on one node.
//!
//! `control` is the loop: the only place that reads a clock, between the engine (which thinks), the datapath (which
//! moves packets), the kernel (which routes) and those who ask. Everything around it is an adapter, or pure.
#![forbid(unsafe_code)]

pub mod agent;
pub mod bgp;
pub mod clock;
pub mod cni;
pub mod conditions;
pub mod config;
pub mod control;
pub mod datapath;
pub mod diagnose;
pub mod disturbances;
pub mod dns;
pub mod events;
pub mod executor;
pub mod gateways;
pub mod grpc;
pub mod guard;
pub mod hairpin;
pub mod health;
pub mod kernel;
pub mod keylog;
pub mod kubernetes;
pub mod manifests;
pub mod metrics;
pub mod nft;
pub mod rib;
pub mod routing;
pub mod security;
pub mod sessions;
pub mod source;
pub mod sources;
pub mod standing;
pub mod state;
pub mod status;
pub mod underlay;
pub mod uninstall;
