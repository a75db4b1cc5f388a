//! Status of `DmvpnHub` and `DmvpnSpoke`: written by the operator from the nodes' own status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How it goes, over all selected nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions by the API conventions: `Ready`, `Accepted`, `HubsReachable`, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Counts, as `kubectl get` shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,

    /// Nodes that are not ready, the first few, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub not_ready: Vec<NotReadyNode>,
}

/// Counts, as `kubectl get` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes ready of nodes selected, `3/3`.
    #[schemars(length(max = 32))]
    pub nodes: String,
    /// Hubs reachable of hubs configured, `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub hubs: Option<String>,
    /// Spokes registered (hubs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrations: Option<u32>,
    /// Direct paths in use.
    #[serde(default)]
    pub shortcuts: u32,
}

/// A node that is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotReadyNode {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// CamelCase reason, from its `Ready` condition.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Cause and next step.
    #[schemars(length(max = 1024))]
    pub message: String,
}
