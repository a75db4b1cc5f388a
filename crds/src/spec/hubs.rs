//! The hubs that a spoke registers with.

use super::is_default;
use crate::text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A hub to register with: by address, or by the name of a `DmvpnHub` in this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.address) != has(self.hubRef)",
        "message": "write either address (an IP address or DNS name) or hubRef (the name of a DmvpnHub in this cluster)"
    },
    {
        "rule": "!has(self.hubRef) || !(has(self.tunnelAddress) || has(self.port))",
        "message": "hubRef brings tunnelAddress and port along; leave them out"
    },
    {
        "rule": "!has(self.port) || !has(self.encapsulation) || self.encapsulation != 'Gre'",
        "message": "plain GRE has no port; leave port out, or write encapsulation: Udp"
    }
]))]
pub struct HubEntry {
    /// IP address or DNS name of the hub on the underlay. A name is resolved again as it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [{
        "rule": "isIP(self) || (self.matches('^[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?([.][a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?)*[.]?$') && !self.matches('^[0-9.]+$'))",
        "message": "write an IP address or a DNS name, such as 198.51.100.2 or hub1.example.com; a port goes into port"
    }]))]
    pub address: Option<String>,

    /// Name of a `DmvpnHub` in this cluster; its nodes are the hubs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub hub_ref: Option<String>,

    /// The hub's tunnel address. Left out, it is learnt from the hub's first reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Address>")]
    pub tunnel_address: Option<IpAddr>,

    /// The hub's UDP port, when it differs from ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,

    /// Lower is better: traffic goes by the best hub that answers.
    #[serde(default)]
    #[schemars(range(max = 65535))]
    pub priority: u32,

    /// The identity the hub must prove (a name or `*.domain`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::IdentityPattern>")]
    pub identity: Option<String>,

    /// How packets to it are wrapped. `Auto`: in UDP, and plain GRE where that isn't answered.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "Auto"))]
    pub encapsulation: HubEncapsulation,
}

/// How packets to a hub are wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HubEncapsulation {
    /// In UDP, and plain where that isn't answered.
    #[default]
    Auto,
    /// In UDP: passes NAT. Our own hubs.
    Udp,
    /// Plain (GRE or ESP over IP): other makes of routers.
    Gre,
}
