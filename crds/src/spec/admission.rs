//! Who may claim what at a hub.

use crate::text;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A class of peers and the bounds of what its members may claim. What a single peer may claim is in its certificate,
/// within these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionClass {
    /// Whose names match this pattern: `*.branch.example.com` is one more label, `*` alone is everyone.
    #[schemars(with = "text::IdentityPattern")]
    pub identity: String,

    /// Tunnel addresses they may register. None given: any of the tunnel's networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub tunnel_addresses: Vec<IpNet>,

    /// Prefixes they may announce or answer for, and use as source. None given: nothing but their tunnel address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<text::Cidr>", length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub prefixes: Vec<IpNet>,
}
