//! What is known of the cluster: a pure snapshot, from which everything is decided.

use crate::store::Kept;
use crds::status::NetworkStatus;
use crds::{DmvpnHub, DmvpnNode, DmvpnNodeSpec, DmvpnSpoke};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use plan::{AddressKind, Network, NodeFacts, ResourceKind, ResourceName};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that decisions are made from.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Hubs and spokes, also those that are being deleted.
    pub declared: Vec<Arc<Declared>>,
    /// Nodes of the cluster.
    pub nodes: BTreeMap<String, Arc<NodeRecord>>,
    /// What nodes were told, and what they report. Who holds which address stands here and nowhere else.
    pub dmvpn_nodes: BTreeMap<String, Arc<DmvpnNode>>,
    /// Pods' ranges by Calico; `None` while they are not known.
    pub calico: Option<BTreeMap<String, Vec<IpNet>>>,
    /// Pods' ranges by Cilium; `None` while they are not known.
    pub cilium: Option<BTreeMap<String, Vec<IpNet>>>,
}

/// A resource as somebody wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum Declared {
    /// A hub.
    Hub(Box<DmvpnHub>),
    /// A spoke.
    Spoke(Box<DmvpnSpoke>),
    /// What cannot be read: stored by another version of the CRD, most likely.
    Unreadable {
        /// Hub or spoke.
        kind: ResourceKind,
        /// Its metadata.
        metadata: Box<ObjectMeta>,
        /// Why.
        error: String,
    },
}

impl Declared {
    /// Reads an object of a watch. One that cannot be read must not stop the others.
    pub fn read(kind: ResourceKind, mut object: DynamicObject) -> Self {
        object.metadata.managed_fields = None;
        let metadata = Box::new(object.metadata.clone());
        let unreadable =
            |error: serde_json::Error| Self::Unreadable { kind, metadata, error: error.to_string() };
        let whole = serde_json::to_value(object);
        match kind {
            ResourceKind::Hub => {
                whole.and_then(serde_json::from_value).map_or_else(unreadable, |hub| Self::Hub(Box::new(hub)))
            }
            ResourceKind::Spoke => whole
                .and_then(serde_json::from_value)
                .map_or_else(unreadable, |spoke| Self::Spoke(Box::new(spoke))),
        }
    }

    /// How people call it.
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Hub(hub) => ResourceKind::Hub.named(&hub.name_any()),
            Self::Spoke(spoke) => ResourceKind::Spoke.named(&spoke.name_any()),
            Self::Unreadable { kind, metadata, error: _ } => {
                kind.named(metadata.name.as_deref().unwrap_or_default())
            }
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Hub(hub) => &hub.metadata,
            Self::Spoke(spoke) => &spoke.metadata,
            Self::Unreadable { metadata, .. } => metadata,
        }
    }

    /// Has somebody asked for its deletion?
    pub fn is_deleted(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }

    fn resource(&self) -> Option<Resource<'_>> {
        let (network, status) = match self {
            Self::Hub(hub) => (Network::from(&hub.spec), hub.status.as_ref()),
            Self::Spoke(spoke) => (Network::from(&spoke.spec), spoke.status.as_ref()),
            Self::Unreadable { .. } => return None,
        };
        Some(Resource { name: self.name(), network, metadata: self.metadata(), status })
    }
}

impl Kept for Declared {}

/// A hub or spoke that can be read.
#[derive(Clone, Debug)]
pub struct Resource<'a> {
    /// How people call it.
    pub name: ResourceName,
    /// What it asks for.
    pub network: Network<'a>,
    /// Its metadata.
    pub metadata: &'a ObjectMeta,
    /// Its status as it stands.
    pub status: Option<&'a NetworkStatus>,
}

/// What is needed of a Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeRecord {
    /// Name, labels, addresses.
    pub facts: NodeFacts,
    /// UID, for references by owner.
    pub uid: String,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Is its kubelet there?
    pub ready: bool,
}

impl NodeRecord {
    /// Takes from a Node what is needed: a thousand whole ones are 20 MiB.
    pub fn read(node: Node) -> Self {
        let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
        let addresses = status.addresses.unwrap_or_default().into_iter().filter_map(|address| {
            let kind = match address.type_.as_str() {
                "InternalIP" => AddressKind::InternalIP,
                "ExternalIP" => AddressKind::ExternalIP,
                _ => return None,
            };
            Some((kind, address.address.parse().ok()?))
        });
        let ranges = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        Self {
            facts: NodeFacts {
                name: node.metadata.name.unwrap_or_default(),
                labels: node.metadata.labels.unwrap_or_default(),
                addresses: addresses.collect(),
                pod_cidrs: None,
            },
            uid: node.metadata.uid.unwrap_or_default(),
            pod_cidrs: ranges.iter().filter_map(|range| range.parse().ok()).collect(),
            ready: ready.is_some_and(|condition| condition.status == "True"),
        }
    }
}

impl Kept for NodeRecord {}

/// What a node was told, and what it reports. The report is the agent's: one that cannot be read is no report, and must
/// not stop the others.
pub fn read_dmvpn_node(object: DynamicObject) -> DmvpnNode {
    let DynamicObject { types: _, mut metadata, data } = object;
    metadata.managed_fields = None;
    let name = metadata.name.clone().unwrap_or_default();
    let part = |field: &str| data.get(field).cloned().unwrap_or_default();
    let spec = serde_json::from_value(part("spec")).unwrap_or_else(|error| {
        // Somebody else's writing, or another version's: it is written anew.
        tracing::error!(node = name, %error, "the spec of a DmvpnNode cannot be read");
        DmvpnNodeSpec::default()
    });
    let status = serde_json::from_value(part("status")).unwrap_or_else(|error| {
        tracing::warn!(node = name, %error, "the status of a DmvpnNode cannot be read");
        None
    });
    DmvpnNode { metadata, spec, status }
}

impl Kept for DmvpnNode {
    fn version(&self) -> Option<(&str, i64)> {
        Some((self.metadata.uid.as_deref()?, self.metadata.generation?))
    }
}

/// A range of pods' addresses, and the node that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRanges {
    /// The node.
    pub node: String,
    /// Its ranges.
    pub ranges: Vec<IpNet>,
}

impl PodRanges {
    /// From Calico's BlockAffinity.
    pub fn of_calico(object: &DynamicObject) -> Option<Self> {
        let spec = object.data.get("spec")?;
        let text = |field: &str| spec.get(field).and_then(Value::as_str);
        let released = text("deleted") == Some("true") || text("state").is_some_and(|s| s != "confirmed");
        if released {
            return None;
        }
        Some(Self { node: text("node")?.to_owned(), ranges: vec![text("cidr")?.parse().ok()?] })
    }

    /// From a CiliumNode: of one pool for the whole cluster, or of several (`ipam.mode: multi-pool`).
    pub fn of_cilium(object: &DynamicObject) -> Option<Self> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let ipam = object.data.get("spec")?.get("ipam")?;
        let pools = list(&ipam["pools"]["allocated"]).into_iter().flat_map(|pool| list(&pool["cidrs"]));
        let ranges = list(&ipam["podCIDRs"]).into_iter().chain(pools);
        let ranges = ranges.filter_map(|range| range.as_str()?.parse().ok()).collect();
        Some(Self { node: object.metadata.name.clone()?, ranges })
    }
}

impl Kept for PodRanges {}

/// By node.
pub fn ranges_by_node(all: &BTreeMap<String, Arc<PodRanges>>) -> BTreeMap<String, Vec<IpNet>> {
    let mut nodes: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    for PodRanges { node, ranges } in all.values().map(Arc::as_ref) {
        nodes.entry(node.clone()).or_default().extend(ranges);
    }
    for ranges in nodes.values_mut() {
        ranges.sort();
    }
    nodes
}

impl World {
    /// Resources that are to be carried out, the oldest first: who was there first has precedence.
    pub fn resources(&self) -> Vec<Resource<'_>> {
        let mut resources: Vec<Resource<'_>> = self
            .declared
            .iter()
            .filter(|declared| !declared.is_deleted())
            .filter_map(|declared| declared.resource())
            .collect();
        resources.sort_by(|a, b| {
            let age = |resource: &Resource<'_>| resource.metadata.creation_timestamp.clone();
            (age(a), &a.name).cmp(&(age(b), &b.name))
        });
        resources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn one_resource_that_cannot_be_read_is_only_that() {
        let metadata = json!({"name": "hq", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let broken = object(json!({
            "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnHub", "metadata": metadata, "spec": {"tunnel": 7}
        }));
        let read = Declared::read(ResourceKind::Hub, broken);
        assert_eq!(read.name().to_string(), "DmvpnHub hq");
        assert!(matches!(read, Declared::Unreadable { .. }));
        let world = World { declared: vec![Arc::new(read)], ..World::default() };
        assert!(world.resources().is_empty());
    }

    #[test]
    fn one_agents_nonsense_is_no_report_and_keeps_its_nodes_address() {
        let node = read_dmvpn_node(object(json!({
            "apiVersion": "kube-dmvpn.io/v1alpha1", "kind": "DmvpnNode", "metadata": {"name": "a-1"},
            "spec": {"tunnels": [{
                "name": "s", "role": "Spoke", "interface": "dmvpn0", "networks": ["10.200.0.0/16"],
                "addresses": ["10.200.16.1"], "identity": "a-1", "phase": 3, "ttl": 64,
                "underlay": {"port": 4754}, "security": {"mode": "None"}, "nhrp": {}
            }]},
            "status": {"tunnels": [{"name": "s", "mtu": 70000}]}
        })));
        assert_eq!(node.status, None);
        assert_eq!(node.spec.tunnels[0].addresses, ["10.200.16.1".parse::<std::net::IpAddr>().unwrap()]);
    }

    #[test]
    fn calicos_blocks_that_are_given_back_are_nobodys() {
        let block = |state: &str, deleted: &str| {
            PodRanges::of_calico(&object(json!({
                "apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity", "metadata": {"name": "b"},
                "spec": {"node": "a-1", "cidr": "10.4.1.0/26", "state": state, "deleted": deleted}
            })))
        };
        let expected = PodRanges { node: "a-1".into(), ranges: vec!["10.4.1.0/26".parse().unwrap()] };
        assert_eq!(block("confirmed", "false"), Some(expected));
        assert_eq!(block("confirmed", "true"), None);
        assert_eq!(block("pendingDeletion", "false"), None);
    }

    #[test]
    fn cilium_says_a_nodes_ranges_itself() {
        let node = object(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "a-1"},
            "spec": {"ipam": {"podCIDRs": ["10.5.1.0/24", "fd00:5::/64"]}}
        }));
        let ranges = vec!["10.5.1.0/24".parse().unwrap(), "fd00:5::/64".parse().unwrap()];
        assert_eq!(PodRanges::of_cilium(&node), Some(PodRanges { node: "a-1".into(), ranges }));
        let of_pools = object(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "a-1"},
            "spec": {"ipam": {"pools": {"allocated": [
                {"pool": "default", "cidrs": ["10.5.1.0/27"]}, {"pool": "mars", "cidrs": ["10.6.1.0/27", "10.6.2.0/27"]},
            ]}}}
        }));
        assert_eq!(PodRanges::of_cilium(&of_pools).unwrap().ranges.len(), 3);
    }

    #[test]
    fn of_a_node_only_what_is_needed_is_kept() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "a-1", "uid": "u", "labels": {"zone": "z"}},
            "spec": {"podCIDRs": ["10.1.1.0/24", "fd00:1::/64"]},
            "status": {
                "addresses": [{"type": "Hostname", "address": "a-1"}, {"type": "InternalIP", "address": "192.0.2.1"}],
                "conditions": [{"type": "Ready", "status": "True"}]
            }
        }))
        .unwrap();
        let record = NodeRecord::read(node);
        assert_eq!(record.facts.addresses, [(AddressKind::InternalIP, "192.0.2.1".parse().unwrap())]);
        assert_eq!(record.pod_cidrs.len(), 2);
        assert!(record.ready);
    }
}
