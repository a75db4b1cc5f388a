//! Messages under the protection of an IKE SA: SK (RFC 7296 §3.14, RFC 5282) and SKF (RFC 7383).

use super::cipher::CipherError;
use super::{Cipher, SideKeys};
use crate::codes::PayloadType;
use crate::malformed::{Malformed, TooLong};
use crate::message::{HEADER_LEN, Header, Message, set_length};
use crate::payload::{self, EncryptedFragment, Payload, Place};
use crate::reader::Reader;
use rand::{CryptoRng, RngExt};
use zeroize::Zeroizing;

/// Octets of the generic payload header, and of SKF's fields behind it.
const GENERIC: usize = 4;
const FRAGMENT_FIELDS: usize = 4;

/// Fragments of a message, at most; ours and a peer's.
pub const MAX_FRAGMENTS: u16 = 64;

/// Protects what one end of an IKE SA sends.
pub struct Sealer {
    cipher: Cipher,
    keys: SideKeys,
    /// The next IV of an AEAD cipher. It begins anywhere: an IKE SA that is resumed from a stale checkpoint begins
    /// somewhere else in 2^64, and so doesn't use a nonce again.
    iv: u64,
}

/// Checks and decrypts what the other end sends.
pub struct Opener {
    cipher: Cipher,
    keys: SideKeys,
}

/// What was in a protected datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    /// A message, with what was in SK as its payloads.
    Message(Message),
    /// A part of one, for [`crate::fragment::Reassembly`].
    Fragment(Fragment),
}

/// A part of a message that was protected on its own: authentic, but the message isn't whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The message's header.
    pub header: Header,
    /// The type of the message's first payload; in the first fragment only.
    pub first: PayloadType,
    /// From 1.
    pub number: u16,
    /// How many there are.
    pub total: u16,
    /// A part of the chain of payloads.
    pub data: Vec<u8>,
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Bad bytes from anybody: dropped.
    #[error("malformed: {0}")]
    Outer(Malformed),
    /// Not protected, though it should be: from anybody, dropped.
    #[error("not protected")]
    Clear,
    /// Not made, or not left as it was made, by who has the keys: dropped.
    #[error("forged or damaged")]
    Forged,
    /// Authentic, and malformed inside: the peer is to blame, and is told (INVALID_SYNTAX, or
    /// UNSUPPORTED_CRITICAL_PAYLOAD).
    #[error("the peer sent a malformed message: {0}")]
    Inner(Malformed),
}

/// Why a message was not sealed: our own misuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// Longer than its fields, or [`MAX_FRAGMENTS`], can say.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The keys are not such as the cipher needs.
    #[error("the keys don't fit the cipher")]
    Keys,
}

impl From<CipherError> for SealError {
    fn from(_: CipherError) -> Self {
        Self::Keys
    }
}

impl Sealer {
    /// For the end that has these keys.
    pub fn new<R: CryptoRng + ?Sized>(cipher: Cipher, keys: SideKeys, rng: &mut R) -> Self {
        Self { cipher, keys, iv: rng.random() }
    }

    /// Protects a message, as one datagram.
    ///
    /// # Errors
    /// It is too long.
    pub fn seal<R: CryptoRng + ?Sized>(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        rng: &mut R,
    ) -> Result<Vec<u8>, SealError> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(512));
        payload::write_chain(payloads, &mut plaintext)?;
        self.seal_chain(header, payload::first_type(payloads), &plaintext, rng)
    }

    /// Protects a message, as several datagrams if it is longer than `limit` octets (of IKE, without IP and UDP): for
    /// a peer that knows fragments (IKEV2_FRAGMENTATION_SUPPORTED).
    ///
    /// # Errors
    /// It is too long, or the limit leaves no room in a datagram.
    pub fn seal_within<R: CryptoRng + ?Sized>(
        &mut self,
        limit: usize,
        header: &Header,
        payloads: &[Payload],
        rng: &mut R,
    ) -> Result<Vec<Vec<u8>>, SealError> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(512));
        payload::write_chain(payloads, &mut plaintext)?;
        let first = payload::first_type(payloads);
        let room = |fixed: usize| {
            let octets = limit.checked_sub(fixed + self.cipher.iv_len() + self.cipher.icv_len())?;
            // Padding fills up blocks; its length takes an octet.
            (octets - octets % self.cipher.block_len()).checked_sub(1)
        };
        if plaintext.len() <= room(HEADER_LEN + GENERIC).unwrap_or_default() {
            return Ok(vec![self.seal_chain(header, first, &plaintext, rng)?]);
        }
        let room = room(HEADER_LEN + GENERIC + FRAGMENT_FIELDS).filter(|room| *room > 0).ok_or(TooLong)?;
        let total = u16::try_from(plaintext.len().div_ceil(room)).map_err(|_| TooLong)?;
        if total > MAX_FRAGMENTS {
            return Err(TooLong.into());
        }
        (1..=total)
            .zip(plaintext.chunks(room))
            .map(|(number, part)| {
                //= rfc7383#2.5
                //# In the very first fragment (with Fragment Number equal to 1), this field MUST be set to the payload type of
                //# the first inner payload
                let first = if number == 1 { first } else { PayloadType::NONE };
                let fields = [number.to_be_bytes(), total.to_be_bytes()].concat();
                self.seal_body(header, PayloadType::SKF, first, &fields, part, rng)
            })
            .collect()
    }

    fn seal_chain<R: CryptoRng + ?Sized>(
        &mut self,
        header: &Header,
        first: PayloadType,
        plaintext: &[u8],
        rng: &mut R,
    ) -> Result<Vec<u8>, SealError> {
        self.seal_body(header, PayloadType::SK, first, &[], plaintext, rng)
    }

    /// Header, SK or SKF with its `fields`, IV, encrypted plaintext with padding, ICV.
    fn seal_body<R: CryptoRng + ?Sized>(
        &mut self,
        header: &Header,
        kind: PayloadType,
        first: PayloadType,
        fields: &[u8],
        plaintext: &[u8],
        rng: &mut R,
    ) -> Result<Vec<u8>, SealError> {
        let (iv_len, icv_len, block) = (self.cipher.iv_len(), self.cipher.icv_len(), self.cipher.block_len());
        let padded = (plaintext.len() + 1).next_multiple_of(block);
        let payload = GENERIC + fields.len() + iv_len + padded + icv_len;
        let mut out = Vec::with_capacity(HEADER_LEN + payload);
        header.write(kind, &mut out);
        let length = u16::try_from(payload).map_err(|_| TooLong)?.to_be_bytes();
        out.extend_from_slice(&[first.0, 0]);
        out.extend_from_slice(&length);
        out.extend_from_slice(fields);
        let body = out.len();
        self.write_iv(&mut out, rng);
        out.extend_from_slice(plaintext);
        let padding = padded - plaintext.len() - 1;
        out.resize(out.len() + padding, 0);
        out.push(u8::try_from(padding).map_err(|_| TooLong)?);
        // The ICV covers the header with the length that the message is going to have.
        out.resize(out.len() + icv_len, 0);
        set_length(&mut out)?;
        out.truncate(out.len() - icv_len);
        self.cipher.seal(&self.keys, &mut out, body)?;
        Ok(out)
    }

    fn write_iv<R: CryptoRng + ?Sized>(&mut self, out: &mut Vec<u8>, rng: &mut R) {
        if self.cipher.integrity().is_some() {
            // RFC 3602 §3: an IV of CBC must not be predictable.
            let mut iv = [0; 16];
            rng.fill_bytes(&mut iv);
            out.extend_from_slice(&iv);
        } else {
            // RFC 5282 §3.1: an IV of an AEAD cipher must not be used twice; more is not asked of it.
            self.iv = self.iv.wrapping_add(1);
            out.extend_from_slice(&self.iv.to_be_bytes());
        }
    }
}

impl Opener {
    /// For messages from the end that has these keys.
    #[must_use]
    pub const fn new(cipher: Cipher, keys: SideKeys) -> Self {
        Self { cipher, keys }
    }

    /// Opens a datagram. Payloads in front of SK or SKF, which are in the clear, mean nothing and are left out.
    ///
    /// # Errors
    /// It is not what the other end of this SA made, or the other end made it wrong.
    pub fn open(&self, datagram: &[u8]) -> Result<Opened, OpenError> {
        let outer = Message::decode(datagram).map_err(OpenError::Outer)?;
        let header = outer.header;
        match outer.payloads.last() {
            Some(Payload::Encrypted(sk)) => {
                let plaintext = self.decrypt(datagram, sk.body.len())?;
                let mut reader = Reader::new(&plaintext);
                let payloads = payload::read_chain(sk.first, &mut reader, Place::Inner);
                Ok(Opened::Message(Message { header, payloads: payloads.map_err(OpenError::Inner)? }))
            }
            Some(Payload::EncryptedFragment(skf)) => {
                let data = self.decrypt(datagram, skf.body.len())?.to_vec();
                let EncryptedFragment { first, number, total, .. } = *skf;
                Ok(Opened::Fragment(Fragment { header, first, number, total, data }))
            }
            _ => Err(OpenError::Clear),
        }
    }

    /// The plaintext of a datagram that ends with a protected body of so many octets.
    fn decrypt(&self, datagram: &[u8], body: usize) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let least = self.cipher.iv_len() + self.cipher.block_len() + self.cipher.icv_len();
        if body < least {
            return Err(OpenError::Outer(Malformed::Truncated));
        }
        let mut copy = Zeroizing::new(datagram.to_vec());
        let start = datagram.len() - body;
        let padded = self.cipher.open(&self.keys, &mut copy, start).map_err(|_| OpenError::Forged)?;
        //= rfc7296#3.14
        //# The recipient MUST accept any length that results in proper alignment.
        let (padding, rest) = padded.split_last().ok_or(OpenError::Inner(Malformed::Padding))?;
        let plaintext = rest
            .len()
            .checked_sub(usize::from(*padding))
            .and_then(|length| rest.get(..length))
            .ok_or(OpenError::Inner(Malformed::Padding))?;
        Ok(Zeroizing::new(plaintext.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::ExchangeType;
    use crate::crypto::Integrity;
    use crate::fragment::Reassembly;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const CIPHERS: [Cipher; 7] = [
        Cipher::Aes128Gcm16,
        Cipher::Aes256Gcm16,
        Cipher::ChaCha20Poly1305,
        Cipher::Aes128Cbc(Integrity::HmacSha256),
        Cipher::Aes256Cbc(Integrity::HmacSha256),
        Cipher::Aes128Cbc(Integrity::HmacSha384),
        Cipher::Aes256Cbc(Integrity::HmacSha384),
    ];

    const HEADER: Header = Header {
        initiator_spi: 1,
        responder_spi: 2,
        exchange: ExchangeType::IKE_AUTH,
        initiator: true,
        response: false,
        message_id: 1,
    };

    fn ends(cipher: Cipher) -> (Sealer, Opener, StdRng) {
        let mut rng = StdRng::seed_from_u64(7);
        let keys = SideKeys {
            integrity: Zeroizing::new(vec![1; cipher.integrity_key_len()]),
            encryption: Zeroizing::new(vec![2; cipher.key_len()]),
            authentication: Zeroizing::default(),
        };
        (Sealer::new(cipher, keys.clone(), &mut rng), Opener::new(cipher, keys), rng)
    }

    fn vendors(octets: usize) -> Vec<Payload> {
        vec![Payload::Vendor(vec![7; octets]), Payload::Vendor(vec![9; 3])]
    }

    #[test]
    fn what_is_sealed_opens_with_every_cipher_and_length() {
        for cipher in CIPHERS {
            let (mut sealer, opener, mut rng) = ends(cipher);
            for octets in 0..40 {
                let sealed = sealer.seal(&HEADER, &vendors(octets), &mut rng).unwrap();
                let message = Message { header: HEADER, payloads: vendors(octets) };
                assert_eq!(opener.open(&sealed), Ok(Opened::Message(message)), "{cipher:?} {octets}");
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        for cipher in CIPHERS {
            let (mut sealer, opener, mut rng) = ends(cipher);
            let sealed = sealer.seal(&HEADER, &vendors(5), &mut rng).unwrap();
            for bit in 0..sealed.len() * 8 {
                let mut damaged = sealed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let opened = opener.open(&damaged);
                assert!(
                    matches!(opened, Err(OpenError::Forged | OpenError::Outer(_) | OpenError::Clear)),
                    "{bit}"
                );
            }
            for length in 0..sealed.len() {
                assert!(opener.open(&sealed[..length]).is_err());
            }
        }
    }

    #[test]
    fn no_iv_is_used_twice() {
        for cipher in CIPHERS {
            let (mut sealer, _, mut rng) = ends(cipher);
            let ivs: std::collections::BTreeSet<Vec<u8>> = (0..100)
                .map(|_| {
                    let sealed = sealer.seal(&HEADER, &[], &mut rng).unwrap();
                    sealed[HEADER_LEN + GENERIC..][..cipher.iv_len()].to_vec()
                })
                .collect();
            assert_eq!(ivs.len(), 100, "{cipher:?}");
        }
    }

    #[test]
    fn a_long_message_travels_in_datagrams_that_fit_and_is_whole_again_in_any_order() {
        for cipher in CIPHERS {
            let (mut sealer, opener, mut rng) = ends(cipher);
            for limit in [200, 201, 215, 216, 500, 1252] {
                let message = Message { header: HEADER, payloads: vendors(3000) };
                let mut sealed = sealer.seal_within(limit, &HEADER, &message.payloads, &mut rng).unwrap();
                assert!(sealed.len() > 1 && sealed.iter().all(|datagram| datagram.len() <= limit));
                sealed.reverse();
                let mut reassembly = Reassembly::default();
                let mut whole = None;
                for datagram in &sealed {
                    let Ok(Opened::Fragment(fragment)) = opener.open(datagram) else { panic!("{cipher:?}") };
                    assert_eq!(whole, None);
                    whole = reassembly.add(fragment).unwrap();
                }
                assert_eq!(whole, Some(message), "{cipher:?} {limit}");
            }
        }
    }

    #[test]
    fn a_message_that_fits_exactly_is_not_cut() {
        for cipher in CIPHERS {
            let (mut sealer, _, mut rng) = ends(cipher);
            let whole = sealer.seal(&HEADER, &vendors(100), &mut rng).unwrap();
            let fits = sealer.seal_within(whole.len(), &HEADER, &vendors(100), &mut rng).unwrap();
            assert_eq!(fits.len(), 1, "{cipher:?}");
            let cut = sealer.seal_within(whole.len() - 1, &HEADER, &vendors(100), &mut rng).unwrap();
            assert_eq!(cut.len(), 2, "{cipher:?}");
        }
    }

    #[test]
    fn a_limit_without_room_is_an_error_and_not_a_loop() {
        let (mut sealer, _, mut rng) = ends(Cipher::Aes128Gcm16);
        for limit in [0, 28, 60, 61, 62] {
            assert!(sealer.seal_within(limit, &HEADER, &vendors(100), &mut rng).is_err(), "{limit}");
        }
    }
}
