//! Traffic Indications.

use crate::world::*;
use dmvpn_nhrp::packet::{Body, MessageType};
use dmvpn_nhrp::{Config, Error, Event, StaticEntry};
use packet::Path;
use std::time::Duration;

/// The beginning of a packet from a host of spoke 1 to one of spoke 2.
pub(crate) fn trigger() -> Vec<u8> {
    from_to([192, 168, 1, 9], [192, 168, 2, 9])
}

fn from_to(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 84, 0, 0, 0x40, 0, 63, 1, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.extend([8; 200]);
    packet
}

fn spoke(n: u8) -> Path {
    Path::udp(ip(&format!("198.51.100.{}", 10 + n)), PORT)
}

fn indicate(world: &mut World, to: Path, trigger: &[u8]) -> bool {
    let now = world.now;
    let sent = world.node(HUB).indicate(now, to, trigger);
    world.settle();
    sent
}

#[test]
fn the_sender_of_a_hairpinned_packet_is_told() {
    let mut world = World::usual(2);
    world.events(1);
    assert!(indicate(&mut world, spoke(1), &trigger()));
    let wanted =
        Event::Indicated { source: ip("192.168.1.9"), destination: ip("192.168.2.9"), path: hub_path() };
    assert_eq!(world.events(1), [wanted]);
}

#[test]
fn it_is_addressed_to_the_source_with_one_hop_and_quotes_128_octets() {
    let mut world = World::usual(2);
    indicate(&mut world, spoke(1), &trigger());
    let packet = world.sent(MessageType::TrafficIndication)[0].packet();
    assert_eq!(packet.hop_count, 1);
    assert_eq!((packet.source, packet.destination), (ip(HUB_ADDRESS), ip("192.168.1.9")));
    let Body::Indication { code: 0, trigger: quoted } = &packet.body else { panic!() };
    assert_eq!(quoted[..], trigger()[..128]);
    assert!(packet.extensions.is_empty());
}

#[test]
fn a_pair_is_indicated_seldom_and_others_all_the_same() {
    let mut world = World::usual(2);
    let sent = (0..100).filter(|_| indicate(&mut world, spoke(1), &trigger())).count();
    assert_eq!(sent, 2);
    assert!(indicate(&mut world, spoke(1), &from_to([192, 168, 1, 9], [192, 168, 2, 10])));
    world.now += seconds(4);
    assert!(indicate(&mut world, spoke(1), &trigger()));
}

#[test]
fn a_peer_that_talks_to_many_is_told_only_so_often() {
    let mut world = World::usual(2);
    let many =
        (0..200u8).filter(|n| indicate(&mut world, spoke(1), &from_to([192, 168, 1, 9], [192, 168, 2, *n])));
    assert_eq!(many.count(), 32);
}

#[test]
fn a_pair_that_had_to_wait_for_a_busy_path_is_indicated_as_soon_as_there_is_room() {
    let mut world = World::usual(2);
    for n in 0..32 {
        assert!(indicate(&mut world, spoke(1), &from_to([192, 168, 1, 9], [192, 168, 2, n])));
    }
    // Its packets go on coming while the others have used up what the path may have.
    for _ in 0..5 {
        assert!(!indicate(&mut world, spoke(1), &from_to([192, 168, 1, 9], [192, 168, 2, 200])));
    }
    world.now += Duration::from_millis(50);
    assert!(indicate(&mut world, spoke(1), &from_to([192, 168, 1, 9], [192, 168, 2, 200])));
}

//= rfc2332#6.4
#[test]
fn nothing_is_resolved_for_traffic_that_came_from_the_overlay() {
    let mut world = World::usual(2);
    world.events(1);
    indicate(&mut world, spoke(1), &from_to([192, 168, 2, 9], [192, 168, 3, 9]));
    assert_eq!(world.events(1), []);
    assert_eq!(world.stations[1].drops, [Error::NotOurTraffic]);
}

#[test]
fn a_strangers_indication_is_dropped() {
    let mut world = World::usual(2);
    world.events(1);
    indicate(&mut world, spoke(1), &trigger());
    world.events(1);
    let bytes = world.sent(MessageType::TrafficIndication)[0].bytes.clone();
    let stranger = Path::udp(ip("203.0.113.66"), PORT);
    assert_eq!(world.inject(1, stranger, &bytes), Err(Error::UnknownSender));
}

#[test]
fn unreadable_packets_trigger_nothing() {
    let mut world = World::usual(2);
    for bad in [&[][..], &[0x45, 0, 0], &[0x60; 20], &[0x15; 40]] {
        assert!(!indicate(&mut world, spoke(1), bad), "{bad:?}");
    }
    indicate(&mut world, spoke(1), &trigger());
    let mut packet = world.sent(MessageType::TrafficIndication)[0].packet();
    packet.body = Body::Indication { code: 0, trigger: vec![0x45] };
    assert_eq!(world.inject(1, hub_path(), &packet.encode(0).unwrap()), Err(Error::Trigger));
}

#[test]
fn ipv6_needs_an_ipv6_tunnel_address() {
    let mut world = World::usual(2);
    let mut packet = vec![0x60; 8];
    packet.extend([0x20; 32]);
    assert!(!indicate(&mut world, spoke(1), &packet));
}

#[test]
fn in_phase_1_nobody_is_told() {
    let mut world = World::new();
    world.add(Config { shortcuts: false, ..hub_config(HUB_ADDRESS, "198.51.100.1") }, hub_path());
    assert!(!indicate(&mut world, spoke(1), &trigger()));
}

#[test]
fn a_peer_mapped_by_hand_is_not_told() {
    let mut world = World::usual(1);
    let path = Path::gre(ip("203.0.113.77"));
    world.node(HUB).add_static(StaticEntry { protocol_address: ip("10.0.0.77"), path, prefixes: vec![] });
    assert!(!indicate(&mut world, path, &trigger()));
}
