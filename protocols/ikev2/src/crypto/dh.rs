//! Diffie-Hellman (RFC 7296 §3.4): X25519 (RFC 8031), ECP-256 and ECP-384 (RFC 5903), MODP-2048.

use super::{Secret, modp};
use crate::codes::GroupId;
use p256::elliptic_curve::Generate;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A group of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Group {
    /// Curve25519.
    X25519,
    /// NIST P-256.
    Ecp256,
    /// NIST P-384.
    Ecp384,
    /// MODP-2048: for old routers.
    Modp2048,
}

impl Group {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::X25519, Self::Ecp256, Self::Ecp384, Self::Modp2048];

    /// Its number on the wire.
    #[must_use]
    pub const fn id(self) -> GroupId {
        match self {
            Self::X25519 => GroupId::CURVE_25519,
            Self::Ecp256 => GroupId::ECP_256,
            Self::Ecp384 => GroupId::ECP_384,
            Self::Modp2048 => GroupId::MODP_2048,
        }
    }

    /// The group with this number, if it is one of ours.
    #[must_use]
    pub fn from_id(id: GroupId) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.id() == id)
    }

    /// Octets of a public value.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Modp2048 => modp::LEN,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

/// The peer's public value is none: of a wrong length, not on the curve, or one that makes the secret known to all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the public value is invalid")]
pub struct InvalidPublicValue;

/// An ephemeral key pair: for one exchange, never stored, wiped when dropped.
pub struct KeyPair {
    private: Private,
    public: Vec<u8>,
}

enum Private {
    X25519(Box<StaticSecret>),
    Ecp256(Box<p256::ecdh::EphemeralSecret>),
    Ecp384(Box<p384::ecdh::EphemeralSecret>),
    Modp2048(Box<modp::Exponent>),
}

impl KeyPair {
    /// A fresh one.
    pub fn generate<R: CryptoRng + ?Sized>(group: Group, rng: &mut R) -> Self {
        match group {
            Group::X25519 => {
                let secret = StaticSecret::random_from_rng(rng);
                let public = PublicKey::from(&secret).to_bytes().to_vec();
                Self { private: Private::X25519(Box::new(secret)), public }
            }
            Group::Ecp256 => {
                let secret = p256::ecdh::EphemeralSecret::generate_from_rng(rng);
                let public = without_prefix(p256::Sec1Point::from(secret.public_key()).as_bytes());
                Self { private: Private::Ecp256(Box::new(secret)), public }
            }
            Group::Ecp384 => {
                let secret = p384::ecdh::EphemeralSecret::generate_from_rng(rng);
                let public = without_prefix(p384::Sec1Point::from(secret.public_key()).as_bytes());
                Self { private: Private::Ecp384(Box::new(secret)), public }
            }
            Group::Modp2048 => {
                let secret = modp::Exponent::random(rng);
                let public = secret.public();
                Self { private: Private::Modp2048(Box::new(secret)), public }
            }
        }
    }

    /// Of which group.
    #[must_use]
    pub const fn group(&self) -> Group {
        match self.private {
            Private::X25519(_) => Group::X25519,
            Private::Ecp256(_) => Group::Ecp256,
            Private::Ecp384(_) => Group::Ecp384,
            Private::Modp2048(_) => Group::Modp2048,
        }
    }

    /// What the peer is told, as a KE payload has it.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret shared with a peer.
    ///
    /// # Errors
    /// What the peer sent is no public value.
    pub fn agree(&self, peer: &[u8]) -> Result<Secret, InvalidPublicValue> {
        match &self.private {
            Private::X25519(secret) => {
                let peer: [u8; 32] = peer.try_into().map_err(|_| InvalidPublicValue)?;
                let shared = secret.diffie_hellman(&PublicKey::from(peer));
                //= rfc7748#6.1
                //# Both MAY check, without leaking extra information about the value of K, whether K is the all-zero value
                //# and abort if so
                if !shared.was_contributory() {
                    return Err(InvalidPublicValue);
                }
                Ok(Zeroizing::new(shared.as_bytes().to_vec()))
            }
            Private::Ecp256(secret) => {
                // Decoding checks that the point is on the curve, and is not the one at infinity (RFC 6989 §2.3).
                let point = with_prefix(peer, Group::Ecp256)?;
                let peer = p256::PublicKey::from_sec1_bytes(&point).map_err(|_| InvalidPublicValue)?;
                Ok(Zeroizing::new(secret.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
            }
            Private::Ecp384(secret) => {
                let point = with_prefix(peer, Group::Ecp384)?;
                let peer = p384::PublicKey::from_sec1_bytes(&point).map_err(|_| InvalidPublicValue)?;
                Ok(Zeroizing::new(secret.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
            }
            Private::Modp2048(exponent) => exponent.agree(peer).ok_or(InvalidPublicValue),
        }
    }
}

impl fmt::Debug for KeyPair {
    /// Without the private half.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.group())
    }
}

/// SEC 1 marks an uncompressed point by an octet that RFC 5903 §7 leaves out.
const UNCOMPRESSED: u8 = 4;

fn with_prefix(value: &[u8], group: Group) -> Result<Vec<u8>, InvalidPublicValue> {
    if value.len() != group.public_len() {
        return Err(InvalidPublicValue);
    }
    Ok([&[UNCOMPRESSED], value].concat())
}

fn without_prefix(point: &[u8]) -> Vec<u8> {
    point.get(1..).unwrap_or_default().to_vec()
}
