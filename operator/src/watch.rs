//! Watches: what the API server says of each kind, kept in stores.

use crate::context::Context;
use crate::store::{Kept, Store};
use crate::world::{Declared, NodeRecord, PodRanges, World, ranges_by_node, read_dmvpn_node};
use crds::kubernetes::SIGNER;
use crds::spec::PodCidrSource;
use crds::{DmvpnHub, DmvpnNode, DmvpnSpoke};
use futures::StreamExt as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt as _, discovery};
use plan::ResourceKind;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How often it is looked whether another network plugin's kind has come.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What is known, by kind.
#[derive(Default)]
pub struct Stores {
    /// Hubs.
    pub hubs: Store<Declared>,
    /// Spokes.
    pub spokes: Store<Declared>,
    /// Nodes.
    pub nodes: Store<NodeRecord>,
    /// What nodes are told.
    pub dmvpn_nodes: Store<DmvpnNode>,
    /// Requests that wait for us.
    pub requests: Store<CertificateSigningRequest>,
    /// Something happened to requests.
    pub requests_changed: Notify,
    calico: Optional,
    cilium: Optional,
}

/// A kind that is there only with another network plugin.
#[derive(Default)]
struct Optional {
    ranges: Store<PodRanges>,
    wanted: AtomicBool,
}

impl Stores {
    /// Starts watching everything; dropping the set ends it.
    pub fn follow(context: &Arc<Context>) -> (Arc<Self>, JoinSet<()>) {
        let stores = Arc::new(Self::default());
        let mut tasks = JoinSet::new();
        let client = || context.client.clone();
        let (all, c, s) = (watcher::Config::default, || Arc::clone(context), || Arc::clone(&stores));

        let hubs = Api::all_with(client(), &ApiResource::erase::<DmvpnHub>(&()));
        tasks.spawn(declared(ResourceKind::Hub, hubs, c(), s()));
        let spokes = Api::all_with(client(), &ApiResource::erase::<DmvpnSpoke>(&()));
        tasks.spawn(declared(ResourceKind::Spoke, spokes, c(), s()));

        let (context_, stores_) = (c(), s());
        tasks.spawn(async move {
            let api: Api<Node> = Api::all(context_.client.clone());
            let read = |node: Node| Some(NodeRecord::read(node));
            let changed = || context_.changed.notify_one();
            follow("Node", watcher(api, all()), &context_, &stores_.nodes, read, changed).await;
        });
        let (context_, stores_) = (c(), s());
        tasks.spawn(async move {
            let resource = ApiResource::erase::<DmvpnNode>(&());
            let api: Api<DynamicObject> = Api::all_with(context_.client.clone(), &resource);
            let read = |node: DynamicObject| Some(read_dmvpn_node(node));
            let changed = || context_.changed.notify_one();
            follow("DmvpnNode", watcher(api, all()), &context_, &stores_.dmvpn_nodes, read, changed).await;
        });
        let (context_, stores_) = (c(), s());
        tasks.spawn(async move {
            let api: Api<CertificateSigningRequest> = Api::all(context_.client.clone());
            let config = all().fields(&format!("spec.signerName={SIGNER}"));
            let kind = "CertificateSigningRequest";
            let changed = || stores_.requests_changed.notify_one();
            follow(kind, watcher(api, config), &context_, &stores_.requests, pending, changed).await;
        });
        tasks.spawn(optional(
            GroupVersionKind::gvk("crd.projectcalico.org", "v1", "BlockAffinity"),
            PodRanges::of_calico,
            |stores| &stores.calico,
            c(),
            s(),
        ));
        tasks.spawn(optional(
            GroupVersionKind::gvk("cilium.io", "v2", "CiliumNode"),
            PodRanges::of_cilium,
            |stores| &stores.cilium,
            c(),
            s(),
        ));
        (stores, tasks)
    }

    /// Returns when everything that decisions need has been listed once.
    pub async fn listed(&self) {
        self.hubs.listed().await;
        self.spokes.listed().await;
        self.nodes.listed().await;
        self.dmvpn_nodes.listed().await;
    }

    /// Everything, as it is now.
    pub fn world(&self) -> World {
        let ranges = |optional: &Optional| {
            optional.ranges.is_listed().then(|| ranges_by_node(&optional.ranges.snapshot()))
        };
        let hubs = self.hubs.snapshot().into_values();
        World {
            declared: hubs.chain(self.spokes.snapshot().into_values()).collect(),
            nodes: self.nodes.snapshot(),
            dmvpn_nodes: self.dmvpn_nodes.snapshot(),
            calico: ranges(&self.calico),
            cilium: ranges(&self.cilium),
        }
    }

    /// Looks for the kinds of network plugins that resources name.
    pub fn want_sources(&self, world: &World) {
        for resource in world.resources() {
            match resource.network.announce.pod_cidrs.from {
                PodCidrSource::Calico => self.calico.wanted.store(true, Ordering::Relaxed),
                PodCidrSource::Cilium => self.cilium.wanted.store(true, Ordering::Relaxed),
                PodCidrSource::Node | PodCidrSource::Static | PodCidrSource::None => {}
            }
        }
    }
}

impl Kept for CertificateSigningRequest {}

/// Only requests that somebody waits for are kept.
fn pending(mut csr: CertificateSigningRequest) -> Option<CertificateSigningRequest> {
    csr.meta_mut().managed_fields = None;
    let status = csr.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ended = conditions.into_iter().flatten().any(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
    let signed = status.is_some_and(|status| status.certificate.is_some());
    (!ended && !signed).then_some(csr)
}

async fn declared(kind: ResourceKind, api: Api<DynamicObject>, context: Arc<Context>, stores: Arc<Stores>) {
    let (name, store) = match kind {
        ResourceKind::Hub => ("DmvpnHub", &stores.hubs),
        ResourceKind::Spoke => ("DmvpnSpoke", &stores.spokes),
    };
    let stream = watcher(api, watcher::Config::default());
    let read = |object: DynamicObject| Some(Declared::read(kind, object));
    follow(name, stream, &context, store, read, || context.changed.notify_one()).await;
}

async fn optional(
    kind: GroupVersionKind,
    read: fn(&DynamicObject) -> Option<PodRanges>,
    of: fn(&Stores) -> &Optional,
    context: Arc<Context>,
    stores: Arc<Stores>,
) {
    let Optional { ranges, wanted } = of(&stores);
    let resource = loop {
        if wanted.load(Ordering::Relaxed) {
            match discovery::pinned_kind(&context.client, &kind).await {
                Ok((resource, _)) => break resource,
                Err(error) => tracing::debug!(kind = kind.kind, %error, "not there"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        } else {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
    let stream = watcher(api, watcher::Config::default());
    let changed = || context.changed.notify_one();
    follow("pods' ranges", stream, &context, ranges, |object| read(&object), changed).await;
}

/// Feeds a store from a watch, which begins anew by itself after errors, later and later.
async fn follow<K, T: Kept>(
    kind: &'static str,
    events: impl futures::Stream<Item = Result<Event<K>, watcher::Error>>,
    context: &Context,
    store: &Store<T>,
    read: impl Fn(K) -> Option<T>,
    changed: impl Fn(),
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(events.default_backoff());
    let read = |object: K| {
        let name = object.name_any();
        (name, read(object))
    };
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(Event::Apply(object)) => Event::Apply(read(object)),
            Ok(Event::Delete(object)) => Event::Delete(read(object)),
            Ok(Event::Init) => Event::Init,
            Ok(Event::InitApply(object)) => Event::InitApply(read(object)),
            Ok(Event::InitDone) => Event::InitDone,
            Err(error) => {
                context.metrics.watch_failed(kind);
                tracing::warn!(kind, %error, "the watch failed; it begins again");
                continue;
            }
        };
        if store.feed(event) {
            changed();
        }
    }
}
