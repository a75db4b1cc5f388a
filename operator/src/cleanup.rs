//! The second half of `uninstall`: ends the agents, and waits until the chart's DaemonSet has cleaned every node.
//!
//! A node that does not answer must not keep anybody from uninstalling: it is left as it is, and that is said.

use crate::apply::WriteError;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use kube::Client;
use kube::api::{Api, DeleteParams};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The chart's DaemonSets.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// The agents.
    pub agents: String,
    /// Those who clean up after them.
    pub cleanup: String,
    /// How long nodes may take.
    pub patience: Duration,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The controller has not looked yet.
    Unknown,
    /// So many of so many nodes are clean.
    Clean(i32, i32),
}

/// Ends the agents and waits for the nodes.
///
/// # Errors
/// If the agents can't be ended.
pub async fn run(client: &Client, namespace: &str, nodes: &Nodes) -> Result<(), WriteError> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    match api.delete(&nodes.agents, &DeleteParams::background()).await {
        Ok(_) => tracing::info!(daemonset = nodes.agents, "agents end"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let end = Instant::now() + nodes.patience;
    let mut last = Progress::Unknown;
    loop {
        match api.get(&nodes.cleanup).await {
            Ok(set) => last = progress(set.metadata.generation, set.status.as_ref()),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                tracing::info!(daemonset = nodes.cleanup, "nobody cleans nodes");
                return Ok(());
            }
            Err(error) => tracing::info!(%error, "tried again"),
        }
        match last {
            Progress::Clean(clean, all) if clean == all => {
                tracing::info!(nodes = all, "every node is clean");
                return Ok(());
            }
            Progress::Unknown | Progress::Clean(..) if Instant::now() < end => {
                tokio::time::sleep(PAUSE).await
            }
            Progress::Unknown => {
                tracing::warn!("no node was cleaned in time: run dmvpn-agent uninstall on each");
                return Ok(());
            }
            Progress::Clean(clean, all) => {
                tracing::warn!(
                    "{clean} of {all} nodes are clean; on the others run dmvpn-agent uninstall, or remove them"
                );
                return Ok(());
            }
        }
    }
}

fn progress(generation: Option<i64>, status: Option<&DaemonSetStatus>) -> Progress {
    match status {
        Some(status) if status.observed_generation >= generation && generation.is_some() => {
            Progress::Clean(status.number_ready, status.desired_number_scheduled)
        }
        _ => Progress::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(observed: i64, ready: i32, desired: i32) -> DaemonSetStatus {
        DaemonSetStatus {
            observed_generation: Some(observed),
            number_ready: ready,
            desired_number_scheduled: desired,
            ..DaemonSetStatus::default()
        }
    }

    #[test]
    fn what_the_controller_has_not_seen_is_no_progress() {
        assert_eq!(progress(Some(1), None), Progress::Unknown);
        assert_eq!(progress(Some(1), Some(&DaemonSetStatus::default())), Progress::Unknown);
        assert_eq!(progress(Some(2), Some(&status(1, 3, 3))), Progress::Unknown);
    }

    #[test]
    fn nodes_are_counted() {
        assert_eq!(progress(Some(1), Some(&status(1, 1, 3))), Progress::Clean(1, 3));
        assert_eq!(progress(Some(1), Some(&status(1, 0, 0))), Progress::Clean(0, 0));
    }
}
