//! Ethernet II, as frames stand on the TAP.

use crate::Malformed;
use crate::peer::Mac;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of the header.
pub const HEADER_LEN: usize = 14;

/// Everybody on the LAN.
pub const BROADCAST: Mac = [0xff; 6];

/// What a frame carries.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct EtherType(pub U16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(U16::new(0x0800));
    /// ARP (RFC 826).
    pub const ARP: Self = Self(U16::new(0x0806));
    /// IPv6.
    pub const IPV6: Self = Self(U16::new(0x86dd));

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// ```text
/// | destination (6) | source (6) | type (2) |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// What follows.
    pub ethertype: EtherType,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// The header of a frame, and what follows it.
    pub fn parse(frame: &[u8]) -> Result<(&Self, &[u8]), Malformed> {
        Self::ref_from_prefix(frame).map_err(|_| Malformed::Truncated)
    }

    /// Is it for more than one station?
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        self.destination[0] & 1 != 0
    }
}

/// The Ethernet address of an IP multicast group: RFC 1112 §6.4 and RFC 2464 §7. `None` for any other address, but
/// the limited broadcast address has the broadcast MAC.
#[must_use]
pub fn multicast_mac(group: std::net::IpAddr) -> Option<Mac> {
    match group {
        std::net::IpAddr::V4(a) if a.is_multicast() => {
            let [_, b, c, d] = a.octets();
            Some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        std::net::IpAddr::V4(a) if a.is_broadcast() => Some(BROADCAST),
        std::net::IpAddr::V6(a) if a.is_multicast() => {
            let [.., a, b, c, d] = a.octets();
            Some([0x33, 0x33, a, b, c, d])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_names_its_parts() {
        let mut frame = [0u8; 15];
        frame[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        let (header, rest) = Header::parse(&frame).unwrap();
        assert_eq!((header.destination, header.ethertype), ([1, 2, 3, 4, 5, 6], EtherType::IPV6));
        assert!(header.is_multicast());
        assert_eq!(rest.len(), 1);
        assert_eq!(Header::parse(&frame[..13]), Err(Malformed::Truncated));
    }

    #[test]
    fn groups_have_mapped_addresses() {
        assert_eq!(multicast_mac("239.129.2.3".parse().unwrap()), Some([1, 0, 0x5e, 1, 2, 3]));
        assert_eq!(multicast_mac("ff02::1:ff00:5".parse().unwrap()), Some([0x33, 0x33, 0xff, 0, 0, 5]));
        assert_eq!(multicast_mac("255.255.255.255".parse().unwrap()), Some(BROADCAST));
        assert_eq!(multicast_mac("10.0.0.1".parse().unwrap()), None);
    }
}
