//! Pods of this node and annotations of namespaces, from the API server: pods that are older than the plugin, and
//! annotations that change. While it is away, what it said last holds.

use super::Registry;
use super::pods::{ApiPod, Choice, PodName};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Follows both. Ends never.
pub async fn follow(client: Client, node: String, registry: Arc<Registry>) {
    let pods = follow_pods(Api::all(client.clone()), &node, &registry);
    let namespaces = follow_namespaces(Api::all(client), &registry);
    tokio::join!(pods, namespaces);
}

async fn follow_pods(api: Api<Pod>, node: &str, registry: &Registry) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut events = std::pin::pin!(kube::runtime::watcher(api, config).default_backoff());
    let mut all = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => all.clear(),
            Ok(Event::InitApply(pod)) => {
                all.insert(name(&pod), read(&pod));
            }
            Ok(Event::InitDone) => {
                let all = std::mem::take(&mut all);
                change(registry, |pods| pods.set_pods(all)).await;
            }
            Ok(Event::Apply(pod)) => {
                change(registry, |pods| pods.set_pod(name(&pod), Some(read(&pod)))).await
            }
            Ok(Event::Delete(pod)) => change(registry, |pods| pods.set_pod(name(&pod), None)).await,
            Err(error) => {
                tracing::debug!(%error, "the pods of this node can't be watched; it is tried again")
            }
        }
    }
}

async fn follow_namespaces(api: Api<PartialObjectMeta<Namespace>>, registry: &Registry) {
    let watch = kube::runtime::watcher(api, watcher::Config::default());
    let mut events = std::pin::pin!(watch.default_backoff());
    let mut all = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => all.clear(),
            Ok(Event::InitApply(namespace)) => {
                all.extend(Choice::of(namespace.annotations()).map(|choice| (namespace.name_any(), choice)));
            }
            Ok(Event::InitDone) => {
                let all = std::mem::take(&mut all);
                change(registry, |pods| pods.set_namespaces(all)).await;
            }
            Ok(Event::Apply(namespace)) => {
                let choice = Choice::of(namespace.annotations());
                change(registry, |pods| pods.set_namespace(&namespace.name_any(), choice)).await;
            }
            Ok(Event::Delete(namespace)) => {
                change(registry, |pods| pods.set_namespace(&namespace.name_any(), None)).await;
            }
            Err(error) => tracing::debug!(%error, "namespaces can't be watched; it is tried again"),
        }
    }
}

async fn change(registry: &Registry, change: impl FnOnce(&mut super::pods::Pods)) {
    if let Err(error) = registry.change(change).await {
        tracing::warn!(%error, "cannot keep pods from the overlay that don't want it");
    }
}

fn name(pod: &Pod) -> PodName {
    PodName { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() }
}

fn read(pod: &Pod) -> ApiPod {
    let choice = Choice::of(pod.annotations());
    let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    if on_host && choice == Some(Choice::Disabled) {
        tracing::warn!(
            namespace = pod.namespace(),
            pod = pod.name_any(),
            "a pod on the node's own network can't be kept from the overlay"
        );
    }
    let ended = |phase: &str| phase == "Succeeded" || phase == "Failed";
    let status = pod.status.as_ref().filter(|status| !on_host && !status.phase.as_deref().is_some_and(ended));
    let addresses = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
    ApiPod {
        uid: pod.uid().unwrap_or_default(),
        addresses: addresses.filter_map(|ip| ip.ip.parse().ok()).collect(),
        choice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(extra: serde_json::Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}]}
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            for (inner, value) in value.as_object().into_iter().flatten() {
                pod[key][inner] = value.clone();
            }
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn all_addresses_of_a_running_pod_are_read() {
        assert_eq!(read(&pod(json!({}))).addresses.len(), 2);
        let annotated = pod(json!({"metadata": {"annotations": {"kube-dmvpn.io/overlay": "disabled"}}}));
        assert_eq!(read(&annotated).choice, Some(Choice::Disabled));
    }

    #[test]
    fn a_pod_that_has_ended_or_uses_the_nodes_addresses_has_none() {
        assert!(read(&pod(json!({"status": {"phase": "Succeeded"}}))).addresses.is_empty());
        assert!(read(&pod(json!({"spec": {"hostNetwork": true}}))).addresses.is_empty());
    }
}
