//! Tunnels that are not in clear: what a station has proven counts, and not what it says of itself.

use crate::world::*;
use dmvpn_nhrp::Event;
use packet::Path;

const TRUTH: &str = "truth.example.com";

/// A hub and two spokes. The hub has seen the second spoke's certificate.
fn world() -> World {
    let mut world = World::new();
    world.add_hub();
    let second = Path::udp(ip("198.51.100.12"), PORT);
    world.stations[HUB].routes.proven.push((second, TRUTH.to_owned()));
    world.add_spoke(1);
    world.add_spoke(2);
    world.settle();
    world
}

#[test]
fn a_registration_is_of_who_has_proven_himself_whatever_he_calls_himself() {
    let mut world = world();
    let name = |event: &Event| match event {
        Event::Registered { info, .. } => info.identity.clone(),
        _ => None,
    };
    let names: Vec<_> = world.events(HUB).iter().map(name).collect();
    assert_eq!(names, [Some("10.0.0.1.example.com".to_owned()), Some(TRUTH.to_owned())]);
}

/// ```text
/// A -> hub -> B    Resolution Request
/// A <- hub <- B    Resolution Reply: the hub writes into it who B is
/// ```
#[test]
fn the_first_hub_on_the_way_says_who_a_station_is() {
    let mut world = world();
    world.resolve(1, "192.168.2.9");
    world.settle();
    let events = world.events(1);
    let resolved = events.iter().find_map(|e| match e {
        Event::Resolved { peer, .. } => peer.identity.clone(),
        _ => None,
    });
    assert_eq!(resolved.as_deref(), Some(TRUTH));
}
