//! Who a peer has proven to be.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Who a peer is, as its authentication has shown, and what its certificate lets it claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name: the DNS name its certificate bears, or what it called itself when all it proved is that it knows the
    /// pre-shared key.
    pub name: String,
    /// How it was proven.
    pub proof: Proof,
}

/// How an identity was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// By a pre-shared key: the peer is one of those who know it, and no more is known (`IdentityUnverified`).
    SharedKey,
    /// By a certificate.
    Certificate(Certified),
}

/// What a certificate says beyond the name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// Tunnel addresses it may use (IP SANs). Empty: it says none (a foreign router's), and only admission limits it.
    pub tunnel_addresses: Vec<IpAddr>,
    /// Prefixes it may claim (address blocks, RFC 3779), confined along the chain. `None`: it says nothing of
    /// prefixes (a foreign router's); such a peer is believed only through a hub that checked it.
    pub prefixes: Option<Vec<IpNet>>,
    /// SHA-256 of the certificate: names it in logs, and to whoever revokes it.
    pub fingerprint: [u8; 32],
    /// Last second of its validity and of its issuers', seconds since 1970.
    pub not_after: u64,
    /// The certificates themselves, so that they can be judged again when roots, revocations or the time have changed.
    pub chain: Chain,
}

/// Certificates in DER, the peer's own first, without the root. Cheap to clone, and peers may share those above theirs.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Vec<u8>>", into = "Vec<Vec<u8>>")]
pub struct Chain(Arc<[Arc<[u8]>]>);

impl Chain {
    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Arc<[u8]>] {
        &self.0
    }
}

impl FromIterator<Arc<[u8]>> for Chain {
    fn from_iter<I: IntoIterator<Item = Arc<[u8]>>>(certificates: I) -> Self {
        Self(certificates.into_iter().collect())
    }
}

impl From<Vec<Vec<u8>>> for Chain {
    fn from(certificates: Vec<Vec<u8>>) -> Self {
        certificates.into_iter().map(Arc::from).collect()
    }
}

impl From<Chain> for Vec<Vec<u8>> {
    fn from(chain: Chain) -> Self {
        chain.0.iter().map(|der| der.to_vec()).collect()
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}

impl Identity {
    /// The certificate's claims, if there is one.
    #[must_use]
    pub const fn certified(&self) -> Option<&Certified> {
        match &self.proof {
            Proof::Certificate(certified) => Some(certified),
            Proof::SharedKey => None,
        }
    }
}
