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
    use crate::Opener;

    fn keys(suite: Suite, esn: bool) -> Keys {
        Keys {
            spi: 0xc0ff_ee01,
            suite,
            esn,
            material: (0..).take(suite.key_len()).collect::<Vec<u8>>().into(),
        }
    }

    fn both(suite: Suite, esn: bool) -> (Sealer, Opener) {
        let keys = keys(suite, esn);
        (Sealer::new(&keys).unwrap(), Opener::new(&keys).unwrap())
    }

    #[test]
    fn what_is_sealed_opens_to_the_same() {
        for suite in Suite::ALL {
            for esn in [false, true] {
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
    }
}
