//! Phase 3: a shortcut forms beside the hub's path, carries, and goes, and no packet is lost at any step.

mod net;

use dmvpn::{Event, Phase, RouteTarget};
use net::{MS, Net, config, hub_entry, ip};
use std::time::Duration;

const HUB: usize = 0;
const A: usize = 1;
const B: usize = 2;

/// A hub and two spokes with a LAN each; the hub announces a summary.
fn three(phase: Phase) -> Net {
    let mut net = Net::new();
    let mut hub = config("hub", "10.200.0.1", "198.51.100.1", phase);
    hub.hub = true;
    let (lan, by) = (RouteTarget::OffOverlay, |a: &str| RouteTarget::Overlay(Some(ip(a))));
    net.add(hub, &[("10.1.0.0/24", by("10.200.16.1")), ("10.2.0.0/24", by("10.200.16.2"))], None);
    for (name, tunnel, nbma, own) in [
        ("a", "10.200.16.1", "203.0.113.1", "10.1.0.0/24"),
        ("b", "10.200.16.2", "203.0.113.2", "10.2.0.0/24"),
    ] {
        let mut spoke = config(name, tunnel, nbma, phase);
        spoke.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
        net.add(spoke, &[(own, lan), ("10.0.0.0/8", by("10.200.0.1")), ("0.0.0.0/0", lan)], None);
    }
    for spoke in ["203.0.113.1", "203.0.113.2"] {
        net.latency.insert((ip(spoke), ip("198.51.100.1")), 30 * MS);
    }
    net.run(Duration::from_secs(2));
    net
}

#[test]
fn spokes_register_and_reach_each_other_by_the_hub() {
    let mut net = three(Phase::One);
    assert_eq!(net.events(A, |e| matches!(e, Event::HubUp { .. })), 1);
    assert_eq!(net.events(HUB, |e| matches!(e, Event::PeerRegistered { .. })), 2);
    let sent = net.talk(Duration::from_secs(3), 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(Duration::from_secs(1));
    net.assert_no_loss(&sent);
    assert!(net.explain(A, "10.2.0.9").contains("phase 1"), "{}", net.explain(A, "10.2.0.9"));
}

#[test]
fn a_shortcut_forms_under_traffic_and_loses_nothing() {
    let mut net = three(Phase::Three);
    let sent = net.talk(Duration::from_secs(3), MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(Duration::from_secs(1));
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.is_direct(B, "10.1.0.9"), "{}", net.explain(B, "10.1.0.9"));
    net.assert_no_loss(&sent);
}
