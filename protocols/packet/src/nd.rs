//! IPv6 neighbour discovery (RFC 4861): the solicitations that the kernel puts on the TAP, and our advertisements.

use crate::checksum::Sum;
use crate::error::NoRoom;
use crate::eth::{self, EtherType};
use crate::ip::{Ip, Protocol};
use crate::ipv6;
use crate::peer::Mac;
use std::net::{IpAddr, Ipv6Addr};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of a whole answering frame.
pub const FRAME_LEN: usize = eth::HEADER_LEN + ipv6::HEADER_LEN + ADVERTISEMENT_LEN;

const ADVERTISEMENT_LEN: usize = 32;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Solicited and Override (RFC 4861 §4.4).
const FLAGS: u8 = 0x60;
/// Option: target link-layer address (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER: u8 = 2;

/// Solicitation and advertisement begin alike (RFC 4861 §4.3, §4.4).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: U16,
    flags: u8,
    reserved: [u8; 3],
    target: [u8; 16],
}

const _: () = assert!(size_of::<Message>() == 24);

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LinkLayerOption {
    kind: u8,
    /// In units of 8 octets.
    length: u8,
    mac: Mac,
}

/// "Who has `target`?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The asker; unspecified while it looks for duplicates of `target` (RFC 4862 §5.4), which must not be answered.
    pub source: Ipv6Addr,
    /// The address asked for.
    pub target: Ipv6Addr,
}

impl Solicitation {
    /// Reads a solicitation from an IPv6 packet; `None` for anything else. The checksum is not verified: the packet comes
    /// from our own kernel, which may have left it to the device.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (header, _) = ipv6::Header::parse(packet).ok()?;
        let ip = Ip::parse(packet).ok()?;
        let (message, _) = Message::ref_from_prefix(ip.upper(packet)).ok()?;
        let target = Ipv6Addr::from(message.target);
        // RFC 4861 §7.1.1: hop limit 255 says that no router forwarded it.
        let valid = ip.protocol == Protocol::ICMPV6
            && ip.fragment.is_none()
            && header.hop_limit == 255
            && message.kind == SOLICITATION
            && message.code == 0
            && !target.is_multicast();
        valid.then(|| Self { source: header.source(), target })
    }

    /// Is somebody only looking whether the address is taken? Never to be answered.
    #[must_use]
    pub const fn is_duplicate_probe(&self) -> bool {
        self.source.is_unspecified()
    }

    /// Writes the frame to `asker` that answers: "`target` is at `mac`". Returns its length.
    pub fn write_advertisement(&self, asker: Mac, mac: Mac, out: &mut [u8]) -> Result<usize, NoRoom> {
        let frame = out.get_mut(..FRAME_LEN).ok_or(NoRoom { needed: FRAME_LEN })?;
        let ethernet = eth::Header { destination: asker, source: mac, ethertype: EtherType::IPV6 };
        let ip =
            ipv6::Header::new(self.target, self.source, Protocol::ICMPV6.0, 0, 255, ADVERTISEMENT_LEN as u16);
        let mut message = Message {
            kind: ADVERTISEMENT,
            code: 0,
            checksum: U16::ZERO,
            flags: FLAGS,
            reserved: [0; 3],
            target: self.target.octets(),
        };
        let option = LinkLayerOption { kind: TARGET_LINK_LAYER, length: 1, mac };
        let (from, to) = (IpAddr::V6(self.target), IpAddr::V6(self.source));
        let sum = Sum::pseudo(from, to, Protocol::ICMPV6.0, ADVERTISEMENT_LEN as u32)
            .with(message.as_bytes())
            .with(option.as_bytes());
        message.checksum.set(sum.finish());
        let pieces = [ethernet.as_bytes(), ip.as_bytes(), message.as_bytes(), option.as_bytes()];
        let mut rest = frame;
        for piece in pieces {
            let (place, after) = rest.split_at_mut(piece.len());
            place.copy_from_slice(piece);
            rest = after;
        }
        Ok(FRAME_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solicitation(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        let header = ipv6::Header::new(source, "ff02::1:ff00:9".parse().unwrap(), 58, 0, 255, 32);
        let message = Message {
            kind: SOLICITATION,
            code: 0,
            checksum: U16::ZERO,
            flags: 0,
            reserved: [0; 3],
            target: "fd00::9".parse::<Ipv6Addr>().unwrap().octets(),
        };
        [header.as_bytes(), message.as_bytes(), &[1, 1, 2, 0x64, 0xff, 0xff, 0xff, 0xfe]].concat()
    }

    #[test]
    fn a_solicitation_is_answered_with_the_peers_mac() {
        let asked = Solicitation::parse(&solicitation("fd00::1")).unwrap();
        assert_eq!(asked.target, "fd00::9".parse::<Ipv6Addr>().unwrap());
        assert!(!asked.is_duplicate_probe());
        let mut out = [0; 100];
        let mac = [2, 0x64, 0, 0, 0, 5];
        let n = asked.write_advertisement(crate::peer::OWN_MAC, mac, &mut out).unwrap();
        assert_eq!((n, &out[..6], &out[6..12]), (86, &crate::peer::OWN_MAC[..], &mac[..]));
        let packet = &out[14..n];
        let ip = Ip::parse(packet).unwrap();
        assert_eq!((ip.ttl, ip.destination), (255, "fd00::1".parse::<IpAddr>().unwrap()));
        let message = ip.upper(packet);
        assert!(ip.pseudo_sum().with(message).is_valid());
        assert_eq!((message[0], message[4]), (136, 0x60));
        assert_eq!(message[24..], [2, 1, 2, 0x64, 0, 0, 0, 5]);
    }

    #[test]
    fn a_duplicate_probe_is_recognised() {
        assert!(Solicitation::parse(&solicitation("::")).unwrap().is_duplicate_probe());
    }

    #[test]
    fn a_forwarded_solicitation_is_none() {
        let mut packet = solicitation("fd00::1");
        packet[7] = 254;
        assert_eq!(Solicitation::parse(&packet), None);
        let mut packet = solicitation("fd00::1");
        packet[40] = 136;
        assert_eq!(Solicitation::parse(&packet), None);
        assert_eq!(Solicitation::parse(&solicitation("fd00::1")[..60]), None);
    }
}
