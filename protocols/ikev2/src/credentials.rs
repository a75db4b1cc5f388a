//! How the endpoint proves who we are and learns who the peer is. Certificates and keys are somebody else's
//! (`protocols/identity`); here is only what an exchange needs of them.

use claims::Identity;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// ID payload (RFC 7296 §3.5).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Identification {
    /// ID_IPV4_ADDR, ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Email(String),
    /// ID_DER_ASN1_DN: a DER-encoded Name.
    Dn(Vec<u8>),
    /// ID_KEY_ID: opaque.
    KeyId(Vec<u8>),
}

impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => a.fmt(f),
            Self::Fqdn(name) | Self::Email(name) => f.write_str(name),
            Self::Dn(der) => write!(f, "a distinguished name of {} octets", der.len()),
            Self::KeyId(id) => id.iter().try_for_each(|b| write!(f, "{b:02x}")),
        }
    }
}

impl fmt::Debug for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hash algorithms for signatures (RFC 7427 §4, by their numbers there).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum HashAlgorithm {
    /// SHA2-256.
    Sha256,
    /// SHA2-384.
    Sha384,
    /// SHA2-512.
    Sha512,
    /// The signature's own (Ed25519, RFC 8420).
    Identity,
}

/// Authentication methods (RFC 7296 §3.8, RFC 7427 §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum AuthMethod {
    /// 1: RSA digital signature, to verify only (with SHA-256 or better; SHA-1 is refused).
    Rsa,
    /// 2: shared key message integrity code.
    SharedKey,
    /// 9: ECDSA with SHA-256 on P-256 (RFC 4754); we sign so only for peers that know no RFC 7427.
    EcdsaP256,
    /// 10: ECDSA with SHA-384 on P-384 (RFC 4754); as 9.
    EcdsaP384,
    /// 14: digital signature (RFC 7427); the data begins with the length of the algorithm identifier, and it.
    Signature,
}

/// AUTH payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authentication {
    /// How.
    pub method: AuthMethod,
    /// The whole authentication data.
    pub data: Vec<u8>,
}

/// Why a certificate or signature is refused, in a person's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertificateError(pub String);

/// What we have to prove who we are, and to judge peers by.
///
/// With a pre-shared key, `shared_key` answers and `chain` is empty; otherwise we sign.
pub trait Credentials: Send + Sync {
    /// Who we are.
    fn local_id(&self) -> Identification;

    /// Our certificates in DER, our own first. Empty: we authenticate by a pre-shared key.
    fn chain(&self) -> Vec<Vec<u8>>;

    /// SHA-1 hashes of the subject public key infos of the roots we trust: what a CERTREQ says (RFC 7296 §3.7).
    fn authorities(&self) -> Vec<[u8; 20]>;

    /// Signs with our key, by an algorithm whose hash the peer knows (SIGNATURE_HASH_ALGORITHMS; empty: it did not say,
    /// and knows no RFC 7427).
    ///
    /// # Errors
    /// We have no key, or nothing in common with the peer.
    fn sign(&self, peer_hashes: &[HashAlgorithm], octets: &[u8]) -> Result<Authentication, CertificateError>;

    /// The key shared with this peer, if peers are believed by one.
    fn shared_key(&self, remote: &Identification) -> Option<Zeroizing<Vec<u8>>>;

    /// Judges a peer that signs: is the chain one we trust at `unix_now` (seconds since 1970), does it bear the name
    /// that the peer claims, and did its key sign `octets`?
    ///
    /// # Errors
    /// Which certificate is refused, and why.
    fn verify(
        &self,
        unix_now: u64,
        claimed: &Identification,
        chain: &[Vec<u8>],
        octets: &[u8],
        authentication: &Authentication,
    ) -> Result<Identity, CertificateError>;

    /// Does what was verified before still hold (expiry, revocation, roots)? Asked of live sessions whenever
    /// credentials change, and now and then.
    ///
    /// # Errors
    /// Why not.
    fn still_holds(&self, unix_now: u64, identity: &Identity) -> Result<(), CertificateError>;
}
