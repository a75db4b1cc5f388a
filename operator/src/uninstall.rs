//! `dmvpn-operator uninstall`: what the chart's pre-delete hook runs, so that nothing hangs when nobody is left to
//! remove a finalizer. Hubs and spokes stay, for whoever installs again; what nodes were told goes.

use crate::lease::Election;
use crate::world::Declared;
use crate::{apply, finalize};
use crds::{DmvpnHub, DmvpnNode, DmvpnSpoke};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use plan::ResourceKind;
use std::time::Duration;

/// The operator that still runs must not put finalizers back until the chart has removed it.
const QUIET: Duration = Duration::from_secs(60);
/// Others may write between our reading and writing; it is tried again.
const ATTEMPTS: u32 = 10;

/// Takes the Lease away from the operator, then removes finalizers and `DmvpnNode`s.
///
/// # Errors
/// With what could not be removed, and why.
pub async fn run(client: Client, namespace: &str, identity: &str) -> Result<Quiet, apply::WriteError> {
    let mut election = Election::new(client.clone(), namespace, identity);
    attempt(async || Ok(election.seize(QUIET).await?)).await?;
    tokio::time::sleep(election.notice()).await;
    for (kind, resource) in [
        (ResourceKind::Hub, ApiResource::erase::<DmvpnHub>(&())),
        (ResourceKind::Spoke, ApiResource::erase::<DmvpnSpoke>(&())),
    ] {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        attempt(async || release(kind, &api).await).await?;
    }
    let nodes: Api<DmvpnNode> = Api::all(client);
    attempt(async || {
        match nodes.delete_collection(&DeleteParams::background(), &ListParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    tracing::info!("finalizers and DmvpnNodes are removed");
    Ok(Quiet(election))
}

/// The operator that still runs stands by, for a minute from the last time it was told.
pub struct Quiet(Election);

impl Quiet {
    /// Keeps it quiet until this is dropped.
    pub async fn keep(mut self) {
        loop {
            tokio::time::sleep(QUIET / 3).await;
            if let Err(error) = self.0.seize(QUIET).await {
                tracing::warn!(%error, "the Lease could not be held");
            }
        }
    }
}

async fn release(kind: ResourceKind, api: &Api<DynamicObject>) -> Result<(), apply::WriteError> {
    let objects = match api.list(&ListParams::default()).await {
        Ok(objects) => objects,
        Err(error) if is_gone(&error) => return Ok(()), // No CRD, no finalizers.
        Err(error) => return Err(error.into()),
    };
    for object in objects {
        let declared = Declared::read(kind, object);
        if !finalize::has(&declared) {
            continue;
        }
        let patch = Patch::Merge(finalize::patch(&declared, false));
        match api.patch(&declared.name().name, &PatchParams::default(), &patch).await {
            Ok(_) => tracing::info!(resource = %declared.name(), "finalizer removed"),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

async fn attempt(
    mut act: impl AsyncFnMut() -> Result<(), apply::WriteError>,
) -> Result<(), apply::WriteError> {
    let mut attempts = 0;
    loop {
        match act().await {
            Ok(()) => return Ok(()),
            Err(error) if attempts == ATTEMPTS => return Err(error),
            Err(error) => tracing::info!(%error, "tried again"),
        }
        attempts += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
