//! The language between processes: `.proto` files and the code generated from them, the single copy.
//!
//! The generated code is committed; `UPDATE=1 cargo test -p dmvpn-rpc` writes it anew, and without `UPDATE` the same
//! test fails when it is stale.
#![forbid(unsafe_code)]

/// The agent's API on its unix socket: see `proto/agent.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod agent {
    include!("generated/kube_dmvpn.agent.v1.rs");
}

mod connect;

pub use connect::{AgentClient, connect};
