//! AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634) by ring. Both compose nonce and additional data in one way.
//!
//! ```text
//! nonce:            salt (4, from IKE, never sent) | IV (8, in the packet)
//! additional data:  SPI (4) | sequence number (4; with ESN all 8 octets of it)
//! ```
//!
//! ring does not wipe its keys when they are dropped, and offers no way to; the salt is wiped.

use crate::cipher::{Cipher, Place, Refused};
use ring::aead::{Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use zeroize::Zeroizing;

const SALT_LEN: usize = 4;
const IV_LEN: usize = 8;
const ICV_LEN: usize = 16;

pub(crate) struct Aead {
    key: LessSafeKey,
    salt: Zeroizing<[u8; SALT_LEN]>,
}

impl Aead {
    /// `material` is the key and then the salt (RFC 4106 §8.1, RFC 7634 §2); `None` if its length is another.
    pub(crate) fn new(algorithm: &'static Algorithm, material: &[u8]) -> Option<Self> {
        let (key, salt) = material.split_last_chunk()?;
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, salt: Zeroizing::new(*salt) })
    }

    #[inline]
    pub(crate) fn encrypt(
        &self,
        nonce: [u8; NONCE_LEN],
        additional: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; ICV_LEN], Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(additional), body);
        tag.ok().and_then(|tag| tag.as_ref().try_into().ok()).ok_or(Refused)
    }

    #[inline]
    pub(crate) fn decrypt(
        &self,
        nonce: [u8; NONCE_LEN],
        additional: &[u8],
        body: &mut [u8],
        icv: [u8; ICV_LEN],
    ) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let (additional, tag) = (Aad::from(additional), Tag::from(icv));
        match self.key.open_in_place_separate_tag(nonce, additional, tag, body, 0..) {
            Ok(_) => Ok(()),
            Err(ring::error::Unspecified) => Err(Refused),
        }
    }

    #[inline]
    fn nonce(&self, iv: [u8; IV_LEN]) -> [u8; NONCE_LEN] {
        let [a, b, c, d] = *self.salt;
        let [e, f, g, h, i, j, k, l] = iv;
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

impl Cipher for Aead {
    //= rfc4106#3.1
    // For a given key, the IV MUST NOT repeat. (Ours is the sequence number, which never cycles.)
    #[inline]
    fn seal(&self, place: Place, iv: &mut [u8], body: &mut [u8], icv: &mut [u8]) -> Result<(), Refused> {
        let iv: &mut [u8; IV_LEN] = iv.try_into().map_err(|_| Refused)?;
        let icv: &mut [u8; ICV_LEN] = icv.try_into().map_err(|_| Refused)?;
        *iv = place.sequence.to_be_bytes();
        *icv = self.encrypt(self.nonce(*iv), Additional::of(place).as_slice(), body)?;
        Ok(())
    }

    #[inline]
    fn open(&self, place: Place, iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), Refused> {
        let iv = iv.try_into().map_err(|_| Refused)?;
        let icv = icv.try_into().map_err(|_| Refused)?;
        self.decrypt(self.nonce(iv), Additional::of(place).as_slice(), body, icv)
    }
}

/// What is authenticated beside the ciphertext.
enum Additional {
    Short([u8; 8]),
    Long([u8; 12]),
}

impl Additional {
    //= rfc4106#5
    // The additional authenticated data is the SPI and then the (extended) sequence number, high half first.
    #[inline]
    fn of(place: Place) -> Self {
        let [a, b, c, d, e, f, g, h] = place.header();
        let [i, j, k, l] = place.high();
        if place.esn {
            Self::Long([a, b, c, d, i, j, k, l, e, f, g, h])
        } else {
            Self::Short([a, b, c, d, e, f, g, h])
        }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(octets) => octets,
            Self::Long(octets) => octets,
        }
    }
}
