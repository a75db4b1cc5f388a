//! Encryption and identity.

use super::is_default;
use crate::text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Encryption and identity. That `Encrypted` has credentials is a rule of whoever has a `Security`, so that leaving it
/// out altogether is caught too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.ike) || self.ike.all(p, !p.matches('(^|-)(3?des|blowfish[0-9]*|cast[0-9]*|rc4|null|(prf)?(md5|sha1?|aesxcbc|aescmac)|modp(512|768|1024|1536)|ecp192)(_[0-9]+)?(-|$)'))",
        "message": "DES, 3DES, MD5, SHA-1, NULL and groups below modp2048 don't exist here; write such as aes256gcm16-prfsha384-x25519, or aes256-sha256-modp2048 for old routers",
        "fieldPath": ".ike"
    },
    {
        "rule": "!has(self.esp) || self.esp.all(p, !p.matches('(^|-)(3?des|blowfish[0-9]*|cast[0-9]*|rc4|null|md5|sha1?|aesxcbc|aescmac|modp(512|768|1024|1536)|ecp192)(_[0-9]+)?(-|$)'))",
        "message": "DES, 3DES, MD5, SHA-1, NULL and groups below modp2048 don't exist here; write aes128gcm16, aes256gcm16 or chacha20poly1305, or aes256-sha256 for old routers",
        "fieldPath": ".esp"
    }
]))]
pub struct Security {
    /// `Encrypted`: IKEv2 and ESP, nothing leaves in clear. `None`: everything leaves in clear and nobody proves who
    /// they are; it must be asked for.
    #[serde(default)]
    pub mode: SecurityMode,

    /// IKE proposals by preference, as strongSwan names them.
    #[serde(default = "default_ike")]
    #[schemars(length(min = 1, max = 8), inner(length(max = 64), regex(pattern = r"^[a-z0-9_]+(-[a-z0-9_]+)*$")), extend("x-kubernetes-list-type" = "set"))]
    pub ike: Vec<String>,

    /// ESP proposals by preference, as strongSwan names them.
    #[serde(default = "default_esp")]
    #[schemars(length(min = 1, max = 8), inner(length(max = 64), regex(pattern = r"^[a-z0-9_]+(-[a-z0-9_]+)*$")), extend("x-kubernetes-list-type" = "set"))]
    pub esp: Vec<String>,

    /// How nodes prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,

    /// Domain that, appended to a node's name, makes its identity (`a-1` and `branch.example.com`: `a-1.branch.example.com`).
    /// Left out, the identity is the DNS name in the node's certificate; without a certificate, the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 190),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$")
    )]
    pub domain: Option<String>,

    /// How ESP travels to peers that begin with us. `Udp`: always in UDP, which every firewall and NAT knows how to treat;
    /// IKE can only ask for that by telling the peer of a NAT that isn't there. `Auto`: in UDP where IKE finds a NAT or was
    /// begun on the UDP port, otherwise as it is (IP protocol 50), for routers that want it so. How we begin ourselves is
    /// said for each hub (`hubs[].encapsulation`); a hub reached by `Gre` must not ask for UDP.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "Udp"))]
    pub encapsulation: EspEncapsulation,

    /// When keys are replaced, at the latest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rekey: Rekey,

    /// Write the keys of every SA into files that Wireshark reads (below `keys` in the agent's run directory). Whoever
    /// has them reads all traffic: for a search of a fault, not for operation; it is said in an event and in the log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub export_keys: bool,
}

/// When keys are replaced, at the latest; nothing is lost by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rekey {
    /// Keys of ESP, by which packets are encrypted.
    #[serde(with = "text::duration")]
    #[schemars(with = "text::Duration", extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]{1,8}(h|m|s|ms))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "message": "write a duration from 1s to 24h, such as 1h"
    }]))]
    pub child: Duration,

    /// Keys of IKE, by which sessions are held.
    #[serde(with = "text::duration")]
    #[schemars(with = "text::Duration", extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]{1,8}(h|m|s|ms))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "message": "write a duration from 1s to 24h, such as 4h"
    }]))]
    pub ike: Duration,
}

impl Default for Rekey {
    fn default() -> Self {
        Self { child: Duration::from_secs(3600), ike: Duration::from_secs(4 * 3600) }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self {
            mode: SecurityMode::default(),
            ike: default_ike(),
            esp: default_esp(),
            authentication: None,
            domain: None,
            encapsulation: EspEncapsulation::default(),
            rekey: Rekey::default(),
            export_keys: false,
        }
    }
}

/// IKE proposals when none are given.
#[must_use]
pub fn default_ike() -> Vec<String> {
    vec!["aes256gcm16-prfsha384-x25519".to_owned()]
}

/// ESP proposals when none are given.
#[must_use]
pub fn default_esp() -> Vec<String> {
    ["aes128gcm16", "aes256gcm16", "chacha20poly1305"].map(str::to_owned).to_vec()
}

/// Is the overlay encrypted?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecurityMode {
    /// IKEv2 and ESP.
    #[default]
    Encrypted,
    /// In clear, identities unproven.
    None,
}

/// How ESP travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EspEncapsulation {
    /// In UDP (RFC 3948), NAT or not.
    #[default]
    Udp,
    /// In UDP where it has to be.
    Auto,
}

/// How nodes prove who they are: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.certificates) != has(self.preSharedKey)",
        "message": "write either certificates or preSharedKey"
    }
]))]
pub struct Authentication {
    /// Certificates: each node has a key of its own, and its certificate says who it is and what it may claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,

    /// One key for all. Works with old routers and in labs; peers are marked `IdentityUnverified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_shared_key: Option<PreSharedKey>,
}

/// Where nodes' certificates come from and whose they trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.issuedBy == 'Operator') == has(self.caSecret)",
        "message": "caSecret goes with issuedBy: Operator: name the Secret (tls.crt, tls.key) of the CA that signs the nodes' certificates"
    },
    {
        "rule": "(self.issuedBy == 'Secret') == has(self.secret)",
        "message": "secret goes with issuedBy: Secret: name the Secret (tls.crt, tls.key) that holds the node's own certificate"
    },
    {
        "rule": "(self.issuedBy == 'CertManager') == has(self.issuerRef)",
        "message": "issuerRef goes with issuedBy: CertManager: name the Issuer or ClusterIssuer"
    },
    {
        "rule": "self.issuedBy != 'Secret' || !has(self.issuedAfter)",
        "message": "issuedAfter renews certificates that nodes ask for; with issuedBy: Secret, replace the Secret"
    }
]))]
pub struct Certificates {
    /// Who signs nodes' certificates.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "Operator"))]
    pub issued_by: IssuedBy,

    /// (`Operator`) Secret with the CA that signs, confined by its own name constraints and address blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<text::SecretRef>")]
    pub ca_secret: Option<String>,

    /// (`Secret`) Secret (`tls.crt`, `tls.key`) with the node's certificate, those between it and a root, and its key;
    /// `{node}` in the name stands for the node's name. Without Kubernetes also `file:` and a folder of these two files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub secret: Option<String>,

    /// (`CertManager`) issuer to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,

    /// (`Operator`, `CertManager`) nodes replace a certificate that they got before this time, and its key, without loss. Set
    /// it to now to renew all at once, as when their CA was replaced; a time to come is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_after: Option<Time>,

    /// Secret with the roots by which peers' certificates are judged (`ca.crt`) and, if there are any, their lists of
    /// revoked certificates (`crl.pem`). Without Kubernetes also `file:` and a folder of these files.
    #[schemars(with = "text::SecretRef")]
    pub trust: String,

    /// What becomes of a peer when no current list says whether its certificate was revoked. `IfPresent`: it is believed;
    /// whom a list names is refused, also by a list that is out of date. `Required`: it is refused, so every CA, the
    /// roots too, needs a list in `crl.pem`, and each is to be replaced before it runs out.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "IfPresent"))]
    pub revocation: Revocation,
}

/// What becomes of a peer when there is no current list of revoked certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Revocation {
    /// It is believed.
    #[default]
    IfPresent,
    /// It is refused.
    Required,
}

/// Who signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IssuedBy {
    /// Our operator, with the cluster's CA.
    #[default]
    Operator,
    /// Somebody else, who puts the result into a Secret.
    Secret,
    /// cert-manager.
    CertManager,
}

/// A cert-manager issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// `Issuer` (in the release's namespace) or `ClusterIssuer`.
    #[serde(default = "default_issuer_kind")]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn default_issuer_kind() -> String {
    "ClusterIssuer".to_owned()
}

/// A key that all share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreSharedKey {
    /// Secret with the key (`psk`).
    #[schemars(with = "text::SecretRef")]
    pub secret: String,
}
