//! What a router says to the sender of a packet that it can't forward: ICMP (RFC 792, RFC 1812 §4.3) and ICMPv6
//! (RFC 4443).

use crate::checksum::Sum;
use crate::ip::{Ip, Protocol};
use crate::{ipv4, ipv6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::IntoBytes;

/// Octets of the longest error: one that fits the least MTU of IPv6.
pub const MAX_LEN: usize = ipv6::MIN_MTU;

/// An IPv4 error quotes as much as fits 576 octets (RFC 1812 §4.3.2.3).
const MAX_LEN_V4: usize = 576;

const MESSAGE_HEADER_LEN: usize = 8;
/// Precedence "internetwork control" (RFC 1812 §4.3.2.5).
const TOS: u8 = 0xc0;
const TTL: u8 = 64;

/// What went wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Its TTL was used up.
    TimeExceeded,
    /// It doesn't fit the next link, and must not be fragmented.
    TooBig {
        /// What would fit, in octets.
        mtu: u16,
    },
    /// There is no route.
    NoRoute,
    /// The next hop can't be reached.
    HostUnreachable,
    /// A filter forbids it.
    Prohibited,
}

impl Error {
    /// Type, code, and the second word of the message.
    const fn fields(self, v4: bool) -> (u8, u8, u32) {
        match (self, v4) {
            (Self::TimeExceeded, true) => (11, 0, 0),
            (Self::TooBig { mtu }, true) => (3, 4, mtu as u32),
            (Self::NoRoute, true) => (3, 0, 0),
            (Self::HostUnreachable, true) => (3, 1, 0),
            (Self::Prohibited, true) => (3, 13, 0),
            (Self::TimeExceeded, false) => (3, 0, 0),
            (Self::TooBig { mtu }, false) => (2, 0, mtu as u32),
            (Self::NoRoute, false) => (1, 0, 0),
            (Self::HostUnreachable, false) => (1, 3, 0),
            (Self::Prohibited, false) => (1, 1, 0),
        }
    }
}

/// Why nothing is said (RFC 1812 §4.3.2.7, RFC 4443 §2.4(e)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Silent {
    /// The packet can't be read.
    #[error("the packet is malformed")]
    Malformed,
    /// Never an error about an error.
    #[error("it is itself an ICMP error")]
    AboutError,
    /// It was for more than one station.
    #[error("it was sent to a group")]
    Group,
    /// Its source is no single station.
    #[error("its source is no single station")]
    Source,
    /// Only the first fragment is answered.
    #[error("it is not the first fragment")]
    LaterFragment,
    /// We have no address of the packet's IP version.
    #[error("no address of this IP version to answer from")]
    Version,
    /// The buffer is shorter than the message.
    #[error("the buffer is too small")]
    NoRoom,
}

/// Writes the IP packet from `from` that tells the sender of `packet` what went wrong with it, and returns its length.
/// The packet is quoted as it is handed in: as it arrived. `out` should have [`MAX_LEN`] octets; a shorter one
/// shortens the quotation.
pub fn write_error(error: Error, packet: &[u8], from: IpAddr, out: &mut [u8]) -> Result<usize, Silent> {
    let ip = Ip::parse(packet).map_err(|_| Silent::Malformed)?;
    may_answer(&ip, error, ip.upper(packet))?;
    let original = packet.get(..ip.total_len).unwrap_or(packet);
    match (from, ip.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => write_v4(error, original, from, to, out),
        (IpAddr::V6(from), IpAddr::V6(to)) => write_v6(error, original, from, to, out),
        _ => Err(Silent::Version),
    }
}

fn may_answer(ip: &Ip, error: Error, upper: &[u8]) -> Result<(), Silent> {
    if !ip.has_upper_header() {
        return Err(Silent::LaterFragment);
    }
    let to_group = match ip.destination {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        // Path MTU discovery works for groups too (RFC 4443 §2.4(e.3)).
        IpAddr::V6(a) => a.is_multicast() && !matches!(error, Error::TooBig { .. }),
    };
    if to_group {
        return Err(Silent::Group);
    }
    let from_one = match ip.source {
        IpAddr::V4(a) => {
            let class_e_or_broadcast = a.octets()[0] >= 240;
            !(a.is_unspecified() || a.is_loopback() || a.is_multicast() || class_e_or_broadcast)
        }
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_loopback() || a.is_multicast()),
    };
    if !from_one {
        return Err(Silent::Source);
    }
    match (ip.protocol, upper.first()) {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
        (Protocol::ICMP, None | Some(3 | 4 | 5 | 11 | 12)) => Err(Silent::AboutError),
        (Protocol::ICMPV6, None | Some(..=127 | 137)) => Err(Silent::AboutError),
        _ => Ok(()),
    }
}

fn write_v4(
    error: Error,
    original: &[u8],
    from: Ipv4Addr,
    to: Ipv4Addr,
    out: &mut [u8],
) -> Result<usize, Silent> {
    const HEADERS: usize = ipv4::HEADER_LEN + MESSAGE_HEADER_LEN;
    let (packet, quote) = room(out, HEADERS, MAX_LEN_V4, original)?;
    let header = ipv4::Header::new(from, to, Protocol::ICMP.0, TOS, TTL, length(quote));
    let message = message(error, true, Sum::ZERO, quote);
    Ok(assemble(packet, header.as_bytes(), &message, quote))
}

fn write_v6(
    error: Error,
    original: &[u8],
    from: Ipv6Addr,
    to: Ipv6Addr,
    out: &mut [u8],
) -> Result<usize, Silent> {
    const HEADERS: usize = ipv6::HEADER_LEN + MESSAGE_HEADER_LEN;
    let (packet, quote) = room(out, HEADERS, ipv6::MIN_MTU, original)?;
    let header = ipv6::Header::new(from, to, Protocol::ICMPV6.0, TOS, TTL, length(quote));
    let pseudo = Sum::pseudo_v6(from, to, Protocol::ICMPV6.0, u32::from(length(quote)));
    let message = message(error, false, pseudo, quote);
    Ok(assemble(packet, header.as_bytes(), &message, quote))
}

/// The buffer, and as much of the original as may be quoted in it.
fn room<'o, 'p>(
    out: &'o mut [u8],
    headers: usize,
    most: usize,
    original: &'p [u8],
) -> Result<(&'o mut [u8], &'p [u8]), Silent> {
    let most = out.len().min(most);
    let space = most.checked_sub(headers).ok_or(Silent::NoRoom)?;
    let quote = original.get(..space).unwrap_or(original);
    let packet = out.get_mut(..headers + quote.len()).ok_or(Silent::NoRoom)?;
    Ok((packet, quote))
}

/// Octets of the message that quotes this.
fn length(quote: &[u8]) -> u16 {
    u16::try_from(MESSAGE_HEADER_LEN + quote.len()).unwrap_or(u16::MAX)
}

fn message(error: Error, v4: bool, pseudo: Sum, quote: &[u8]) -> [u8; MESSAGE_HEADER_LEN] {
    let (kind, code, word) = error.fields(v4);
    let [a, b, c, d] = word.to_be_bytes();
    let sum = pseudo.with(&[kind, code, 0, 0, a, b, c, d]).with(quote).finish();
    let [e, f] = sum.to_be_bytes();
    [kind, code, e, f, a, b, c, d]
}

fn assemble(packet: &mut [u8], header: &[u8], message: &[u8], quote: &[u8]) -> usize {
    let length = packet.len();
    let mut rest = packet;
    for piece in [header, message, quote] {
        let Some((place, after)) = rest.split_at_mut_checked(piece.len()) else { break };
        place.copy_from_slice(piece);
        rest = after;
    }
    length
}

/// An ICMP error that arrived, as far as path MTU discovery needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooBig<'a> {
    /// Who said so.
    pub from: IpAddr,
    /// What fits, in octets of IP packet; 0 is "not said" (routers older than RFC 1191).
    pub mtu: u32,
    /// The packet that did not fit, its header first, cut off somewhere. To be believed only if we sent it.
    pub quote: &'a [u8],
}

impl<'a> TooBig<'a> {
    /// Reads "fragmentation needed" or "packet too big" from an IP packet; `None` for anything else.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let ip = Ip::parse(packet).ok()?;
        let upper = ip.upper(packet);
        let sum = if ip.is_v4() { Sum::ZERO } else { ip.pseudo_sum() };
        if ip.fragment.is_some() || !sum.with(upper).is_valid() {
            return None;
        }
        Self::parse_message(ip.source, ip.protocol, upper)
    }

    /// The same from an ICMP message whose checksum the kernel has verified, as a raw socket or an error queue has it.
    #[must_use]
    pub fn parse_message(from: IpAddr, protocol: Protocol, message: &'a [u8]) -> Option<Self> {
        let (header, quote) = message.split_first_chunk::<MESSAGE_HEADER_LEN>()?;
        let mtu = match (protocol, *header) {
            (Protocol::ICMP, [3, 4, _, _, _, _, a, b]) => u32::from(u16::from_be_bytes([a, b])),
            (Protocol::ICMPV6, [2, 0, _, _, a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
            _ => return None,
        };
        Some(Self { from, mtu, quote })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1));

    fn router6() -> IpAddr {
        "fd00::1".parse().unwrap()
    }

    fn v4(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let n = payload.len() as u16;
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        [ipv4::Header::new(source, destination, protocol, 0, 64, n).as_bytes(), payload].concat()
    }

    fn v6(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let n = payload.len() as u16;
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        [ipv6::Header::new(source, destination, protocol, 0, 64, n).as_bytes(), payload].concat()
    }

    fn answer(error: Error, packet: &[u8], from: IpAddr) -> Result<Vec<u8>, Silent> {
        let mut out = [0; MAX_LEN];
        write_error(error, packet, from, &mut out).map(|n| out[..n].to_vec())
    }

    #[test]
    fn fragmentation_needed_names_the_mtu_and_quotes_576_octets() {
        let packet = v4("10.1.0.9", "10.2.0.9", 17, &[7; 1400]);
        let error = answer(Error::TooBig { mtu: 1280 }, &packet, ROUTER).unwrap();
        assert_eq!(error.len(), 576);
        assert!(ipv4::is_checksum_valid(&error));
        let too_big = TooBig::parse(&error).unwrap();
        assert_eq!((too_big.from, too_big.mtu), (ROUTER, 1280));
        assert_eq!(too_big.quote, &packet[..548]);
    }

    #[test]
    fn packet_too_big_fits_the_least_mtu() {
        let packet = v6("fd00:1::9", "fd00:2::9", 17, &[7; 1400]);
        let error = answer(Error::TooBig { mtu: 1300 }, &packet, router6()).unwrap();
        assert_eq!(error.len(), 1280);
        let too_big = TooBig::parse(&error).unwrap();
        assert_eq!((too_big.mtu, too_big.quote), (1300, &packet[..1232]));
    }

    #[test]
    fn time_exceeded_and_unreachable_have_their_numbers() {
        let packet = v4("10.1.0.9", "10.2.0.9", 17, &[0; 8]);
        let packet6 = v6("fd00:1::9", "fd00:2::9", 17, &[0; 8]);
        let kinds = |e| {
            let (a, b) = (answer(e, &packet, ROUTER).unwrap(), answer(e, &packet6, router6()).unwrap());
            assert_eq!(Ip::parse(&a).unwrap().destination, "10.1.0.9".parse::<IpAddr>().unwrap());
            ((a[20], a[21]), (b[40], b[41]))
        };
        assert_eq!(kinds(Error::TimeExceeded), ((11, 0), (3, 0)));
        assert_eq!(kinds(Error::NoRoute), ((3, 0), (1, 0)));
        assert_eq!(kinds(Error::HostUnreachable), ((3, 1), (1, 3)));
        assert_eq!(kinds(Error::Prohibited), ((3, 13), (1, 1)));
    }

    #[test]
    fn an_error_about_an_error_is_never_sent() {
        let error = v4("10.1.0.9", "10.2.0.9", 1, &[3, 1, 0, 0]);
        assert_eq!(answer(Error::TimeExceeded, &error, ROUTER), Err(Silent::AboutError));
        let error = v6("fd00:1::9", "fd00:2::9", 58, &[1, 0, 0, 0]);
        assert_eq!(answer(Error::TimeExceeded, &error, router6()), Err(Silent::AboutError));
        let echo = v4("10.1.0.9", "10.2.0.9", 1, &[8, 0, 0, 0]);
        assert!(answer(Error::TimeExceeded, &echo, ROUTER).is_ok());
    }

    #[test]
    fn groups_later_fragments_and_strange_sources_are_met_with_silence() {
        let e = Error::TimeExceeded;
        let to = |d: &str| answer(e, &v4("10.1.0.9", d, 17, &[0; 8]), ROUTER);
        assert_eq!(to("224.0.0.5"), Err(Silent::Group));
        assert_eq!(to("255.255.255.255"), Err(Silent::Group));
        let from = |s: &str| answer(e, &v4(s, "10.2.0.9", 17, &[0; 8]), ROUTER);
        for source in ["0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255", "240.0.0.1"] {
            assert_eq!(from(source), Err(Silent::Source), "{source}");
        }
        let mut fragment = v4("10.1.0.9", "10.2.0.9", 17, &[0; 8]);
        fragment[7] = 1;
        assert_eq!(answer(e, &fragment, ROUTER), Err(Silent::LaterFragment));
        assert_eq!(answer(e, &fragment[..19], ROUTER), Err(Silent::Malformed));
        assert_eq!(answer(e, &v4("10.1.0.9", "10.2.0.9", 17, &[0; 8]), router6()), Err(Silent::Version));
    }

    #[test]
    fn too_big_is_said_about_an_ipv6_group_too() {
        let packet = v6("fd00:1::9", "ff0e::9", 17, &[0; 8]);
        assert_eq!(answer(Error::TimeExceeded, &packet, router6()), Err(Silent::Group));
        assert!(answer(Error::TooBig { mtu: 1280 }, &packet, router6()).is_ok());
    }

    #[test]
    fn a_buffer_too_small_for_the_headers_is_said() {
        let packet = v4("10.1.0.9", "10.2.0.9", 17, &[0; 8]);
        let mut out = [0; 27];
        assert_eq!(write_error(Error::NoRoute, &packet, ROUTER, &mut out), Err(Silent::NoRoom));
    }

    proptest! {
        #[test]
        fn nothing_panics_on_any_bytes(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120), six: bool, room in 0usize..200
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x45 };
            }
            let from = if six { router6() } else { ROUTER };
            let mut out = vec![0; room];
            if let Ok(n) = write_error(Error::TimeExceeded, &bytes, from, &mut out) {
                prop_assert!(Ip::parse(&out[..n]).is_ok());
            }
            let _ = TooBig::parse(&bytes);
        }
    }
}
