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

/// What the CNI plugin asks the agent on the same socket: see `proto/cni.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod cni {
    include!("generated/kube_dmvpn.cni.v1.rs");

    /// The folder below the agent's run directory where the plugin leaves a [`Note`] for each attachment that the agent
    /// could not be told.
    pub const MISSED: &str = "cni-missed";

    /// The most notes there are at a time; more pods than a node can have.
    pub const MISSED_MOST: usize = 1024;
}

mod connect;

pub use connect::{AgentClient, CniClient, connect, connect_cni};
pub use prost::Message;
