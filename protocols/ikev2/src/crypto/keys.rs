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
