//! Where the configuration comes from: a folder of manifests, or the API server. Whoever it is tells outcomes; what
//! becomes of them is the same.

use crate::config::TunnelConfig;
use crate::manifests;
use crate::state::StateDir;
use crds::conditions::reasons;
use crds::node::NodeByGateways;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Which source.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// The node's own `DmvpnNode`, and the Secrets it names, in this namespace.
    Kubernetes {
        /// Namespace of the release.
        namespace: String,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifests(folder) => write!(f, "{}", folder.display()),
            Self::Kubernetes { namespace } => write!(f, "Kubernetes, namespace {namespace}"),
        }
    }
}

/// What a node is to do, as far as its source knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The tunnels; `None`: those that run go on as they are.
    pub tunnels: Option<Vec<TunnelConfig>>,
    /// DMVPNs by other nodes' tunnels.
    pub by_gateways: Vec<NodeByGateways>,
    /// What must not be reached by another way than the overlay. Tunnels that can't run yet count too.
    pub protected: BTreeSet<IpNet>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Which generation of the `DmvpnNode` this is.
    pub generation: Option<i64>,
}

/// Something wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The tunnel it keeps from running, or from running as it should.
    pub tunnel: Option<String>,
    /// One of [`reasons`].
    pub reason: &'static str,
    /// The cause, and what to do.
    pub message: String,
}

impl Problem {
    /// Of the node as a whole.
    #[must_use]
    pub fn of_node(reason: &'static str, message: impl Into<String>) -> Self {
        Self { tunnel: None, reason, message: message.into() }
    }

    /// Of one tunnel.
    #[must_use]
    pub fn of_tunnel(tunnel: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { tunnel: Some(tunnel.to_owned()), reason, message: message.into() }
    }
}

impl From<manifests::Outcome> for Outcome {
    fn from(outcome: manifests::Outcome) -> Self {
        match outcome {
            Ok(tunnels) => Self {
                protected: tunnels.iter().flat_map(|t| t.protected.iter().map(IpNet::trunc)).collect(),
                tunnels: Some(tunnels),
                ..Self::default()
            },
            Err(errors) => Self {
                problems: errors.into_iter().map(|e| Problem::of_node(reasons::INVALID, e)).collect(),
                ..Self::default()
            },
        }
    }
}

/// What every source needs to know.
#[derive(Clone, Debug)]
pub struct About {
    /// Name of this node.
    pub node: String,
    /// Datapath threads per tunnel.
    pub workers: u16,
    /// What survives a restart.
    pub state: StateDir,
}

/// The receiving end of a source.
pub type Outcomes = mpsc::Receiver<Outcome>;
