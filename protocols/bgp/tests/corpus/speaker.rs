//! A hub and a handful of peers, most of them unruly. Shared by fuzz targets and tests.

use bgp::{Command, Config, ConnectionId, Phase, Role, Speaker};
use ipnet::IpNet;
use packet::Instant;
use std::net::IpAddr;

/// A message around a body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An OPEN with four-octet ASNs, both families and graceful restart.
pub fn open(asn: u16, identifier: u8, restarting: bool) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let r = if restarting { 0x80 } else { 0 };
    let capabilities = [
        &[1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4, 0, 0, high, low][..],
        &[64, 10, r, 60, 0, 1, 1, 0x80, 0, 2, 1, 0x80],
    ]
    .concat();
    let length = capabilities.len() as u8;
    let fixed = [4, high, low, 0, 30, 10, 200, 16, identifier.max(1), length + 2, 2, length];
    message(1, &[&fixed[..], &capabilities].concat())
}

/// An UPDATE that announces 10.`net`.0.0/24.
pub fn announce(asn: u16, net: u8, origin: u8) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let attributes =
        [0x40, 1, 1, origin % 4, 0x40, 2, 6, 2, 1, 0, 0, high, low, 0x40, 3, 4, 10, 200, 16, net % 8];
    message(2, &[&[0, 0, 0, 20][..], &attributes, &[24, 10, net, 0]].concat())
}

/// A hub with small limits, so that they are reached.
pub fn hub() -> Config {
    let mut config = Config::new(65000, "10.200.0.1".parse().unwrap(), Role::Hub, Phase::Two);
    config.networks = ["10.200.0.0/16", "fd00:200::/32"].map(|n| n.parse().unwrap()).to_vec();
    config.local_addresses = ["10.200.0.1", "fd00:200::1"].map(|a| a.parse().unwrap()).to_vec();
    config.listen_ranges.clone_from(&config.networks);
    config.announce = vec!["10.100.0.0/24".parse().unwrap()];
    config.limits.dynamic_neighbours = 4;
    config.limits.prefixes_dynamic = 20;
    config.limits.prefixes_configured = 40;
    config
}

pub fn peer(number: u8) -> IpAddr {
    IpAddr::from([10, 200, 16, number % 8 + 1])
}

pub fn receive(speaker: &mut Speaker, now: Instant, connection: u64, bytes: &[u8]) {
    let refused: IpNet = "10.66.0.0/24".parse().unwrap();
    let filter = |_: IpAddr, prefix: IpNet| prefix != refused;
    speaker.handle_bytes(now, ConnectionId(connection), bytes, &filter);
}

/// Drains everything, and checks what always holds.
pub fn check(speaker: &mut Speaker) {
    while let Some(command) = speaker.poll_command() {
        if let Command::Send { bytes, .. } = command {
            assert!(bytes.len() <= 4096 && bytes.starts_with(&[0xff; 16]));
            assert_eq!(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), bytes.len());
        }
    }
    while let Some(change) = speaker.poll_route() {
        let networks = &speaker.config().networks;
        for next_hop in change.next_hops {
            assert!(networks.iter().any(|network| network.contains(&next_hop)));
            assert!(!speaker.config().local_addresses.contains(&next_hop));
        }
    }
    while speaker.poll_event().is_some() {}
    for neighbour in speaker.neighbours() {
        assert!(neighbour.received <= if neighbour.configured { 40 } else { 20 });
    }
}

/// Everybody goes, and nothing of what they said may stay.
pub fn end(speaker: &mut Speaker, now: Instant) {
    speaker.shutdown(now);
    for neighbour in speaker.neighbours().collect::<Vec<_>>() {
        speaker.remove_neighbour(now, neighbour.address);
    }
    check(speaker);
    assert_eq!(speaker.routes().count(), 0);
    assert_eq!(speaker.neighbours().count(), 0);
}
