//! Where outer packets leave and arrive.

use crate::text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The network that carries the tunnel. At most one of `addressFrom`, `interface` and `address`; without any, each node
/// uses the source address of its route to the first hub (a hub: of its default route).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.addressFrom) ? 1 : 0) + (has(self.interface) ? 1 : 0) + (has(self.address) ? 1 : 0) <= 1",
        "message": "keep one of addressFrom, interface and address"
    }
]))]
pub struct Underlay {
    /// Which address of the Node object outer packets use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_from: Option<AddressFrom>,

    /// Use the address of this network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::InterfaceName>")]
    pub interface: Option<String>,

    /// Use exactly this address. Fits one node only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::Address>")]
    pub address: Option<IpAddr>,

    /// UDP port we send from and receive on. Default: 4500 with encryption, 4754 (RFC 8086) with `mode: None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,

    /// (Encrypted) UDP port for IKE with peers that send ESP without UDP, mostly other makes of routers; 0: none.
    /// Default: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_port: Option<u16>,

    /// The address peers should use, by node name, where a 1:1 NAT stands in front of the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, text::Address>", extend("maxProperties" = 1024))]
    pub advertise: BTreeMap<String, IpAddr>,
}

/// Which address of a Node object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressFrom {
    /// Its first address of type `ExternalIP`.
    ExternalIP,
    /// Its first address of type `InternalIP`.
    InternalIP,
}
