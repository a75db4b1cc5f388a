//! `DmvpnSpoke`: nodes that register with hubs.

#![expect(clippy::duplicated_attributes, reason = "each print column has a type")]

use crate::spec::{Announce, HubEntry, Nhrp, Routing, Security, StaticPeer, Tunnel, Underlay, is_default};
use crate::status::NetworkStatus;
use crate::text;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nodes that register with hubs and open direct paths to other spokes on demand.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kube-dmvpn.io",
    version = "v1alpha1",
    kind = "DmvpnSpoke",
    plural = "dmvpnspokes",
    category = "dmvpn",
    status = "NetworkStatus",
    derive = "PartialEq",
    doc = "Nodes that register with the hubs of a DMVPN and open direct paths to other spokes on demand.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.summary.nodes",
        description = "ready of selected"
    ),
    printcolumn(
        name = "Hubs",
        type_ = "string",
        json_path = ".status.summary.hubs",
        description = "reachable of configured"
    ),
    printcolumn(name = "Shortcuts", type_ = "integer", json_path = ".status.summary.shortcuts"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.tunnel.network", priority = 1),
    printcolumn(name = "Phase", type_ = "integer", json_path = ".spec.tunnel.phase", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.security) && (self.security.mode != 'Encrypted' || has(self.security.authentication))",
        "message": "encryption needs credentials: set authentication.certificates or authentication.preSharedKey; an unencrypted overlay must be asked for with mode: None",
        "fieldPath": ".security"
    },
    {
        "rule": "self.hubs.all(h, !has(h.tunnelAddress) || !isIP(h.tunnelAddress) || (isCIDR(self.tunnel.network) && cidr(self.tunnel.network).containsIP(h.tunnelAddress)) || (has(self.tunnel.networkV6) && isCIDR(self.tunnel.networkV6) && cidr(self.tunnel.networkV6).containsIP(h.tunnelAddress)))",
        "message": "a hub's tunnelAddress must lie within tunnel.network; its address on the underlay goes into address",
        "fieldPath": ".hubs"
    },
    {
        "rule": "!has(self.staticPeers) || self.staticPeers.all(p, !isIP(p.tunnelAddress) || (isCIDR(self.tunnel.network) && cidr(self.tunnel.network).containsIP(p.tunnelAddress)) || (has(self.tunnel.networkV6) && isCIDR(self.tunnel.networkV6) && cidr(self.tunnel.networkV6).containsIP(p.tunnelAddress)))",
        "message": "a static peer's tunnelAddress must lie within tunnel.network; its address on the underlay goes into nbma",
        "fieldPath": ".staticPeers"
    },
    {
        "rule": "!has(self.routing) || !has(self.routing.static) || self.routing.static.all(r, !isIP(r.via) || (isCIDR(self.tunnel.network) && cidr(self.tunnel.network).containsIP(r.via)) || (has(self.tunnel.networkV6) && isCIDR(self.tunnel.networkV6) && cidr(self.tunnel.networkV6).containsIP(r.via)))",
        "message": "via must be a tunnel address, within tunnel.network",
        "fieldPath": ".routing.static"
    },
    {
        "rule": "!has(self.routing) || !has(self.routing.bgp) || !has(self.routing.bgp.summaries)",
        "message": "summaries are announced by hubs; write them into the DmvpnHub, and what this spoke has into announce.prefixes",
        "fieldPath": ".routing.bgp.summaries"
    },
    {
        "rule": "self.hubs.all(h, !has(h.address) || self.hubs.exists_one(o, has(o.address) && o.address == h.address))",
        "message": "each hub stands in the list once; remove the entry that repeats an address",
        "fieldPath": ".hubs"
    }
]))]
pub struct DmvpnSpokeSpec {
    /// The nodes that are spokes. `{}` is every node; left out, none is (without Kubernetes: this one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,

    /// The hubs to register with; traffic goes by the best that answers, the others stand by.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub hubs: Vec<HubEntry>,

    /// The overlay tunnel.
    pub tunnel: Tunnel,

    /// The network that carries the tunnel.
    #[serde(default, skip_serializing_if = "is_default")]
    pub underlay: Underlay,

    /// Encryption and identity. Must be written: either credentials, or `mode: None`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub security: Security,

    /// NHRP parameters.
    #[serde(default)]
    pub nhrp: Nhrp,

    /// Peers that don't speak NHRP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["tunnelAddress"]))]
    pub static_peers: Vec<StaticPeer>,

    /// How prefixes become known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routing: Routing,

    /// What the nodes announce as reachable behind them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub announce: Announce,

    /// Never reached by another way than the overlay: unreachable while the overlay has no route to them. Not narrower than
    /// the overlay's routes, which would be hidden, and not this cluster's Services: its nodes would not reach the API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub protected_prefixes: Vec<IpNet>,
}
