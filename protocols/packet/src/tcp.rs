//! TCP (RFC 9293), as far as segmentation, coalescing and the MSS clamp need it.

use crate::error::Malformed;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Octets of the longest header.
pub const MAX_HEADER_LEN: usize = 60;

/// Where the checksum stands in the header.
pub const CHECKSUM_OFFSET: usize = 16;

/// Control bits (RFC 9293 §3.1, RFC 3168 §6.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was seen.
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced.
    pub const CWR: u8 = 0x80;
}

/// The fixed part of the header (RFC 9293 §3.1).
/// ```text
/// |          Source Port          |       Destination Port        |
/// |                        Sequence Number                        |
/// |                    Acknowledgment Number                      |
/// | Offset| Rsrvd |    Flags      |            Window             |
/// |           Checksum            |         Urgent Pointer        |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Sequence number of the first octet.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Data offset in 32-bit words (upper half) and reserved bits.
    pub offset_reserved: u8,
    /// Control bits, see [`flags`].
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Checksum.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// The fixed part, the options and the payload.
    pub fn parse(upper: &[u8]) -> Result<(&Self, &[u8], &[u8]), Malformed> {
        let (header, rest) = Self::ref_from_prefix(upper).map_err(|_| Malformed::Truncated)?;
        let options = header.header_len().checked_sub(HEADER_LEN).ok_or(Malformed::HeaderLength)?;
        let (options, payload) = rest.split_at_checked(options).ok_or(Malformed::Truncated)?;
        Ok((header, options, payload))
    }

    /// Octets of the header, options included.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.offset_reserved >> 4) as usize * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_payload_are_told_apart() {
        let mut packet = vec![0; 26];
        packet[12] = 0x60;
        let (header, options, payload) = Header::parse(&packet).unwrap();
        assert_eq!((header.header_len(), options.len(), payload.len()), (24, 4, 2));
        packet[12] = 0x40;
        assert_eq!(Header::parse(&packet), Err(Malformed::HeaderLength));
        packet[12] = 0x70;
        assert_eq!(Header::parse(&packet), Err(Malformed::Truncated));
    }
}
