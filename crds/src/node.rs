//! `DmvpnNode`: the contract between who decides (the operator, or `plan` on a machine without Kubernetes) and the
//! agent of one node. The spec is complete: an agent needs nothing else to run its tunnels, except the secrets it names.

#![expect(clippy::duplicated_attributes, reason = "each print column has a type")]

use crate::spec::{
    AdmissionClass, Bgp, HubEncapsulation, Mtu, Nhrp, Phase, Security, StaticPeer, StaticRoute, is_default,
};
use crate::text;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Everything one node's agent needs to know.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kube-dmvpn.io",
    version = "v1alpha1",
    kind = "DmvpnNode",
    plural = "dmvpnnodes",
    category = "dmvpn",
    status = "DmvpnNodeStatus",
    derive = "PartialEq",
    doc = "What one node does; written by the operator, its status by the node's agent. Not written by hand.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Tunnels",
        type_ = "string",
        json_path = ".status.summary.tunnels",
        description = "up of all"
    ),
    printcolumn(
        name = "Hubs",
        type_ = "string",
        json_path = ".status.summary.hubs",
        description = "reachable of configured"
    ),
    printcolumn(name = "Shortcuts", type_ = "integer", json_path = ".status.summary.shortcuts"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DmvpnNodeSpec {
    /// The DMVPNs this node is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tunnels: Vec<NodeTunnel>,

    /// The DMVPNs that this node's pods are in by tunnels of other nodes of the cluster (`announce.mode: Gateways`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub by_gateways: Vec<NodeByGateways>,
}

impl DmvpnNodeSpec {
    /// Is there nothing for the node to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { tunnels, by_gateways } = self;
        tunnels.is_empty() && by_gateways.is_empty()
    }
}

/// A DMVPN that this node has no tunnel in: what its pods send there is routed to a node that has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeByGateways {
    /// Name of the resource it comes from.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// What its gateways are in this DMVPN.
    pub role: Role,

    /// The nodes that have a tunnel, best first: the first that answers is used.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub via: Vec<NodeGateway>,

    /// What is routed to a gateway, and by no other way.
    #[schemars(with = "Vec<text::Cidr>", length(min = 1, max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub prefixes: Vec<IpNet>,

    /// What the gateways announce of this node, its pods above all: these addresses are kept on the way to a gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 512), extend("x-kubernetes-list-type" = "set"))]
    pub sources: Vec<IpNet>,
}

/// A node that has a tunnel, as others of its cluster reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeGateway {
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Its addresses within the cluster: one of each IP version it has.
    #[schemars(with = "Vec<text::Address>", length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<IpAddr>,
}

/// One tunnel of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTunnel {
    /// Name of the resource it comes from; no two resources that select the same node may share one.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// What this node is in this DMVPN.
    pub role: Role,

    /// Name of the tunnel interface.
    #[schemars(with = "text::InterfaceName")]
    pub interface: String,

    /// All tunnel addresses of this DMVPN: one network of each IP version it uses.
    #[schemars(with = "Vec<text::Cidr>", length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub networks: Vec<IpNet>,

    /// Our tunnel addresses: one of each network, in the same order.
    #[schemars(with = "Vec<text::Address>", length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<IpAddr>,

    /// The name we assert to peers.
    #[schemars(length(min = 1, max = 253))]
    pub identity: String,

    /// GRE key; left out, no key is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u32>,

    /// DMVPN phase.
    pub phase: Phase,

    /// MTU of the tunnel interface.
    #[serde(default)]
    pub mtu: Mtu,

    /// TTL (hop limit) of outer packets.
    #[schemars(range(min = 1))]
    pub ttl: u8,

    /// Where outer packets leave and arrive.
    pub underlay: NodeUnderlay,

    /// Encryption and identity; the Secrets named here are read by the agent.
    pub security: Security,

    /// NHRP parameters.
    pub nhrp: Nhrp,

    /// Hubs to register with, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address", "port"]))]
    pub hubs: Vec<NodeHub>,

    /// (Hub) who may claim what. Empty: any tunnel address and prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["identity"]))]
    pub admission: Vec<AdmissionClass>,

    /// Peers that don't speak NHRP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["tunnelAddress"]))]
    pub static_peers: Vec<StaticPeer>,

    /// The built-in BGP speaker; left out, it doesn't run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,

    /// Routes by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["prefix"]))]
    pub static_routes: Vec<StaticRoute>,

    /// What we announce as reachable behind us, and answer resolution requests for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 512), extend("x-kubernetes-list-type" = "set"))]
    pub announce: Vec<IpNet>,

    /// Never reached by another way than the overlay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub protected_prefixes: Vec<IpNet>,
}

impl NodeTunnel {
    /// Are we a hub?
    #[must_use]
    pub fn is_hub(&self) -> bool {
        self.role == Role::Hub
    }
}

/// What a node is in a DMVPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Spokes register with it.
    Hub,
    /// It registers with hubs.
    Spoke,
}

/// Where outer packets of one node leave and arrive. At most one of `address` and `interface`; neither: the source
/// address of the route to the first hub, or of the default route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUnderlay {
    /// Bind to this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Address>")]
    pub address: Option<IpAddr>,
    /// Bind to this interface's address, followed as it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::InterfaceName>")]
    pub interface: Option<String>,
    /// UDP port we send from and receive on.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// (Encrypted) UDP port for IKE with peers that send ESP without UDP; left out, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub ike_port: Option<u16>,
    /// The address peers should use, where a 1:1 NAT stands in front of us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Address>")]
    pub advertise: Option<IpAddr>,
}

/// A hub to register with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeHub {
    /// IP address or DNS name on the underlay.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
    /// Its UDP port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Its tunnel address, when known beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Address>")]
    pub tunnel_address: Option<IpAddr>,
    /// Lower is better.
    #[serde(default)]
    pub priority: u32,
    /// The identity it must prove (a name or `*.domain`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::IdentityPattern>")]
    pub identity: Option<String>,
    /// How packets to it are wrapped.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "Auto"))]
    pub encapsulation: HubEncapsulation,
}

impl NodeHub {
    /// The address, where it needs no resolving.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        self.address.parse().ok()
    }
}

/// The built-in BGP speaker of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeBgp {
    /// AS number, port, timers.
    pub settings: Bgp,
    /// (Hub) whoever connects from these networks is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub dynamic_neighbors: Vec<IpNet>,
    /// (Spoke) the neighbours are the hubs we are registered with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub neighbors_are_hubs: bool,
    /// The next hop we announce to spokes: preserved in phase 2, ourselves in 1 and 3.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preserve_next_hop: bool,
    /// BGP identifier: our first IPv4 tunnel address, or one made from our identity.
    #[schemars(with = "text::Address")]
    pub router_id: std::net::Ipv4Addr,
}

/// How it goes on one node. Written at most once a minute while nothing changes; counters are metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DmvpnNodeStatus {
    /// The generation of the spec that the agent runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and what else concerns the whole node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Counts, as `kubectl get` shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<NodeSummary>,
    /// Each tunnel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tunnels: Vec<NodeTunnelStatus>,
    /// Each DMVPN that is reached by gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub by_gateways: Vec<NodeByGatewaysStatus>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,
}

/// Counts over all tunnels of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    /// Tunnels up of all, `1/1`.
    #[schemars(length(max = 32))]
    pub tunnels: String,
    /// Hubs reachable of configured, `2/2`.
    #[schemars(length(max = 32))]
    pub hubs: String,
    /// Direct paths in use.
    #[serde(default)]
    pub shortcuts: u32,
}

/// How it goes with one tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTunnelStatus {
    /// Name of the tunnel in the spec.
    #[schemars(length(max = 253))]
    pub name: String,
    /// `Ready`, `HubsReachable`, `Encrypted`, `AddressConflict`, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Peers known.
    #[serde(default)]
    pub peers: u32,
    /// (Hub) registrations held.
    #[serde(default)]
    pub registrations: u32,
    /// Direct paths in use.
    #[serde(default)]
    pub shortcuts: u32,
    /// MTU in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Hubs we register with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub hubs: Vec<NodeHubStatus>,
    /// What changed lately, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub transitions: Vec<Transition>,
}

/// How it goes with one DMVPN that is reached by gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeByGatewaysStatus {
    /// Name of the resource.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The node that is sent by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub gateway: Option<String>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A hub as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeHubStatus {
    /// As in the spec.
    #[schemars(length(max = 253))]
    pub address: String,
    /// `Up`, `Registering`, `Down`.
    #[schemars(length(max = 32))]
    pub state: String,
    /// Its tunnel address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Address>")]
    pub tunnel_address: Option<IpAddr>,
    /// Does it carry now?
    #[serde(default)]
    pub active: bool,
    /// Why it is not up, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When.
    pub time: Time,
    /// CamelCase.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What happened.
    #[schemars(length(max = 1024))]
    pub message: String,
}
