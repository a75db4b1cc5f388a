//! Pods of agents, as the API server lists them. Pure.

use serde::Deserialize;

/// Labels of the agents' pods, as the chart gives them.
pub(super) const SELECTOR: &str = "app.kubernetes.io/name=kube-dmvpn,app.kubernetes.io/component=agent";

/// Everything of the release.
pub(super) const ALL: &str = "app.kubernetes.io/part-of=kube-dmvpn";

/// What `kubectl get pods -o json` says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pods {
    pub items: Vec<Pod>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub name: String,
    pub creation_timestamp: String,
    pub deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    pub node_name: String,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Container {
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    pub phase: String,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub name: String,
    pub restart_count: u32,
    pub state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub running: Option<serde_json::Value>,
    pub waiting: Option<Reason>,
    pub terminated: Option<Reason>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reason {
    pub reason: String,
}

impl Pod {
    fn agent(&self) -> Option<&ContainerStatus> {
        self.status.container_statuses.iter().find(|container| container.name == "agent")
    }

    fn runs(&self) -> bool {
        self.agent().is_some_and(|agent| agent.state.running.is_some())
    }

    /// In words: `CrashLoopBackOff`, `Pending`.
    pub(super) fn state(&self) -> &str {
        let why = self.agent().and_then(|agent| {
            let State { waiting, terminated, .. } = &agent.state;
            waiting.as_ref().or(terminated.as_ref())
        });
        match why {
            Some(Reason { reason }) if !reason.is_empty() => reason,
            _ if self.status.phase.is_empty() => "not started",
            _ => &self.status.phase,
        }
    }
}

impl Pods {
    /// The pod to ask. In an upgrade a node has two, and either reaches the agent that works: one that stays, if there is
    /// one, and the youngest of these.
    pub(super) fn best(&self) -> Option<&Pod> {
        self.items.iter().filter(|pod| pod.runs()).max_by_key(|pod| {
            (pod.metadata.deletion_timestamp.is_none(), pod.metadata.creation_timestamp.as_str())
        })
    }

    /// The best pod of each node, by the node's name.
    pub(super) fn best_of_each(&self) -> Vec<(String, String)> {
        let mut nodes: Vec<&str> = self.items.iter().map(|pod| pod.spec.node_name.as_str()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let of = |node: &str| Self {
            items: self.items.iter().filter(|pod| pod.spec.node_name == node).cloned().collect(),
        };
        nodes
            .into_iter()
            .filter_map(|node| Some((node.to_owned(), of(node).best()?.metadata.name.clone())))
            .collect()
    }
}
