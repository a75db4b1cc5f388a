//! Events of the `DmvpnNode`: what people should see in `kubectl describe`. Which peers come and go is for metrics and
//! the agent's own history: a hub would have thousands.

use crate::agent::Shared;
use crds::DmvpnNode;
use crds::kubernetes::AGENT;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use rpc::agent::{Event as ApiEvent, Severity};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What turns for a node as a whole, and is not told for each of many peers.
const TOLD: [&str; 13] = [
    "AddressConflict",
    "CertificateDenied",
    "CertificateIssued",
    "ClockSet",
    "DatapathHandedOver",
    "DatapathLost",
    "Disturbed",
    "HubDown",
    "HubUp",
    "KeysExported",
    "Reconfigured",
    "RecursiveRoute",
    "WeakSecurity",
];
/// Not more often than this, on average...
const PACE: Duration = Duration::from_secs(2);
/// ... after so many at once.
const BURST: u32 = 20;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a note, as the API allows.
const MAX_NOTE: usize = 1000;

/// Tells events until the handle is dropped. While the API server is away they are lost: it is history when it is back.
pub(super) fn start(
    client: Client,
    shared: &Arc<Shared>,
    object: watch::Receiver<Option<DmvpnNode>>,
) -> AbortOnDropHandle<()> {
    let shared = Arc::clone(shared);
    let reporter = Reporter { controller: AGENT.to_owned(), instance: Some(shared.node.clone()) };
    let recorder = Recorder::new(client, reporter);
    let mut live = shared.live.subscribe();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut pace = Pace::new();
        loop {
            let event = match live.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let Some(reference) = object.borrow().as_ref().map(|node| node.object_ref(&())) else { continue };
            if !TOLD.contains(&event.reason.as_str()) || !pace.allows(tokio::time::Instant::now()) {
                continue;
            }
            let event = translate(&event);
            let told = recorder.publish(&event, &reference);
            match tokio::time::timeout(PATIENCE, told).await {
                Ok(Ok(())) => shared.reach.well("Events"),
                Ok(Err(error)) => shared.reach.failed("Events", &error),
                Err(_) => shared.reach.refused("Events", "the API server does not answer"),
            }
        }
    }))
}

fn translate(event: &ApiEvent) -> Event {
    Event {
        type_: match event.severity() {
            Severity::Warning => EventType::Warning,
            _ => EventType::Normal,
        },
        reason: event.reason.clone(),
        note: Some(format!("{}: {}", event.interface, event.message).chars().take(MAX_NOTE).collect()),
        action: "Tunnel".to_owned(),
        secondary: None,
    }
}

/// A bucket of tokens.
struct Pace {
    left: u32,
    last: tokio::time::Instant,
}

impl Pace {
    fn new() -> Self {
        Self { left: BURST, last: tokio::time::Instant::now() }
    }

    fn allows(&mut self, now: tokio::time::Instant) -> bool {
        while self.left < BURST && now.duration_since(self.last) >= PACE {
            self.left += 1;
            self.last += PACE;
        }
        if self.left == BURST {
            self.last = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hub_that_flaps_does_not_flood_the_api_server() {
        let (mut pace, start) = (Pace::new(), tokio::time::Instant::now());
        let told = (0..600).filter(|tenth| pace.allows(start + Duration::from_millis(100) * *tenth)).count();
        assert!((45..=51).contains(&told), "{told}");
    }

    #[test]
    fn reasons_are_sorted_so_that_none_stands_there_twice() {
        assert!(TOLD.is_sorted_by(|a, b| a < b));
    }
}
