//! What goes wrong between us and a cluster, and what to do about it.

use std::io;

/// Why a cluster could not be asked. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no kubectl.
    #[error(
        "cannot run {program}: {source}; install kubectl, or name it in the environment variable KUBECTL"
    )]
    NoKubectl {
        /// What was called.
        program: String,
        /// Why it could not be.
        source: io::Error,
    },
    /// It ran, and failed.
    #[error("kubectl {command}: {message}")]
    Kubectl {
        /// What it was asked.
        command: String,
        /// What it said.
        message: String,
    },
    /// It answered something else than what was asked for.
    #[error("kubectl {command} did not answer in JSON ({reason}): is {program} a kubectl?")]
    NotJson {
        /// What was called.
        program: String,
        /// What it was asked.
        command: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The API group is not there.
    #[error(
        "this cluster has no DmvpnNodes: install kube-dmvpn (helm install kube-dmvpn), or name another cluster with --context"
    )]
    NotInstalled,
    /// No agent on that node.
    #[error(
        "no agent runs on node {node}: is that its name (kubectl get nodes), is -n {namespace} where the chart was installed, and does the DaemonSet want the node (kubectl -n {namespace} get pods -o wide)?"
    )]
    NoAgent {
        /// Which.
        node: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// It is there and doesn't run.
    #[error(
        "the agent on node {node} does not run: pod {pod} is {state}; see kubectl -n {namespace} describe pod {pod}"
    )]
    AgentDown {
        /// Which node.
        node: String,
        /// Its pod.
        pod: String,
        /// Where.
        namespace: String,
        /// What it is instead.
        state: String,
    },
    /// No agent anywhere.
    #[error(
        "no agent runs in namespace {0}: name the namespace that the chart was installed into with -n, or install it"
    )]
    NoAgents(String),
    /// An archive can't be written.
    #[error("cannot write {file}: {source}")]
    Archive {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
}
