//! An IP packet of either version, as far as the dataplane must understand it.

use crate::checksum::Sum;
use crate::error::Malformed;
use crate::{ipv4, ipv6};
use std::net::IpAddr;

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: Self = Self(0);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// IPv6 routing header.
    pub const ROUTING: Self = Self(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: Self = Self(44);
    /// GRE.
    pub const GRE: Self = Self(47);
    /// IPsec ESP.
    pub const ESP: Self = Self(50);
    /// IPsec authentication header.
    pub const AUTHENTICATION: Self = Self(51);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// Nothing follows.
    pub const NO_NEXT_HEADER: Self = Self(59);
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: Self = Self(60);
    /// IPv6 mobility header.
    pub const MOBILITY: Self = Self(135);
    /// Host identity protocol.
    pub const HIP: Self = Self(139);
    /// Shim6.
    pub const SHIM6: Self = Self(140);
}

/// Which piece of a fragmented packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Where its payload belongs, in octets.
    pub offset: u16,
    /// Are there later ones?
    pub more: bool,
    /// What the pieces of one packet share.
    pub id: u32,
}

/// What the headers of a packet say. All lengths have been checked against what arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address; of the same version.
    pub destination: IpAddr,
    /// The upper layer's protocol, behind any extension headers.
    pub protocol: Protocol,
    /// Octets before the upper layer: header and options, or extension headers.
    pub header_len: usize,
    /// Octets of the packet; what arrived may be longer by link-layer padding.
    pub total_len: usize,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Must no router fragment it? Always so for IPv6.
    pub dont_fragment: bool,
    /// Set when it is one piece of several.
    pub fragment: Option<Fragment>,
}

impl Ip {
    /// Reads the headers of a packet. Nothing is verified but lengths.
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        match version(packet) {
            Some(4) => Self::parse_v4(packet),
            Some(6) => Self::parse_v6(packet),
            Some(_) => Err(Malformed::Version),
            None => Err(Malformed::Truncated),
        }
    }

    fn parse_v4(packet: &[u8]) -> Result<Self, Malformed> {
        let (header, _) = ipv4::Header::parse(packet)?;
        let fragment = header.is_fragment().then(|| Fragment {
            offset: header.fragment_offset(),
            more: header.flags_fragment.get() & ipv4::MORE_FRAGMENTS != 0,
            id: u32::from(header.id.get()),
        });
        Ok(Self {
            source: header.source().into(),
            destination: header.destination().into(),
            protocol: Protocol(header.protocol),
            header_len: header.header_len(),
            total_len: header.total_len(),
            tos: header.tos,
            ttl: header.ttl,
            dont_fragment: header.dont_fragment(),
            fragment,
        })
    }

    fn parse_v6(packet: &[u8]) -> Result<Self, Malformed> {
        let (header, _) = ipv6::Header::parse(packet)?;
        let upper = ipv6::upper_layer(packet)?;
        Ok(Self {
            source: header.source().into(),
            destination: header.destination().into(),
            protocol: upper.protocol,
            header_len: upper.offset,
            total_len: header.total_len(),
            tos: header.traffic_class(),
            ttl: header.hop_limit,
            dont_fragment: true,
            fragment: upper.fragment.map(|(offset, more, id)| Fragment { offset, more, id }),
        })
    }

    /// Is it IPv4?
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Does the upper layer's header begin in this packet? Not so in a later fragment.
    #[must_use]
    pub const fn has_upper_header(&self) -> bool {
        matches!(self.fragment, None | Some(Fragment { offset: 0, .. }))
    }

    /// The upper layer of the packet that was parsed, without padding.
    #[must_use]
    pub fn upper<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.header_len..self.total_len).unwrap_or_default()
    }

    /// The sum of the pseudo header for the upper layer; see [`Sum::pseudo`].
    pub fn pseudo_sum(&self) -> Sum {
        let length = self.total_len.saturating_sub(self.header_len);
        Sum::pseudo(self.source, self.destination, self.protocol.0, u32::try_from(length).unwrap_or(u32::MAX))
    }
}

/// The TTL or hop limit is used up: the packet must not be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("time to live exceeded")]
pub struct TtlExceeded;

/// The version field of a packet, whatever it says; `None` for no octets at all.
#[must_use]
pub fn version(packet: &[u8]) -> Option<u8> {
    packet.first().map(|b| b >> 4)
}

/// Takes one off the TTL, as a router does; nothing is changed where it would reach zero (RFC 1812 §5.3.1).
/// A packet that doesn't parse is left as it is.
pub fn decrement_ttl(packet: &mut [u8]) -> Result<(), TtlExceeded> {
    match version(packet) {
        Some(4) => {
            if let Ok((header, _)) = ipv4::Header::parse_mut(packet) {
                let ttl = header.ttl.checked_sub(1).filter(|t| *t > 0).ok_or(TtlExceeded)?;
                header.set_ttl(ttl);
            }
        }
        Some(6) => {
            if let Ok((header, _)) = ipv6::Header::parse_mut(packet) {
                header.hop_limit = header.hop_limit.checked_sub(1).filter(|t| *t > 0).ok_or(TtlExceeded)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Sets the TTL or hop limit. A packet that doesn't parse is left as it is.
pub fn set_ttl(packet: &mut [u8], ttl: u8) {
    match version(packet) {
        Some(4) => {
            if let Ok((header, _)) = ipv4::Header::parse_mut(packet) {
                header.set_ttl(ttl);
            }
        }
        Some(6) => {
            if let Ok((header, _)) = ipv6::Header::parse_mut(packet) {
                header.hop_limit = ttl;
            }
        }
        _ => {}
    }
}

/// Sets DSCP and ECN. A packet that doesn't parse is left as it is.
pub fn set_tos(packet: &mut [u8], tos: u8) {
    match version(packet) {
        Some(4) => {
            if let Ok((header, _)) = ipv4::Header::parse_mut(packet) {
                header.set_tos(tos);
            }
        }
        Some(6) => {
            if let Ok((header, _)) = ipv6::Header::parse_mut(packet) {
                header.set_traffic_class(tos);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use zerocopy::IntoBytes;

    fn v4(ttl: u8) -> Vec<u8> {
        let header = ipv4::Header::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 17, 1, ttl, 8);
        [header.as_bytes(), &[7; 8], &[0; 3]].concat()
    }

    fn v6(ttl: u8) -> Vec<u8> {
        let header = ipv6::Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 17, 1, ttl, 8);
        [header.as_bytes(), &[7; 8]].concat()
    }

    #[test]
    fn padding_is_not_part_of_the_upper_layer() {
        let packet = v4(9);
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!(ip.upper(&packet), [7; 8]);
        assert_eq!((ip.protocol, ip.ttl, ip.tos, ip.header_len), (Protocol::UDP, 9, 1, 20));
        let packet = v6(9);
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!(ip.upper(&packet), [7; 8]);
        assert_eq!((ip.protocol, ip.ttl, ip.tos, ip.header_len), (Protocol::UDP, 9, 1, 40));
    }

    #[test]
    fn a_used_up_ttl_is_not_forwarded() {
        for mut packet in [v4(1), v6(1), v4(0), v6(0)] {
            let before = packet.clone();
            assert_eq!(decrement_ttl(&mut packet), Err(TtlExceeded));
            assert_eq!(packet, before);
        }
        for mut packet in [v4(2), v6(2)] {
            assert_eq!(decrement_ttl(&mut packet), Ok(()));
            assert_eq!(Ip::parse(&packet).unwrap().ttl, 1);
        }
    }

    #[test]
    fn a_later_fragment_has_no_upper_header() {
        let mut packet = v4(9);
        packet[6..8].copy_from_slice(&[0x20, 0x02]);
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!(ip.fragment, Some(Fragment { offset: 16, more: true, id: 0 }));
        assert!(!ip.has_upper_header() && !ip.dont_fragment);
    }

    proptest! {
        #[test]
        fn nothing_panics_on_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), six: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x40 | *first & 15 };
            }
            if let Ok(ip) = Ip::parse(&bytes) {
                prop_assert!(ip.header_len <= ip.total_len && ip.total_len <= bytes.len());
                let _ = (ip.upper(&bytes), ip.pseudo_sum());
            }
            let _ = decrement_ttl(&mut bytes);
            set_ttl(&mut bytes, 3);
            set_tos(&mut bytes, 4);
        }
    }
}
