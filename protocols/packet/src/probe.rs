//! The marked echo that proves a path: an ICMP or ICMPv6 echo between two tunnel addresses, whose payload is
//!
//! ```text
//! | mark (8): "kdmvpn", 0, 1 | token (8) | opaque (8) |
//! ```
//! with both numbers big-endian. A router without our software answers it like any echo. The token is known to the two
//! ends only; the opaque number is the asker's (which path, and when), and comes back as it was.
//!
//! The TTL is 1, so that a probe which reaches somebody else than its addressee ends there: it must not find its way
//! through the overlay and prove a path that it did not take.

use crate::checksum::{self, Sum};
use crate::error::NoRoom;
use crate::ip::{Ip, Protocol};
use crate::{ipv4, ipv6};
use std::net::IpAddr;
use zerocopy::byteorder::network_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How the payload begins.
pub const MARK: [u8; 8] = *b"kdmvpn\0\x01";

/// Octets of a probe over IPv4.
pub const LEN_V4: usize = ipv4::HEADER_LEN + MESSAGE_LEN;

/// Octets of a probe over IPv6.
pub const LEN_V6: usize = ipv6::HEADER_LEN + MESSAGE_LEN;

const MESSAGE_LEN: usize = 32;

/// Probes pass before data: class selector 6, as routing protocols have it.
const TOS: u8 = 0xc0;
const TTL: u8 = 1;
/// The echo identifier: none of the host's own pings is likely to have it.
const IDENTIFIER: u16 = 0x6b64;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: U16,
    identifier: U16,
    sequence: U16,
    mark: [u8; 8],
    token: U64,
    opaque: U64,
}

const _: () = assert!(size_of::<Message>() == MESSAGE_LEN);

/// Question or answer?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Echo request.
    Request,
    /// Echo reply.
    Reply,
}

impl Kind {
    const fn icmp_type(self, v4: bool) -> u8 {
        match (self, v4) {
            (Self::Request, true) => 8,
            (Self::Reply, true) => 0,
            (Self::Request, false) => 128,
            (Self::Reply, false) => 129,
        }
    }
}

/// A probe or its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Question or answer.
    pub kind: Kind,
    /// Tunnel address of the sender.
    pub source: IpAddr,
    /// Tunnel address of the receiver, of the same version.
    pub destination: IpAddr,
    /// Known to the two ends only.
    pub token: u64,
    /// The asker's own.
    pub opaque: u64,
}

impl Probe {
    /// Reads a probe from an inner IP packet; `None` for any other packet, and for one whose checksum is wrong.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if !maybe(packet) {
            return None;
        }
        let ip = Ip::parse(packet).ok()?;
        let upper = ip.upper(packet);
        let message = Message::ref_from_bytes(upper).ok()?;
        let v4 = ip.is_v4();
        let expected = if v4 { Protocol::ICMP } else { Protocol::ICMPV6 };
        if ip.protocol != expected || ip.fragment.is_some() || message.code != 0 || message.mark != MARK {
            return None;
        }
        let kind = [Kind::Request, Kind::Reply].into_iter().find(|k| k.icmp_type(v4) == message.kind)?;
        let sum = if v4 { Sum::ZERO } else { ip.pseudo_sum() };
        sum.with(upper).is_valid().then(|| Self {
            kind,
            source: ip.source,
            destination: ip.destination,
            token: message.token.get(),
            opaque: message.opaque.get(),
        })
    }

    /// The answer to this question.
    #[must_use]
    pub const fn reply(&self) -> Self {
        Self {
            kind: Kind::Reply,
            source: self.destination,
            destination: self.source,
            token: self.token,
            opaque: self.opaque,
        }
    }

    /// Octets of the packet.
    #[must_use]
    pub const fn packet_len(&self) -> usize {
        if self.source.is_ipv4() { LEN_V4 } else { LEN_V6 }
    }

    /// Writes the inner IP packet, and returns its length. Addresses of different versions are written as IPv6.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let needed = match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => LEN_V4,
            _ => LEN_V6,
        };
        let packet = out.get_mut(..needed).ok_or(NoRoom { needed })?;
        let mut message = Message {
            kind: self.kind.icmp_type(needed == LEN_V4),
            code: 0,
            checksum: U16::ZERO,
            identifier: U16::new(IDENTIFIER),
            sequence: U16::new((self.opaque & 0xffff) as u16),
            mark: MARK,
            token: U64::new(self.token),
            opaque: U64::new(self.opaque),
        };
        let (head, rest) = packet.split_at_mut(needed - MESSAGE_LEN);
        if let (IpAddr::V4(source), IpAddr::V4(destination)) = (self.source, self.destination) {
            let header =
                ipv4::Header::new(source, destination, Protocol::ICMP.0, TOS, TTL, MESSAGE_LEN as u16);
            head.copy_from_slice(header.as_bytes());
            message.checksum.set(checksum::checksum(message.as_bytes()));
        } else {
            let (source, destination) = (v6(self.source), v6(self.destination));
            let next = Protocol::ICMPV6.0;
            let header = ipv6::Header::new(source, destination, next, TOS, TTL, MESSAGE_LEN as u16);
            head.copy_from_slice(header.as_bytes());
            let sum = Sum::pseudo_v6(source, destination, next, MESSAGE_LEN as u32);
            message.checksum.set(sum.with(message.as_bytes()).finish());
        }
        rest.copy_from_slice(message.as_bytes());
        Ok(needed)
    }

    /// The inner IP packet.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut packet = vec![0; LEN_V6];
        let n = self.write(&mut packet).unwrap_or(0);
        packet.truncate(n);
        packet
    }
}

/// A quick look at whether an inner packet can be a probe at all, for the hot path: false for nearly every packet
/// after two comparisons.
#[inline]
#[must_use]
pub fn maybe(packet: &[u8]) -> bool {
    match packet.len() {
        LEN_V4 => packet.get(28..36) == Some(&MARK),
        LEN_V6 => packet.get(48..56) == Some(&MARK),
        _ => false,
    }
}

const fn v6(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn probe(source: &str, destination: &str) -> Probe {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Probe { kind: Kind::Request, source, destination, token: 7 << 40, opaque: 9 }
    }

    #[test]
    fn what_is_written_is_read_and_answered() {
        for request in [probe("10.200.0.1", "10.200.0.2"), probe("fd00::1", "fd00::2")] {
            let packet = request.to_vec();
            assert_eq!(packet.len(), request.packet_len());
            assert_eq!(Probe::parse(&packet), Some(request));
            assert_eq!(Ip::parse(&packet).unwrap().ttl, 1);
            let reply = request.reply();
            assert_eq!((reply.kind, reply.source), (Kind::Reply, request.destination));
            assert_eq!(Probe::parse(&reply.to_vec()), Some(reply));
        }
    }

    #[test]
    fn a_changed_octet_makes_it_no_probe() {
        let good = probe("10.200.0.1", "10.200.0.2").to_vec();
        for at in 20..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(Probe::parse(&bad), None, "octet {at}");
        }
    }

    #[test]
    fn the_reply_of_a_foreign_router_is_read_whatever_its_ttl_and_sequence() {
        let mut packet = probe("10.200.0.2", "10.200.0.1").reply().to_vec();
        crate::ip::set_ttl(&mut packet, 255);
        assert!(Probe::parse(&packet).is_some());
    }

    proptest! {
        #[test]
        fn reading_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 72), six: bool) {
            let n = if six { LEN_V6 } else { LEN_V4 };
            bytes[0] = if six { 0x60 } else { 0x45 };
            bytes[n - 24..n - 16].copy_from_slice(&MARK);
            let _ = Probe::parse(&bytes[..n]);
        }
    }
}
