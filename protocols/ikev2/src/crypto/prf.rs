//! Pseudorandom functions (RFC 7296 §2.13).

use super::Secret;
use hmac::digest::Key;
use hmac::digest::block_api::EagerHash;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

/// HMAC (RFC 2104) with a hash of SHA-2 (RFC 4868).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256.
    HmacSha256,
    /// PRF_HMAC_SHA2_384.
    HmacSha384,
}

impl Prf {
    /// All of them, cheapest first.
    pub const ALL: [Self; 2] = [Self::HmacSha256, Self::HmacSha384];

    /// Octets of its output; keys derived for it are as long.
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
        }
    }

    /// `prf(key, parts joined)`.
    #[must_use]
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        match self {
            Self::HmacSha256 => mac::<Sha256>(key, parts),
            Self::HmacSha384 => mac::<Sha384>(key, parts),
        }
    }

    /// `prf+(key, parts joined)`, so many octets of it; at most 255 times [`Self::output_len`], which no keys here need.
    ///
    /// ```text
    /// //= rfc7296#2.13
    /// prf+ (K,S) = T1 | T2 | T3 | T4 | ...
    /// where:
    /// T1 = prf (K, S | 0x01)
    /// T2 = prf (K, T1 | S | 0x02)
    /// ```
    #[must_use]
    pub fn expand(self, key: &[u8], parts: &[&[u8]], octets: usize) -> Secret {
        match self {
            Self::HmacSha256 => expand::<Sha256>(key, parts, octets),
            Self::HmacSha384 => expand::<Sha384>(key, parts, octets),
        }
    }
}

pub(super) fn mac<H: EagerHash + Digest>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac = keyed::<H>(key);
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

fn expand<H: EagerHash + Digest>(key: &[u8], parts: &[&[u8]], octets: usize) -> Secret {
    let keyed = keyed::<H>(key);
    // With its final capacity from the start: a vector that grows leaves copies of secrets behind.
    let block = <H as Digest>::output_size();
    let mut out: Secret = Zeroizing::new(Vec::with_capacity(octets + block));
    for counter in 1..=u8::MAX {
        if out.len() >= octets {
            break;
        }
        let mut mac = keyed.clone();
        mac.update(out.get(out.len().saturating_sub(block)..).unwrap_or_default());
        parts.iter().for_each(|part| mac.update(part));
        mac.update(&[counter]);
        out.extend_from_slice(&Zeroizing::new(mac.finalize().into_bytes()));
    }
    out.truncate(octets);
    out
}

/// An HMAC with a key of any length: a long one is hashed, a short one is padded (RFC 2104 §2).
fn keyed<H: EagerHash + Digest>(key: &[u8]) -> Hmac<H> {
    let mut block = Zeroizing::new(Key::<Hmac<H>>::default());
    match block.get_mut(..key.len()) {
        Some(start) => start.copy_from_slice(key),
        None => block.iter_mut().zip(H::digest(key)).for_each(|(octet, hashed)| *octet = hashed),
    }
    Hmac::new(&block)
}
