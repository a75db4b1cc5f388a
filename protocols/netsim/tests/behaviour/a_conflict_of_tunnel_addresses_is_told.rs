use crate::common::*;
use dmvpn::{Event, Phase};
use packet::Instant;

/// Two spokes of different identity have the same tunnel address: the second is refused and told, the first goes on.
#[test]
fn a_conflict_of_tunnel_addresses_is_told() {
    let mut net = network(61, Phase::Three);
    let hub = net.hub("hub");
    let a = net.spoke("a", &[hub]);
    net.run_for(secs(5));
    let thief = net.spoke("thief", &[hub]);
    let stolen = net.tunnel_address(a);
    net.configure(thief, |c| c.addresses = vec![stolen]);
    net.run_for(secs(30));
    let conflict = |e: &Event| matches!(e, Event::AddressConflict { address, .. } if *address == stolen);
    assert!(net.told(thief, Instant::ZERO, conflict), "{:#?}", net.events(thief));
    assert!(!is_registered(&net, thief));
    assert!(net.told(hub, Instant::ZERO, |e| matches!(e, Event::RegistrationDenied { .. })));
    let flow = net.flow(hub, a, 100);
    net.run_for(secs(2));
    whole(&net.finish(flow));
}

/// The same identity comes back with another machine: its binding is replaced, not refused.
#[test]
fn the_same_identity_replaces_its_binding() {
    let mut net = network(62, Phase::Three);
    let hub = net.hub("hub");
    let a = net.spoke("a", &[hub]);
    net.run_for(secs(5));
    net.power_off(a);
    let again = net.spoke("a", &[hub]);
    let address = net.tunnel_address(a);
    let lan = net.lan(a);
    net.configure(again, |c| c.addresses = vec![address]);
    net.set_lans(again, &[lan]);
    net.run_for(secs(10));
    assert!(is_registered(&net, again), "{:#?}", net.events(again));
    let flow = net.flow(hub, again, 100);
    net.run_for(secs(10));
    whole(&net.finish(flow));
}
