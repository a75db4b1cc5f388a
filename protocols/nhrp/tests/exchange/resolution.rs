//! Resolving: client, responder, and the server between them.

use crate::world::*;
use dmvpn_nhrp::extension::{Extension, ExtensionType};
use dmvpn_nhrp::packet::{Body, CieCode, ErrorCode, Flags, MessageType};
use dmvpn_nhrp::{Config, EntryKind, Error, Event, NhsId, ResolutionFailure, StaticEntry};
use packet::Path;

/// The one event of a station that is about a resolution.
fn outcome(world: &mut World, station: usize) -> Event {
    let events = world.events(station);
    let about = |e: &Event| matches!(e, Event::Resolved { .. } | Event::ResolutionFailed { .. });
    let mut events = events.into_iter().filter(about);
    let event = events.next().expect("an outcome");
    assert_eq!(events.next(), None);
    event
}

fn failure(world: &mut World, station: usize) -> ResolutionFailure {
    match outcome(world, station) {
        Event::ResolutionFailed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// ```text
/// A -> hub        Resolution Request for 192.168.2.9
///      hub -> B   passed on: B is registered
///      hub <- B   Resolution Reply for 192.168.2.0/24
/// A <- hub        passed on
/// ```
#[test]
fn two_spokes_learn_of_each_other_through_the_hub() {
    let mut world = World::usual(2);
    world.events(2);
    let id = world.resolve(1, "192.168.2.9");
    world.settle();
    let Event::Resolved { id: answered, destination, prefix, peer, holding_time } = outcome(&mut world, 1)
    else {
        panic!()
    };
    assert_eq!((answered, destination), (id, ip("192.168.2.9")));
    assert_eq!(prefix, net("192.168.2.0/24"));
    assert_eq!(holding_time, seconds(600));
    assert_eq!(peer.protocol_address, ip("10.0.0.2"));
    assert_eq!(peer.candidates, [Path::udp(ip("198.51.100.12"), PORT)]);
    assert_eq!(peer.identity.as_deref(), Some("10.0.0.2.example.com"));
    assert_eq!(peer.token, Some(world.node(2).token()));
    assert!(!peer.natted);
    let events = world.events(2);
    let [Event::Asked { peer, prefix, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(peer.protocol_address, ip("10.0.0.1"));
    assert_eq!(peer.candidates, [Path::udp(ip("198.51.100.11"), PORT)]);
    assert_eq!(peer.token, Some(world.node(1).token()));
    assert_eq!(*prefix, net("192.168.2.0/24"));
}

#[test]
fn a_preserved_next_hop_is_answered_by_itself() {
    let mut world = World::usual(2);
    world.resolve(1, "10.0.0.2");
    world.settle();
    let Event::Resolved { prefix, peer, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(prefix, net("10.0.0.2/32"));
    assert_eq!(peer.protocol_address, ip("10.0.0.2"));
}

#[test]
fn the_reply_says_authoritative_and_stable_and_repeats_the_askers_flags() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let request = world.sent(MessageType::ResolutionRequest)[0].packet();
    assert_eq!(exchange(&request).flags, Flags(0xc802));
    let reply = world.sent(MessageType::ResolutionReply)[0].packet();
    assert_eq!(exchange(&reply).flags, Flags(0xe802));
}

#[test]
fn the_hub_answers_for_what_lies_behind_it() {
    let mut world = World::usual(1);
    world.stations[HUB].routes.table.push((net("172.16.0.0/16"), Target::Off));
    world.stations[1].routes.table.push((net("172.16.0.0/12"), Target::Via(ip(HUB_ADDRESS))));
    world.resolve(1, "172.16.5.5");
    world.settle();
    let Event::Resolved { prefix, peer, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(prefix, net("172.16.0.0/16"));
    assert_eq!(peer.candidates, [hub_path()]);
}

#[test]
fn for_a_default_route_only_the_address_is_answered() {
    let mut world = World::usual(1);
    world.resolve(1, "8.8.8.8"); // the hub's way out
    world.settle();
    let Event::Resolved { prefix, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(prefix, net("8.8.8.8/32"));
}

#[test]
fn an_answer_is_never_used_for_more_than_our_own_route_covers() {
    let mut world = World::usual(2);
    world.stations[1].routes.table.push((net("192.168.2.0/28"), Target::Via(ip(HUB_ADDRESS))));
    world.resolve(1, "192.168.2.9");
    world.settle();
    let Event::Resolved { prefix, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(prefix, net("192.168.2.0/28"));
}

#[test]
fn what_nobody_knows_is_no_binding() {
    let mut world = World::usual(1);
    world.resolve(1, "10.0.0.200");
    world.settle();
    assert_eq!(failure(&mut world, 1), ResolutionFailure::Refused(CieCode::NO_BINDING.0));
}

#[test]
fn the_code_frr_uses_for_no_binding_is_understood() {
    let mut world = World::usual(1);
    world.lose.push(MessageType::ResolutionReply);
    world.resolve(1, "10.0.0.200");
    world.settle();
    let mut reply = world.sent(MessageType::ResolutionReply)[0].packet();
    exchange_mut(&mut reply).entries[0].code = CieCode(11);
    world.inject(1, hub_path(), &reply.encode(0).unwrap()).unwrap();
    assert_eq!(failure(&mut world, 1), ResolutionFailure::Refused(12));
}

#[test]
fn nobody_is_told_the_way_to_himself() {
    let mut world = World::usual(1);
    world.stations[HUB].routes.table.push((net("192.168.77.0/24"), Target::Via(ip("10.0.0.1"))));
    world.resolve(1, "192.168.77.1");
    world.settle();
    assert_eq!(failure(&mut world, 1), ResolutionFailure::Refused(CieCode::NO_BINDING.0));
}

#[test]
fn in_phase_1_requests_are_prohibited() {
    let mut world = World::new();
    world.add(Config { shortcuts: false, ..hub_config(HUB_ADDRESS, "198.51.100.1") }, hub_path());
    world.add_spoke(1);
    world.settle();
    world.resolve(1, "192.168.2.9");
    world.settle();
    assert_eq!(failure(&mut world, 1), ResolutionFailure::Refused(CieCode::PROHIBITED.0));
}

#[test]
fn in_phase_1_none_is_made() {
    let mut world = World::new();
    world.add_hub();
    let config = Config { shortcuts: false, ..config("10.0.0.1", "198.51.100.11") };
    let spoke = world.add_spoke_with(1, config, Path::udp(ip("198.51.100.11"), PORT));
    world.settle();
    world.resolve(spoke, "192.168.2.9");
    world.settle();
    assert_eq!(failure(&mut world, spoke), ResolutionFailure::NoRoute);
    assert!(world.sent(MessageType::ResolutionRequest).is_empty());
}

#[test]
fn without_a_server_there_is_no_way_to_ask() {
    let mut world = World::new();
    let alone = world.add(config("10.0.0.1", "198.51.100.11"), Path::udp(ip("198.51.100.11"), PORT));
    world.resolve(alone, "192.168.2.9");
    assert_eq!(failure(&mut world, alone), ResolutionFailure::NoRoute);
}

#[test]
fn nothing_is_asked_about_our_own_network() {
    let mut world = World::usual(1);
    world.resolve(1, "192.168.1.5");
    assert_eq!(failure(&mut world, 1), ResolutionFailure::NoRoute);
}

#[test]
fn a_peer_mapped_by_hand_is_reached_through_its_hub() {
    let mut world = World::usual(1);
    world.node(HUB).add_static(StaticEntry {
        protocol_address: ip("10.0.0.77"),
        path: Path::gre(ip("203.0.113.77")),
        prefixes: vec![net("192.168.77.0/24")],
    });
    world.resolve(1, "192.168.77.7");
    world.settle();
    let Event::Resolved { prefix, peer, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(prefix, net("192.168.77.0/24"));
    assert_eq!(peer.protocol_address, ip(HUB_ADDRESS));
}

#[test]
fn taking_a_mapping_away_withdraws_what_was_answered_for_it() {
    let mut world = World::usual(1);
    world.node(HUB).add_static(StaticEntry {
        protocol_address: ip("10.0.0.77"),
        path: Path::gre(ip("203.0.113.77")),
        prefixes: vec![net("192.168.77.0/24")],
    });
    world.resolve(1, "192.168.77.7");
    world.settle();
    world.events(1);
    let now = world.now;
    world.node(HUB).remove_static(now, ip("10.0.0.77"));
    world.settle();
    assert_eq!(world.events(1), [Event::Purged { prefix: net("192.168.77.0/24"), by: ip(HUB_ADDRESS) }]);
}

#[test]
fn a_request_is_repeated_with_the_same_id_and_given_up_after_28_seconds() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(1, "192.168.2.9");
    world.advance(seconds(27));
    assert_eq!(world.events(1).len(), 1, "registered, and nothing else yet");
    world.advance(seconds(1));
    assert_eq!(failure(&mut world, 1), ResolutionFailure::Timeout);
    let requests = world.sent(MessageType::ResolutionRequest);
    assert_eq!(requests.len(), 6);
    let ids: Vec<u32> = requests.iter().map(|r| exchange(&r.packet()).request_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn a_second_server_is_asked_when_the_first_is_silent() {
    let mut world = World::new();
    world.add_hub();
    let second = Path::udp(ip("198.51.100.2"), PORT);
    world.add(hub_config("10.0.0.253", "198.51.100.2"), second);
    let spoke = world.add_spoke(1);
    world.register_by(spoke, NhsId(1), vec![second]);
    world.settle();
    world.stations[HUB].visible = Path::gre(ip("192.0.2.1")); // unplugged
    world.resolve(spoke, "192.168.2.9");
    world.advance(seconds(5));
    let asked: Vec<Path> = world.sent(MessageType::ResolutionRequest).iter().map(|s| s.to).collect();
    assert_eq!(asked, [hub_path(), hub_path(), second]);
    assert_eq!(failure(&mut world, spoke), ResolutionFailure::Refused(12), "it answered");
}

#[test]
fn asking_twice_for_one_destination_asks_once() {
    let mut world = World::usual(2);
    let first = world.resolve(1, "192.168.2.9");
    assert_eq!(world.resolve(1, "192.168.2.9"), first);
    assert_ne!(world.resolve(1, "192.168.2.10"), first);
    world.settle();
    assert_eq!(world.sent(MessageType::ResolutionRequest).iter().filter(|s| s.from == 1).count(), 2);
}

#[test]
fn a_cancelled_resolution_says_nothing_more() {
    let mut world = World::usual(2);
    world.events(1);
    let id = world.resolve(1, "192.168.2.9");
    world.node(1).cancel(id);
    world.advance(seconds(60));
    assert_eq!(world.events(1), []);
    assert_eq!(world.stations[1].drops, [Error::Duplicate], "its answer is no news, and no error");
}

#[test]
fn a_repeated_answer_is_ignored_and_not_reported() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let reply = world.sent(MessageType::ResolutionReply)[1].bytes.clone();
    assert_eq!(world.inject(1, hub_path(), &reply), Err(Error::Duplicate));
    world.settle();
    assert!(world.sent(MessageType::ErrorIndication).is_empty());
    outcome(&mut world, 1); // just one
}

//= rfc2332#5.2.7
#[test]
fn an_answer_nobody_asked_for_is_reported_as_error_10_to_the_responder() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let mut reply = world.sent(MessageType::ResolutionReply)[1].packet();
    exchange_mut(&mut reply).request_id = 4711;
    let reply = reply.encode(0).unwrap();
    assert_eq!(world.inject(1, hub_path(), &reply), Err(Error::Unsolicited));
    world.settle();
    let error = world.sent(MessageType::ErrorIndication)[0].packet();
    assert_eq!(error.destination, ip("10.0.0.2"));
    let Body::Error { code, offender, .. } = &error.body else { panic!() };
    assert_eq!(*code, ErrorCode::INVALID_REPLY);
    assert_eq!(offender[..], reply[..offender.len()]);
    // The hub passes it on to the responder, who learns of it.
    assert!(world.events(2).contains(&Event::PeerError { code: 10, from: ip("10.0.0.1") }));
}

#[test]
fn an_answer_by_a_strangers_path_is_dropped() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionReply);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let reply = world.sent(MessageType::ResolutionReply)[0].bytes.clone();
    let stranger = Path::udp(ip("203.0.113.66"), PORT);
    assert_eq!(world.inject(1, stranger, &reply), Err(Error::WrongPath));
}

#[test]
fn an_answer_for_another_destination_is_unsolicited() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionReply);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let mut reply = world.sent(MessageType::ResolutionReply)[0].packet();
    reply.destination = ip("192.168.2.10");
    assert_eq!(world.inject(1, hub_path(), &reply.encode(0).unwrap()), Err(Error::Unsolicited));
}

#[test]
fn an_answer_that_claims_too_much_is_denied() {
    let mut world = World::usual(2);
    world.stations[1].routes.deny_answers = Some("not his prefix".into());
    world.resolve(1, "192.168.2.9");
    world.settle();
    assert_eq!(failure(&mut world, 1), ResolutionFailure::Denied("not his prefix".into()));
    let asked = world.stations[1].routes.asked.borrow();
    assert_eq!(asked[..], ["answer 192.168.2.0/24 by 10.0.0.2"]);
}

#[test]
fn a_hub_does_not_pass_an_answer_on_that_claims_too_much() {
    let mut world = World::usual(2);
    world.stations[HUB].routes.deny_answers = Some("not his prefix".into());
    world.resolve(1, "192.168.2.9");
    world.settle();
    assert_eq!(world.stations[HUB].drops, [Error::AnswerDenied]);
    assert_eq!(world.sent(MessageType::ResolutionReply).len(), 1);
}

//= rfc2332#5.2.0.1
#[test]
fn of_several_entries_the_most_preferred_counts() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionReply);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let mut reply = world.sent(MessageType::ResolutionReply)[0].packet();
    let entries = &mut exchange_mut(&mut reply).entries;
    let mut better = entries[0].clone();
    better.preference = 9;
    better.protocol = Some(ip("10.0.0.22"));
    let mut refused = better.clone();
    (refused.code, refused.preference) = (CieCode::NO_RESOURCES, 200);
    entries.extend([better, refused]);
    world.inject(1, hub_path(), &reply.encode(0).unwrap()).unwrap();
    let Event::Resolved { peer, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(peer.protocol_address, ip("10.0.0.22"));
}

#[test]
fn a_unique_request_is_answered_for_the_address_alone() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.lose.clear();
    let mut request = world.sent(MessageType::ResolutionRequest)[0].packet();
    exchange_mut(&mut request).flags = Flags(0xd802);
    world.inject(HUB, world.stations[1].visible, &request.encode(0).unwrap()).unwrap();
    world.settle();
    let Event::Resolved { prefix, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(prefix, net("192.168.2.9/32"));
    assert_eq!(
        exchange(&world.sent(MessageType::ResolutionReply)[0].packet()).entries[0].prefix_length,
        0xff
    );
}

//= rfc2332#5.3
#[test]
fn an_unknown_compulsory_extension_is_an_error_at_the_responder_only() {
    let mut world = World::usual(2);
    let request = |world: &mut World, compulsory| {
        world.lose.push(MessageType::ResolutionRequest);
        let id = world.resolve(1, "192.168.2.9");
        world.settle();
        world.lose.clear();
        let mut request = world.sent(MessageType::ResolutionRequest).pop().unwrap().packet();
        let kind = ExtensionType(0x1234);
        request.extensions.push(Extension { kind, compulsory, value: vec![1, 2, 3] });
        world.inject(HUB, world.stations[1].visible, &request.encode(0).unwrap()).unwrap();
        world.settle();
        world.node(1).cancel(id);
    };
    request(&mut world, true);
    assert_eq!(failure(&mut world, 1), ResolutionFailure::Error(1));
    let passed = world.sent(MessageType::ResolutionRequest).pop().unwrap().packet();
    let record = passed.extension(ExtensionType::FORWARD_TRANSIT).unwrap();
    assert!(record.value.is_empty(), "a server that doesn't know it leaves no record");

    request(&mut world, false);
    assert!(matches!(outcome(&mut world, 1), Event::Resolved { .. }));
    let reply = world.sent(MessageType::ResolutionReply).pop().unwrap().packet();
    assert_eq!(reply.extension(ExtensionType(0x1234)).unwrap().value, [1, 2, 3], "returned unchanged");
}

#[test]
fn extensions_of_other_vendors_come_back_unchanged() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.lose.clear();
    let mut request = world.sent(MessageType::ResolutionRequest)[0].packet();
    let kind = ExtensionType::VENDOR;
    let theirs = Extension { kind, compulsory: false, value: vec![0xde, 0xad, 0xbe, 0xef] };
    request.extensions.push(theirs.clone());
    world.inject(HUB, world.stations[1].visible, &request.encode(0).unwrap()).unwrap();
    world.settle();
    let reply = world.sent(MessageType::ResolutionReply).pop().unwrap().packet();
    assert!(reply.extensions.contains(&theirs));
}

#[test]
fn the_hub_holds_no_answers_of_strangers() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    assert!(world.node(HUB).cache().iter().all(|e| e.kind != EntryKind::Cached));
    assert!(world.node(1).cache().iter().any(|e| e.kind == EntryKind::Cached));
}

#[test]
fn an_answer_is_forgotten_when_its_holding_time_ends() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.advance(seconds(601));
    assert!(world.node(1).cache().iter().all(|e| e.kind != EntryKind::Cached));
    world.advance(seconds(31));
    assert_eq!(world.node(2).answered().count(), 0);
}

#[test]
fn a_responder_without_room_refuses_with_code_5() {
    let mut world = World::new();
    world.add_hub();
    world.add_spoke(1);
    let config = Config { max_entries: 1, ..config("10.0.0.2", "198.51.100.12") };
    world.add_spoke_with(2, config, Path::udp(ip("198.51.100.12"), PORT));
    world.stations[2].routes.table.push((net("192.168.102.0/24"), Target::Off));
    world.stations[HUB].routes.table.push((net("192.168.102.0/24"), Target::Via(ip("10.0.0.2"))));
    world.settle();
    for (destination, refused) in [("192.168.2.9", false), ("192.168.2.10", false), ("192.168.102.1", true)] {
        world.resolve(1, destination);
        world.settle();
        let failed = matches!(
            outcome(&mut world, 1),
            Event::ResolutionFailed { reason: ResolutionFailure::Refused(5), .. }
        );
        assert_eq!(failed, refused, "{destination}");
    }
}

#[test]
fn ipv6_destinations_are_resolved_between_ipv6_tunnel_addresses() {
    let mut world = World::new();
    let both = |mut config: Config, six: &str| {
        config.protocol_addresses.push(ip(six));
        config
    };
    world.add(both(hub_config(HUB_ADDRESS, "198.51.100.1"), "fd00::fe"), hub_path());
    for n in [1, 2] {
        let nbma = format!("198.51.100.{}", 10 + n);
        let config = both(config(&format!("10.0.0.{n}"), &nbma), &format!("fd00::{n}"));
        let spoke = world.add(config, Path::udp(ip(&nbma), PORT));
        world.stations[spoke].routes.table = vec![
            (net("2001:db8::/32"), Target::Via(ip("fd00::fe"))),
            (net(&format!("2001:db8:{n}::/48")), Target::Off),
        ];
        world.stations[HUB]
            .routes
            .table
            .push((net(&format!("2001:db8:{n}::/48")), Target::Via(ip(&format!("fd00::{n}")))));
        world.register(spoke, hub_path());
    }
    world.settle();
    world.resolve(1, "2001:db8:2::9");
    world.settle();
    let Event::Resolved { prefix, peer, .. } = outcome(&mut world, 1) else { panic!() };
    assert_eq!(prefix, net("2001:db8:2::/48"));
    assert_eq!(peer.protocol_address, ip("fd00::2"));
    assert_eq!(peer.candidates, [Path::udp(ip("198.51.100.12"), PORT)]);
}

#[test]
fn a_registered_spoke_cannot_ask_in_anothers_name() {
    let mut world = World::usual(3);
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.events(2);
    let request = world.sent(MessageType::ResolutionRequest)[0].bytes.clone();
    let thief = world.stations[3].visible;
    assert_eq!(world.inject(HUB, thief, &request), Err(Error::SpoofedSource));
    // Nor directly.
    assert_eq!(world.inject(2, thief, &request), Err(Error::UnknownSender));
    assert_eq!(world.events(2), []);
}

/// FRR does so when it renews a shortcut.
#[test]
fn who_was_answered_may_ask_again_directly() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.events(2);
    let mut request = world.sent(MessageType::ResolutionRequest)[0].packet();
    exchange_mut(&mut request).request_id = 77;
    let direct = world.stations[1].visible;
    world.inject(2, direct, &request.encode(0).unwrap()).unwrap();
    assert!(matches!(world.events(2)[..], [Event::Asked { .. }]));
}
