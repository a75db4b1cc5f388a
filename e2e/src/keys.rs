//! Keys of SAs, as the two ends tell them, for reading what is on the wire.
//!
//! Our agents write them into files when `exportKeys` is set, in the format of Wireshark's `esp_sa`; a foreign router's
//! kernel tells them by `ip xfrm state`. What is decrypted here is decrypted with the plain block and stream ciphers and
//! not by the product's ESP, and without looking at the ICV: captures are cut off behind the headers.

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The sources are not asked more often than this.
const PAUSE: Duration = Duration::from_millis(100);

/// How the payload of an SA is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-GCM, RFC 4106: the key ends with four octets of salt.
    Gcm,
    /// ChaCha20-Poly1305, RFC 7634: the key ends with four octets of salt.
    ChaCha,
    /// AES-CBC, RFC 3602.
    Cbc,
}

/// The secrets of one direction of an SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// How.
    pub cipher: Cipher,
    /// With what.
    pub material: Vec<u8>,
}

/// All keys of a lab, by SPI.
#[derive(Default)]
pub struct Keyring {
    known: Mutex<HashMap<u32, Vec<Key>>>,
    sources: Mutex<Vec<Source>>,
    asked: Mutex<Option<Instant>>,
}

/// Says which keys there are.
type Source = Box<dyn Fn() -> Vec<(u32, Key)> + Send>;

impl Keyring {
    /// Asks this whenever a packet of an SA is met that is not known.
    pub fn add_source(&self, source: impl Fn() -> Vec<(u32, Key)> + Send + 'static) {
        lock(&self.sources).push(Box::new(source));
    }

    /// What this ESP packet (from the SPI on, possibly cut off) says, as `read` understands it.
    pub fn open<T>(&self, packet: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let spi = u32::from_be_bytes(*packet.first_chunk()?);
        let keys = self.of(spi);
        keys.iter().find_map(|key| read(&key.decrypt(packet.get(8..)?)?))
    }

    /// The keys so far as Wireshark's `esp_sa` has them.
    #[must_use]
    pub fn wireshark(&self) -> String {
        let line = |spi: &u32, key: &Key| {
            let cipher = match key.cipher {
                Cipher::Gcm => "AES-GCM [RFC4106]",
                Cipher::ChaCha => "ChaCha20 with Poly1305 [RFC7634]",
                Cipher::Cbc => "AES-CBC [RFC3602]",
            };
            let hex: String = key.material.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("\"IPv4\",\"*\",\"*\",\"0x{spi:08x}\",\"{cipher}\",\"0x{hex}\",\"NULL\",\"NULL\"\n")
        };
        lock(&self.known).iter().flat_map(|(spi, keys)| keys.iter().map(move |key| line(spi, key))).collect()
    }

    /// Most often one; two SAs of different pairs may have the same SPI.
    fn of(&self, spi: u32) -> Vec<Key> {
        if let Some(keys) = lock(&self.known).get(&spi) {
            return keys.clone();
        }
        self.ask();
        lock(&self.known).get(&spi).cloned().unwrap_or_default()
    }

    fn ask(&self) {
        {
            let mut asked = lock(&self.asked);
            if asked.is_some_and(|at| at.elapsed() < PAUSE) {
                return;
            }
            *asked = Some(Instant::now());
        }
        let told: Vec<_> = lock(&self.sources).iter().flat_map(|source| source()).collect();
        let mut known = lock(&self.known);
        for (spi, key) in told {
            let keys = known.entry(spi).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
}

impl Key {
    /// Decrypts what follows SPI and sequence number: IV, ciphertext, ICV, as much as there is.
    fn decrypt(&self, data: &[u8]) -> Option<Vec<u8>> {
        match self.cipher {
            Cipher::Gcm => {
                let (iv, text) = data.split_first_chunk::<8>()?;
                let (key, salt) = self.material.split_last_chunk::<4>()?;
                let mut plain = text.to_vec();
                let nonce = |counter: u32| {
                    let mut block = [0; 16];
                    block[..4].copy_from_slice(salt);
                    block[4..12].copy_from_slice(iv);
                    block[12..].copy_from_slice(&counter.to_be_bytes());
                    block
                };
                // NIST SP 800-38D: the first block's counter is for the tag.
                for (counter, chunk) in (2u32..).zip(plain.chunks_mut(16)) {
                    let mut block: Block<Aes128> = nonce(counter).into();
                    match key.len() {
                        16 => Aes128::new_from_slice(key).ok()?.encrypt_block(&mut block),
                        _ => Aes256::new_from_slice(key).ok()?.encrypt_block(&mut block),
                    }
                    chunk.iter_mut().zip(block).for_each(|(octet, stream)| *octet ^= stream);
                }
                Some(plain)
            }
            Cipher::ChaCha => {
                let (iv, text) = data.split_first_chunk::<8>()?;
                let (key, salt) = self.material.split_last_chunk::<4>()?;
                let mut nonce = [0; 12];
                nonce[..4].copy_from_slice(salt);
                nonce[4..].copy_from_slice(iv);
                let mut stream = ChaCha20::new_from_slices(key, &nonce).ok()?;
                // RFC 8439 §2.8: the first block is Poly1305's key.
                stream.seek(64u64);
                let mut plain = text.to_vec();
                stream.apply_keystream(&mut plain);
                Some(plain)
            }
            Cipher::Cbc => {
                let (iv, text) = data.split_first_chunk::<16>()?;
                let mut plain = Vec::with_capacity(text.len());
                let mut before = *iv;
                for chunk in text.as_chunks::<16>().0 {
                    let mut block: Block<Aes128> = (*chunk).into();
                    match self.material.len() {
                        16 => Aes128::new_from_slice(&self.material).ok()?.decrypt_block(&mut block),
                        _ => Aes256::new_from_slice(&self.material).ok()?.decrypt_block(&mut block),
                    }
                    plain.extend(block.iter().zip(before).map(|(octet, mask)| octet ^ mask));
                    before = *chunk;
                }
                Some(plain)
            }
        }
    }
}

/// Reads the lines of Wireshark's `esp_sa`:
/// `"IPv4","*","*","0x00001000","AES-GCM [RFC4106]","0x0011...","NULL","NULL"`.
#[must_use]
pub fn of_wireshark(text: &str) -> Vec<(u32, Key)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(|f| f.trim().trim_matches('"')).collect();
        let [_, _, _, spi, cipher, key, ..] = fields[..] else { return None };
        let spi = u32::from_str_radix(spi.strip_prefix("0x")?, 16).ok()?;
        let cipher = match cipher {
            c if c.starts_with("AES-GCM") => Cipher::Gcm,
            c if c.starts_with("ChaCha20") => Cipher::ChaCha,
            c if c.starts_with("AES-CBC") => Cipher::Cbc,
            _ => return None,
        };
        Some((spi, Key { cipher, material: octets(key)? }))
    };
    text.lines().filter_map(line).collect()
}

/// Reads what `ip xfrm state` prints.
#[must_use]
pub fn of_xfrm(text: &str) -> Vec<(u32, Key)> {
    let (mut keys, mut spi) = (Vec::new(), None);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["proto", "esp", "spi", number, ..] => {
                spi = number.strip_prefix("0x").and_then(|n| u32::from_str_radix(n, 16).ok());
            }
            ["aead", name, key, ..] | ["enc", name, key, ..] => {
                let cipher = match name {
                    "rfc4106(gcm(aes))" => Cipher::Gcm,
                    "rfc7539esp(chacha20,poly1305)" => Cipher::ChaCha,
                    "cbc(aes)" => Cipher::Cbc,
                    _ => continue,
                };
                keys.extend(spi.zip(octets(key).map(|material| Key { cipher, material })));
            }
            _ => {}
        }
    }
    keys
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.strip_prefix("0x").unwrap_or(hex);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_both_kinds_of_lists() {
        let wireshark =
            "\"IPv4\",\"*\",\"*\",\"0x00001001\",\"AES-GCM [RFC4106]\",\"0x0102\",\"NULL\",\"NULL\"\n";
        let gcm = Key { cipher: Cipher::Gcm, material: vec![1, 2] };
        assert_eq!(of_wireshark(wireshark), [(0x1001, gcm.clone())]);
        let ring = Keyring::default();
        ring.add_source(|| of_wireshark(wireshark));
        assert_eq!(ring.open(&[0, 0, 0x10, 1, 0, 0, 0, 1], |_| Some(())), None);
        assert_eq!(ring.wireshark(), wireshark);
        let xfrm = "src 198.51.100.1 dst 198.51.100.11\n\tproto esp spi 0x00001001 reqid 3 mode transport\n\
                    \treplay-window 0 \n\taead rfc4106(gcm(aes)) 0x0102 128\n";
        assert_eq!(of_xfrm(xfrm), [(0x1001, gcm)]);
    }

    /// RFC 4106 is AES-GCM: test case 4 of the GCM specification without its associated data.
    #[test]
    fn aes_gcm_is_decrypted_however_little_there_is() {
        let material = octets("feffe9928665731c6d6a8f9467308308cafebabe").unwrap();
        let key = Key { cipher: Cipher::Gcm, material };
        let text = octets("facedbaddecaf88842831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e")
            .unwrap();
        let plain = octets("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72").unwrap();
        assert_eq!(key.decrypt(&text), Some(plain.clone()));
        assert_eq!(key.decrypt(&text[..13]), Some(plain[..5].to_vec()));
    }

    /// RFC 8439 §2.8.2; RFC 7634 has the same layout.
    #[test]
    fn chacha20_poly1305_is_decrypted() {
        let material =
            octets("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f07000000").unwrap();
        let key = Key { cipher: Cipher::ChaCha, material };
        let text = octets("4041424344454647d31a8d34648e60db7b86afbc53ef7ec2").unwrap();
        assert_eq!(key.decrypt(&text), Some(b"Ladies and Gentl".to_vec()));
    }
}
