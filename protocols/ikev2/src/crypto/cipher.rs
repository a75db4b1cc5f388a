//! Ciphers of the IKE SA: one octet string in, one out. How it stands in a message is `protection.rs`.

use super::SideKeys;
use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use aes::{Aes128, Aes256};
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha384};
use subtle::ConstantTimeEq;

/// How messages of an IKE SA are protected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Cipher {
    /// AES-128-GCM with a 16-octet ICV (RFC 5282).
    Aes128Gcm16,
    /// AES-256-GCM with a 16-octet ICV (RFC 5282).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-128-CBC (RFC 3602), encrypt then MAC.
    Aes128Cbc(Integrity),
    /// AES-256-CBC (RFC 3602), encrypt then MAC.
    Aes256Cbc(Integrity),
}

/// What protects the integrity of messages under AES-CBC (RFC 4868).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Integrity {
    /// AUTH_HMAC_SHA2_256_128.
    HmacSha256,
    /// AUTH_HMAC_SHA2_384_192.
    HmacSha384,
}

/// What could not be sealed or opened. No more is said, least of all to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CipherError;

/// Octets of an AES block.
const BLOCK: usize = 16;

/// Octets of an AEAD cipher's salt, at the end of its key.
const SALT: usize = 4;

impl Cipher {
    /// Octets of SK_e.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16 + SALT,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32 + SALT,
            Self::Aes128Cbc(_) => 16,
            Self::Aes256Cbc(_) => 32,
        }
    }

    /// Octets of SK_a.
    #[must_use]
    pub const fn integrity_key_len(self) -> usize {
        match self.integrity() {
            None => 0,
            Some(Integrity::HmacSha256) => 32,
            Some(Integrity::HmacSha384) => 48,
        }
    }

    /// The separate integrity algorithm; none with an AEAD cipher.
    #[must_use]
    pub const fn integrity(self) -> Option<Integrity> {
        match self {
            Self::Aes128Cbc(integrity) | Self::Aes256Cbc(integrity) => Some(integrity),
            _ => None,
        }
    }

    /// Octets of the IV in front of the ciphertext.
    pub(super) const fn iv_len(self) -> usize {
        if self.integrity().is_some() { BLOCK } else { 8 }
    }

    /// Octets of the ICV behind it.
    pub(super) const fn icv_len(self) -> usize {
        match self.integrity() {
            None | Some(Integrity::HmacSha256) => 16,
            Some(Integrity::HmacSha384) => 24,
        }
    }

    /// The plaintext is padded to a multiple of so many octets.
    pub(super) const fn block_len(self) -> usize {
        if self.integrity().is_some() { BLOCK } else { 1 }
    }

    /// Names of encryption and integrity in Wireshark's `ikev2_decryption_table`. (It knows no ChaCha20-Poly1305 there.)
    pub(super) const fn wireshark(self) -> (&'static str, &'static str) {
        const NONE: &str = "NONE [RFC4306]";
        match self {
            Self::Aes128Gcm16 => ("AES-GCM-128 with 16 octet ICV [RFC5282]", NONE),
            Self::Aes256Gcm16 => ("AES-GCM-256 with 16 octet ICV [RFC5282]", NONE),
            Self::ChaCha20Poly1305 => ("ChaCha20-Poly1305 [RFC7634]", NONE),
            Self::Aes128Cbc(integrity) => ("AES-CBC-128 [RFC3602]", integrity.wireshark()),
            Self::Aes256Cbc(integrity) => ("AES-CBC-256 [RFC3602]", integrity.wireshark()),
        }
    }

    /// Encrypts what stands in `message` from `body` on (the IV, and padded plaintext), and appends the ICV, which
    /// covers all that stands in front of it too.
    pub(super) fn seal(self, keys: &SideKeys, message: &mut Vec<u8>, body: usize) -> Result<(), CipherError> {
        match self {
            Self::Aes128Gcm16 => seal_aead::<Aes128Gcm>(keys, message, body),
            Self::Aes256Gcm16 => seal_aead::<Aes256Gcm>(keys, message, body),
            Self::ChaCha20Poly1305 => seal_aead::<ChaCha20Poly1305>(keys, message, body),
            Self::Aes128Cbc(integrity) => seal_cbc::<cbc::Encryptor<Aes128>>(integrity, keys, message, body),
            Self::Aes256Cbc(integrity) => seal_cbc::<cbc::Encryptor<Aes256>>(integrity, keys, message, body),
        }
    }

    /// Undoes [`Self::seal`]: checks the ICV, and decrypts in place. Returns the padded plaintext.
    pub(super) fn open<'a>(
        self,
        keys: &SideKeys,
        message: &'a mut [u8],
        body: usize,
    ) -> Result<&'a [u8], CipherError> {
        match self {
            Self::Aes128Gcm16 => open_aead::<Aes128Gcm>(keys, message, body),
            Self::Aes256Gcm16 => open_aead::<Aes256Gcm>(keys, message, body),
            Self::ChaCha20Poly1305 => open_aead::<ChaCha20Poly1305>(keys, message, body),
            Self::Aes128Cbc(integrity) => open_cbc::<cbc::Decryptor<Aes128>>(integrity, keys, message, body),
            Self::Aes256Cbc(integrity) => open_cbc::<cbc::Decryptor<Aes256>>(integrity, keys, message, body),
        }
    }
}

impl Integrity {
    const fn wireshark(self) -> &'static str {
        match self {
            Self::HmacSha256 => "HMAC_SHA2_256_128 [RFC4868]",
            Self::HmacSha384 => "HMAC_SHA2_384_192 [RFC4868]",
        }
    }

    /// The ICV, truncated to half of the hash.
    fn mac(self, key: &[u8], octets: &[u8]) -> super::Secret {
        let mut mac = match self {
            Self::HmacSha256 => super::prf::mac::<Sha256>(key, &[octets]),
            Self::HmacSha384 => super::prf::mac::<Sha384>(key, &[octets]),
        };
        let half = mac.len() / 2;
        mac.truncate(half);
        mac
    }
}

/// The keyed cipher, and the nonce: the salt, then the IV (RFC 5282 §4, RFC 7634 §2).
fn aead<C: AeadInOut + KeyInit>(keys: &SideKeys, iv: &[u8]) -> Result<(C, Nonce<C>), CipherError> {
    let (key, salt) = keys
        .encryption
        .len()
        .checked_sub(SALT)
        .and_then(|key_len| keys.encryption.split_at_checked(key_len))
        .ok_or(CipherError)?;
    let cipher = C::new_from_slice(key).map_err(|_| CipherError)?;
    let mut nonce = Nonce::<C>::default();
    nonce.iter_mut().zip(salt.iter().chain(iv)).for_each(|(octet, from)| *octet = *from);
    Ok((cipher, nonce))
}

fn seal_aead<C: AeadInOut + KeyInit>(
    keys: &SideKeys,
    message: &mut Vec<u8>,
    body: usize,
) -> Result<(), CipherError> {
    let (aad, rest) = message.split_at_mut_checked(body).ok_or(CipherError)?;
    let (iv, plaintext) = rest.split_at_mut_checked(8).ok_or(CipherError)?;
    let (cipher, nonce) = aead::<C>(keys, iv)?;
    let icv = cipher.encrypt_inout_detached(&nonce, aad, plaintext.into()).map_err(|_| CipherError)?;
    message.extend_from_slice(&icv);
    Ok(())
}

fn open_aead<'a, C: AeadInOut + KeyInit>(
    keys: &SideKeys,
    message: &'a mut [u8],
    body: usize,
) -> Result<&'a [u8], CipherError> {
    let (aad, rest) = message.split_at_mut_checked(body).ok_or(CipherError)?;
    let (iv, rest) = rest.split_at_mut_checked(8).ok_or(CipherError)?;
    let (ciphertext, icv) =
        rest.len().checked_sub(16).and_then(|length| rest.split_at_mut_checked(length)).ok_or(CipherError)?;
    let (cipher, nonce) = aead::<C>(keys, iv)?;
    let icv = Array::try_from(&*icv).map_err(|_| CipherError)?;
    cipher.decrypt_inout_detached(&nonce, aad, (&mut *ciphertext).into(), &icv).map_err(|_| CipherError)?;
    Ok(ciphertext)
}

fn seal_cbc<C: BlockModeEncrypt + KeyIvInit>(
    integrity: Integrity,
    keys: &SideKeys,
    message: &mut Vec<u8>,
    body: usize,
) -> Result<(), CipherError> {
    let rest = message.get_mut(body..).ok_or(CipherError)?;
    let (iv, plaintext) = rest.split_at_mut_checked(BLOCK).ok_or(CipherError)?;
    let mut cipher = C::new_from_slices(&keys.encryption, iv).map_err(|_| CipherError)?;
    let (blocks, left) = Array::slice_as_chunks_mut(plaintext);
    if !left.is_empty() {
        return Err(CipherError);
    }
    cipher.encrypt_blocks(blocks);
    let icv = integrity.mac(&keys.integrity, message);
    message.extend_from_slice(&icv);
    Ok(())
}

fn open_cbc<'a, C: BlockModeDecrypt + KeyIvInit>(
    integrity: Integrity,
    keys: &SideKeys,
    message: &'a mut [u8],
    body: usize,
) -> Result<&'a [u8], CipherError> {
    let icv_len = Cipher::Aes128Cbc(integrity).icv_len();
    let (covered, icv) = message
        .len()
        .checked_sub(icv_len)
        .and_then(|length| message.split_at_mut_checked(length))
        .ok_or(CipherError)?;
    if !bool::from(integrity.mac(&keys.integrity, covered).ct_eq(icv)) {
        return Err(CipherError);
    }
    let rest = covered.get_mut(body..).ok_or(CipherError)?;
    let (iv, ciphertext) = rest.split_at_mut_checked(BLOCK).ok_or(CipherError)?;
    let mut cipher = C::new_from_slices(&keys.encryption, iv).map_err(|_| CipherError)?;
    let (blocks, left) = Array::slice_as_chunks_mut(ciphertext);
    if !left.is_empty() {
        return Err(CipherError);
    }
    cipher.decrypt_blocks(blocks);
    Ok(ciphertext)
}
