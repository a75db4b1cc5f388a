//! Registering: client and server.

use crate::world::*;
use dmvpn_nhrp::extension::ExtensionType;
use dmvpn_nhrp::packet::{CieCode, ErrorCode, Flags, MessageType};
use dmvpn_nhrp::{Config, EntryKind, Error, Event, NhsId, NhsState, Quirks};
use packet::Path;

fn codes(world: &World) -> Vec<u8> {
    let replies = world.sent(MessageType::RegistrationReply);
    replies.iter().map(|s| exchange(&s.packet()).entries[0].code.0).collect()
}

/// ```text
/// spoke -> hub   Registration Request (to itself: it doesn't know the hub's address)
/// spoke <- hub   Registration Reply
/// ```
#[test]
fn a_spoke_registers_and_both_know_each_other() {
    let mut world = World::usual(1);
    let events = world.events(HUB);
    let [Event::Registered { info, prefix, moved_from: None, new: true, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(info.protocol_address, ip("10.0.0.1"));
    assert_eq!(info.candidates, [Path::udp(ip("198.51.100.11"), PORT)]);
    assert_eq!(info.identity.as_deref(), Some("10.0.0.1.example.com"));
    assert_eq!(info.token, Some(world.node(1).token()));
    assert!(!info.natted);
    assert_eq!(*prefix, net("10.0.0.1/32"));
    let events = world.events(1);
    let [Event::NhsUp { nhs: NhsId(0), protocol_address, path, info, observed }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*protocol_address, ip(HUB_ADDRESS));
    assert_eq!(*path, hub_path());
    assert_eq!(info.token, Some(world.node(HUB).token()));
    assert_eq!(*observed, Some(Path::udp(ip("198.51.100.11"), PORT)));
}

#[test]
fn a_client_that_does_not_know_the_servers_address_addresses_itself_then_the_server() {
    let mut world = World::usual(1);
    world.advance(seconds(200));
    let requests = world.sent(MessageType::RegistrationRequest);
    assert_eq!(requests[0].packet().destination, ip("10.0.0.1"));
    assert_eq!(requests[1].packet().destination, ip(HUB_ADDRESS));
}

#[test]
fn extensions_stand_in_the_order_routers_expect() {
    let mut world = World::new();
    world.add_hub();
    let config = Config { authentication: Some(b"secret".to_vec()), ..config("10.0.0.1", "198.51.100.11") };
    world.add_spoke_with(1, config, Path::udp(ip("198.51.100.11"), PORT));
    world.settle();
    let request = world.sent(MessageType::RegistrationRequest)[0].packet();
    let kinds: Vec<u16> = request.extensions.iter().map(|e| e.kind.0).collect();
    assert_eq!(kinds, [4, 5, 3, 9, 8, 7]);
    let compulsory: Vec<bool> = request.extensions.iter().map(|e| e.compulsory).collect();
    assert_eq!(compulsory, [true, true, true, false, false, true]);
}

//= rfc2332#5.2.3
#[test]
fn a_unique_registration_has_one_entry_with_prefix_length_255() {
    let world = World::usual(1);
    let packet = world.sent(MessageType::RegistrationRequest)[0].packet();
    let request = exchange(&packet);
    assert!(request.flags.contains(Flags::UNIQUE));
    assert_eq!(request.entries.len(), 1);
    assert_eq!(request.entries[0].prefix_length, 0xff);
    assert_eq!(packet.hop_count, 1);
}

#[test]
fn without_uniqueness_the_prefix_is_the_host() {
    let mut world = World::new();
    world.add_hub();
    let config = Config { unique: false, ..config("10.0.0.1", "198.51.100.11") };
    world.add_spoke_with(1, config, Path::udp(ip("198.51.100.11"), PORT));
    world.settle();
    let packet = world.sent(MessageType::RegistrationRequest)[0].packet();
    assert!(!exchange(&packet).flags.contains(Flags::UNIQUE));
    assert_eq!(exchange(&packet).entries[0].prefix_length, 32);
    assert_eq!(world.node(HUB).cache()[1].prefix, net("10.0.0.1/32"));
}

#[test]
fn it_is_refreshed_after_a_third_of_the_holding_time_with_a_new_id() {
    let mut world = World::usual(1);
    world.advance(seconds(199));
    let requests = world.sent(MessageType::RegistrationRequest);
    assert_eq!(requests.len(), 2);
    let waited = requests[1].at.since(requests[0].at);
    assert!(waited >= seconds(180) && waited <= seconds(200), "{waited:?}");
    let ids: Vec<u32> = requests.iter().map(|r| exchange(&r.packet()).request_id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(world.events(1).len(), 1, "a refresh is no news");
}

//= rfc2332#5.2.3
#[test]
fn an_unanswered_request_is_repeated_with_the_same_id_and_backs_off_to_64_seconds() {
    let mut world = World::new();
    world.add_hub();
    world.lose.push(MessageType::RegistrationRequest);
    world.add_spoke(1);
    world.advance(seconds(400));
    let requests = world.sent(MessageType::RegistrationRequest);
    assert!(requests.iter().all(|r| exchange(&r.packet()).request_id == 1));
    let waits: Vec<f64> = requests.windows(2).map(|w| w[1].at.since(w[0].at).as_secs_f64()).collect();
    for (wait, wanted) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0]) {
        assert!((wanted * 0.75..=wanted * 1.25).contains(wait), "{waits:?}");
    }
    assert!(waits.len() >= 8);
}

#[test]
fn paths_are_tried_in_turn_until_one_answers_and_it_is_kept() {
    let mut world = World::new();
    world.add_hub();
    let spoke = world.add(config("10.0.0.1", "198.51.100.11"), Path::udp(ip("198.51.100.11"), PORT));
    let dead = Path::gre(ip("198.51.100.1"));
    world.register_by(spoke, NhsId(7), vec![dead, hub_path()]);
    world.advance(seconds(500));
    let paths: Vec<Path> = world.sent(MessageType::RegistrationRequest).iter().map(|s| s.to).collect();
    assert_eq!(paths, [dead, hub_path(), hub_path(), hub_path()]);
    let ids: Vec<u32> = world
        .sent(MessageType::RegistrationRequest)
        .iter()
        .map(|s| exchange(&s.packet()).request_id)
        .collect();
    assert_eq!(ids[..2], [1, 1], "another path is no new request");
    assert!(
        world.events(spoke).iter().any(|e| matches!(e, Event::NhsUp { path, .. } if *path == hub_path()))
    );
}

#[test]
fn another_identity_does_not_get_a_unique_address() {
    let mut world = World::usual(1);
    world.events(HUB);
    let thief = world.add_spoke_with(
        2,
        Config { identity: "thief.example.com".into(), ..config("10.0.0.1", "203.0.113.9") },
        Path::udp(ip("203.0.113.9"), PORT),
    );
    world.settle();
    assert_eq!(codes(&world), [0, 14]);
    let events = world.events(thief);
    let refused = matches!(events[..], [Event::RegistrationRefused { code: 14, .. }, Event::NhsDown { .. }]);
    assert!(refused, "{events:?}");
    let events = world.events(HUB);
    let [Event::RegistrationDenied { code: 14, reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(reason, "the address is registered by 10.0.0.1.example.com");
    assert_eq!(world.node(HUB).cache()[1].identity.as_deref(), Some("10.0.0.1.example.com"));
    assert!(matches!(world.node(thief).nhs().next().unwrap().state, NhsState::Refused(14)));
}

//= rfc2332#5.2.0.1
#[test]
fn a_refusal_has_holding_time_zero() {
    let mut world = World::usual(1);
    let config = Config { identity: "thief.example.com".into(), ..config("10.0.0.1", "203.0.113.9") };
    world.add_spoke_with(2, config, Path::udp(ip("203.0.113.9"), PORT));
    world.settle();
    let refusal = world.sent(MessageType::RegistrationReply)[1].packet();
    assert_eq!(exchange(&refusal).entries[0].code, CieCode::ALREADY_REGISTERED);
    assert_eq!(exchange(&refusal).entries[0].holding_time, 0);
}

#[test]
fn the_same_identity_at_another_address_replaces_itself() {
    let mut world = World::usual(1);
    world.events(HUB);
    let before = Path::udp(ip("198.51.100.11"), PORT);
    world.stations[1].visible = Path::udp(ip("203.0.113.7"), PORT);
    let now = world.now;
    world.node(1).set_nbma_address(now, ip("203.0.113.7"));
    world.settle();
    let events = world.events(HUB);
    let [Event::Registered { info, moved_from, new: false, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(info.candidates, [Path::udp(ip("203.0.113.7"), PORT)]);
    assert_eq!(*moved_from, Some(before));
}

#[test]
fn a_foreign_router_is_known_by_its_nbma_address() {
    let mut world = World::usual(1);
    // A router without our extension: what it sends is ours without it.
    let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
    request.extensions.retain(|e| e.kind != ExtensionType::VENDOR);
    (request.source, request.destination) = (ip("10.0.0.9"), ip("10.0.0.9"));
    for (id, nbma) in [(50, "203.0.113.1"), (51, "203.0.113.1"), (52, "203.0.113.2")] {
        exchange_mut(&mut request).request_id = id;
        request.source_nbma = Some(ip(nbma));
        world.inject(HUB, Path::gre(ip(nbma)), &request.encode(0).unwrap()).unwrap();
    }
    world.settle();
    assert_eq!(codes(&world), [0, 0, 0, 14]);
}

#[test]
fn the_address_is_free_again_when_its_holder_is_gone() {
    let mut world = World::usual(1);
    let thief = world.add_spoke_with(
        2,
        Config { identity: "heir.example.com".into(), ..config("10.0.0.1", "203.0.113.9") },
        Path::udp(ip("203.0.113.9"), PORT),
    );
    world.settle();
    world.stations[1].visible = Path::gre(ip("192.0.2.1")); // unplugged
    world.node(1).remove_nhs(packet::Instant::ZERO, NhsId(0));
    world.advance(seconds(700));
    assert!(matches!(world.node(thief).nhs().next().unwrap().state, NhsState::Registered { .. }));
}

#[test]
fn what_claims_forbid_is_refused_with_code_4() {
    let mut world = World::new();
    world.add_hub();
    world.stations[HUB].routes.deny_registrations = Some("not in the network".into());
    let spoke = world.add_spoke(1);
    world.settle();
    assert_eq!(codes(&world), [4]);
    let events = world.events(HUB);
    let [Event::RegistrationDenied { code: 4, reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(reason, "not in the network");
    let events = world.events(spoke);
    let [Event::RegistrationRefused { code: 4, .. }, Event::NhsDown { reason, silent: false, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(reason.starts_with("refused: administratively prohibited (4)"), "{reason}");
    let asked = world.stations[HUB].routes.asked.borrow();
    assert_eq!(asked[..], ["register 10.0.0.1/32 Some(\"10.0.0.1.example.com\")"]);
}

#[test]
fn a_refused_client_asks_again_more_and_more_slowly() {
    let mut world = World::new();
    world.add_hub();
    world.stations[HUB].routes.deny_registrations = Some("no".into());
    world.add_spoke(1);
    world.advance(seconds(300));
    let requests = world.sent(MessageType::RegistrationRequest);
    let waits: Vec<f64> = requests.windows(2).map(|w| w[1].at.since(w[0].at).as_secs_f64()).collect();
    for (wait, wanted) in waits.iter().zip([8.0, 16.0, 32.0, 64.0, 64.0]) {
        assert!((wanted * 0.75..=wanted * 1.25).contains(wait), "{waits:?}");
    }
    let last = exchange(&requests.last().unwrap().packet()).request_id;
    assert_eq!(last as usize, requests.len(), "each is a new request");
}

#[test]
fn nobody_registers_the_hubs_own_address_or_one_mapped_by_hand() {
    let mut world = World::new();
    world.add_hub();
    world.node(HUB).add_static(dmvpn_nhrp::StaticEntry {
        protocol_address: ip("10.0.0.77"),
        path: Path::gre(ip("203.0.113.77")),
        prefixes: vec![],
    });
    for (n, address) in [(1, HUB_ADDRESS), (2, "10.0.0.77")] {
        let nbma = format!("203.0.113.{n}");
        let spoke = world.add(config(address, &nbma), Path::udp(ip(&nbma), PORT));
        // A station that thinks it has the hub's address would take the hub's reply for its own message.
        world.register(spoke, hub_path());
    }
    world.settle();
    assert_eq!(codes(&world), [14, 14]);
}

#[test]
fn a_full_table_refuses_newcomers_with_code_5_and_keeps_who_is_there() {
    let mut world = World::new();
    world.add(Config { max_entries: 1, ..hub_config(HUB_ADDRESS, "198.51.100.1") }, hub_path());
    world.add_spoke(1);
    world.settle();
    world.add_spoke(2);
    world.settle();
    assert_eq!(codes(&world), [0, 5]);
    world.advance(seconds(201));
    assert_eq!(world.node(HUB).cache().iter().filter(|e| e.kind == EntryKind::Registered).count(), 1);
    assert!(matches!(world.node(1).nhs().next().unwrap().state, NhsState::Registered { .. }));
}

#[test]
fn one_path_cannot_fill_the_table() {
    let mut world = World::usual(1);
    let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
    for n in 100..130 {
        (request.source, request.destination) = (ip(&format!("10.0.0.{n}")), ip(&format!("10.0.0.{n}")));
        world.inject(HUB, Path::gre(ip("203.0.113.1")), &request.encode(0).unwrap()).unwrap();
    }
    world.settle();
    assert_eq!(codes(&world).iter().filter(|c| **c == 5).count(), 30 - 16);
}

#[test]
fn a_registration_ends_when_it_is_not_refreshed() {
    let mut world = World::usual(1);
    world.events(HUB);
    world.lose.push(MessageType::RegistrationRequest);
    world.advance(seconds(601));
    let events = world.events(HUB);
    assert!(matches!(events[..], [Event::Unregistered { reason: "expired", .. }]), "{events:?}");
}

#[test]
fn a_server_that_stops_answering_is_down_and_up_again_when_it_answers() {
    let mut world = World::usual(1);
    world.events(1);
    world.lose.push(MessageType::RegistrationReply);
    world.advance(seconds(230));
    let events = world.events(1);
    let [Event::NhsDown { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(reason, "no answer to 3 registration requests");
    world.lose.clear();
    world.advance(seconds(90));
    assert!(matches!(world.events(1)[..], [Event::NhsUp { .. }]));
}

#[test]
fn a_spoke_registers_with_each_of_its_servers() {
    let mut world = World::new();
    world.add_hub();
    let second = Path::udp(ip("198.51.100.2"), PORT);
    world.add(hub_config("10.0.0.253", "198.51.100.2"), second);
    let spoke = world.add(config("10.0.0.1", "198.51.100.11"), Path::udp(ip("198.51.100.11"), PORT));
    world.register_by(spoke, NhsId(1), vec![hub_path()]);
    world.register_by(spoke, NhsId(2), vec![second]);
    world.settle();
    let up: Vec<_> = world.node(spoke).nhs().map(|s| (s.nhs, s.server)).collect();
    assert_eq!(up, [(NhsId(1), Some(ip(HUB_ADDRESS))), (NhsId(2), Some(ip("10.0.0.253")))]);
}

#[test]
fn both_ip_versions_are_registered() {
    let mut world = World::new();
    let both = |mut config: Config, six: &str| {
        config.protocol_addresses.push(ip(six));
        config
    };
    world.add(both(hub_config(HUB_ADDRESS, "198.51.100.1"), "fd00::fe"), hub_path());
    let visible = Path::udp(ip("198.51.100.11"), PORT);
    let spoke = world.add(both(config("10.0.0.1", "198.51.100.11"), "fd00::1"), visible);
    world.register(spoke, hub_path());
    world.settle();
    let servers: Vec<_> = world.node(spoke).nhs().map(|s| (s.address, s.server)).collect();
    assert_eq!(servers, [(ip("10.0.0.1"), Some(ip(HUB_ADDRESS))), (ip("fd00::1"), Some(ip("fd00::fe")))]);
    let registered: Vec<_> = world
        .node(HUB)
        .cache()
        .into_iter()
        .filter(|e| e.kind == EntryKind::Registered)
        .map(|e| e.prefix)
        .collect();
    assert_eq!(registered, [net("10.0.0.1/32"), net("fd00::1/128")]);
}

#[test]
fn the_underlay_may_be_ipv6() {
    let mut world = World::new();
    let hub = Path::udp(ip("2001:db8::1"), PORT);
    world.add(hub_config(HUB_ADDRESS, "2001:db8::1"), hub);
    let spoke = world.add(config("10.0.0.1", "2001:db8::11"), Path::udp(ip("2001:db8::11"), PORT));
    world.register(spoke, hub);
    world.settle();
    assert!(matches!(world.node(spoke).nhs().next().unwrap().state, NhsState::Registered { .. }));
    assert_eq!(world.node(HUB).cache()[1].nbma_claimed, Some(ip("2001:db8::11")));
}

#[test]
fn the_group_of_a_spoke_is_shown_at_the_hub() {
    let mut world = World::new();
    world.add_hub();
    let config = Config { group: Some("silver".into()), ..config("10.0.0.1", "198.51.100.11") };
    let spoke = world.add_spoke_with(1, config, Path::udp(ip("198.51.100.11"), PORT));
    world.settle();
    assert_eq!(world.node(HUB).cache()[1].group.as_deref(), Some("silver"));
    let events = world.events(spoke);
    let [Event::NhsUp { info, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(info.group, None, "what comes back is our own group, not the hub's");
}

#[test]
fn who_is_no_server_refuses() {
    let mut world = World::new();
    world.add(config(HUB_ADDRESS, "198.51.100.1"), hub_path());
    world.add_spoke(1);
    world.settle();
    assert_eq!(codes(&world), [4]);
}

#[test]
fn a_registration_for_another_server_is_unreachable_here() {
    let mut world = World::usual(1);
    let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
    request.destination = ip("10.0.0.99");
    let path = world.stations[1].visible;
    assert_eq!(world.inject(HUB, path, &request.encode(0).unwrap()), Err(Error::NoRoute));
    world.settle();
    let error = world.sent(MessageType::ErrorIndication)[0].packet();
    assert!(matches!(error.body, dmvpn_nhrp::packet::Body::Error { code: ErrorCode::UNREACHABLE, .. }));
}

//= rfc2332#5.2.3
#[test]
fn a_unique_registration_with_two_entries_is_an_error() {
    let mut world = World::usual(1);
    let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
    let entry = exchange(&request).entries[0].clone();
    exchange_mut(&mut request).entries.push(entry);
    let path = world.stations[1].visible;
    assert_eq!(world.inject(HUB, path, &request.encode(0).unwrap()), Err(Error::EntryCount));
}

#[test]
fn prefix_lengths_0_32_and_255_all_register_the_host() {
    for length in [0, 32, 255] {
        let mut world = World::usual(1);
        let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
        (request.source, request.destination) = (ip("10.0.0.9"), ip(HUB_ADDRESS));
        exchange_mut(&mut request).entries[0].prefix_length = length;
        world.inject(HUB, Path::gre(ip("203.0.113.1")), &request.encode(0).unwrap()).unwrap();
        assert!(world.node(HUB).cache().iter().any(|e| e.prefix == net("10.0.0.9/32")), "{length}");
    }
}

#[test]
fn holding_time_zero_means_the_servers_own() {
    let mut world = World::usual(1);
    let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
    exchange_mut(&mut request).entries[0].holding_time = 0;
    let path = world.stations[1].visible;
    world.inject(HUB, path, &request.encode(0).unwrap()).unwrap();
    let expires = world.node(HUB).cache()[1].expires.unwrap();
    assert_eq!(expires, world.now + seconds(600));
}

#[test]
fn a_reply_by_a_path_that_was_not_asked_is_dropped() {
    let mut world = World::new();
    world.add_hub();
    world.lose.push(MessageType::RegistrationReply);
    let spoke = world.add_spoke(1);
    world.settle();
    let reply = world.sent(MessageType::RegistrationReply)[0].bytes.clone();
    let stranger = Path::udp(ip("203.0.113.66"), PORT);
    assert_eq!(world.inject(spoke, stranger, &reply), Err(Error::WrongPath));
    assert_eq!(world.inject(spoke, hub_path(), &reply), Ok(()));
    assert_eq!(world.inject(spoke, hub_path(), &reply), Err(Error::Duplicate));
}

#[test]
fn some_routers_want_one_fixed_id() {
    let mut world = World::new();
    world.add_hub();
    let quirks = Quirks { fixed_request_id: true, ..Quirks::default() };
    let config = Config { quirks, ..config("10.0.0.1", "198.51.100.11") };
    let spoke = world.add_spoke_with(1, config, Path::udp(ip("198.51.100.11"), PORT));
    world.advance(seconds(410));
    let now = world.now;
    world.node(spoke).deregister(now);
    world.settle();
    let ids =
        |kind| -> Vec<u32> { world.sent(kind).iter().map(|s| exchange(&s.packet()).request_id).collect() };
    assert_eq!(ids(MessageType::RegistrationRequest), [1, 1, 1]);
    assert_eq!(ids(MessageType::PurgeRequest), [1]);
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let mut world = World::usual(1);
    world.register(1, hub_path());
    world.settle();
    assert_eq!(world.sent(MessageType::RegistrationRequest).len(), 1);
}

#[test]
fn new_paths_are_registered_by_at_once_and_old_ones_kept_that_still_work() {
    let mut world = World::usual(1);
    world.events(1);
    let now = world.now;
    let other = Path::udp(ip("198.51.100.99"), PORT);
    world.node(1).set_paths(now, NhsId(0), vec![other, hub_path()]);
    world.settle();
    assert_eq!(world.sent(MessageType::RegistrationRequest).len(), 1, "the path in use is still there");
    world.stations[HUB].visible = other;
    world.node(1).set_paths(now, NhsId(0), vec![other]);
    world.settle();
    let events = world.events(1);
    assert!(matches!(&events[..], [Event::NhsUp { path, .. }] if *path == other), "{events:?}");
}

#[test]
fn a_server_that_refuses_who_it_had_accepted_is_down() {
    let mut world = World::usual(1);
    world.events(1);
    world.stations[HUB].routes.deny_registrations = Some("no longer".into());
    world.advance(seconds(201));
    let events = world.events(1);
    let [Event::RegistrationRefused { code: 4, .. }, Event::NhsDown { reason, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(reason.starts_with("refused: administratively prohibited (4)"), "{reason}");
}

#[test]
fn a_refusal_is_said_once_and_the_silence_after_it_too() {
    let mut world = World::new();
    world.add_hub();
    world.stations[HUB].routes.deny_registrations = Some("no".into());
    world.add_spoke(1);
    world.advance(seconds(100));
    let down = |world: &mut World| {
        let said = |e| if let Event::NhsDown { silent, .. } = e { Some(silent) } else { None };
        world.events(1).into_iter().filter_map(said).collect::<Vec<_>>()
    };
    assert_eq!(down(&mut world), [false]);
    world.stations[HUB].visible = Path::udp(ip("198.51.100.99"), PORT); // gone
    world.advance(seconds(300));
    assert_eq!(down(&mut world), [true]);
}

#[test]
fn a_server_that_never_answered_is_said_to_be_silent_once() {
    let mut world = World::new();
    let spoke = world.add(config("10.0.0.1", "198.51.100.11"), Path::udp(ip("198.51.100.11"), PORT));
    world.register_by(spoke, NhsId(0), vec![hub_path()]);
    world.advance(seconds(5));
    assert_eq!(world.events(spoke), [], "too early to say");
    world.advance(seconds(300));
    let events = world.events(spoke);
    assert!(matches!(&events[..], [Event::NhsDown { silent: true, .. }]), "{events:?}");
}

#[test]
fn a_server_without_a_known_path_waits_for_one() {
    let mut world = World::new();
    world.add_hub();
    let spoke = world.add(config("10.0.0.1", "198.51.100.11"), Path::udp(ip("198.51.100.11"), PORT));
    world.register_by(spoke, NhsId(0), vec![]);
    world.advance(seconds(100));
    assert!(world.sent(MessageType::RegistrationRequest).is_empty());
    assert!(matches!(world.node(spoke).nhs().next().unwrap().state, NhsState::Trying));
    let now = world.now;
    world.node(spoke).set_paths(now, NhsId(0), vec![hub_path()]);
    world.settle();
    assert!(matches!(world.node(spoke).nhs().next().unwrap().state, NhsState::Registered { .. }));
}

#[test]
fn an_address_that_cannot_be_a_stations_is_refused() {
    let mut world = World::usual(1);
    let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
    for bad in ["224.0.0.5", "0.0.0.0", "fd00::1"] {
        exchange_mut(&mut request).entries[0].protocol = Some(ip(bad));
        let path = world.stations[1].visible;
        world.inject(HUB, path, &request.encode(0).unwrap()).unwrap();
    }
    world.settle();
    assert_eq!(codes(&world), [0, 4, 4, 4]);
}

#[test]
fn the_preferred_server_is_asked_first() {
    let mut world = World::new();
    world.add_hub();
    let second = Path::udp(ip("198.51.100.2"), PORT);
    world.add(hub_config("10.0.0.253", "198.51.100.2"), second);
    let spoke = world.add(config("10.0.0.1", "198.51.100.11"), Path::udp(ip("198.51.100.11"), PORT));
    world.stations[spoke].routes.table = vec![(net("10.0.0.0/24"), Target::OnLink)];
    world.register_by(spoke, NhsId(1), vec![hub_path()]);
    world.register_by(spoke, NhsId(2), vec![second]);
    world.settle();
    world.node(spoke).set_preferred_nhs(Some(NhsId(2)));
    world.resolve(spoke, "10.0.0.9");
    world.settle();
    assert_eq!(world.sent(MessageType::ResolutionRequest)[0].to, second);
    let now = world.now;
    world.node(spoke).remove_nhs(now, NhsId(2));
    world.resolve(spoke, "10.0.0.8");
    world.settle();
    assert_eq!(world.sent(MessageType::ResolutionRequest)[1].to, hub_path());
}

/// A hub that is reached by raw GRE only, and a spoke that would prefer UDP.
fn by_gre() -> (World, usize) {
    let mut world = World::new();
    let hub = world.add_hub();
    world.stations[hub].visible = Path::gre(ip("198.51.100.1"));
    let spoke = world.add(config("10.0.0.1", "198.51.100.11"), Path::udp(ip("198.51.100.11"), PORT));
    world.register_by(spoke, NhsId(0), vec![hub_path(), Path::gre(ip("198.51.100.1"))]);
    world.advance(seconds(10));
    let events = world.events(spoke);
    assert!(matches!(&events[..], [Event::NhsUp { path, .. }] if path.port().is_none()), "{events:?}");
    (world, spoke)
}

#[test]
fn a_server_of_ours_that_missed_the_first_try_is_moved_to_udp_at_the_next_refresh() {
    let (mut world, spoke) = by_gre();
    world.stations[HUB].visible = hub_path();
    world.advance(seconds(201));
    let events = world.events(spoke);
    assert!(matches!(&events[..], [Event::NhsUp { path, .. }] if *path == hub_path()), "{events:?}");
}

#[test]
fn a_server_of_ours_that_udp_does_not_reach_stays_with_gre_and_is_asked_a_few_times() {
    let (mut world, spoke) = by_gre();
    let tries = |w: &World| {
        let sent = w.sent(MessageType::RegistrationRequest);
        sent.iter().filter(|s| s.from == spoke && s.to == hub_path()).count()
    };
    let before = tries(&world);
    world.advance(seconds(3000));
    assert_eq!(tries(&world) - before, 3);
    assert_eq!(world.events(spoke), [], "never down, never moved");
    assert!(matches!(world.node(spoke).nhs().next().unwrap().state, NhsState::Registered { .. }));
}

/// Peers that were told the way by raw GRE would go on sending there.
#[test]
fn a_station_that_moves_from_raw_gre_to_udp_withdraws_what_it_answered_by_the_old_way() {
    let mut world = World::new();
    world.add_hub();
    let raw = Path::gre(ip("198.51.100.1"));
    world.stations[HUB].visible = raw;
    for n in [1, 2] {
        let spoke = world.add_spoke(n);
        world.register_by(spoke, NhsId(0), vec![raw, hub_path()]);
    }
    world.settle();
    world.resolve(1, "192.168.2.9");
    world.settle();
    assert_eq!(world.node(2).answered().count(), 1);
    let now = world.now;
    world.stations[HUB].visible = hub_path();
    world.node(2).set_paths(now, NhsId(0), vec![hub_path()]);
    world.settle();
    assert_eq!(world.node(2).answered().count(), 0);
}
