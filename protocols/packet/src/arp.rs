//! ARP for IPv4 over Ethernet (RFC 826): the queries that the kernel puts on the TAP, and our answers.

use crate::error::NoRoom;
use crate::eth::{self, EtherType};
use crate::peer::Mac;
use std::net::Ipv4Addr;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of an ARP packet for IPv4 over Ethernet.
pub const PACKET_LEN: usize = 28;

/// Octets of a whole answering frame.
pub const FRAME_LEN: usize = eth::HEADER_LEN + PACKET_LEN;

const ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// ```text
/// | hardware type (2) | protocol type (2) | hardware length | protocol length | operation (2) |
/// | sender hardware (6) | sender protocol (4) | target hardware (6) | target protocol (4) |
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Packet {
    hardware_type: U16,
    protocol_type: EtherType,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: Mac,
    sender_ip: [u8; 4],
    target_mac: Mac,
    target_ip: [u8; 4],
}

const _: () = assert!(size_of::<Packet>() == PACKET_LEN);

/// "Who has `target`? Tell `sender_ip`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The asker's Ethernet address.
    pub sender_mac: Mac,
    /// The asker's address; unspecified in a probe for duplicates (RFC 5227), which must not be answered.
    pub sender_ip: Ipv4Addr,
    /// The address asked for.
    pub target: Ipv4Addr,
}

impl Request {
    /// Reads a request from the payload of an ARP frame; `None` for anything else, gratuitous announcements included.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (p, _) = Packet::ref_from_prefix(payload).ok()?;
        let ours = p.hardware_type.get() == ETHERNET
            && p.protocol_type == EtherType::IPV4
            && p.hardware_len == 6
            && p.protocol_len == 4
            && p.operation.get() == REQUEST
            && p.sender_ip != p.target_ip;
        ours.then(|| Self {
            sender_mac: p.sender_mac,
            sender_ip: p.sender_ip.into(),
            target: p.target_ip.into(),
        })
    }

    /// Is somebody only looking whether the address is taken? Never to be answered.
    #[must_use]
    pub const fn is_duplicate_probe(&self) -> bool {
        self.sender_ip.is_unspecified()
    }

    /// Writes the frame that answers: "`target` is at `mac`". Returns its length.
    pub fn write_reply(&self, mac: Mac, out: &mut [u8]) -> Result<usize, NoRoom> {
        let frame = out.get_mut(..FRAME_LEN).ok_or(NoRoom { needed: FRAME_LEN })?;
        let header = eth::Header { destination: self.sender_mac, source: mac, ethertype: EtherType::ARP };
        let packet = Packet {
            hardware_type: U16::new(ETHERNET),
            protocol_type: EtherType::IPV4,
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(REPLY),
            sender_mac: mac,
            sender_ip: self.target.octets(),
            target_mac: self.sender_mac,
            target_ip: self.sender_ip.octets(),
        };
        let (head, rest) = frame.split_at_mut(eth::HEADER_LEN);
        head.copy_from_slice(header.as_bytes());
        rest.copy_from_slice(packet.as_bytes());
        Ok(FRAME_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1, 0x02, 0x64, 0xff, 0xff, 0xff, 0xfe, 10, 200, 0, 1, 0, 0, 0, 0, 0, 0, 10, 200,
        0, 9,
    ];

    #[test]
    fn a_query_is_answered_with_the_peers_mac() {
        let request = Request::parse(&QUERY).unwrap();
        assert_eq!(request.target, Ipv4Addr::new(10, 200, 0, 9));
        assert!(!request.is_duplicate_probe());
        let mut out = [0; 60];
        let n = request.write_reply([2, 0x64, 0, 0, 0, 5], &mut out).unwrap();
        assert_eq!(n, 42);
        assert_eq!(out[..6], crate::peer::OWN_MAC);
        assert_eq!(out[6..14], [2, 0x64, 0, 0, 0, 5, 8, 6]);
        assert_eq!(out[20..22], [0, 2]);
        assert_eq!(out[22..32], [2, 0x64, 0, 0, 0, 5, 10, 200, 0, 9]);
        assert_eq!(out[38..42], [10, 200, 0, 1]);
    }

    #[test]
    fn a_reply_or_announcement_is_no_query() {
        let mut reply = QUERY;
        reply[7] = 2;
        assert_eq!(Request::parse(&reply), None);
        let mut announcement = QUERY;
        announcement[27] = 1;
        assert_eq!(Request::parse(&announcement), None);
        assert_eq!(Request::parse(&QUERY[..27]), None);
    }

    #[test]
    fn a_duplicate_probe_is_recognised() {
        let mut probe = QUERY;
        probe[14..18].fill(0);
        assert!(Request::parse(&probe).unwrap().is_duplicate_probe());
    }
}
