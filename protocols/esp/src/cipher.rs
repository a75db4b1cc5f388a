//! The seam between ESP and the libraries that encrypt: what a cipher must do, and which one a suite gets.

use crate::aead::Aead;
use crate::cbc_hmac::CbcHmac;
use crate::{BadKeys, Keys, Suite};

/// Encrypts and authenticates one packet in place. One key, either direction.
///
/// Implementations keep their schedules of round keys, so that nothing is derived per packet.
pub(crate) trait Cipher: Send + Sync {
    /// Writes an IV that this key never had before, encrypts `body`, and writes the ICV.
    fn seal(&self, place: Place, iv: &mut [u8], body: &mut [u8], icv: &mut [u8]) -> Result<(), Refused>;

    /// Decrypts `body` if all of the packet is authentic; else the body is undefined.
    fn open(&self, place: Place, iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), Refused>;
}

/// The cipher cannot, or will not. It doesn't say why, so that nobody learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Which packet of which SA: authenticated with it, though half of the number may be nowhere in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) spi: u32,
    pub(crate) sequence: u64,
    /// Are all 64 bits authenticated?
    pub(crate) esn: bool,
}

impl Place {
    /// The first eight octets of the packet.
    #[inline]
    pub(crate) fn header(&self) -> [u8; 8] {
        let [a, b, c, d] = self.spi.to_be_bytes();
        let [.., e, f, g, h] = self.sequence.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// The half of the sequence number that isn't sent.
    #[inline]
    pub(crate) fn high(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.sequence.to_be_bytes();
        [a, b, c, d]
    }
}

/// The cipher of a suite. A choice by suite and not by taste: ring has the faster AEADs and has no AES-CBC.
pub(crate) fn new(keys: &Keys) -> Result<Box<dyn Cipher>, BadKeys> {
    if keys.spi < crate::FIRST_SPI {
        return Err(BadKeys::Spi);
    }
    let material: &[u8] = &keys.material;
    let cipher = match keys.suite {
        Suite::Aes128Gcm16 => boxed(Aead::new(&ring::aead::AES_128_GCM, material)),
        Suite::Aes256Gcm16 => boxed(Aead::new(&ring::aead::AES_256_GCM, material)),
        Suite::ChaCha20Poly1305 => boxed(Aead::new(&ring::aead::CHACHA20_POLY1305, material)),
        Suite::Aes128CbcSha256 => boxed(CbcHmac::<aes::Aes128>::new(material)),
        Suite::Aes256CbcSha256 => boxed(CbcHmac::<aes::Aes256>::new(material)),
    };
    cipher.ok_or_else(|| BadKeys::Material { needed: keys.suite.key_len(), given: material.len() })
}

fn boxed(cipher: Option<impl Cipher + 'static>) -> Option<Box<dyn Cipher>> {
    Some(Box::new(cipher?))
}
