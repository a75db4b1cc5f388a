//! Against recorded messages of Linux routers with FRR: what they sent gets from us the answer it got from them.

use crate::captures::{CAPTURES, messages};
use crate::world::*;
use dmvpn_nhrp::extension::ExtensionType;
use dmvpn_nhrp::packet::{Body, Cie, MessageType, Packet};
use dmvpn_nhrp::{Config, Event};
use packet::Path;

const SPOKE_11: &str = "198.51.100.11";
const SPOKE_12: &str = "198.51.100.12";
const ROUTER_HUB: &str = "198.51.100.1";

/// The messages of a type in the capture `demo-plain`, in order.
fn recorded(kind: MessageType) -> Vec<Vec<u8>> {
    messages(CAPTURES[0].1).into_iter().filter(|m| m[17] == kind as u8).collect()
}

/// A station like the recorded ones: GRE without UDP, a minute of holding time, not unique.
fn like(address: &str, nbma: &str) -> Config {
    Config { holding_time: seconds(60), mtu: 0, unique: false, udp_port: None, ..config(address, nbma) }
}

/// A hub in place of the recorded one.
fn hub() -> World {
    let mut world = World::new();
    let hub = Config { serve: true, ..like("10.255.0.1", ROUTER_HUB) };
    world.add(hub, Path::gre(ip(ROUTER_HUB)));
    let lan = |n: u8| (net(&format!("192.168.{n}.0/24")), Target::Via(ip(&format!("10.255.0.{n}"))));
    world.stations[HUB].routes.table = vec![(net("10.255.0.0/24"), Target::OnLink), lan(11), lan(12)];
    world
}

/// What we sent, without our own extension, to compare with what the recorded router sent.
fn sent_like_frr(world: &World, kind: MessageType) -> Vec<u8> {
    let mut packet = world.sent(kind)[0].packet();
    packet.extensions.retain(|e| e.kind != ExtensionType::VENDOR);
    packet.encode(0).unwrap()
}

#[test]
fn our_hub_answers_a_registration_as_frrs_does() {
    let mut world = hub();
    let request = &recorded(MessageType::RegistrationRequest)[0];
    world.inject(HUB, Path::gre(ip(SPOKE_12)), request).unwrap();
    world.settle();
    let reply = sent_like_frr(&world, MessageType::RegistrationReply);
    assert_eq!(reply, recorded(MessageType::RegistrationReply)[0]);
    let events = world.events(HUB);
    let [Event::Registered { info, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((info.identity.as_ref(), info.token, info.natted), (None, None, false));
    assert_eq!(info.candidates, [Path::gre(ip(SPOKE_12))]);
}

#[test]
fn our_hub_passes_a_resolution_on_as_frrs_does() {
    let mut world = hub();
    let registrations = recorded(MessageType::RegistrationRequest);
    world.inject(HUB, Path::gre(ip(SPOKE_12)), &registrations[0]).unwrap();
    world.inject(HUB, Path::gre(ip(SPOKE_11)), &registrations[1]).unwrap();
    let requests = recorded(MessageType::ResolutionRequest);
    world.inject(HUB, Path::gre(ip(SPOKE_11)), &requests[0]).unwrap();
    world.settle();
    assert_eq!(sent_like_frr(&world, MessageType::ResolutionRequest), requests[1]);
    let replies = recorded(MessageType::ResolutionReply);
    world.inject(HUB, Path::gre(ip(SPOKE_12)), &replies[0]).unwrap();
    world.settle();
    let passed = &world.sent(MessageType::ResolutionReply)[0];
    assert_eq!(passed.to, Path::gre(ip(SPOKE_11)));
    assert_eq!(passed.bytes, replies[1]);
}

#[test]
fn our_spoke_answers_a_resolution_as_frrs_does() {
    let mut world = World::new();
    let spoke = world.add(like("10.255.0.12", SPOKE_12), Path::gre(ip(SPOKE_12)));
    world.stations[spoke].routes.table = vec![(net("192.168.12.0/24"), Target::Off)];
    world.register(spoke, Path::gre(ip(ROUTER_HUB)));
    let request = &recorded(MessageType::ResolutionRequest)[1];
    world.inject(spoke, Path::gre(ip(ROUTER_HUB)), request).unwrap();
    world.settle();
    let reply = sent_like_frr(&world, MessageType::ResolutionReply);
    // FRR leaves the NAT flag out of replies; ours says that we understand the extension.
    let mut wanted = Packet::decode(&recorded(MessageType::ResolutionReply)[0]).unwrap();
    exchange_mut(&mut wanted).flags.0 |= 0x0002;
    assert_eq!(reply, wanted.encode(0).unwrap());
    let events = world.events(spoke);
    let [Event::Asked { peer, prefix, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(peer.candidates, [Path::gre(ip(SPOKE_11))]);
    assert_eq!(*prefix, net("192.168.12.0/24"));
}

#[test]
fn our_spoke_registers_with_frrs_hub_and_asks_as_frrs_does() {
    let mut world = World::new();
    let spoke = world.add(like("10.255.0.12", SPOKE_12), Path::gre(ip(SPOKE_12)));
    let on_hub = |prefix: &str| (net(prefix), Target::Via(ip("10.255.0.1")));
    world.stations[spoke].routes.table =
        vec![(net("10.255.0.0/24"), Target::OnLink), on_hub("192.168.0.0/16")];
    let hub = Path::gre(ip(ROUTER_HUB));
    world.register(spoke, hub);
    world.settle();
    let requests = recorded(MessageType::RegistrationRequest);
    assert_eq!(sent_like_frr(&world, MessageType::RegistrationRequest), requests[0]);
    world.inject(spoke, hub, &recorded(MessageType::RegistrationReply)[0]).unwrap();
    let events = world.events(spoke);
    let [Event::NhsUp { protocol_address, observed: None, info, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*protocol_address, ip("10.255.0.1"));
    assert_eq!((info.token, info.candidates[0]), (None, hub));

    world.resolve(spoke, "192.168.11.1");
    world.settle();
    let asked = sent_like_frr(&world, MessageType::ResolutionRequest);
    assert_eq!(asked, recorded(MessageType::ResolutionRequest)[2]);
    world.inject(spoke, hub, &recorded(MessageType::ResolutionReply)[3]).unwrap();
    let events = world.events(spoke);
    let [Event::Resolved { peer, prefix, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(peer.candidates, [Path::gre(ip(SPOKE_11))]);
    assert_eq!(*prefix, net("192.168.11.0/24"));
}

/// FRR's hub tells by a second entry of the NAT extension.
#[test]
fn a_foreign_hub_tells_our_public_address() {
    let mut world = World::new();
    let spoke = world.add(like("10.255.0.12", "192.168.99.7"), Path::gre(ip("203.0.113.5")));
    world.stations[spoke].routes.table = vec![(net("0.0.0.0/0"), Target::Via(ip("10.255.0.1")))];
    let hub = Path::gre(ip(ROUTER_HUB));
    world.register(spoke, hub);
    world.settle();
    let mut reply = Packet::decode(&recorded(MessageType::RegistrationReply)[0]).unwrap();
    reply.extension_mut(ExtensionType::NAT).unwrap().push(&Cie {
        prefix_length: 32,
        nbma: Some(ip("203.0.113.5")),
        protocol: Some(ip("10.255.0.12")),
        ..Cie::default()
    });
    world.inject(spoke, hub, &reply.encode(0).unwrap()).unwrap();
    let events = world.events(spoke);
    assert!(
        matches!(&events[..], [Event::NhsUp { observed: Some(o), .. }] if *o == Path::gre(ip("203.0.113.5")))
    );
    // From now on it says so itself.
    world.resolve(spoke, "192.168.11.1");
    world.settle();
    let request = world.sent(MessageType::ResolutionRequest)[0].packet();
    let entries = request.extension(ExtensionType::NAT).unwrap().entries();
    assert_eq!((entries[0].nbma, entries[0].protocol), (Some(ip("203.0.113.5")), Some(ip("10.255.0.12"))));
}

#[test]
fn frrs_indication_is_understood() {
    let mut world = World::new();
    let spoke = world.add(like("10.255.0.12", SPOKE_12), Path::gre(ip(SPOKE_12)));
    world.stations[spoke].routes.table = vec![(net("192.168.12.0/24"), Target::Off)];
    let hub = Path::gre(ip(ROUTER_HUB));
    world.register(spoke, hub);
    world.settle();
    let indication = &recorded(MessageType::TrafficIndication)[0];
    world.inject(spoke, hub, indication).unwrap();
    let told = Event::Indicated { source: ip("192.168.12.1"), destination: ip("192.168.11.1"), path: hub };
    assert_eq!(world.events(spoke), [told]);
}

#[test]
fn our_indication_is_as_frrs() {
    let mut world = hub();
    let recorded = &recorded(MessageType::TrafficIndication)[0];
    let Body::Indication { trigger, .. } = Packet::decode(recorded).unwrap().body else { panic!() };
    let now = world.now;
    assert!(world.node(HUB).indicate(now, Path::gre(ip(SPOKE_12)), &trigger));
    world.settle();
    assert_eq!(world.sent(MessageType::TrafficIndication)[0].bytes, *recorded);
}

/// In IPv6 messages FRR's hub names itself by its IPv4 address.
#[test]
fn a_responder_of_the_wrong_ip_version_is_passed_over() {
    let mut world = World::new();
    let spoke = world.add(like("fd00::12", SPOKE_12), Path::gre(ip(SPOKE_12)));
    let hub = Path::gre(ip(ROUTER_HUB));
    world.register(spoke, hub);
    world.settle();
    let mut reply = Packet::decode(&recorded(MessageType::RegistrationReply)[0]).unwrap();
    reply.protocol = dmvpn_nhrp::packet::Protocol::V6;
    (reply.source, reply.destination) = (ip("fd00::12"), ip("fd00::1"));
    world.inject(spoke, hub, &reply.encode(0).unwrap()).unwrap();
    let events = world.events(spoke);
    assert!(
        matches!(&events[..], [Event::NhsUp { protocol_address, .. }] if *protocol_address == ip("fd00::1")),
        "{events:?}"
    );
}
