//! Every view of a packet, on any bytes. Shared by the fuzz target and the replay of its corpus.

use packet::checksum::Sum;
use packet::icmp::{self, TooBig};
use packet::ip::{self, Ip};
use packet::probe::Probe;
use packet::{arp, ecn, eth, gre, ipv4, ipv6, mss, nd, tcp, udp, vnet};

/// Nothing panics, what is read lies within the bytes, and what is written can be read again.
pub fn check(bytes: &[u8]) {
    // Bytes as they are, and with the checksums made right, so that what is behind those gates is reached.
    for bytes in [bytes.to_vec(), mended(bytes)] {
        link(&bytes);
        network(&bytes);
        changes(&bytes);
        tunnel(&bytes);
    }
}

fn link(bytes: &[u8]) {
    if let Ok((_, payload)) = eth::Header::parse(bytes) {
        assert_eq!(payload.len() + eth::HEADER_LEN, bytes.len());
    }
    if let Ok((header, _)) = vnet::Header::decode(bytes) {
        assert_eq!(vnet::Header::decode(&header.encode()).map(|(h, _)| h), Ok(header));
    }
    if let Some(request) = arp::Request::parse(bytes) {
        let mut out = [0; 64];
        assert!(request.write_reply(request.sender_mac, &mut out).is_ok());
    }
}

fn network(bytes: &[u8]) {
    if let Ok((header, rest)) = ipv4::Header::parse(bytes) {
        assert!(header.header_len() <= header.total_len() && rest.len() < bytes.len());
    }
    if let Ok(upper) = ipv6::upper_layer(bytes) {
        assert!(upper.offset <= bytes.len());
    }
    let Ok(ip) = Ip::parse(bytes) else { return };
    assert!(ip.header_len <= ip.total_len && ip.total_len <= bytes.len());
    let upper = ip.upper(bytes);
    assert!(ip.header_len + upper.len() <= bytes.len());
    let _ = (tcp::Header::parse(upper), udp::Header::parse(upper));
    if let Some(quoted) = TooBig::parse(bytes) {
        assert!(quoted.quote.len() < bytes.len());
        let _ = Ip::parse(quoted.quote);
    }
    if let Some(solicitation) = nd::Solicitation::parse(bytes) {
        let mac = packet::PeerId { index: 1, generation: 1 }.mac();
        let mut out = [0; 256];
        assert!(solicitation.write_advertisement(mac, mac, &mut out).is_ok());
    }
    if let Some(probe) = Probe::parse(bytes) {
        assert_eq!(Probe::parse(&probe.to_vec()), Some(probe));
        assert_eq!(Probe::parse(&probe.reply().to_vec()), Some(probe.reply()));
    }
    for from in ["10.200.0.1", "fd00::1"] {
        let mut out = [0; icmp::MAX_LEN];
        let from = from.parse().expect("an address");
        if let Ok(length) = icmp::write_error(icmp::Error::TooBig { mtu: 1280 }, bytes, from, &mut out) {
            let said = TooBig::parse(&out[..length]).expect("we write what can be read");
            assert_eq!((said.from, said.mtu), (from, 1280));
            assert!(bytes.starts_with(said.quote) || said.quote.starts_with(bytes));
        }
    }
}

/// What a router changes leaves a right checksum right.
fn changes(bytes: &[u8]) {
    let Ok(before) = Ip::parse(bytes) else { return };
    let right = |packet: &[u8]| {
        ip::version(packet) == Some(6) || Sum::ZERO.with(&packet[..before.header_len]).is_valid()
    };
    let was_right = right(bytes);
    let mut packet = bytes.to_vec();
    let alive = ip::decrement_ttl(&mut packet).is_ok();
    ip::set_tos(&mut packet, ecn::encapsulate(0x2e));
    let _ = ecn::apply(3, &mut packet);
    let clamped = mss::clamp(&mut packet, 1280);
    let after = Ip::parse(&packet).expect("it is still a packet");
    assert_eq!(
        (after.source, after.destination, after.total_len),
        (before.source, before.destination, before.total_len)
    );
    assert!(!was_right || right(&packet), "alive: {alive}, clamped: {clamped}");
}

fn tunnel(bytes: &[u8]) {
    let Ok((header, payload)) = gre::decode(bytes) else { return };
    assert_eq!(header.header_len + payload.len(), bytes.len());
    let mut again = [&[0; 8], payload].concat();
    let start = gre::encode(&mut again, 8, header.protocol, header.key).expect("there is room");
    let (read, rest) = gre::decode(&again[start..]).expect("we write what can be read");
    assert_eq!((read.protocol, read.key, rest), (header.protocol, header.key, payload));
}

/// The same packet with the checksums of IP and what is in it made right.
pub fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut packet = bytes.to_vec();
    let Ok(ip) = Ip::parse(bytes) else { return packet };
    if ip.is_v4() {
        put(&mut packet, 10, 0);
        let sum = Sum::ZERO.with(&packet[..ip.header_len]).finish();
        put(&mut packet, 10, sum);
    }
    let pseudo = if ip.protocol == ip::Protocol::ICMP { Sum::ZERO } else { ip.pseudo_sum() };
    let offset = match ip.protocol.0 {
        1 | 58 => 2,
        6 => 16,
        17 => 6,
        _ => return packet,
    };
    let at = ip.header_len + offset;
    if at + 2 <= ip.total_len {
        put(&mut packet, at, 0);
        let sum = pseudo.with(ip.upper(&packet)).finish_udp();
        put(&mut packet, at, sum);
    }
    packet
}

fn put(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
