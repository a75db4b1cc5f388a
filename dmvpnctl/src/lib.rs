//! The command line of kube-dmvpn: asks the agent of this machine, and shows the answer to people (tables) or to
//! programs (`-o json`).
//!
//! Each command is a file of its own: what is asked, and a pure function from the reply to text. As `kubectl dmvpn` it asks
//! the agents of a cluster instead, by way of kubectl: [`kubernetes`].
#![forbid(unsafe_code)]

pub mod capture;
pub mod cli;
pub mod client;
pub mod commands;
pub mod error;
pub mod json;
pub mod kubernetes;
pub mod run;
pub mod table;
pub mod text;
