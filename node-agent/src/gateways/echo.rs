//! Asks a node whether it is there: ICMP echoes (RFC 792, RFC 4443 §4).

use packet::checksum::checksum;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};

/// Octets of a question.
const LENGTH: usize = 8;
/// The longest IPv4 header, which raw sockets show, and an answer.
const LONGEST: usize = 60 + LENGTH;

/// Questions to one node.
#[derive(Debug)]
pub(super) struct Echo {
    socket: Socket,
    v4: bool,
    /// Tells our answers from others'.
    identifier: u16,
    sequence: u16,
}

impl Echo {
    /// Opens a socket that hears of this node only.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn to(address: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match address {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::from(SocketAddr::new(address, 0)))?;
        Ok(Self { socket, v4: address.is_ipv4(), identifier: rand::random(), sequence: 0 })
    }

    /// Asks again. A node that cannot be reached now does not answer; that is all.
    pub(super) fn ask(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        let _ = self.socket.send(&question(self.v4, self.identifier, self.sequence));
    }

    /// Was there an answer since it was last looked?
    pub(super) fn answered(&mut self) -> bool {
        let (mut found, mut octets) = (false, [0; LONGEST]);
        while let Ok(length @ 1..) = (&self.socket).read(&mut octets) {
            found |= is_answer(self.v4, self.identifier, octets.get(..length).unwrap_or_default());
        }
        found
    }
}

fn question(v4: bool, identifier: u16, sequence: u16) -> [u8; LENGTH] {
    let ([i0, i1], [s0, s1]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    let without = |kind| [kind, 0, 0, 0, i0, i1, s0, s1];
    if !v4 {
        // The kernel knows the addresses that ICMPv6's checksum covers.
        return without(128);
    }
    let [c0, c1] = checksum(&without(8)).to_be_bytes();
    [8, 0, c0, c1, i0, i1, s0, s1]
}

fn is_answer(v4: bool, identifier: u16, octets: &[u8]) -> bool {
    let header = if v4 { octets.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
    let [i0, i1] = identifier.to_be_bytes();
    let kind = if v4 { 0 } else { 129 };
    matches!(octets.get(header..), Some([k, 0, _, _, a, b, ..]) if (*k, *a, *b) == (kind, i0, i1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_a_checksum_that_holds() {
        let octets = question(true, 0x1234, 7);
        assert_eq!((octets[0], checksum(&octets)), (8, 0));
        assert_eq!(question(false, 0x1234, 7), [128, 0, 0, 0, 0x12, 0x34, 0, 7]);
    }

    #[test]
    fn only_an_answer_to_us_is_one() {
        let mut packet = vec![0x46; 24];
        packet.extend([0, 0, 0, 0, 0x12, 0x34, 0, 7]);
        assert!(is_answer(true, 0x1234, &packet));
        assert!(!is_answer(true, 0x1235, &packet));
        assert!(is_answer(false, 0x1234, &[129, 0, 0, 0, 0x12, 0x34, 0, 7]));
        assert!(!is_answer(false, 0x1234, &question(false, 0x1234, 7)), "our own question");
        for length in 0..packet.len() - 2 {
            assert!(!is_answer(true, 0x1234, &packet[..length]));
        }
    }
}
