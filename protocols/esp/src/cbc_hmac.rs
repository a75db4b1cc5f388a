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
    pub(crate) fn authenticate(&self, place: Place, iv: &[u8], body: &[u8]) -> Hmac<Sha256> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;
    use crate::{Keys, Opener, Suite};

    /// RFC 3602 §4, case 5: a ping in transport mode. It has no ICV there: that is computed by another library here.
    #[test]
    fn a_sample_packet_of_rfc_3602_opens() {
        let mut packet = hex("
            00004321 00000001 e96e8c08 ab465763 fd098d45 dd3ff893
            f663c25d 325c18c6 a9453e19 4e120849 a4870b66 cc6b9965 330013b4 898dc856
            a4699e52 3a55db08 0b59ec3a 8e4b7e52 775b07d1 db34ed9c 538ab50c 551b874a
            a269add0 47ad2d59 13ac19b7 cfbad4a6");
        let echo = hex("
            08000ebd a70a0000 8e9c083d b95b0700 08090a0b 0c0d0e0f 10111213 14151617
            18191a1b 1c1d1e1f 20212223 24252627 28292a2b 2c2d2e2f 30313233 34353637");
        let integrity = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[3; 32]);
        packet.extend(&ring::hmac::sign(&integrity, &packet).as_ref()[..16]);
        let material = [&hex("90d382b4 10eeba7a d938c46c ec1a82bf")[..], &[3; 32]].concat().into();
        let keys = Keys { spi: 0x4321, suite: Suite::Aes128CbcSha256, esn: false, material };

        let opened = Opener::new(&keys).unwrap().open(&mut packet).unwrap();
        assert_eq!(packet[opened.payload], echo);
        assert_eq!((opened.next_header, opened.sequence), (1, 1));
    }

    //= rfc4303#2.2.1
    // The high half is not sent; a separate integrity algorithm appends it to what it authenticates.
    #[test]
    fn with_esn_the_high_half_is_authenticated_behind_the_packet() {
        let cipher = CbcHmac::<aes::Aes128>::new(&[5; 48]).unwrap();
        let (mut iv, mut body, mut icv) = ([0; 16], [0; 32], [0; 16]);
        let place = Place { spi: 0x4321, sequence: 0x7_0000_0009, esn: true };
        cipher.seal(place, &mut iv, &mut body, &mut icv).unwrap();
        let all = [&hex("00004321 00000009")[..], &iv, &body, &hex("00000007")].concat();
        let integrity = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[5; 32]);
        assert_eq!(ring::hmac::sign(&integrity, &all).as_ref()[..16], icv);
    }

    /// RFC 3602 §3: the IV must be chosen at random, or so that nobody can predict it.
    #[test]
    fn the_iv_is_the_encrypted_sequence_number() {
        let cipher = CbcHmac::<aes::Aes256>::new(&[5; 64]).unwrap();
        let (mut iv, mut body, mut icv) = ([0; 16], [0; 16], [0; 16]);
        let place = Place { spi: 0x4321, sequence: 9, esn: false };
        cipher.seal(place, &mut iv, &mut body, &mut icv).unwrap();
        let mut block = Block::from(iv);
        cipher.cipher.decrypt_block(&mut block);
        assert_eq!(block[..], hex("00000000 00000000 00000000 00000009"));
    }

    #[test]
    fn the_library_wipes_both_keys() {
        fn is_wiped<T: zeroize::ZeroizeOnDrop>() {}
        is_wiped::<aes::Aes128>();
        is_wiped::<aes::Aes256>();
        // HMAC doesn't say so of itself; it is two states of its hash, which are wiped.
        is_wiped::<Sha256>();
    }

    #[test]
    fn half_a_block_is_refused_and_nothing_written() {
        let cipher = CbcHmac::<aes::Aes128>::new(&[5; 48]).unwrap();
        let place = Place { spi: 0x4321, sequence: 9, esn: false };
        let mut body = [7; 24];
        assert_eq!(cipher.seal(place, &mut [0; 16], &mut body, &mut [0; 16]), Err(Refused));
        assert_eq!(body, [7; 24]);
    }
}
