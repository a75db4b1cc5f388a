//! How prefixes become known.

use super::is_default;
use crate::text;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// How prefixes become known. Neither: a routing daemon of your own on the interface, or NHRP alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// The built-in BGP speaker. Hubs accept whoever connects from the tunnel network; spokes connect to their hubs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<Bgp>,

    /// Routes by hand.
    #[serde(default, rename = "static", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["prefix"]))]
    pub static_routes: Vec<StaticRoute>,
}

/// The built-in BGP speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!self.holdTime.matches('^([0-9]{1,8}(h|m|s))+$') || duration(self.holdTime) == duration('0s') || (duration(self.holdTime) >= duration('3s') && duration(self.holdTime) <= duration('65535s'))",
        "message": "holdTime is 3s to 65535s, or 0s for none (RFC 4271)"
    },
    {
        "rule": "!self.gracefulRestart.matches('^([0-9]{1,8}(h|m|s))+$') || duration(self.gracefulRestart) <= duration('4095s')",
        "message": "gracefulRestart is at most 4095s (RFC 4724); 0s turns it off"
    }
]))]
pub struct Bgp {
    /// Our AS number. The hubs' own number: iBGP, and hubs reflect. Another: eBGP; spokes may share one.
    #[schemars(range(min = 1))]
    pub asn: u32,

    /// TCP port. Another than 179 where something else holds it (Calico's BIRD does); the same on every hub and spoke.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub port: u16,

    /// Hold time; keepalives are sent after a third of it.
    #[serde(default = "default_hold_time", with = "text::duration")]
    #[schemars(with = "text::Duration")]
    pub hold_time: Duration,

    /// How long peers keep our routes while we restart (RFC 4724).
    #[serde(default = "default_graceful_restart", with = "text::duration")]
    #[schemars(with = "text::Duration")]
    pub graceful_restart: Duration,

    /// (Hub) announce these to spokes in place of the more specific prefixes they cover. Not in phase 2, which needs
    /// the specific ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub summaries: Vec<IpNet>,

    /// (Spoke) accept paths that hold our own AS number, for hubs that don't replace it while spokes share one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_own_asn: bool,
}

const fn default_port() -> u16 {
    179
}

const fn default_hold_time() -> Duration {
    Duration::from_secs(90)
}

const fn default_graceful_restart() -> Duration {
    Duration::from_secs(120)
}

/// A route by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticRoute {
    /// Destination.
    #[schemars(with = "text::Cidr")]
    pub prefix: IpNet,
    /// Tunnel address of the next hop.
    #[schemars(with = "text::Address")]
    pub via: IpAddr,
}
