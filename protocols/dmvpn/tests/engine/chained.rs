//! Hubs that are spokes of another hub.

use crate::net::{MS, Net, S, config, hub_entry, ip};
use dmvpn::{Phase, RouteTarget};

/// top - east - A, top - west - B.
fn chain(phase: Phase) -> (Net, usize, usize) {
    let mut net = Net::new();
    let by = |a: &str| RouteTarget::Overlay(Some(ip(a)));
    let lan = RouteTarget::OffOverlay;
    let mut top = config("top", "10.200.0.1", "198.51.100.1", phase);
    top.hub = true;
    net.add(
        top,
        &[
            ("10.200.16.0/24", by("10.200.0.2")),
            ("10.200.17.0/24", by("10.200.0.3")),
            ("10.1.0.0/24", by("10.200.0.2")),
            ("10.2.0.0/24", by("10.200.0.3")),
        ],
        None,
    );
    for (name, tunnel, nbma, far, near) in [
        ("east", "10.200.0.2", "198.51.100.2", "10.1.0.0/24", "10.200.16.1"),
        ("west", "10.200.0.3", "198.51.100.3", "10.2.0.0/24", "10.200.17.1"),
    ] {
        let mut hub = config(name, tunnel, nbma, phase);
        hub.hub = true;
        hub.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
        net.add(hub, &[("10.0.0.0/8", by("10.200.0.1")), (far, by(near))], None);
    }
    let mut sites = vec![];
    for (name, tunnel, nbma, hub, hub_address, own) in [
        ("a", "10.200.16.1", "203.0.113.1", "198.51.100.2", "10.200.0.2", "10.1.0.0/24"),
        ("b", "10.200.17.1", "203.0.113.2", "198.51.100.3", "10.200.0.3", "10.2.0.0/24"),
    ] {
        let mut spoke = config(name, tunnel, nbma, phase);
        spoke.hubs = vec![hub_entry(0, hub, 0)];
        sites.push(net.add(spoke, &[(own, lan), ("10.0.0.0/8", by(hub_address))], None));
    }
    net.run(2 * S);
    (net, sites[0], sites[1])
}

#[test]
fn spokes_of_different_hubs_reach_each_other_by_three_hubs_in_phase_1() {
    let (mut net, a, b) = chain(Phase::One);
    let sent = net.talk(S, 10 * MS, (a, "10.1.0.9"), (b, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
}

#[test]
fn spokes_of_different_hubs_form_a_shortcut_and_their_hubs_none() {
    let (mut net, a, b) = chain(Phase::Three);
    let sent = net.talk(5 * S, 5 * MS, (a, "10.1.0.9"), (b, "10.2.0.9"));
    net.run(S);
    assert!(net.is_direct(a, "10.2.0.9"), "{}", net.explain(a, "10.2.0.9"));
    assert!(net.is_direct(b, "10.1.0.9"), "{}", net.explain(b, "10.1.0.9"));
    net.assert_no_loss(&sent);
    for hub in 0..3 {
        assert!(
            net.sites[hub].tunnel.shortcuts().is_empty(),
            "traffic of the overlay makes a hub resolve nothing"
        );
    }
}
