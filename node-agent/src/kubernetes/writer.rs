//! Writes the status of the node's own `DmvpnNode`.

use super::schedule::Schedule;
use super::status::{self, Facts};
use crate::agent::Shared;
use crate::clock;
use crds::DmvpnNode;
use crds::kubernetes::AGENT;
use crds::node::DmvpnNodeStatus;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use packet::Instant;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Tunnels are looked at so often when they tell nothing.
const LOOK: Duration = Duration::from_secs(10);
/// After something was told, what comes with it is waited for.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a write that failed, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Events kept in the status.
const HISTORY: usize = 10;

/// Writes until the handle is dropped. `object`: the node's own, as it is known.
pub(super) fn start(
    api: Api<DmvpnNode>,
    shared: &Arc<Shared>,
    object: watch::Receiver<Option<DmvpnNode>>,
) -> AbortOnDropHandle<()> {
    let writer = Writer {
        api,
        shared: Arc::clone(shared),
        object,
        schedule: Schedule::default(),
        stored: DmvpnNodeStatus::default(),
        uid: None,
    };
    AbortOnDropHandle::new(tokio::spawn(writer.run()))
}

struct Writer {
    api: Api<DmvpnNode>,
    shared: Arc<Shared>,
    object: watch::Receiver<Option<DmvpnNode>>,
    schedule: Schedule,
    /// What the API server has.
    stored: DmvpnNodeStatus,
    /// Of the object that has it: one that was made anew has no status.
    uid: Option<String>,
}

impl Writer {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut live = shared.live.subscribe();
        let mut pause = RETRY.0;
        let mut not_before = Instant::ZERO;
        loop {
            // What is applied, or turns, from here on is not missed.
            let mut applied = std::pin::pin!(shared.changed.notified());
            applied.as_mut().enable();
            let mut turned = std::pin::pin!(shared.turned.notified());
            turned.as_mut().enable();
            let Some(wanted) = self.wanted().await else {
                tokio::select! {
                    () = applied => {}
                    changed = self.object.changed() => if changed.is_err() { return },
                }
                continue;
            };
            let due = self.schedule.when(&self.stored, &wanted).map(|due| due.max(not_before));
            let now = clock::now();
            if due.is_some_and(|due| due <= now) {
                let written = self.write(wanted).await;
                pause = if written { RETRY.0 } else { (pause * 2).min(RETRY.1) };
                not_before = if written { Instant::ZERO } else { clock::now() + pause };
                continue;
            }
            let wait = due.map_or(LOOK, |due| (due - now).min(LOOK));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                event = live.recv() => match event {
                    Err(RecvError::Closed) => return,
                    _ => {
                        tokio::time::sleep(SETTLE).await;
                        live = live.resubscribe();
                    }
                },
                () = turned => tokio::time::sleep(SETTLE).await,
                () = applied => {}
                changed = self.object.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What the status should be; `None`: there is no object to have one, or nothing was applied yet.
    async fn wanted(&mut self) -> Option<DmvpnNodeStatus> {
        let (uid, name) = {
            let object = self.object.borrow_and_update();
            let node = object.as_ref()?;
            if node.metadata.uid != self.uid {
                self.uid.clone_from(&node.metadata.uid);
                self.stored = node.status.clone().unwrap_or_default();
            }
            (self.uid.clone(), node.metadata.name.clone())
        };
        uid.and(name)?;
        let (problems, generation) = self.shared.applied();
        generation?;
        let mut tunnels = Vec::new();
        for handle in self.shared.tunnels() {
            let Some(snapshot) = handle.snapshot().await else { continue };
            tunnels.push((snapshot, handle.history(HISTORY).await));
        }
        let by_gateways = self.shared.by_gateways.all();
        let facts = Facts {
            generation,
            problems: &problems,
            tunnels: &tunnels,
            by_gateways: &by_gateways,
            now: Timestamp::now(),
        };
        Some(status::build(&facts, &self.stored))
    }

    async fn write(&mut self, status: DmvpnNodeStatus) -> bool {
        self.schedule.written(clock::now());
        let patch = json!({
            "apiVersion": crds::API_VERSION,
            "kind": "DmvpnNode",
            "status": status,
        });
        let (name, what) = (self.shared.node.clone(), "status of the own DmvpnNode");
        let (params, patch) = (PatchParams::apply(AGENT).force(), Patch::Apply(patch));
        let write = self.api.patch_status(&name, &params, &patch);
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Ok(_)) => {
                self.shared.reach.well(what);
                self.stored = status;
                return true;
            }
            // Gone meanwhile: the watch will say so.
            Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => {}
            Ok(Err(error)) => self.shared.reach.failed(what, &error),
            Err(_) => self.shared.reach.refused(what, "the API server does not answer"),
        }
        false
    }
}
