//! What stands in front of an ESP packet, in clear.
//!
//! ```text
//!  0                   1                   2                   3
//! |               Security Parameters Index (SPI)                 |
//! |                      Sequence Number                          |
//! |              IV (8 octets; AES-CBC: 16) ...                   |
//! ```

use zerocopy::byteorder::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SPI and sequence number: what every ESP packet begins with (RFC 4303 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Which SA of the receiver.
    pub spi: U32,
    /// The low 32 bits of the sequence number.
    pub sequence: U32,
}

const _: () = assert!(size_of::<Header>() == Header::LEN);

impl Header {
    /// Octets.
    pub const LEN: usize = 8;

    /// The header, and what follows it.
    #[inline]
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(packet).ok()
    }
}

/// The SPI of an ESP packet; `None` when there is no whole header.
#[inline]
#[must_use]
pub fn spi_of(packet: &[u8]) -> Option<u32> {
    Header::parse(packet).map(|(header, _)| header.spi.get())
}

/// What a datagram of UDP port 4500 is (RFC 3948 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapped<'a> {
    /// ESP for the SA with this SPI; the packet is the whole datagram.
    Esp(u32),
    /// IKE, behind the four zero octets of the non-ESP marker.
    Ike(&'a [u8]),
    /// A NAT keepalive: one octet 0xff.
    Keepalive,
    /// Neither.
    Malformed,
}

impl<'a> Wrapped<'a> {
    /// Tells them apart.
    //= rfc3948#2.2
    // The non-ESP marker is 4 zero octets, where the SPI of an ESP packet would be.
    #[inline]
    #[must_use]
    pub fn of(datagram: &'a [u8]) -> Self {
        match datagram {
            [0, 0, 0, 0, message @ ..] => Self::Ike(message),
            [0xff] => Self::Keepalive,
            _ => spi_of(datagram).map_or(Self::Malformed, Self::Esp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_shorter_than_eight_octets_has_no_spi() {
        assert_eq!(spi_of(&[0xc0, 0xff, 0xee, 1, 0, 0, 0]), None);
        assert_eq!(spi_of(&[0xc0, 0xff, 0xee, 1, 0, 0, 0, 9]), Some(0xc0ff_ee01));
    }

    //= rfc3948#2.2
    // The non-ESP marker is 4 zero octets, where the SPI of an ESP packet would be.
    #[test]
    fn port_4500_carries_three_kinds_of_datagrams() {
        assert_eq!(Wrapped::of(&[0, 0, 0, 0, 7, 8]), Wrapped::Ike(&[7, 8]));
        assert_eq!(Wrapped::of(&[0, 0, 1, 0, 0, 0, 0, 1, 2]), Wrapped::Esp(256));
        assert_eq!(Wrapped::of(&[0xff]), Wrapped::Keepalive);
    }

    #[test]
    fn what_is_neither_is_malformed() {
        for datagram in [&[][..], &[0], &[0, 0, 0], &[0xff, 0xff], &[1; 7]] {
            assert_eq!(Wrapped::of(datagram), Wrapped::Malformed, "{datagram:?}");
        }
    }
}
