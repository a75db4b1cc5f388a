//! UDP (RFC 768).

use crate::error::Malformed;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

/// Where the checksum stands in the header.
pub const CHECKSUM_OFFSET: usize = 6;

/// ```text
/// | source port (2) | destination port (2) | length (2) | checksum (2) |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Octets of header and payload.
    pub length: U16,
    /// Checksum; 0 is "none".
    pub checksum: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// The header, and the payload as far as the length field says.
    pub fn parse(upper: &[u8]) -> Result<(&Self, &[u8]), Malformed> {
        let (header, rest) = Self::ref_from_prefix(upper).map_err(|_| Malformed::Truncated)?;
        let length = usize::from(header.length.get());
        let payload = length.checked_sub(HEADER_LEN).and_then(|n| rest.get(..n));
        Ok((header, payload.ok_or(Malformed::TotalLength)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_field_bounds_the_payload() {
        let mut packet = [0, 1, 0, 2, 0, 10, 0, 0, 7, 7, 9, 9];
        let (header, payload) = Header::parse(&packet).unwrap();
        assert_eq!((header.source_port.get(), header.destination_port.get(), payload), (1, 2, &[7, 7][..]));
        packet[5] = 13;
        assert_eq!(Header::parse(&packet), Err(Malformed::TotalLength));
        packet[5] = 7;
        assert_eq!(Header::parse(&packet), Err(Malformed::TotalLength));
        assert_eq!(Header::parse(&packet[..7]), Err(Malformed::Truncated));
    }
}
