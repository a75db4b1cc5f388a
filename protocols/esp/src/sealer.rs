//! Sending: a payload becomes an ESP packet where it lies (RFC 4303 §3.3).

use crate::cipher::{self, Cipher, Place};
use crate::suite::TRAILER_LEN;
use crate::{BadKeys, Header, Keys, SealError, Suite};
use std::fmt;

/// The outbound direction of an SA.
///
/// Keys are for one sealer in one process: two of them would use a nonce twice, and with that give the key away. Who takes
/// an SA over from another process continues beyond its numbers: see [`jump`](Self::jump).
pub struct Sealer {
    cipher: Box<dyn Cipher>,
    suite: Suite,
    spi: u32,
    esn: bool,
    /// The last one used.
    sequence: u64,
    /// The last one that there is.
    last: u64,
}

impl Sealer {
    /// For keys that were never used.
    pub fn new(keys: &Keys) -> Result<Self, BadKeys> {
        Ok(Self::with_cipher(keys, cipher::new(keys)?))
    }

    pub(crate) fn with_cipher(keys: &Keys, cipher: Box<dyn Cipher>) -> Self {
        let &Keys { spi, suite, esn, material: _ } = keys;
        let last = if esn { u64::MAX } else { u32::MAX.into() };
        Self { cipher, suite, spi, esn, sequence: 0, last }
    }

    /// The SPI in its packets.
    #[inline]
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// Its cipher.
    #[inline]
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The last sequence number that was used; 0 before the first packet.
    #[inline]
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Skips numbers, never back: whoever takes over an SA skips all that its predecessor has used or may yet use.
    pub fn jump(&mut self, ahead: u64) {
        self.sequence = self.sequence.saturating_add(ahead).min(self.last);
    }

    /// Octets that must be free before the payload.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.suite.header_len()
    }

    /// Octets of the packet that a payload of this many octets becomes.
    #[inline]
    #[must_use]
    pub const fn sealed_len(&self, payload: usize) -> usize {
        self.suite.sealed_len(payload)
    }

    /// Makes a packet of `buffer`, in place: the payload lies at [`header_len`](Self::header_len), and the packet begins
    /// where the buffer does. Returns how long it is: [`sealed_len`](Self::sealed_len). What was in the buffer beyond it
    /// is untouched; what was before and behind the payload is overwritten.
    #[inline]
    pub fn seal(&mut self, buffer: &mut [u8], payload: usize, next_header: u8) -> Result<usize, SealError> {
        let needed = self.sealed_len(payload);
        let no_room = SealError::NoRoom { needed };
        let packet = buffer.get_mut(..needed).ok_or(no_room)?;
        let (header, rest) = packet.split_first_chunk_mut::<{ Header::LEN }>().ok_or(no_room)?;
        let (iv, rest) = rest.split_at_mut_checked(self.suite.iv_len()).ok_or(no_room)?;
        let body = rest.len().checked_sub(self.suite.icv_len()).ok_or(no_room)?;
        let (body, icv) = rest.split_at_mut_checked(body).ok_or(no_room)?;

        // A number is used up even if something fails from here on.
        let place = Place { spi: self.spi, sequence: self.next()?, esn: self.esn };
        *header = place.header();
        write_trailer(body.get_mut(payload..).ok_or(no_room)?, next_header);
        self.cipher.seal(place, iv, body, icv).map_err(|cipher::Refused| SealError::Cipher)?;
        Ok(needed)
    }

    //= rfc4303#3.3.3
    // The sender MUST NOT send a packet on an SA if doing so would cause the sequence number to cycle.
    #[inline]
    fn next(&mut self) -> Result<u64, SealError> {
        if self.sequence >= self.last {
            return Err(SealError::Exhausted);
        }
        self.sequence += 1;
        Ok(self.sequence)
    }
}

//= rfc4303#2.4
// The first padding octet is 1, with subsequent padding octets making up a monotonically increasing sequence.
#[inline]
fn write_trailer(trailer: &mut [u8], next_header: u8) {
    let Some((padding, [pad_len, next])) = trailer.split_last_chunk_mut::<TRAILER_LEN>() else { return };
    let mut count = 0;
    for octet in padding {
        count += 1;
        *octet = count;
    }
    (*pad_len, *next) = (count, next_header);
}

impl fmt::Debug for Sealer {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:08x} {}, {})", self.spi, self.suite, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both, keys, sealed};

    #[test]
    fn what_is_sealed_opens_to_the_same() {
        for (suite, esn) in Suite::ALL.into_iter().flat_map(|suite| [(suite, false), (suite, true)]) {
            let (mut sealer, mut opener) = both(suite, esn);
            for length in 0..80 {
                let mut buffer = [0xaa; 200];
                let payload: Vec<u8> = (100..).take(length).collect();
                buffer[suite.header_len()..][..length].copy_from_slice(&payload);
                let sealed = sealer.seal(&mut buffer, length, 47).unwrap();
                assert_eq!(sealed, suite.sealed_len(length));
                assert!(buffer[sealed..].iter().all(|octet| *octet == 0xaa));
                let opened = opener.open(&mut buffer[..sealed]).unwrap();
                assert_eq!(buffer[opened.payload], payload);
                assert_eq!((opened.next_header, opened.sequence), (47, length as u64 + 1));
            }
        }
    }

    //= rfc4303#2.2
    // The first packet sent using a given SA will contain a sequence number of 1.
    #[test]
    fn numbers_begin_at_one_and_the_iv_of_an_aead_is_the_number() {
        let (mut sealer, _) = both(Suite::Aes128Gcm16, false);
        assert_eq!(sealer.sequence(), 0);
        let packet = sealed(&mut sealer, b"hello");
        assert_eq!(packet[..16], [0xc0, 0xff, 0xee, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sealed(&mut sealer, b"hello")[4..16], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2]);
    }

    //= rfc4303#2.4
    // The first padding octet is 1, with subsequent padding octets making up a monotonically increasing sequence.
    #[test]
    fn padding_counts_from_one() {
        for padding in 0..16u8 {
            let mut trailer = vec![0xaa; usize::from(padding) + 2];
            write_trailer(&mut trailer, 47);
            let wanted: Vec<u8> = (1..=padding).chain([padding, 47]).collect();
            assert_eq!(trailer, wanted);
        }
    }

    //= rfc4303#3.3.3
    // The sender MUST NOT send a packet on an SA if doing so would cause the sequence number to cycle.
    #[test]
    fn numbers_never_cycle() {
        for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            for suite in Suite::ALL {
                let (mut sealer, _) = both(suite, esn);
                sealer.jump(last - 1);
                let mut buffer = [0; 100];
                assert!(sealer.seal(&mut buffer, 5, 47).is_ok());
                assert_eq!(sealer.sequence(), last);
                assert_eq!(sealer.seal(&mut buffer, 5, 47), Err(SealError::Exhausted));
                sealer.jump(1);
                assert_eq!(sealer.seal(&mut buffer, 5, 47), Err(SealError::Exhausted));
                assert_eq!(sealer.sequence(), last);
            }
        }
    }

    #[test]
    fn a_jump_leads_forward_only() {
        let (mut sealer, _) = both(Suite::Aes128Gcm16, true);
        sealer.jump(1000);
        assert_eq!(sealed(&mut sealer, b"")[4..8], [0, 0, 3, 0xe9]);
        sealer.jump(0);
        assert_eq!(sealer.sequence(), 1001);
        sealer.jump(u64::MAX);
        assert_eq!(sealer.sequence(), u64::MAX);
    }

    #[test]
    fn a_successor_continues_and_is_understood() {
        let keys = keys(Suite::Aes256Gcm16, false);
        let (mut old, mut opener) = both(keys.suite, false);
        assert!(opener.open(&mut sealed(&mut old, b"one")).is_ok());
        let mut new = Sealer::new(&keys).unwrap();
        new.jump(old.sequence() + 100_000);
        let mut late = sealed(&mut old, b"two");
        assert_eq!(opener.open(&mut sealed(&mut new, b"three")).unwrap().sequence, 100_002);
        assert_eq!(opener.open(&mut late), Err(crate::OpenError::TooOld));
    }

    #[test]
    fn a_buffer_that_is_too_small_uses_no_number_up() {
        for suite in Suite::ALL {
            let (mut sealer, _) = both(suite, false);
            let needed = suite.sealed_len(20);
            let mut buffer = vec![0; needed - 1];
            assert_eq!(sealer.seal(&mut buffer, 20, 47), Err(SealError::NoRoom { needed }));
            let huge = sealer.seal(&mut buffer, usize::MAX, 47);
            assert!(matches!(huge, Err(SealError::NoRoom { .. })));
            assert_eq!(sealer.sequence(), 0);
        }
    }

    #[test]
    fn keys_that_make_no_sa_are_refused() {
        for suite in Suite::ALL {
            let needed = suite.key_len();
            for given in [0, 4, 31, needed - 1, needed + 1, 200] {
                let wrong = Keys { material: vec![0; given].into(), ..keys(suite, false) };
                assert_eq!(Sealer::new(&wrong).unwrap_err(), BadKeys::Material { needed, given });
            }
            let reserved = Keys { spi: 255, ..keys(suite, false) };
            assert_eq!(Sealer::new(&reserved).unwrap_err(), BadKeys::Spi);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let keys = keys(Suite::Aes128Gcm16, false);
        let shown = format!("{keys:?} {:?} {:?}", Sealer::new(&keys), crate::Opener::new(&keys));
        assert_eq!(
            shown,
            "Keys(c0ffee01 aes128gcm16) Ok(Sealer(c0ffee01 aes128gcm16, 0)) Ok(Opener(c0ffee01 aes128gcm16, 0))"
        );
    }
}
