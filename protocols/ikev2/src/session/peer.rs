//! What we know of the program at the other end.

use crate::Message;
use crate::codes::NotifyType;
use crate::payload::{Notify, Payload};
use crate::{HashAlgorithm, settings::Settings};
use serde::{Deserialize, Serialize};

/// Ours say so by a vendor ID (RFC 7296 §3.12): a name, a version, how many lanes, and the session's generation.
const VENDOR: &[u8] = b"kube-dmvpn\x01";

/// What a peer can do; known from IKE_SA_INIT, which AUTH covers.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Traits {
    /// It is one of ours.
    pub ours: Option<Ours>,
    /// It reads fragments (RFC 7383).
    pub fragmentation: bool,
    /// Hash algorithms it verifies signatures with (RFC 7427).
    pub hashes: Vec<HashAlgorithm>,
}

/// What one of ours adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Ours {
    /// Child SAs it wants, at most: one for each worker (RFC 9611).
    pub lanes: u16,
    /// The session is to replace those of a lower generation on the same path.
    pub generation: u16,
}

impl Traits {
    /// Reads them from IKE_SA_INIT.
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            ours: message.payloads.iter().find_map(|p| match p {
                Payload::Vendor(data) => ours(data),
                _ => None,
            }),
            fragmentation: message.notify(NotifyType::FRAGMENTATION_SUPPORTED).is_some(),
            hashes: message
                .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)
                .map(|n| hashes(&n.data))
                .unwrap_or_default(),
        }
    }

    /// Lanes of a session with such a peer.
    pub(crate) fn lanes(&self, settings: &Settings) -> u16 {
        self.ours.map_or(1, |ours| ours.lanes.min(settings.lanes())).max(1)
    }

    /// What we say about ourselves.
    pub(crate) fn tell(settings: &Settings, generation: u16) -> [Payload; 3] {
        let hashes =
            [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512, HashAlgorithm::Identity];
        let mut vendor = VENDOR.to_vec();
        vendor.extend_from_slice(&settings.lanes().to_be_bytes());
        vendor.extend_from_slice(&generation.to_be_bytes());
        [
            Payload::Notify(Notify::empty(NotifyType::FRAGMENTATION_SUPPORTED)),
            Payload::Notify(Notify::new(
                NotifyType::SIGNATURE_HASH_ALGORITHMS,
                hashes.iter().flat_map(|h| number(*h).to_be_bytes()).collect(),
            )),
            Payload::Vendor(vendor),
        ]
    }
}

fn ours(data: &[u8]) -> Option<Ours> {
    match data.strip_prefix(VENDOR)? {
        &[a, b, c, d, ..] => {
            Some(Ours { lanes: u16::from_be_bytes([a, b]), generation: u16::from_be_bytes([c, d]) })
        }
        _ => None,
    }
}

/// RFC 7427 §4, and RFC 8420 §2.
const fn number(hash: HashAlgorithm) -> u16 {
    match hash {
        HashAlgorithm::Sha256 => 2,
        HashAlgorithm::Sha384 => 3,
        HashAlgorithm::Sha512 => 4,
        HashAlgorithm::Identity => 5,
    }
}

fn hashes(data: &[u8]) -> Vec<HashAlgorithm> {
    let known =
        [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512, HashAlgorithm::Identity];
    let told = |hash: &HashAlgorithm| data.chunks_exact(2).any(|n| n == number(*hash).to_be_bytes());
    known.into_iter().filter(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_algorithms_that_we_do_not_know_are_passed_over() {
        assert_eq!(hashes(&[0, 1, 0, 2, 0, 5, 9, 9, 0]), [HashAlgorithm::Sha256, HashAlgorithm::Identity]);
    }

    #[test]
    fn a_strangers_vendor_id_is_not_ours() {
        assert_eq!(ours(b"strongSwan"), None);
        assert_eq!(ours(b"kube-dmvpn\x01\0"), None);
        assert_eq!(ours(b"kube-dmvpn\x01\0\x04\0\x01more"), Some(Ours { lanes: 4, generation: 1 }));
    }
}
