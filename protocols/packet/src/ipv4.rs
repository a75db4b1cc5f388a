//! IPv4 (RFC 791).

use crate::checksum::{self, Sum};
use crate::error::Malformed;
use std::net::Ipv4Addr;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Don't Fragment, in [`Header::flags_fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// More Fragments, in [`Header::flags_fragment`].
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset, in [`Header::flags_fragment`], in units of 8 octets.
pub const OFFSET_MASK: u16 = 0x1fff;

/// The fixed part of the header (RFC 791 §3.1).
/// ```text
/// |Version|  IHL  |Type of Service|          Total Length         |
/// |         Identification        |Flags|      Fragment Offset    |
/// |  Time to Live |    Protocol   |         Header Checksum       |
/// |                       Source Address                          |
/// |                    Destination Address                        |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets of the packet, header included.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Three flags and the fragment offset.
    pub flags_fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Checksum of the header.
    pub checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// A header without options, with its checksum; DF is set and the identification is 0 (RFC 6864 atomic datagram).
    #[must_use]
    pub fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        tos: u8,
        ttl: u8,
        payload_len: u16,
    ) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            tos,
            total_len: U16::new(payload_len.saturating_add(20)),
            id: U16::ZERO,
            flags_fragment: U16::new(DONT_FRAGMENT),
            ttl,
            protocol,
            checksum: U16::ZERO,
            source: source.octets(),
            destination: destination.octets(),
        };
        header.checksum = U16::new(checksum::checksum(header.as_bytes()));
        header
    }

    /// The fixed part of a packet's header and all that follows it (options first), with every length checked against
    /// what arrived. The header checksum is not verified: see [`is_checksum_valid`].
    pub fn parse(packet: &[u8]) -> Result<(&Self, &[u8]), Malformed> {
        let (header, rest) = Self::ref_from_prefix(packet).map_err(|_| Malformed::Truncated)?;
        header.check(packet.len())?;
        Ok((header, rest))
    }

    /// The same for a packet that is to be changed.
    pub fn parse_mut(packet: &mut [u8]) -> Result<(&mut Self, &mut [u8]), Malformed> {
        let arrived = packet.len();
        let (header, rest) = Self::mut_from_prefix(packet).map_err(|_| Malformed::Truncated)?;
        header.check(arrived)?;
        Ok((header, rest))
    }

    fn check(&self, arrived: usize) -> Result<(), Malformed> {
        if self.version_ihl >> 4 != 4 {
            return Err(Malformed::Version);
        }
        if self.header_len() < HEADER_LEN {
            return Err(Malformed::HeaderLength);
        }
        if self.header_len() > arrived {
            return Err(Malformed::Truncated);
        }
        if self.total_len() < self.header_len() || self.total_len() > arrived {
            return Err(Malformed::TotalLength);
        }
        Ok(())
    }

    /// Octets of the header, options included.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 15) as usize * 4
    }

    /// Octets of the packet.
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::from(self.total_len.get())
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.source.into()
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        self.destination.into()
    }

    /// Is DF set?
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.flags_fragment.get() & DONT_FRAGMENT != 0
    }

    /// Fragment offset in octets.
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_fragment.get() & OFFSET_MASK) << 3
    }

    /// Is it one piece of several?
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & (OFFSET_MASK | MORE_FRAGMENTS) != 0
    }

    /// Changes the TTL, and the checksum with it.
    pub fn set_ttl(&mut self, ttl: u8) {
        let old = u16::from_be_bytes([self.ttl, self.protocol]);
        self.ttl = ttl;
        let new = u16::from_be_bytes([self.ttl, self.protocol]);
        self.checksum.set(checksum::update(self.checksum.get(), old, new));
    }

    /// Changes DSCP and ECN, and the checksum with them.
    pub fn set_tos(&mut self, tos: u8) {
        let old = u16::from_be_bytes([self.version_ihl, self.tos]);
        self.tos = tos;
        let new = u16::from_be_bytes([self.version_ihl, self.tos]);
        self.checksum.set(checksum::update(self.checksum.get(), old, new));
    }
}

/// Is the header checksum of this packet right?
#[must_use]
pub fn is_checksum_valid(packet: &[u8]) -> bool {
    Header::parse(packet)
        .ok()
        .and_then(|(header, _)| packet.get(..header.header_len()))
        .is_some_and(|header| Sum::ZERO.with(header).is_valid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet() -> Vec<u8> {
        let header = Header::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 17, 0xb8, 64, 8);
        let mut packet = header.as_bytes().to_vec();
        packet.extend_from_slice(&[0; 8]);
        packet
    }

    #[test]
    fn a_new_header_parses_and_has_a_valid_checksum() {
        let packet = packet();
        let (header, rest) = Header::parse(&packet).unwrap();
        assert_eq!((header.header_len(), header.total_len(), rest.len()), (20, 28, 8));
        assert!(is_checksum_valid(&packet));
        assert!(header.dont_fragment() && !header.is_fragment());
    }

    #[test]
    fn each_lie_about_lengths_has_its_name() {
        let good = packet();
        assert_eq!(Header::parse(&good[..19]), Err(Malformed::Truncated));
        assert_eq!(Header::parse(&good[..27]), Err(Malformed::TotalLength));
        let with = |at: usize, value| {
            let mut bad = good.clone();
            bad[at] = value;
            Header::parse(&bad).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 0x65), Malformed::Version);
        assert_eq!(with(0, 0x44), Malformed::HeaderLength);
        assert_eq!(with(0, 0x4f), Malformed::Truncated);
        assert_eq!(with(3, 19), Malformed::TotalLength);
    }

    proptest! {
        #[test]
        fn changing_ttl_and_tos_keeps_the_checksum_right(ttl: u8, tos: u8) {
            let mut packet = packet();
            let (header, _) = Header::parse_mut(&mut packet).unwrap();
            header.set_ttl(ttl);
            header.set_tos(tos);
            prop_assert_eq!((header.ttl, header.tos), (ttl, tos));
            prop_assert!(is_checksum_valid(&packet));
        }
    }
}
