//! What all parts of the operator share.

use crate::authority::Authorities;
use crate::metrics::Metrics;
use crate::status::Signing;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// What all parts share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The release's namespace, where Secrets are.
    pub namespace: String,
    /// Name of this process among its replicas.
    pub identity: String,
    /// Counters.
    pub metrics: Metrics,
    /// Writes Events.
    pub recorder: Recorder,
    /// The CAs that sign.
    pub authorities: Authorities,
    /// Something that decisions are made from has changed.
    pub changed: Notify,
    signing: Mutex<BTreeMap<String, Signing>>,
}

impl Context {
    /// For a process called `identity`.
    pub fn new(client: Client, namespace: String, identity: String) -> Self {
        let reporter =
            Reporter { controller: crds::kubernetes::OPERATOR.to_owned(), instance: Some(identity.clone()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace,
            identity,
            metrics: Metrics::default(),
            authorities: Authorities::default(),
            changed: Notify::new(),
            signing: Mutex::default(),
        }
    }

    /// How signing for each tunnel went the last time.
    pub fn signing(&self) -> BTreeMap<String, Signing> {
        self.signing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How signing for a tunnel went.
    pub fn note_signing(&self, tunnel: &str, outcome: Signing) {
        let before = self
            .signing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tunnel.to_owned(), outcome.clone());
        if before != Some(outcome) {
            self.changed.notify_one();
        }
    }
}
