//! The loop: what is known -> what is decided -> what is written -> what is said. Everything at once, as one change may
//! concern every node, and a thousand nodes are decided in milliseconds.

use crate::authority::{self, Examined, Finding};
use crate::context::Context;
use crate::decide::{Decision, decide};
use crate::retry::{Retries, jittered};
use crate::status::Issuance;
use crate::watch::Stores;
use crate::world::{Declared, Resource, World};
use crate::{apply, events, finalize, status};
use crds::conditions::reasons;
use crds::kubernetes::OPERATOR;
use crds::status::NetworkStatus;
use crds::{API_VERSION, DmvpnHub, DmvpnSpoke};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use plan::ResourceName;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a change it is waited so long for more, as changes come in crowds.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// Everything is looked at again after so long, at the latest.
const RESYNC: Duration = Duration::from_secs(300);
/// And CAs after so long: nothing tells that one was replaced, or that its time has come.
const EXAMINATION: Duration = Duration::from_secs(60);
/// Counts and messages alone are written no more often than this.
const DETAILS: Duration = Duration::from_secs(15);

/// Reconciles until the task is dropped.
pub async fn run(context: Arc<Context>, stores: Arc<Stores>) {
    stores.listed().await;
    context.metrics.synced(true);
    let mut reconciler = Reconciler {
        context,
        stores,
        nodes: Retries::default(),
        resources: Retries::default(),
        written: BTreeMap::new(),
        examined: BTreeMap::new(),
        unreadable: BTreeSet::new(),
    };
    loop {
        let began = Instant::now();
        let wait = reconciler.reconcile().await;
        reconciler.context.metrics.reconciled(began.elapsed());
        let (context, nodes, resources) = (&reconciler.context, &reconciler.nodes, &reconciler.resources);
        tokio::select! {
            () = context.changed.notified() => {}
            () = nodes.next_due() => {}
            () = resources.next_due() => {}
            () = tokio::time::sleep(wait) => {}
        }
        // Where deciding takes long, it is done less often.
        tokio::time::sleep(DEBOUNCE.max(began.elapsed().min(Duration::from_secs(1)))).await;
    }
}

struct Reconciler {
    context: Arc<Context>,
    stores: Arc<Stores>,
    nodes: Retries,
    resources: Retries,
    /// When the status of each resource was written the last time.
    written: BTreeMap<ResourceName, Instant>,
    /// What their CAs were seen to permit.
    examined: BTreeMap<ResourceName, Examined>,
    /// Resources that could not be read, of which that has been said.
    unreadable: BTreeSet<(ResourceName, String)>,
}

impl Reconciler {
    /// Once; returns when it is to be done again though nothing changes.
    async fn reconcile(&mut self) -> Duration {
        let world = self.stores.world();
        self.stores.want_sources(&world);
        let decision = decide(&world);
        self.nodes.retain(|name| {
            decision.apply.iter().any(|wanted| wanted.name == name)
                || decision.delete.iter().any(|(deleted, _)| deleted == name)
        });
        apply::apply(&self.context, &self.stores, &decision, &mut self.nodes).await;
        // What was written stands in the stores at once.
        let world = World { dmvpn_nodes: self.stores.dmvpn_nodes.snapshot(), ..world };
        self.context.metrics.world(&world);
        self.finalize(&world).await;
        self.say_unreadable(&world).await;
        let findings = self.examine(&world, &decision).await;
        let wait = self.update_statuses(&world, &decision, &findings).await;
        if self.examined.is_empty() { wait } else { wait.min(EXAMINATION) }
    }

    /// Looks at the CAs that resources name.
    async fn examine(&mut self, world: &World, decision: &Decision) -> BTreeMap<ResourceName, Finding> {
        let Context { client, namespace, authorities, metrics, .. } = &*self.context;
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let (mut findings, mut ends) = (BTreeMap::new(), BTreeMap::new());
        let mut resources = world.resources();
        resources.retain(|resource| status::ca_secret(resource).is_some());
        self.examined.retain(|name, _| resources.iter().any(|resource| resource.name == *name));
        for resource in &resources {
            let examined = self.examined.entry(resource.name.clone()).or_default();
            let Some(report) = decision.reports.get(&resource.name) else { continue };
            let Some(secret) = status::ca_secret(resource) else { continue };
            let finding = match authorities.get(client, namespace, secret).await {
                Ok(Ok(authority)) => {
                    ends.insert(secret.to_owned(), authority.not_after());
                    let claims = authority::claims(resource, &report.nodes, world);
                    examined.look(secret, &authority, &claims, now)
                }
                Ok(Err(why)) => Finding::Bad(reasons::CA_UNUSABLE, why),
                Err(error) => {
                    tracing::info!(secret, %error, "the CA could not be looked at");
                    continue;
                }
            };
            findings.insert(resource.name.clone(), finding);
        }
        metrics.authorities(&ends);
        findings
    }

    async fn finalize(&mut self, world: &World) {
        for declared in &world.declared {
            let name = declared.name();
            let key = format!("finalizer of {name}");
            let Some(patch) = finalize::step(declared, world).filter(|_| self.resources.is_due(&key)) else {
                continue;
            };
            let api = dynamic(&self.context, &name);
            match apply::patiently(api.patch(&name.name, &params(), &Patch::Merge(patch))).await {
                Ok(_) => {
                    self.context.metrics.wrote(name.kind, "finalizer");
                    self.resources.forget(&key);
                }
                Err(error) if error.is_gone() => {}
                Err(error) => {
                    tracing::info!(resource = %name, %error, "the finalizer could not be written; tried again");
                    self.resources.failed(&key);
                }
            }
        }
    }

    /// A resource that cannot be read keeps the tunnels that it has; somebody has to be told.
    async fn say_unreadable(&mut self, world: &World) {
        let mut still = BTreeSet::new();
        for declared in &world.declared {
            let Declared::Unreadable { kind: _, metadata, error } = &**declared else { continue };
            let said = (declared.name(), error.clone());
            if !self.unreadable.contains(&said) {
                let note = format!("it cannot be read and is left as it was: {error}");
                tracing::error!(resource = %said.0, "{note}");
                let about = reference(&said.0, metadata);
                events::publish(&self.context, &about, events::Kind::Warning, "Unreadable", &note).await;
            }
            still.insert(said);
        }
        self.unreadable = still;
    }

    async fn update_statuses(
        &mut self,
        world: &World,
        decision: &Decision,
        findings: &BTreeMap<ResourceName, Finding>,
    ) -> Duration {
        let signing = self.context.signing();
        // Times in the API have whole seconds.
        let now = Timestamp::now();
        let now = Time(now.round(Unit::Second).unwrap_or(now));
        let mut wait = jittered(RESYNC);
        let resources = world.resources();
        self.written.retain(|name, _| resources.iter().any(|resource| resource.name == *name));
        for resource in &resources {
            let Some(report) = decision.reports.get(&resource.name) else { continue };
            let issuance = Issuance {
                signing: signing.get(&resource.name.name),
                authority: findings.get(&resource.name),
            };
            let new = status::status(resource, report, world, issuance, &now);
            if resource.status == Some(&new) {
                continue;
            }
            if !status::turned(resource.status, &new)
                && let Some(last) = self.written.get(&resource.name)
                && last.elapsed() < DETAILS
            {
                wait = wait.min(DETAILS.saturating_sub(last.elapsed()));
                continue;
            }
            self.write_status(resource, new).await;
        }
        wait
    }

    async fn write_status(&mut self, resource: &Resource<'_>, new: NetworkStatus) {
        let name = &resource.name;
        let key = format!("status of {name}");
        if !self.resources.is_due(&key) {
            return;
        }
        let manifest = json!({
            "apiVersion": API_VERSION,
            "kind": name.kind,
            "metadata": {"name": name.name, "uid": resource.metadata.uid},
            "status": new,
        });
        let patch = Patch::Apply(manifest);
        let params = PatchParams::apply(OPERATOR).force();
        let api = dynamic(&self.context, name);
        match apply::patiently(api.patch_status(&name.name, &params, &patch)).await {
            Ok(_) => {
                self.context.metrics.wrote(name.kind, "status");
                self.resources.forget(&key);
                self.written.insert(name.clone(), Instant::now());
                let about = reference(name, resource.metadata);
                for (kind, reason, note) in events::transitions(resource.status, &new) {
                    events::publish(&self.context, &about, kind, &reason, &note).await;
                }
            }
            Err(error) if error.is_gone() => {}
            Err(error) => {
                self.context.metrics.wrote(name.kind, "failed");
                tracing::warn!(resource = %name, %error, "the status could not be written; tried again");
                self.resources.failed(&key);
            }
        }
    }
}

fn dynamic(context: &Context, name: &ResourceName) -> Api<DynamicObject> {
    Api::all_with(context.client.clone(), &kind(name))
}

fn kind(name: &ResourceName) -> ApiResource {
    match name.kind {
        "DmvpnHub" => ApiResource::erase::<DmvpnHub>(&()),
        _ => ApiResource::erase::<DmvpnSpoke>(&()),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() }
}

fn reference(name: &ResourceName, metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(name.kind.to_owned()),
        name: Some(name.name.clone()),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
