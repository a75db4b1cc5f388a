//! IPv6 (RFC 8200).

use crate::error::Malformed;
use crate::ip::Protocol;
use std::net::Ipv6Addr;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;

/// The least MTU of any IPv6 link (RFC 8200 §5).
pub const MIN_MTU: usize = 1280;

/// Extension headers walked before a packet is refused. RFC 8200 §4.1 knows of six in order, two of them twice.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The fixed header (RFC 8200 §3).
/// ```text
/// |Version| Traffic Class |           Flow Label                  |
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// |                     Source Address (16)                       |
/// |                  Destination Address (16)                     |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_class_flow: U32,
    /// Octets after this header.
    pub payload_len: U16,
    /// What follows this header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// A header with flow label 0.
    #[must_use]
    pub fn new(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next_header: u8,
        traffic_class: u8,
        hop_limit: u8,
        payload_len: u16,
    ) -> Self {
        Self {
            version_class_flow: U32::new(6 << 28 | u32::from(traffic_class) << 20),
            payload_len: U16::new(payload_len),
            next_header,
            hop_limit,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// The fixed header of a packet and what follows it, with its length checked against what arrived.
    pub fn parse(packet: &[u8]) -> Result<(&Self, &[u8]), Malformed> {
        let (header, rest) = Self::ref_from_prefix(packet).map_err(|_| Malformed::Truncated)?;
        header.check(rest.len())?;
        Ok((header, rest))
    }

    /// The same for a packet that is to be changed.
    pub fn parse_mut(packet: &mut [u8]) -> Result<(&mut Self, &mut [u8]), Malformed> {
        let (header, rest) = Self::mut_from_prefix(packet).map_err(|_| Malformed::Truncated)?;
        header.check(rest.len())?;
        Ok((header, rest))
    }

    fn check(&self, arrived: usize) -> Result<(), Malformed> {
        if self.version_class_flow.get() >> 28 != 6 {
            return Err(Malformed::Version);
        }
        if usize::from(self.payload_len.get()) > arrived {
            return Err(Malformed::TotalLength);
        }
        Ok(())
    }

    /// Octets of the packet.
    #[must_use]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(self.payload_len.get())
    }

    /// DSCP and ECN.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20 & 0xff) as u8
    }

    /// Version, traffic class and flow label as one word, to compare two headers by.
    #[must_use]
    pub fn version_class_flow(&self) -> u32 {
        self.version_class_flow.get()
    }

    /// Changes DSCP and ECN.
    pub fn set_traffic_class(&mut self, class: u8) {
        let word = self.version_class_flow.get() & 0xf00f_ffff | u32::from(class) << 20;
        self.version_class_flow.set(word);
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.source.into()
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        self.destination.into()
    }
}

/// Where the extension headers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The upper-layer protocol. Behind a fragment header that is not the first this is what the first one carries.
    pub protocol: Protocol,
    /// Octets from the start of the packet to the upper layer.
    pub offset: usize,
    /// From the fragment header, if there is one: offset in octets, more to come, identification.
    pub fragment: Option<(u16, bool, u32)>,
}

/// Walks the extension headers of a packet to its upper layer. The walk ends at ESP, at "no next header", and behind a
/// fragment header that is not the first.
pub fn upper_layer(packet: &[u8]) -> Result<Upper, Malformed> {
    let (header, _) = Header::parse(packet)?;
    let packet = packet.get(..header.total_len()).unwrap_or(packet);
    let mut upper = Upper { protocol: Protocol(header.next_header), offset: HEADER_LEN, fragment: None };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let length = match upper.protocol {
            Protocol::HOP_BY_HOP
            | Protocol::ROUTING
            | Protocol::DESTINATION_OPTIONS
            | Protocol::MOBILITY
            | Protocol::HIP
            | Protocol::SHIM6 => (usize::from(octet(packet, upper.offset + 1)?) + 1) * 8,
            Protocol::AUTHENTICATION => (usize::from(octet(packet, upper.offset + 1)?) + 2) * 4,
            Protocol::FRAGMENT => 8,
            _ => return Ok(upper),
        };
        let this = upper.protocol;
        let Some(bytes) = packet.get(upper.offset..upper.offset + length) else {
            return Err(Malformed::Truncated);
        };
        upper.protocol = Protocol(octet(bytes, 0)?);
        upper.offset += length;
        if this == Protocol::FRAGMENT
            && let [_, _, a, b, id @ ..] = bytes
            && let Ok(id) = <[u8; 4]>::try_from(id)
        {
            let field = u16::from_be_bytes([*a, *b]);
            upper.fragment = Some((field & 0xfff8, field & 1 != 0, u32::from_be_bytes(id)));
            if field & 0xfff8 != 0 {
                return Ok(upper);
            }
        }
    }
    Err(Malformed::ExtensionHeaders)
}

fn octet(bytes: &[u8], at: usize) -> Result<u8, Malformed> {
    bytes.get(at).copied().ok_or(Malformed::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let mut packet = Header::new(a, b, next_header, 0xb8, 64, payload.len() as u16).as_bytes().to_vec();
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn the_fields_are_where_the_rfc_puts_them() {
        let mut packet = packet(17, &[0; 8]);
        assert_eq!(packet[..2], [0x6b, 0x80]);
        let (header, rest) = Header::parse_mut(&mut packet).unwrap();
        assert_eq!((header.traffic_class(), header.total_len(), rest.len()), (0xb8, 48, 8));
        header.set_traffic_class(0x03);
        assert_eq!(header.traffic_class(), 3);
        assert_eq!(packet[..4], [0x60, 0x30, 0, 0]);
    }

    #[test]
    fn lies_about_version_and_length_have_their_names() {
        let good = packet(17, &[0; 8]);
        assert_eq!(Header::parse(&good[..39]), Err(Malformed::Truncated));
        assert_eq!(Header::parse(&good[..47]), Err(Malformed::TotalLength));
        let mut bad = good;
        bad[0] = 0x45;
        assert_eq!(Header::parse(&bad), Err(Malformed::Version));
    }

    #[test]
    fn the_walk_passes_options_and_a_first_fragment() {
        let mut payload = vec![43, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, then routing
        payload.extend_from_slice(&[44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // routing, 16 octets, then fragment
        payload.extend_from_slice(&[6, 0, 0, 1, 0, 0, 0, 9]); // first fragment, more to come, then TCP
        payload.extend_from_slice(&[0; 20]);
        let upper = upper_layer(&packet(0, &payload)).unwrap();
        assert_eq!(upper, Upper { protocol: Protocol::TCP, offset: 72, fragment: Some((0, true, 9)) });
    }

    #[test]
    fn the_walk_ends_behind_a_later_fragment() {
        // What follows looks like a hop-by-hop header, but is payload.
        let payload = [0, 0, 0, 8, 0, 0, 0, 9, 6, 200, 0, 0, 0, 0, 0, 0];
        let upper = upper_layer(&packet(44, &payload)).unwrap();
        assert_eq!(upper, Upper { protocol: Protocol(0), offset: 48, fragment: Some((8, false, 9)) });
    }

    #[test]
    fn an_endless_chain_is_refused() {
        let chain = [60, 0, 0, 0, 0, 0, 0, 0].repeat(40);
        assert_eq!(upper_layer(&packet(60, &chain)), Err(Malformed::ExtensionHeaders));
    }

    #[test]
    fn a_header_that_ends_beyond_the_packet_is_truncated() {
        assert_eq!(upper_layer(&packet(0, &[6, 9, 0, 0, 0, 0, 0, 0])), Err(Malformed::Truncated));
        assert_eq!(upper_layer(&packet(0, &[])), Err(Malformed::Truncated));
    }

    proptest! {
        #[test]
        fn the_walk_never_panics(next: u8, payload in proptest::collection::vec(0u8..64, 0..120)) {
            let packet = packet(next, &payload);
            if let Ok(upper) = upper_layer(&packet) {
                prop_assert!(upper.offset <= packet.len());
            }
        }
    }
}
