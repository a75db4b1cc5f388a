//! GRE (RFC 2784) with key and sequence number (RFC 2890).
//!
//! ```text
//!  0                   1                   2                   3
//! |C| |K|S| Reserved0       | Ver |         Protocol Type         |
//! |      Checksum (optional)      |       Reserved1 (Optional)    |
//! |                         Key (optional)                        |
//! |                  Sequence Number (optional)                   |
//! ```
//! Sent without checksum and sequence number; a checksum that arrives is verified, a sequence number is ignored.

use crate::checksum::Sum;
use crate::error::{Malformed, NoRoom};

/// Octets of the longest header that is decoded: checksum, key and sequence number.
pub const MAX_HEADER_LEN: usize = 16;

/// Octets of the longest header that is encoded: with a key.
pub const MAX_ENCODED_LEN: usize = 8;

const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Bits 1, 4 and 5, which a receiver that doesn't do RFC 1701 must not accept (RFC 2784 §2.3). Bits 2 and 3 became K
/// and S, the others are ignored.
const MUST_BE_ZERO: u16 = 0x4c00;
const VERSION: u16 = 0x0007;

/// A GRE protocol type: an Ethertype.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Protocol(pub u16);

impl Protocol {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// NHRP.
    pub const NHRP: Self = Self(0x2001);
}

/// What the header of a packet said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What follows.
    pub protocol: Protocol,
    /// The key. No key is not key 0.
    pub key: Option<u32>,
    /// The sequence number.
    pub sequence: Option<u32>,
    /// Octets of the header.
    pub header_len: usize,
}

/// Reads the header of a GRE packet, and verifies the checksum if there is one. Returns the payload with it.
pub fn decode(packet: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let (fixed, mut rest) = packet.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let [a, b, c, d] = *fixed;
    let flags = u16::from_be_bytes([a, b]);
    if flags & VERSION != 0 {
        return Err(Malformed::Version);
    }
    if flags & MUST_BE_ZERO != 0 {
        return Err(Malformed::Reserved);
    }
    let mut word = |present: bool| -> Result<Option<u32>, Malformed> {
        if !present {
            return Ok(None);
        }
        let (word, after) = rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        rest = after;
        Ok(Some(u32::from_be_bytes(*word)))
    };
    let checksum = word(flags & CHECKSUM != 0)?;
    let key = word(flags & KEY != 0)?;
    let sequence = word(flags & SEQUENCE != 0)?;
    if checksum.is_some() && !Sum::ZERO.with(packet).is_valid() {
        return Err(Malformed::Checksum);
    }
    let protocol = Protocol(u16::from_be_bytes([c, d]));
    Ok((Header { protocol, key, sequence, header_len: packet.len() - rest.len() }, rest))
}

/// Octets of the header that [`encode`] writes.
#[inline]
#[must_use]
pub const fn encoded_len(key: Option<u32>) -> usize {
    if key.is_some() { 8 } else { 4 }
}

/// Writes a header into the headroom before a payload that begins at `payload`, and returns where the header begins.
#[inline]
pub fn encode(
    buffer: &mut [u8],
    payload: usize,
    protocol: Protocol,
    key: Option<u32>,
) -> Result<usize, NoRoom> {
    let needed = encoded_len(key);
    let start = payload.checked_sub(needed).ok_or(NoRoom { needed })?;
    let header = buffer.get_mut(start..payload).ok_or(NoRoom { needed: payload })?;
    let flags = if key.is_some() { KEY } else { 0 };
    let word = u32::from(flags) << 16 | u32::from(protocol.0);
    if let Some((fixed, rest)) = header.split_first_chunk_mut::<4>() {
        *fixed = word.to_be_bytes();
        if let (Some(key), Some(place)) = (key, rest.first_chunk_mut::<4>()) {
            *place = key.to_be_bytes();
        }
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_checksum_that_arrives_is_verified() {
        let mut packet = [0xb0, 0, 0x20, 0x01, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 7, 1, 2, 3];
        let sum = crate::checksum::checksum(&packet);
        packet[4..6].copy_from_slice(&sum.to_be_bytes());
        let (header, payload) = decode(&packet).unwrap();
        let expected = Header { protocol: Protocol::NHRP, key: Some(42), sequence: Some(7), header_len: 16 };
        assert_eq!((header, payload), (expected, &[1, 2, 3][..]));
        packet[18] ^= 1;
        assert_eq!(decode(&packet), Err(Malformed::Checksum));
    }

    #[test]
    fn source_routing_and_pptp_are_refused() {
        assert_eq!(decode(&[0x40, 0, 8, 0]), Err(Malformed::Reserved)); // routing present
        assert_eq!(decode(&[0x08, 0, 8, 0]), Err(Malformed::Reserved)); // strict source route
        assert_eq!(decode(&[0x30, 1, 0x88, 0x0b]), Err(Malformed::Version)); // PPTP
        assert!(decode(&[0x00, 0x08, 8, 0]).is_ok()); // bits 6 to 12 are ignored
    }

    #[test]
    fn missing_optional_fields_are_a_truncation() {
        assert_eq!(decode(&[0x20, 0, 8]), Err(Malformed::Truncated));
        assert_eq!(decode(&[0x20, 0, 8, 0, 1, 2, 3]), Err(Malformed::Truncated));
    }

    #[test]
    fn no_headroom_is_said() {
        let mut buffer = [0; 16];
        assert_eq!(encode(&mut buffer, 7, Protocol::IPV4, Some(1)), Err(NoRoom { needed: 8 }));
        assert_eq!(encode(&mut buffer, 17, Protocol::IPV4, None), Err(NoRoom { needed: 17 }));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(key: Option<u32>, protocol: u16, payload: Vec<u8>) {
            let mut buffer = vec![0xaa; 32];
            buffer.extend_from_slice(&payload);
            let start = encode(&mut buffer, 32, Protocol(protocol), key).unwrap();
            prop_assert_eq!(32 - start, encoded_len(key));
            let (header, rest) = decode(&buffer[start..]).unwrap();
            prop_assert_eq!((header.protocol, header.key, header.sequence), (Protocol(protocol), key, None));
            prop_assert_eq!(rest, &payload[..]);
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}
