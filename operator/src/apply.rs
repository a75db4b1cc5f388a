//! Writes what was decided, and only that: server-side apply of what differs, a few at a time.

use crate::context::Context;
use crate::decide::{Decision, Wanted};
use crate::retry::Retries;
use crate::watch::Stores;
use crate::world::read_dmvpn_node;
use crds::kubernetes::OPERATOR;
use crds::{API_VERSION, DmvpnNode};
use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use std::time::Duration;

/// Writes under way at a time.
const AT_ONCE: usize = 16;
/// The longest a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes a decision. Objects that failed lately wait for their turn, noted in `retries`.
pub async fn apply(context: &Context, stores: &Stores, decision: &Decision, retries: &mut Retries) {
    let resource = ApiResource::erase::<DmvpnNode>(&());
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
    let due = decision.apply.iter().filter(|wanted| retries.is_due(&wanted.name));
    let writes = due.map(|wanted| write(context, stores, &api, wanted));
    let mut outcomes = futures::stream::iter(writes.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    let mut all = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        all.push(outcome);
    }
    let due = decision.delete.iter().filter(|(name, _)| retries.is_due(name));
    let deletes = due.map(|(name, uid)| delete(context, &api, name, uid.clone()));
    let mut outcomes = futures::stream::iter(deletes.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    while let Some(outcome) = outcomes.next().await {
        all.push(outcome);
    }
    for (name, outcome) in all {
        match outcome {
            Ok(()) => retries.forget(name),
            Err(error) => {
                context.metrics.wrote("DmvpnNode", "failed");
                tracing::warn!(node = name, %error, "DmvpnNode could not be written; tried again later");
                retries.failed(name);
            }
        }
    }
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server said no, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// No answer.
    #[error("the API server didn't answer within {} s", PATIENCE.as_secs())]
    Late(#[from] tokio::time::error::Elapsed),
}

impl WriteError {
    /// Is there nothing to write to any more?
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_not_found())
    }

    /// Has nobody given us the right?
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_forbidden())
    }
}

/// Waits for an answer of the API server, but not for ever.
///
/// # Errors
/// What it says, or that it says nothing.
pub async fn patiently<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    Ok(tokio::time::timeout(PATIENCE, answer).await??)
}

async fn write<'a>(
    context: &Context,
    stores: &Stores,
    api: &Api<DynamicObject>,
    wanted: &'a Wanted,
) -> (&'a str, Result<(), WriteError>) {
    let outcome = patiently(async {
        let params = PatchParams::apply(OPERATOR).force();
        let written = api.patch(&wanted.name, &params, &Patch::Apply(manifest(wanted))).await?;
        context.metrics.wrote("DmvpnNode", "applied");
        let mut written = read_dmvpn_node(written);
        if written.spec != wanted.spec {
            // Apply merges lists by their keys: were an order of before left, it would say another hub is the best.
            let patch = Patch::Merge(json!({"spec": wanted.spec}));
            let params = PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() };
            written = read_dmvpn_node(api.patch(&wanted.name, &params, &patch).await?);
            context.metrics.wrote("DmvpnNode", "reordered");
        }
        stores.dmvpn_nodes.put(wanted.name.clone(), written);
        Ok(())
    });
    (&wanted.name, outcome.await)
}

async fn delete<'a>(
    context: &Context,
    api: &Api<DynamicObject>,
    name: &'a str,
    uid: Option<String>,
) -> (&'a str, Result<(), WriteError>) {
    // Not another of the same name that was made meanwhile.
    let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    let outcome = match patiently(api.delete(name, &params)).await {
        Ok(_) => {
            context.metrics.wrote("DmvpnNode", "deleted");
            Ok(())
        }
        Err(error) if error.is_gone() => Ok(()),
        Err(error) => Err(error),
    };
    (name, outcome)
}

/// A `DmvpnNode` goes with its Node, even while no operator runs.
fn manifest(wanted: &Wanted) -> Value {
    let Wanted { name, owner, spec } = wanted;
    json!({
        "apiVersion": API_VERSION,
        "kind": "DmvpnNode",
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner}],
        },
        "spec": spec,
    })
}
