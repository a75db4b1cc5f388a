//! What nodes announce as reachable behind them.

use super::is_default;
use crate::text;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What nodes announce as reachable behind them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.mode) && self.mode == 'Gateways') == has(self.gateways)",
        "message": "gateways goes with mode: Gateways: select the nodes that announce for the whole cluster"
    },
    {
        "rule": "!has(self.toGateways) || has(self.gateways)",
        "message": "toGateways goes with mode: Gateways: it is what nodes without a tunnel send by those that have one"
    }
]))]
pub struct Announce {
    /// `EveryNode`: each selected node has a tunnel and announces what is behind it. `Gateways`: of the selected nodes, those
    /// that `gateways` selects have a tunnel and announce for the whole cluster; the others route `toGateways` to them.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "EveryNode"))]
    pub mode: AnnounceMode,

    /// (`Gateways`) the nodes that have a tunnel and announce for the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<LabelSelector>,

    /// (`Gateways`) what nodes without a tunnel route to the gateways: the other clusters' pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub to_gateways: Vec<IpNet>,

    /// Pods' address ranges. Left out: not announced.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "is_default")]
    pub pod_cidrs: PodCidrs,

    /// Further prefixes behind the nodes, such as a LAN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub prefixes: Vec<IpNet>,
}

/// Who announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AnnounceMode {
    /// Each selected node, what is behind it.
    #[default]
    EveryNode,
    /// Chosen ones of the selected nodes, for the whole cluster.
    Gateways,
}

/// Pods' address ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.from) && self.from == 'Static') == has(self.cidrs)",
        "message": "cidrs goes with from: Static: list the pods' address ranges there"
    }
]))]
pub struct PodCidrs {
    /// Where they are found: `Node` (`spec.podCIDRs` of the Node), `Calico` or `Cilium` (their own resources),
    /// `Static` (`cidrs`), or `None`.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "None"))]
    pub from: PodCidrSource,

    /// (`Static`) the ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub cidrs: Vec<IpNet>,
}

/// Where pods' address ranges are found. (`Off` would be a boolean in the YAML that kubectl reads.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodCidrSource {
    /// `spec.podCIDRs` of the Node.
    Node,
    /// Calico's IPAM blocks.
    Calico,
    /// CiliumNode.
    Cilium,
    /// Listed.
    Static,
    /// Not announced.
    #[default]
    None,
}
