//! Keys of an IKE SA and of its children (RFC 7296 §2.14, §2.17, §2.18).

use super::{IkeSuite, Secret};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// The secrets of an IKE SA.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeKeys {
    /// The SA's algorithms.
    pub suite: IkeSuite,
    /// SK_d: children's keys come from it.
    pub derivation: Secret,
    /// What protects messages of the IKE SA's initiator.
    pub initiator: SideKeys,
    /// What protects messages of its responder.
    pub responder: SideKeys,
}

/// The secrets of one end of an IKE SA.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideKeys {
    /// SK_a: empty with a cipher that needs none.
    pub integrity: Secret,
    /// SK_e: with an AEAD cipher the key, then the salt.
    pub encryption: Secret,
    /// SK_p: binds the identity to the exchange (AUTH).
    pub authentication: Secret,
}

/// Keying material of a pair of child SAs, each [`esp::Suite::key_len`] octets.
pub struct ChildKeys {
    /// For packets from the initiator of the *exchange* that made the SAs.
    pub initiator: Secret,
    /// For packets from its responder.
    pub responder: Secret,
}

/// What an exchange of keys contributes.
#[derive(Clone, Copy)]
pub struct Nonces<'a> {
    /// Ni.
    pub initiator: &'a [u8],
    /// Nr.
    pub responder: &'a [u8],
}

impl IkeKeys {
    /// Keys from IKE_SA_INIT; `spis` are the initiator's and the responder's.
    ///
    /// ```text
    /// //= rfc7296#2.14
    /// SKEYSEED = prf(Ni | Nr, g^ir)
    /// ```
    #[must_use]
    pub fn initial(suite: IkeSuite, shared: &[u8], nonces: Nonces<'_>, spis: (u64, u64)) -> Self {
        let key = Zeroizing::new([nonces.initiator, nonces.responder].concat());
        let seed = suite.prf.mac(&key, &[shared]);
        Self::expand(suite, &seed, nonces, spis)
    }

    /// Keys of the IKE SA that replaces this one; `spis` are the new ones, of the initiator and the responder of the
    /// exchange that makes it.
    ///
    /// ```text
    /// //= rfc7296#2.18
    /// SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)
    /// ```
    #[must_use]
    pub fn rekeyed(&self, suite: IkeSuite, shared: &[u8], nonces: Nonces<'_>, spis: (u64, u64)) -> Self {
        //= rfc7296#2.18
        //# Because the rekeying exchange belongs to the old IKE SA, it is the old IKE SA's PRF that is used to generate
        //# SKEYSEED.
        let seed = self.suite.prf.mac(&self.derivation, &[shared, nonces.initiator, nonces.responder]);
        Self::expand(suite, &seed, nonces, spis)
    }

    /// Keys of a child; `shared` is there when the exchange had KE payloads (perfect forward secrecy).
    ///
    /// ```text
    /// //= rfc7296#2.17
    /// KEYMAT = prf+(SK_d, g^ir (new) | Ni | Nr )
    /// ```
    #[must_use]
    pub fn child(&self, suite: esp::Suite, shared: Option<&[u8]>, nonces: Nonces<'_>) -> ChildKeys {
        let parts = [shared.unwrap_or_default(), nonces.initiator, nonces.responder];
        let material = self.suite.prf.expand(&self.derivation, &parts, 2 * suite.key_len());
        //= rfc7296#2.17
        //# All keys for SAs carrying data from the initiator to the responder are taken before SAs going from the
        //# responder to the initiator.
        let (initiator, responder) = material.split_at(suite.key_len());
        ChildKeys {
            initiator: Zeroizing::new(initiator.to_vec()),
            responder: Zeroizing::new(responder.to_vec()),
        }
    }

    /// One end's keys.
    #[must_use]
    pub const fn side(&self, initiator: bool) -> &SideKeys {
        if initiator { &self.initiator } else { &self.responder }
    }

    /// A line of Wireshark's `ikev2_decryption_table`.
    #[must_use]
    pub fn wireshark(&self, spis: (u64, u64)) -> String {
        let (initiator, responder) = (&self.initiator, &self.responder);
        let (encryption, integrity) = self.suite.cipher.wireshark();
        format!(
            "{:016x},{:016x},{},{},\"{encryption}\",{},{},\"{integrity}\"",
            spis.0,
            spis.1,
            hex(&initiator.encryption),
            hex(&responder.encryption),
            hex(&initiator.integrity),
            hex(&responder.integrity),
        )
    }

    /// ```text
    /// //= rfc7296#2.14
    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr )
    /// ```
    fn expand(suite: IkeSuite, seed: &[u8], nonces: Nonces<'_>, spis: (u64, u64)) -> Self {
        let IkeSuite { cipher, prf, .. } = suite;
        let (spi_i, spi_r) = (spis.0.to_be_bytes(), spis.1.to_be_bytes());
        let parts = [nonces.initiator, nonces.responder, &spi_i, &spi_r];
        let (prf_len, integrity_len, key_len) =
            (prf.output_len(), cipher.integrity_key_len(), cipher.key_len());
        let material = prf.expand(seed, &parts, 3 * prf_len + 2 * (integrity_len + key_len));
        let mut rest = material.as_slice();
        let mut next = |octets: usize| -> Secret {
            let (taken, left) = rest.split_at(octets.min(rest.len()));
            rest = left;
            Zeroizing::new(taken.to_vec())
        };
        let derivation = next(prf_len);
        let integrity = (next(integrity_len), next(integrity_len));
        let encryption = (next(key_len), next(key_len));
        let authentication = (next(prf_len), next(prf_len));
        Self {
            suite,
            derivation,
            initiator: SideKeys {
                integrity: integrity.0,
                encryption: encryption.0,
                authentication: authentication.0,
            },
            responder: SideKeys {
                integrity: integrity.1,
                encryption: encryption.1,
                authentication: authentication.1,
            },
        }
    }
}

impl fmt::Debug for IkeKeys {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeKeys({:?})", self.suite)
    }
}

impl fmt::Debug for SideKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SideKeys")
    }
}

impl fmt::Debug for ChildKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildKeys")
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut out, octet| {
        use std::fmt::Write;
        let _ = write!(out, "{octet:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Cipher, Group, Integrity, Prf};

    const NONCES: Nonces<'_> = Nonces { initiator: &[1; 32], responder: &[2; 16] };
    const SPIS: (u64, u64) = (3, 4);

    const fn suite(prf: Prf) -> IkeSuite {
        IkeSuite { cipher: Cipher::Aes256Cbc(Integrity::HmacSha384), prf, group: Group::X25519 }
    }

    /// RFC 7296 §2.13, written down once more.
    fn prf_plus(prf: Prf, key: &[u8], seed: &[u8], octets: usize) -> Vec<u8> {
        let (mut out, mut last) = (Vec::new(), Vec::new());
        for counter in 1.. {
            if out.len() >= octets {
                break;
            }
            last = prf.mac(key, &[&last, seed, &[counter]]).to_vec();
            out.extend(&last);
        }
        out.truncate(octets);
        out
    }

    //= rfc7296#2.14
    #[test]
    fn keys_are_taken_in_the_order_of_the_rfc() {
        for prf in Prf::ALL {
            let keys = IkeKeys::initial(suite(prf), b"shared", NONCES, SPIS);
            let taken = [
                &keys.derivation,
                &keys.initiator.integrity,
                &keys.responder.integrity,
                &keys.initiator.encryption,
                &keys.responder.encryption,
                &keys.initiator.authentication,
                &keys.responder.authentication,
            ];
            let taken: Vec<u8> = taken.into_iter().flat_map(|key| key.iter().copied()).collect();
            let seed = prf.mac(&[&[1; 32][..], &[2; 16]].concat(), &[b"shared"]);
            let rest = [&[1; 32][..], &[2; 16], &3u64.to_be_bytes(), &4u64.to_be_bytes()].concat();
            assert_eq!(taken, prf_plus(prf, &seed, &rest, 3 * prf.output_len() + 2 * (48 + 32)));
        }
    }

    //= rfc7296#2.18
    //# Because the rekeying exchange belongs to the old IKE SA, it is the old IKE SA's PRF that is used to generate
    //# SKEYSEED.
    #[test]
    fn the_seed_of_a_new_ike_sa_is_made_by_the_old_one_s_prf() {
        let old = IkeKeys::initial(suite(Prf::HmacSha256), b"shared", NONCES, SPIS);
        let new = old.rekeyed(suite(Prf::HmacSha384), b"fresh", NONCES, (5, 6));
        let seed = Prf::HmacSha256.mac(&old.derivation, &[b"fresh", NONCES.initiator, NONCES.responder]);
        let rest = [&[1; 32][..], &[2; 16], &5u64.to_be_bytes(), &6u64.to_be_bytes()].concat();
        assert_eq!(*new.derivation, prf_plus(Prf::HmacSha384, &seed, &rest, 48));
    }

    //= rfc7296#2.17
    #[test]
    fn a_child_s_keys_have_the_fresh_secret_in_front_and_the_initiator_s_first() {
        let keys = IkeKeys::initial(suite(Prf::HmacSha256), b"shared", NONCES, SPIS);
        for shared in [None, Some(&b"fresh"[..])] {
            let child = keys.child(esp::Suite::Aes128CbcSha256, shared, NONCES);
            let seed = [shared.unwrap_or_default(), NONCES.initiator, NONCES.responder].concat();
            let material = prf_plus(Prf::HmacSha256, &keys.derivation, &seed, 2 * 48);
            assert_eq!([&child.initiator[..], &child.responder[..]].concat(), material);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let keys = IkeKeys::initial(suite(Prf::HmacSha256), b"shared", NONCES, SPIS);
        let shown =
            format!("{keys:?} {:?} {:?}", keys.initiator, keys.child(esp::Suite::Aes128Gcm16, None, NONCES));
        assert_eq!(
            shown,
            "IkeKeys(IkeSuite { cipher: Aes256Cbc(HmacSha384), prf: HmacSha256, group: X25519 }) SideKeys ChildKeys"
        );
    }
}
