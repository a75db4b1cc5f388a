//! Peers that don't speak NHRP.

use super::is_default;
use crate::text;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A peer that doesn't speak NHRP (MikroTik, a plain Linux GRE end), mapped by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.port) || self.encapsulation == 'Udp'",
        "message": "plain GRE has no port; leave port out, or write encapsulation: Udp"
    }
]))]
pub struct StaticPeer {
    /// Its tunnel address.
    #[schemars(with = "text::Address")]
    pub tunnel_address: IpAddr,

    /// Its address on the underlay.
    #[schemars(with = "text::Address")]
    pub nbma: IpAddr,

    /// How packets to it are wrapped.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "Gre"))]
    pub encapsulation: PeerEncapsulation,

    /// Its UDP port (with `encapsulation: Udp`), when it differs from ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,

    /// What lies behind it; routes to it are installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub prefixes: Vec<IpNet>,
}

/// How packets to a static peer are wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeerEncapsulation {
    /// Plain GRE over IP.
    #[default]
    Gre,
    /// GRE in UDP (RFC 8086).
    Udp,
}
