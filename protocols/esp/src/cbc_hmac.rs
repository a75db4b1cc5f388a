//! AES-CBC (RFC 3602) with HMAC-SHA-256-128 (RFC 4868), encrypt then authenticate: for routers that know no AEAD.
//!
//! ```text
//! ICV: HMAC over SPI | sequence number | IV | ciphertext, and with ESN over the high half of the number at the end,
//!      cut to 16 octets
//! ```
//!
//! The IV of CBC must be unpredictable, not only unique. There is no randomness here, and none is needed: the IV is the
//! sequence number encrypted with the packet key, the first method of NIST SP 800-38A, appendix C. Whoever doesn't have
//! the key cannot tell it from random before the packet is on the wire.

use crate::cipher::{Cipher, Place, Refused};
use aes::cipher::consts::U16;
use aes::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit, KeySizeUser,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

type Block = Array<u8, U16>;

/// Octets of the integrity key (RFC 4868 §2.1.1).
const INTEGRITY_KEY_LEN: usize = 32;

/// `C` is AES with one of its key lengths. The library wipes both keys when they are dropped.
pub(crate) struct CbcHmac<C> {
    cipher: C,
    /// Has digested its key already; cloned for each packet.
    integrity: Hmac<Sha256>,
}

impl<C: KeyInit + KeySizeUser> CbcHmac<C> {
    /// `material` is the cipher's key and then the integrity key (RFC 7296 §2.17); `None` if its length is another.
    pub(crate) fn new(material: &[u8]) -> Option<Self> {
        let (key, integrity) = material.split_last_chunk::<INTEGRITY_KEY_LEN>()?;
        let cipher = C::new_from_slice(key).ok()?;
        Some(Self { cipher, integrity: Hmac::new_from_slice(integrity).ok()? })
    }
}

impl<C> CbcHmac<C> {
    fn authenticate(&self, place: Place, iv: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.integrity.clone();
        mac.update(&place.header());
        mac.update(iv);
        mac.update(body);
        //= rfc4303#2.2.1
        // The high half is not sent; a separate integrity algorithm appends it to what it authenticates.
        if place.esn {
            mac.update(&place.high());
        }
        mac
    }
}

impl<C> Cipher for CbcHmac<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn seal(&self, place: Place, iv: &mut [u8], body: &mut [u8], icv: &mut [u8]) -> Result<(), Refused> {
        let mut vector = Block::default();
        let (_, counter) = vector.split_last_chunk_mut::<8>().ok_or(Refused)?;
        *counter = place.sequence.to_be_bytes();
        self.cipher.encrypt_block(&mut vector);

        let (blocks, []) = Block::slice_as_chunks_mut(body) else { return Err(Refused) };
        cbc::Encryptor::inner_iv_init(&self.cipher, &vector).encrypt_blocks(blocks);

        let place_of_iv: &mut [u8; 16] = iv.try_into().map_err(|_| Refused)?;
        *place_of_iv = vector.into();
        let digest = self.authenticate(place, place_of_iv, body).finalize().into_bytes();
        let (left, _) = digest.split_first_chunk::<16>().ok_or(Refused)?;
        let icv: &mut [u8; 16] = icv.try_into().map_err(|_| Refused)?;
        *icv = *left;
        Ok(())
    }

    fn open(&self, place: Place, iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), Refused> {
        // In constant time, and before anything is decrypted.
        let mac = self.authenticate(place, iv, body);
        mac.verify_truncated_left(icv).map_err(|_| Refused)?;

        let vector = Block::try_from(iv).map_err(|_| Refused)?;
        let (blocks, []) = Block::slice_as_chunks_mut(body) else { return Err(Refused) };
        cbc::Decryptor::inner_iv_init(&self.cipher, &vector).decrypt_blocks(blocks);
        Ok(())
    }
}
