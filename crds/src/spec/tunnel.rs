//! The overlay: networks, addresses, GRE key, phase, MTU.

use crate::text;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The overlay tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.networkV6) || !isCIDR(self.network) || !isCIDR(self.networkV6) || (cidr(self.network).ip().family() == 4 && cidr(self.networkV6).ip().family() == 6)",
        "message": "networkV6 is the IPv6 network beside an IPv4 network; write an IPv6-only overlay into network alone"
    },
    {
        "rule": "!has(self.addressesV6) || has(self.networkV6)",
        "message": "addressesV6 needs networkV6; in an IPv6-only overlay write it into addresses"
    },
    {
        "rule": "!has(self.pinnedV6) || has(self.networkV6)",
        "message": "pinnedV6 needs networkV6; in an IPv6-only overlay write it into pinned"
    },
    {
        "rule": "has(self.addresses) || has(self.pinned)",
        "message": "say which tunnel addresses nodes take: addresses (a part of network, such as 10.200.16.0/24), or pinned for each node"
    },
    {
        "rule": "!has(self.networkV6) || has(self.addressesV6) || has(self.pinnedV6)",
        "message": "networkV6 needs addressesV6 (a part of it), or pinnedV6 for each node"
    },
    {
        "rule": "!has(self.addresses) || !isCIDR(self.network) || !isCIDR(self.addresses) || cidr(self.network).containsCIDR(self.addresses)",
        "message": "addresses must lie within network"
    },
    {
        "rule": "!has(self.addressesV6) || !has(self.networkV6) || !isCIDR(self.networkV6) || !isCIDR(self.addressesV6) || cidr(self.networkV6).containsCIDR(self.addressesV6)",
        "message": "addressesV6 must lie within networkV6"
    },
    {
        "rule": "!has(self.pinned) || !isCIDR(self.network) || self.pinned.all(n, !isIP(self.pinned[n]) || cidr(self.network).containsIP(self.pinned[n]))",
        "message": "pinned addresses must lie within network"
    },
    {
        "rule": "!has(self.pinnedV6) || !has(self.networkV6) || !isCIDR(self.networkV6) || self.pinnedV6.all(n, !isIP(self.pinnedV6[n]) || cidr(self.networkV6).containsIP(self.pinnedV6[n]))",
        "message": "pinnedV6 addresses must lie within networkV6"
    },
    {
        "rule": "string(self.mtu) == 'auto' || !string(self.mtu).matches('^[0-9]+$') || int(self.mtu) >= 1280 || !(has(self.networkV6) || (isCIDR(self.network) && cidr(self.network).ip().family() == 6))",
        "message": "IPv6 needs an mtu of at least 1280; write 1280 or more, or auto"
    }
]))]
pub struct Tunnel {
    /// All tunnel addresses of this DMVPN, hubs' and spokes'. The same on every hub and spoke.
    #[schemars(with = "text::Cidr")]
    pub network: IpNet,

    /// The IPv6 network of a DMVPN that carries both IP versions in its tunnel addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Cidr>")]
    pub network_v6: Option<IpNet>,

    /// The part of `network` that the nodes of this resource take their tunnel addresses from. Without Kubernetes a
    /// single host (`10.200.16.1/32`), or any part together with `pinned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Cidr>")]
    pub addresses: Option<IpNet>,

    /// As `addresses`, from `networkV6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Cidr>")]
    pub addresses_v6: Option<IpNet>,

    /// Tunnel addresses kept for certain nodes, by node name: a replacement of the same name gets the same address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, text::Address>", extend("maxProperties" = 1024))]
    pub pinned: BTreeMap<String, IpAddr>,

    /// As `pinned`, from `networkV6`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, text::Address>", extend("maxProperties" = 1024))]
    pub pinned_v6: BTreeMap<String, IpAddr>,

    /// GRE key (RFC 2890), the same on every hub and spoke. Left out, no key is sent, which is not key 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u32>,

    /// DMVPN phase. 1: all traffic goes by the hub. 2: spokes resolve next hops that routing preserved. 3: the hub
    /// redirects and spokes install shortcuts. The same on every hub and spoke.
    #[serde(default)]
    pub phase: Phase,

    /// MTU of the tunnel interface: octets of an inner IP packet (576 to 9216), or `auto` for what the underlay leaves.
    #[serde(default)]
    pub mtu: Mtu,

    /// TTL (hop limit) of outer packets.
    #[serde(default = "default_ttl")]
    #[schemars(range(min = 1))]
    pub ttl: u8,

    /// Name of the tunnel interface. Nodes that are in several DMVPNs need one for each.
    #[serde(default = "default_interface")]
    #[schemars(with = "text::InterfaceName")]
    pub interface: String,
}

const fn default_ttl() -> u8 {
    64
}

fn default_interface() -> String {
    "dmvpn0".to_owned()
}

/// DMVPN phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// All traffic goes by the hub.
    One,
    /// Spokes resolve next hops that routing preserved.
    Two,
    /// The hub redirects, spokes install shortcuts.
    #[default]
    Three,
}

impl Phase {
    /// 1, 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

impl Serialize for Phase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for Phase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            3 => Ok(Self::Three),
            other => Err(D::Error::custom(format!("phase {other}: write 1, 2 or 3"))),
        }
    }
}

impl JsonSchema for Phase {
    fn schema_name() -> Cow<'static, str> {
        "Phase".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "enum": [1, 2, 3]})
    }
}

/// MTU of the tunnel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtu {
    /// What the underlay leaves.
    #[default]
    Auto,
    /// Octets of an inner IP packet.
    Octets(u16),
}

impl Mtu {
    /// The octets, when they were given.
    #[must_use]
    pub const fn octets(self) -> Option<u16> {
        match self {
            Self::Auto => None,
            Self::Octets(octets) => Some(octets),
        }
    }
}

impl Serialize for Mtu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Octets(octets) => serializer.serialize_u16(*octets),
        }
    }
}

impl<'de> Deserialize<'de> for Mtu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u16),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Number(octets) => Ok(Self::Octets(octets)),
            Raw::Text(text) if text == "auto" => Ok(Self::Auto),
            Raw::Text(text) => text
                .parse()
                .map(Self::Octets)
                .map_err(|_| D::Error::custom(format!("mtu {text:?}: write auto or 576 to 9216"))),
        }
    }
}

impl JsonSchema for Mtu {
    fn schema_name() -> Cow<'static, str> {
        "Mtu".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 5,
            "x-kubernetes-validations": [{
                "rule": "string(self) == 'auto' || (string(self).matches('^[0-9]{3,4}$') && int(self) >= 576 && int(self) <= 9216)",
                "message": "write auto, or the octets of an inner IP packet: 576 to 9216"
            }]
        })
    }
}
