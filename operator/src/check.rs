//! `dmvpn-operator check`, what `helm test` runs: is every node that is in a DMVPN ready?

use crds::{DmvpnNode, conditions};
use kube::Client;
use kube::api::{Api, ListParams};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Why the check fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not say.
    #[error("DmvpnNodes cannot be read: {0}")]
    Unreadable(#[from] kube::Error),
    /// Some nodes are not ready.
    #[error("{} of {all} nodes are not ready:\n{}", .lines.len(), .lines.join("\n"))]
    NotReady {
        /// How many there are.
        all: usize,
        /// Which are not, and why.
        lines: Vec<String>,
    },
}

/// Waits until every `DmvpnNode` is ready, and returns how many there are.
///
/// # Errors
/// With the nodes that are not ready in time, and why.
pub async fn run(client: Client, patience: Duration) -> Result<usize, Error> {
    let api: Api<DmvpnNode> = Api::all(client);
    let end = Instant::now() + patience;
    loop {
        let outcome = match api.list(&ListParams::default()).await {
            Ok(nodes) => judge(&nodes.items),
            Err(error) => Err(error.into()),
        };
        match outcome {
            Err(error) if Instant::now() < end => {
                tracing::debug!(%error, "not yet");
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

fn judge(nodes: &[DmvpnNode]) -> Result<usize, Error> {
    let lines: Vec<String> = nodes.iter().filter_map(not_ready).collect();
    if lines.is_empty() { Ok(nodes.len()) } else { Err(Error::NotReady { all: nodes.len(), lines }) }
}

/// What is wrong with a node.
fn not_ready(node: &DmvpnNode) -> Option<String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let status = node.status.as_ref();
    if status.and_then(|status| status.observed_generation) < node.metadata.generation {
        return Some(format!("{name}: its agent has not taken up its newest configuration"));
    }
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == conditions::READY) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(format!("{name}: {}: {}", ready.reason, ready.message)),
        None => Some(format!("{name}: its agent has not reported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(generation: i64, observed: i64, ready: &str) -> DmvpnNode {
        serde_json::from_value(json!({
            "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnNode",
            "metadata": {"name": "a-1", "generation": generation}, "spec": {},
            "status": {"observedGeneration": observed, "conditions": [{
                "type": "Ready", "status": ready, "reason": "NoHub", "message": "no hub answers",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    #[test]
    fn ready_nodes_pass() {
        assert_eq!(judge(&[node(2, 2, "True")]).unwrap(), 1);
        assert_eq!(judge(&[]).unwrap(), 0);
    }

    #[test]
    fn a_node_that_is_not_ready_is_named_with_its_reason() {
        let error = judge(&[node(1, 1, "True"), node(1, 1, "False")]).unwrap_err().to_string();
        assert_eq!(error, "1 of 2 nodes are not ready:\na-1: NoHub: no hub answers");
    }

    #[test]
    fn an_agent_that_lags_behind_is_not_ready() {
        let error = judge(&[node(2, 1, "True")]).unwrap_err().to_string();
        assert!(error.ends_with("a-1: its agent has not taken up its newest configuration"), "{error}");
    }

    #[test]
    fn an_agent_that_never_reported_is_not_ready() {
        let mut silent = node(1, 1, "True");
        silent.status = None;
        assert!(judge(&[silent]).is_err());
    }
}
