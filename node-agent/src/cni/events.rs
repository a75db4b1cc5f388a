//! Events of pods: what `kubectl describe pod` shows to those who wonder.

use super::pods::PodName;
use crds::kubernetes::AGENT;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two events: after a long absence there may be one for every pod of the node.
const PACE: Duration = Duration::from_millis(200);

/// A pod that was attached while the agent was away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Which.
    pub pod: PodName,
    /// Its UID, by which `kubectl describe` finds its Events; empty: the runtime didn't tell.
    pub uid: String,
    /// Why the plugin could not tell the agent.
    pub why: String,
}

/// Tells them to the API server, as they come.
pub async fn tell(client: Client, node: String, mut missed: mpsc::Receiver<Missed>) {
    let reporter = Reporter { controller: AGENT.to_owned(), instance: Some(node.clone()) };
    let recorder = Recorder::new(client, reporter);
    while let Some(Missed { pod, uid, why }) = missed.recv().await {
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name),
            namespace: Some(pod.namespace),
            uid: Some(uid).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "DmvpnAgentAway".to_owned(),
            note: Some(note(&node, &why)),
            action: "Attach".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(PATIENCE, recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an Event of a pod can't be told"),
            Err(_) => tracing::debug!("an Event of a pod can't be told: the API server does not answer"),
        }
        tokio::time::sleep(PACE).await;
    }
}

fn note(node: &str, why: &str) -> String {
    let why: String = why.chars().take(500).collect();
    format!(
        "The pod was started while the dmvpn agent of node {node} was away ({why}). Its network works; its routes don't know \
         the overlay's MTU. Restart the pod if large packets to other clusters get lost."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_to_do_and_fits() {
        let note = note("a-1", &"x".repeat(5000));
        assert!(note.contains("a-1") && note.contains("Restart the pod") && note.chars().count() < 1000);
    }
}
