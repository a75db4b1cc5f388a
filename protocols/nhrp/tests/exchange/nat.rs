//! Stations behind NATs: Cisco's NAT extension for routers, ours for ours.

use crate::world::*;
use dmvpn_nhrp::extension::{Extension, ExtensionType};
use dmvpn_nhrp::packet::{Cie, MessageType};
use dmvpn_nhrp::{Config, Event};
use packet::Path;

fn natted_spoke(world: &mut World) -> (usize, Path) {
    let public = Path::udp(ip("203.0.113.5"), 61001);
    (world.add_spoke_with(2, config("10.0.0.2", "192.168.99.7"), public), public)
}

fn entries(packet: &dmvpn_nhrp::packet::Packet) -> Vec<Cie> {
    packet.extension(ExtensionType::NAT).map(Extension::entries).unwrap_or_default()
}

#[test]
fn a_spoke_behind_a_nat_learns_its_public_address_and_port() {
    let mut world = World::usual(1);
    let (spoke, public) = natted_spoke(&mut world);
    world.settle();
    let events = world.events(spoke);
    let [Event::NhsUp { observed, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*observed, Some(public));
    let events = world.events(HUB);
    let Some(Event::Registered { info, .. }) = events.last() else { panic!("{events:?}") };
    assert!(info.natted);
    assert_eq!(info.nbma_claimed, ip("192.168.99.7"));
    assert_eq!(info.candidates, [public]);
}

#[test]
fn the_registration_names_the_server_and_the_reply_adds_the_public_address() {
    let mut world = World::usual(1);
    natted_spoke(&mut world);
    world.settle();
    let requests = world.sent(MessageType::RegistrationRequest);
    let asked = entries(&requests[1].packet());
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].nbma, asked[0].protocol), (Some(ip("198.51.100.1")), Some(ip("0.0.0.0"))));
    let replies = world.sent(MessageType::RegistrationReply);
    assert_eq!(entries(&replies[0].packet()).len(), 1, "not behind a NAT: nothing is added");
    let told = entries(&replies[1].packet());
    assert_eq!(told.len(), 2);
    assert_eq!((told[1].nbma, told[1].protocol), (Some(ip("203.0.113.5")), Some(ip("10.0.0.2"))));
}

#[test]
fn the_asker_tries_where_the_hub_saw_the_responder_then_where_it_says_it_is() {
    let mut world = World::usual(1);
    let (_, public) = natted_spoke(&mut world);
    world.settle();
    world.resolve(1, "192.168.2.9");
    world.settle();
    let events = world.events(1);
    let Some(Event::Resolved { peer, .. }) = events.last() else { panic!("{events:?}") };
    assert!(peer.natted);
    let expected = [public, Path::udp(ip("203.0.113.5"), PORT), Path::udp(ip("192.168.99.7"), PORT)];
    assert_eq!(peer.candidates, expected);
}

#[test]
fn the_responder_tries_where_the_hub_saw_the_asker() {
    let mut world = World::usual(1);
    let (spoke, public) = natted_spoke(&mut world);
    world.settle();
    world.resolve(spoke, "192.168.1.9");
    world.settle();
    let events = world.events(1);
    let Some(Event::Asked { peer, .. }) = events.last() else { panic!("{events:?}") };
    assert!(peer.natted);
    assert_eq!(peer.candidates[0], public);
}

/// A foreign spoke doesn't tell its public address before it has learnt it: its extension is empty, and the hub
/// fills it in. One that is not behind a NAT gets nothing.
#[test]
fn the_hub_fills_an_empty_nat_extension_from_its_registrations() {
    let mut world = World::usual(1);
    let (spoke, _) = natted_spoke(&mut world);
    world.settle();
    for (from, filled) in [(spoke, Some(ip("203.0.113.5"))), (1, None)] {
        let target = if from == 1 { "192.168.2.9" } else { "192.168.1.9" };
        world.lose.push(MessageType::ResolutionRequest);
        world.resolve(from, target);
        world.settle();
        world.lose.clear();
        let mut request = world.sent(MessageType::ResolutionRequest).pop().unwrap().packet();
        request.extensions.retain(|e| e.kind != ExtensionType::VENDOR);
        request.extension_mut(ExtensionType::NAT).unwrap().value.clear();
        world.inject(HUB, world.stations[from].visible, &request.encode(0).unwrap()).unwrap();
        world.settle();
        let passed = world.sent(MessageType::ResolutionRequest).pop().unwrap().packet();
        assert_eq!(entries(&passed).first().and_then(|e| e.nbma), filled);
    }
}

#[test]
fn the_hub_adds_the_nat_extension_that_its_sender_left_out_but_understands() {
    let mut world = World::usual(1);
    let (spoke, _) = natted_spoke(&mut world);
    world.settle();
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(spoke, "192.168.1.9");
    world.settle();
    world.lose.clear();
    let mut request = world.sent(MessageType::ResolutionRequest).pop().unwrap().packet();
    request.extensions.retain(|e| e.kind != ExtensionType::NAT);
    world.inject(HUB, world.stations[spoke].visible, &request.encode(0).unwrap()).unwrap();
    world.settle();
    let requests = world.sent(MessageType::ResolutionRequest);
    assert_eq!(entries(&requests.last().unwrap().packet())[0].nbma, Some(ip("203.0.113.5")));
}

#[test]
fn a_foreign_responder_behind_a_nat_is_tried_at_its_nat_address_by_gre() {
    let mut world = World::usual(1);
    let public = Path::gre(ip("203.0.113.5"));
    let foreign = Config { udp_port: None, ..config("10.0.0.2", "192.168.99.7") };
    world.add_spoke_with(2, foreign, public);
    world.settle();
    world.lose.push(MessageType::ResolutionReply);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.lose.clear();
    let mut reply = world.sent(MessageType::ResolutionReply)[0].packet();
    reply.extensions.retain(|e| e.kind != ExtensionType::VENDOR); // as a router sends it
    world.inject(HUB, public, &reply.encode(0).unwrap()).unwrap();
    world.settle();
    let events = world.events(1);
    let Some(Event::Resolved { peer, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(peer.candidates, [public, Path::gre(ip("192.168.99.7"))]);
    assert_eq!((peer.identity.as_deref(), peer.token), (None, None));
}

#[test]
fn a_station_cannot_say_itself_where_it_was_seen() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.lose.clear();
    let mut request = world.sent(MessageType::ResolutionRequest).pop().unwrap().packet();
    dmvpn_nhrp::vendor::Station::observe(&mut request, ip("10.0.0.1"), Path::gre(ip("203.0.113.66")), None);
    world.inject(HUB, world.stations[1].visible, &request.encode(0).unwrap()).unwrap();
    world.settle();
    let events = world.events(2);
    let Some(Event::Asked { peer, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(peer.candidates, [Path::udp(ip("198.51.100.11"), PORT)]);
}

#[test]
fn a_changed_port_is_news() {
    let mut world = World::usual(0);
    let (spoke, _) = natted_spoke(&mut world);
    world.settle();
    world.events(spoke);
    let moved = Path::udp(ip("203.0.113.5"), 61002);
    world.stations[spoke].visible = moved;
    world.advance(seconds(201));
    let events = world.events(spoke);
    assert!(matches!(&events[..], [Event::NhsUp { observed: Some(o), .. }] if *o == moved), "{events:?}");
}
