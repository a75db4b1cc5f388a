//! Hubs of hubs.
//!
//! ```text
//!          upper (10.0.0.254)
//!          /               \
//!   A (10.0.0.1)        lower (10.0.0.253)
//!   192.168.1.0/24           \
//!                         B (10.0.0.2), 192.168.2.0/24
//! ```

use crate::world::*;
use dmvpn_nhrp::extension::{Extension, ExtensionType};
use dmvpn_nhrp::packet::{Body, MessageType};
use dmvpn_nhrp::{Error, Event, ResolutionFailure};
use packet::Path;

const LOWER: usize = 1;
const A: usize = 2;
const B: usize = 3;

fn lower_path() -> Path {
    Path::udp(ip("198.51.100.2"), PORT)
}

fn chained() -> World {
    let mut world = World::new();
    world.add_hub();
    world.add(hub_config("10.0.0.253", "198.51.100.2"), lower_path());
    world.register(LOWER, hub_path());
    world.add_spoke(1);
    let b = world.add(config("10.0.0.2", "198.51.100.12"), Path::udp(ip("198.51.100.12"), PORT));
    world.register(b, lower_path());
    let on_link = (net("10.0.0.0/24"), Target::OnLink);
    let by = |prefix: &str, hop: &str| (net(prefix), Target::Via(ip(hop)));
    world.stations[HUB].routes.table =
        vec![on_link, by("192.168.1.0/24", "10.0.0.1"), by("192.168.2.0/24", "10.0.0.253")];
    world.stations[LOWER].routes.table =
        vec![on_link, by("192.168.0.0/16", HUB_ADDRESS), by("192.168.2.0/24", "10.0.0.2")];
    world.stations[B].routes.table =
        vec![on_link, by("192.168.0.0/16", "10.0.0.253"), (net("192.168.2.0/24"), Target::Off)];
    world.settle();
    world
}

/// ```text
/// A -> upper -> lower -> B      request, a record of each
/// A <- upper <- lower <- B      reply, by the remembered way: the upper hub doesn't know B
/// ```
#[test]
fn a_request_passes_two_hubs_and_the_answer_comes_back() {
    let mut world = chained();
    for (from, destination, responder) in [(A, "192.168.2.9", "10.0.0.2"), (B, "192.168.1.9", "10.0.0.1")] {
        world.resolve(from, destination);
        world.settle();
        let events = world.events(from);
        let Some(Event::Resolved { peer, .. }) = events.last() else { panic!("{events:?}") };
        assert_eq!(peer.protocol_address, ip(responder));
    }
    let request = world.sent(MessageType::ResolutionRequest)[2].packet();
    let record = request.extension(ExtensionType::FORWARD_TRANSIT).unwrap().entries();
    let passed: Vec<_> = record.iter().map(|e| e.protocol.unwrap()).collect();
    assert_eq!(passed, [ip(HUB_ADDRESS), ip("10.0.0.253")]);
    assert_eq!(request.hop_count, 62);
    let reply = world.sent(MessageType::ResolutionReply)[2].packet();
    let record = reply.extension(ExtensionType::REVERSE_TRANSIT).unwrap().entries();
    let passed: Vec<_> = record.iter().map(|e| e.protocol.unwrap()).collect();
    assert_eq!(passed, [ip("10.0.0.253"), ip(HUB_ADDRESS)]);
}

#[test]
fn only_the_first_hub_says_where_a_station_was_seen() {
    let mut world = chained();
    world.stations[B].visible = Path::udp(ip("203.0.113.5"), 61001); // its NAT
    let now = world.now;
    world.node(B).register_now(now, dmvpn_nhrp::NhsId(0));
    world.settle();
    world.resolve(A, "192.168.2.9");
    world.settle();
    let events = world.events(A);
    let Some(Event::Resolved { peer, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(peer.candidates[0], Path::udp(ip("203.0.113.5"), 61001));
    assert!(!peer.candidates.contains(&lower_path()));
}

#[test]
fn a_purge_finds_its_way_through_two_hubs_and_is_acknowledged() {
    let mut world = chained();
    world.resolve(A, "192.168.2.9");
    world.settle();
    world.events(A);
    let now = world.now;
    world.node(B).withdraw(now, net("192.168.2.0/24"));
    world.advance(seconds(100));
    assert_eq!(world.events(A), [Event::Purged { prefix: net("192.168.2.0/24"), by: ip("10.0.0.2") }]);
    let first_hand = world.sent(MessageType::PurgeRequest).iter().filter(|s| s.from == B).count();
    assert_eq!(first_hand, 1, "acknowledged: not repeated");
}

/// Each hub believes that the other leads there.
#[test]
fn a_loop_of_hubs_is_found_and_reported() {
    let mut world = chained();
    world.register(HUB, lower_path());
    world.stations[HUB].routes.table.push((net("192.168.3.0/24"), Target::Via(ip("10.0.0.253"))));
    // The lower hub sends it on to a third, which sends it to the upper again.
    let third_path = Path::udp(ip("198.51.100.3"), PORT);
    let third = world.add(hub_config("10.0.0.252", "198.51.100.3"), third_path);
    world.register(third, hub_path());
    world.register_by(third, dmvpn_nhrp::NhsId(1), vec![lower_path()]);
    world.stations[LOWER].routes.table.push((net("192.168.3.0/24"), Target::Via(ip("10.0.0.252"))));
    world.stations[third].routes.table =
        vec![(net("10.0.0.0/24"), Target::OnLink), (net("192.168.0.0/16"), Target::Via(ip(HUB_ADDRESS)))];
    world.settle();
    world.events(A);
    world.resolve(A, "192.168.3.9");
    world.settle();
    assert!(world.stations[HUB].drops.contains(&Error::Loop));
    assert_eq!(world.sent(MessageType::ResolutionRequest).len(), 4, "once around, no more");
    let events = world.events(A);
    let [Event::ResolutionFailed { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*reason, ResolutionFailure::Error(3));
}

//= rfc2332#5.3.3
#[test]
fn a_passing_reply_that_names_the_hub_as_responder_is_a_loop() {
    let mut world = chained();
    world.lose.push(MessageType::ResolutionReply);
    world.resolve(A, "192.168.2.9");
    world.settle();
    let mut reply = world.sent(MessageType::ResolutionReply)[0].packet();
    let responder = reply.extension(ExtensionType::RESPONDER_ADDRESS).unwrap().entries();
    let ours = dmvpn_nhrp::packet::Cie { protocol: Some(ip("10.0.0.253")), ..responder[0].clone() };
    *reply.extension_mut(ExtensionType::RESPONDER_ADDRESS).unwrap() =
        Extension::of_entries(ExtensionType::RESPONDER_ADDRESS, &[ours]);
    let b = world.stations[B].visible;
    assert_eq!(world.inject(LOWER, b, &reply.encode(0).unwrap()), Err(Error::Loop));
}

//= rfc2332#5.1
#[test]
fn a_used_up_hop_count_is_reported_as_error_15() {
    let mut world = chained();
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(A, "192.168.2.9");
    world.settle();
    world.lose.clear();
    let mut request = world.sent(MessageType::ResolutionRequest)[0].packet();
    request.hop_count = 2;
    world.inject(HUB, world.stations[A].visible, &request.encode(0).unwrap()).unwrap();
    world.settle();
    assert_eq!(world.stations[LOWER].drops, [Error::HopCount]);
    // The lower hub's error travels by the upper one to A, whose resolution fails.
    let errors = world.sent(MessageType::ErrorIndication);
    assert_eq!(errors.len(), 2);
    assert!(matches!(errors[0].packet().body, Body::Error { code: dmvpn_nhrp::packet::ErrorCode(15), .. }));
    let events = world.events(A);
    let Some(Event::ResolutionFailed { reason, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(*reason, ResolutionFailure::Error(15));
}

#[test]
fn no_message_leaves_with_hop_count_zero() {
    let mut world = chained();
    world.resolve(A, "192.168.2.9");
    world.advance(seconds(700));
    assert!(world.wire.iter().all(|s| s.packet().hop_count > 0));
}

#[test]
fn what_the_upper_hub_does_not_know_it_does_not_send_back_down() {
    let mut world = chained();
    world.events(B);
    world.resolve(B, "192.168.200.1");
    world.settle();
    let events = world.events(B);
    let [Event::ResolutionFailed { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*reason, ResolutionFailure::Refused(12));
}

#[test]
fn a_spoke_passes_nothing_on() {
    let mut world = chained();
    let c = world.add_spoke(3);
    world.settle();
    world.resolve(A, "192.168.2.9");
    world.settle();
    let reply = world.sent(MessageType::ResolutionReply)[0].bytes.clone();
    assert_eq!(world.inject(c, hub_path(), &reply), Err(Error::NotServer));
}
