//! Across restarts of the process.

use crate::world::*;
use dmvpn_nhrp::packet::MessageType;
use dmvpn_nhrp::{Checkpoint, Clear, EntryKind, Event, NhsId, NhsState, Node};

fn restart(world: &mut World, station: usize) {
    let node = &world.stations[station].node;
    let bytes = postcard::to_stdvec(&node.checkpoint()).unwrap();
    let checkpoint: Checkpoint = postcard::from_bytes(&bytes).unwrap();
    let config = node.config().clone();
    world.stations[station].node = Node::restore(config, checkpoint, [99; 32]);
}

#[test]
fn a_restarted_spoke_is_still_registered_and_refreshes_when_due() {
    let mut world = World::usual(1);
    world.events(1);
    restart(&mut world, 1);
    world.register(1, hub_path());
    world.settle();
    assert_eq!(world.events(1), [], "nothing is announced again");
    assert!(matches!(world.node(1).nhs().next().unwrap().state, NhsState::Registered { .. }));
    assert_eq!(world.sent(MessageType::RegistrationRequest).len(), 1);
    world.advance(seconds(201));
    assert_eq!(world.sent(MessageType::RegistrationRequest).len(), 2);
}

//= rfc2332#5.2.3
#[test]
fn request_ids_are_not_used_again() {
    let mut world = World::usual(1);
    let used = world.node(1).request_id();
    restart(&mut world, 1);
    let now = world.now;
    world.node(1).register_now(now, NhsId(0));
    world.settle();
    let request = world.sent(MessageType::RegistrationRequest).pop().unwrap().packet();
    assert!(exchange(&request).request_id > used);
}

#[test]
fn a_restarted_hub_still_knows_its_spokes() {
    let mut world = World::usual(2);
    restart(&mut world, HUB);
    world.resolve(1, "192.168.2.9");
    world.settle();
    assert!(matches!(world.events(1).last(), Some(Event::Resolved { .. })));
}

#[test]
fn a_restarted_responder_still_withdraws_what_it_answered() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.events(1);
    restart(&mut world, 2);
    let now = world.now;
    world.node(2).withdraw(now, net("192.168.2.0/24"));
    world.settle();
    assert_eq!(world.events(1).len(), 1);
}

#[test]
fn a_resolution_goes_on_after_a_restart() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionReply);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.events(1);
    restart(&mut world, 1);
    world.lose.clear();
    world.advance(seconds(2));
    assert!(matches!(world.events(1)[..], [Event::Resolved { .. }]));
}

#[test]
fn with_another_tunnel_address_it_registers_anew() {
    let mut world = World::usual(1);
    let mut config = world.node(1).config().clone();
    config.protocol_addresses = vec![ip("10.0.0.55")];
    let checkpoint = world.node(1).checkpoint();
    world.stations[1].node = Node::restore(config, checkpoint, [9; 32]);
    world.register(1, hub_path());
    world.settle();
    assert!(world.node(HUB).cache().iter().any(|e| e.prefix == net("10.0.0.55/32")));
}

/// A hub that lost everything: its spokes don't know until their next refresh.
#[test]
fn a_hub_that_forgot_everything_learns_it_again() {
    let mut world = World::usual(2);
    world.events(HUB);
    let now = world.now;
    world.node(HUB).clear(now, Clear::Registrations);
    assert_eq!(world.events(HUB).len(), 2);
    world.advance(seconds(201));
    assert_eq!(world.node(HUB).cache().iter().filter(|e| e.kind == EntryKind::Registered).count(), 2);
}

#[test]
fn an_operator_can_clear_answers_and_register_again() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let now = world.now;
    world.node(1).clear(now, Clear::Answers);
    assert!(world.node(1).cache().iter().all(|e| e.kind != EntryKind::Cached));
    world.node(1).clear(now, Clear::Servers);
    world.settle();
    assert_eq!(world.sent(MessageType::RegistrationRequest).len(), 3);
}
