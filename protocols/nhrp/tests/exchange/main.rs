//! Stations that exchange messages in memory: one behaviour a test.
#![allow(unused_crate_dependencies, missing_docs)]

#[path = "../data/captures.rs"]
mod captures;

mod authentication;
mod chained;
mod errors;
mod foreign;
mod indication;
mod nat;
mod persistence;
mod proven;
mod purge;
mod registration;
mod resolution;
mod world;
