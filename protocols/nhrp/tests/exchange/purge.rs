//! Taking back what was answered or registered.

use crate::world::*;
use dmvpn_nhrp::extension::ExtensionType;
use dmvpn_nhrp::packet::{Cie, Flags, MessageType, Packet};
use dmvpn_nhrp::{EntryKind, Error, Event, NhsId, NhsState};
use packet::Path;

/// Spoke 1 has resolved something behind spoke 2.
fn with_a_shortcut() -> World {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    for station in 0..3 {
        world.events(station);
    }
    world
}

fn withdraw(world: &mut World, prefix: &str) {
    let now = world.now;
    world.node(2).withdraw(now, net(prefix));
    world.settle();
}

/// ```text
/// B -> hub -> A    Purge Request for 192.168.2.0/24
/// B <- hub <- A    Purge Reply
/// ```
#[test]
fn a_withdrawn_prefix_is_purged_at_who_asked_for_it() {
    let mut world = with_a_shortcut();
    assert_eq!(world.node(2).answered().count(), 1);
    withdraw(&mut world, "192.168.2.0/24");
    assert_eq!(world.events(1), [Event::Purged { prefix: net("192.168.2.0/24"), by: ip("10.0.0.2") }]);
    assert!(world.node(1).cache().iter().all(|e| e.kind != EntryKind::Cached));
    assert_eq!(world.node(2).answered().count(), 0);
    world.advance(seconds(90));
    assert_eq!(world.sent(MessageType::PurgeRequest).iter().filter(|s| s.from == 2).count(), 1);
}

//= rfc2332#5.2.5
#[test]
fn the_entries_of_a_purge_have_nothing_but_an_address() {
    let mut world = with_a_shortcut();
    withdraw(&mut world, "192.168.2.0/24");
    let packet = world.sent(MessageType::PurgeRequest)[0].packet();
    let entry = &exchange(&packet).entries[0];
    let wanted = Cie { prefix_length: 24, protocol: Some(ip("192.168.2.0")), ..Cie::default() };
    assert_eq!(*entry, wanted);
}

#[test]
fn a_more_specific_or_wider_route_change_purges_too_and_another_does_not() {
    for (prefix, purged) in [("192.168.2.128/25", 1), ("192.168.0.0/16", 1), ("192.168.3.0/24", 0)] {
        let mut world = with_a_shortcut();
        withdraw(&mut world, prefix);
        assert_eq!(world.events(1).len(), purged, "{prefix}");
    }
}

//= rfc2332#5.2.5
#[test]
fn an_unacknowledged_purge_is_repeated_until_the_answer_would_have_ended() {
    let mut world = with_a_shortcut();
    world.lose.push(MessageType::PurgeReply);
    withdraw(&mut world, "192.168.2.0/24");
    world.advance(seconds(1200));
    let sent: Vec<Sent> = world.sent(MessageType::PurgeRequest).into_iter().filter(|s| s.from == 2).collect();
    let ids: Vec<u32> = sent.iter().map(|s| exchange(&s.packet()).request_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert!((10..20).contains(&sent.len()), "{}", sent.len());
    assert!(sent.last().unwrap().at.since(sent[0].at) <= seconds(600));
}

#[test]
fn a_purge_that_was_lost_arrives_later() {
    let mut world = with_a_shortcut();
    world.lose.push(MessageType::PurgeRequest);
    withdraw(&mut world, "192.168.2.0/24");
    assert_eq!(world.events(1), []);
    world.lose.clear();
    world.advance(seconds(2));
    assert_eq!(world.events(1).len(), 1);
}

/// On shutdown.
#[test]
fn a_station_that_leaves_takes_its_registration_and_its_answers_back() {
    let mut world = with_a_shortcut();
    let now = world.now;
    world.node(2).deregister(now);
    world.settle();
    let events = world.events(HUB);
    let unregistered = Event::Unregistered { protocol_address: ip("10.0.0.2"), reason: "purged" };
    assert_eq!(events[0], unregistered);
    assert!(events.contains(&Event::Purged { prefix: net("10.0.0.2/32"), by: ip("10.0.0.2") }));
    world.advance(seconds(300));
    assert_eq!(world.sent(MessageType::RegistrationRequest).iter().filter(|s| s.from == 2).count(), 1);
}

#[test]
fn its_answers_are_taken_back_while_the_hub_still_knows_it() {
    let mut world = with_a_shortcut();
    let now = world.now;
    world.node(2).deregister(now);
    world.settle();
    let purged = Event::Purged { prefix: net("192.168.2.0/24"), by: ip("10.0.0.2") };
    assert_eq!(world.events(1), [purged]);
}

#[test]
fn a_removed_server_is_told() {
    let mut world = World::usual(1);
    world.events(HUB);
    let now = world.now;
    world.node(1).remove_nhs(now, NhsId(0));
    world.settle();
    assert!(matches!(world.events(HUB)[0], Event::Unregistered { reason: "purged", .. }));
    assert_eq!(world.node(1).nhs().count(), 0);
}

#[test]
fn a_new_underlay_address_is_registered_and_what_was_answered_with_the_old_is_purged() {
    let mut world = with_a_shortcut();
    let now = world.now;
    world.stations[2].visible = Path::udp(ip("203.0.113.8"), PORT);
    world.node(2).set_nbma_address(now, ip("203.0.113.8"));
    world.settle();
    assert!(matches!(world.events(HUB)[0], Event::Registered { moved_from: Some(_), .. }));
    assert_eq!(world.events(1), [Event::Purged { prefix: net("192.168.2.0/24"), by: ip("10.0.0.2") }]);
}

fn purge_of(world: &World, by: usize) -> Packet {
    let sent = world.sent(MessageType::PurgeRequest);
    sent.iter().find(|s| s.from == by).unwrap().packet()
}

#[test]
fn a_stranger_cannot_purge() {
    let mut world = with_a_shortcut();
    world.lose.push(MessageType::PurgeRequest);
    withdraw(&mut world, "192.168.2.0/24");
    let purge = purge_of(&world, 2).encode(0).unwrap();
    let stranger = Path::udp(ip("203.0.113.66"), PORT);
    for station in [HUB, 1] {
        assert_eq!(world.inject(station, stranger, &purge), Err(Error::SpoofedSource));
    }
    // Nor another spoke, by the hub.
    let c = world.add_spoke(3);
    world.lose.clear();
    world.settle();
    let path = world.stations[c].visible;
    assert_eq!(world.inject(HUB, path, &purge), Err(Error::SpoofedSource));
}

#[test]
fn a_spoke_cannot_purge_what_another_registered() {
    let mut world = with_a_shortcut();
    let now = world.now;
    world.lose.push(MessageType::PurgeRequest);
    world.node(2).deregister(now);
    world.settle();
    let sent = world.sent(MessageType::PurgeRequest);
    let mut purge = sent.iter().find(|s| s.packet().destination == ip(HUB_ADDRESS)).unwrap().packet();
    exchange_mut(&mut purge).entries[0].protocol = Some(ip("10.0.0.1"));
    let path = world.stations[2].visible;
    world.inject(HUB, path, &purge.encode(0).unwrap()).unwrap();
    assert!(world.node(HUB).cache().iter().any(|e| e.prefix == net("10.0.0.1/32")));
}

/// It says that it only passes the purge on.
#[test]
fn a_spoke_cannot_end_anothers_registration_by_a_forged_transit_record() {
    let mut world = with_a_shortcut();
    let now = world.now;
    world.lose.push(MessageType::PurgeRequest);
    world.node(2).deregister(now);
    world.settle();
    let sent = world.sent(MessageType::PurgeRequest);
    let mut purge = sent.iter().find(|s| s.packet().destination == ip(HUB_ADDRESS)).unwrap().packet();
    let record = Cie { protocol: Some(ip("10.0.0.1")), nbma: Some(ip("198.51.100.11")), ..Cie::default() };
    purge.extension_mut(ExtensionType::FORWARD_TRANSIT).unwrap().push(&record);
    let path = world.stations[1].visible;
    world.inject(HUB, path, &purge.encode(0).unwrap()).unwrap();
    assert!(world.node(HUB).cache().iter().any(|e| e.prefix == net("10.0.0.2/32")));
}

#[test]
fn a_responder_may_purge_directly() {
    let mut world = with_a_shortcut();
    world.lose.push(MessageType::PurgeRequest);
    withdraw(&mut world, "192.168.2.0/24");
    let purge = purge_of(&world, 2).encode(0).unwrap();
    let direct = world.stations[2].visible;
    world.inject(1, direct, &purge).unwrap();
    world.settle();
    assert_eq!(world.events(1).len(), 1);
    let reply = world.sent(MessageType::PurgeReply);
    assert_eq!(reply[0].to, direct, "the acknowledgement goes back to where the request came from");
}

//= rfc2332#5.2.5
#[test]
fn no_reply_is_sent_when_none_is_wanted() {
    let mut world = with_a_shortcut();
    world.lose.push(MessageType::PurgeRequest);
    withdraw(&mut world, "192.168.2.0/24");
    let mut purge = purge_of(&world, 2);
    exchange_mut(&mut purge).flags = Flags::NO_REPLY;
    world.inject(1, hub_path(), &purge.encode(0).unwrap()).unwrap();
    world.settle();
    assert!(world.sent(MessageType::PurgeReply).is_empty());
    assert_eq!(world.events(1).len(), 1);
}

//= rfc2332#5.2.5
#[test]
fn a_purge_of_nothing_is_acknowledged() {
    let mut world = with_a_shortcut();
    withdraw(&mut world, "192.168.2.0/24");
    let purge = purge_of(&world, 2).encode(0).unwrap();
    let before = world.sent(MessageType::PurgeReply).len();
    world.inject(1, hub_path(), &purge).unwrap();
    world.settle();
    assert!(world.sent(MessageType::PurgeReply).len() > before);
}

#[test]
fn an_nbma_address_narrows_a_purge() {
    let mut world = with_a_shortcut();
    world.lose.push(MessageType::PurgeRequest);
    withdraw(&mut world, "192.168.2.0/24");
    let mut purge = purge_of(&world, 2);
    exchange_mut(&mut purge).entries[0].nbma = Some(ip("203.0.113.99"));
    world.inject(1, hub_path(), &purge.encode(0).unwrap()).unwrap();
    assert!(world.node(1).cache().iter().any(|e| e.kind == EntryKind::Cached), "another address is meant");
}

#[test]
fn a_purge_without_an_address_is_an_error() {
    let mut world = with_a_shortcut();
    world.lose.push(MessageType::PurgeRequest);
    withdraw(&mut world, "192.168.2.0/24");
    let mut purge = purge_of(&world, 2);
    exchange_mut(&mut purge).entries[0].protocol = None;
    assert_eq!(world.inject(1, hub_path(), &purge.encode(0).unwrap()), Err(Error::EntryCount));
    world.settle();
    assert_eq!(world.sent(MessageType::ErrorIndication).iter().filter(|s| s.from == 1).count(), 1);
}

#[test]
fn a_purge_for_who_has_left_ends_with_the_hubs_error() {
    let mut world = with_a_shortcut();
    let now = world.now;
    world.node(1).remove_nhs(now, NhsId(0));
    world.settle();
    withdraw(&mut world, "192.168.2.0/24");
    world.advance(seconds(60));
    assert_eq!(world.stations[HUB].drops, [Error::NoRoute]);
    assert_eq!(world.sent(MessageType::PurgeRequest).iter().filter(|s| s.from == 2).count(), 1);
}

#[test]
fn an_acknowledgement_nobody_waits_for_is_unsolicited() {
    let mut world = with_a_shortcut();
    withdraw(&mut world, "192.168.2.0/24");
    let reply = world.sent(MessageType::PurgeReply)[1].clone();
    assert_eq!(world.inject(2, hub_path(), &reply.bytes), Err(Error::Unsolicited));
}

#[test]
fn many_answers_to_one_requester_are_purged_in_few_messages() {
    let mut world = World::usual(1);
    let b = world.add_spoke(2);
    for n in 0..40 {
        let prefix = net(&format!("172.16.{n}.0/24"));
        world.stations[b].routes.table.push((prefix, Target::Off));
        world.stations[HUB].routes.table.push((prefix, Target::Via(ip("10.0.0.2"))));
        world.stations[1].routes.table.push((prefix, Target::Via(ip(HUB_ADDRESS))));
    }
    world.settle();
    for n in 0..40 {
        world.resolve(1, &format!("172.16.{n}.1"));
    }
    world.settle();
    world.events(1);
    withdraw(&mut world, "172.16.0.0/16");
    assert_eq!(world.sent(MessageType::PurgeRequest).iter().filter(|s| s.from == 2).count(), 2);
    assert_eq!(world.events(1).len(), 40);
}

#[test]
fn a_station_that_left_can_come_back() {
    let mut world = World::usual(1);
    let now = world.now;
    world.node(1).deregister(now);
    world.settle();
    world.node(1).register_now(now, NhsId(0));
    world.settle();
    assert!(matches!(world.node(1).nhs().next().unwrap().state, NhsState::Registered { .. }));
}

#[test]
fn purges_carry_transit_records() {
    let mut world = with_a_shortcut();
    withdraw(&mut world, "192.168.2.0/24");
    let passed = &world.sent(MessageType::PurgeRequest)[1];
    assert_eq!(passed.from, HUB);
    let record = passed.packet().extension(ExtensionType::FORWARD_TRANSIT).unwrap().entries();
    assert_eq!(record[0].protocol, Some(ip(HUB_ADDRESS)));
}

#[test]
fn with_a_fixed_id_two_purges_at_once_are_told_apart() {
    let mut world = World::new();
    world.add_hub();
    let quirks = dmvpn_nhrp::Quirks { fixed_request_id: true, ..Default::default() };
    let config = dmvpn_nhrp::Config { quirks, ..config("10.0.0.2", "198.51.100.12") };
    world.add_spoke(1);
    world.add_spoke_with(2, config, Path::udp(ip("198.51.100.12"), PORT));
    world.add_spoke(3);
    world.settle();
    world.resolve(1, "192.168.2.9");
    world.resolve(3, "192.168.2.9");
    world.settle();
    world.events(1);
    world.events(3);
    withdraw(&mut world, "192.168.2.0/24");
    assert_eq!(world.events(1).len() + world.events(3).len(), 2);
    world.advance(seconds(100));
    assert_eq!(world.sent(MessageType::PurgeRequest).iter().filter(|s| s.from == 2).count(), 2);
}
