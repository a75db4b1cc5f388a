//! Routers without our software: raw GRE, no token, a kernel that answers pings by whatever way it has.

use crate::net::{A, B, HUB, MS, Net, S, config, hub_entry, ip, three};
use dmvpn::{Phase, RouteTarget};
use packet::Path;

const FOREIGN: usize = 3;

fn with_foreign_spoke() -> Net {
    let mut net = three(Phase::Three);
    let by = |a: &str| RouteTarget::Overlay(Some(ip(a)));
    let mut spoke = config("f", "10.200.16.3", "203.0.113.3", Phase::Three);
    spoke.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
    net.add_foreign(spoke, &[("10.3.0.0/24", RouteTarget::OffOverlay), ("10.0.0.0/8", by("10.200.0.1"))]);
    net.route(HUB, "10.3.0.0/24", Some(by("10.200.16.3")));
    net.latency.insert((ip("203.0.113.3"), ip("198.51.100.1")), 30 * MS);
    net.run(2 * S);
    net
}

#[test]
fn a_foreign_spoke_registers_over_raw_gre() {
    let net = with_foreign_spoke();
    let row = net.row_of(HUB, "10.200.16.3").unwrap();
    assert_eq!((row.send, row.ours), (Some(Path::gre(ip("203.0.113.3"))), false));
}

#[test]
fn a_shortcut_to_a_foreign_spoke_is_proven_by_its_kernels_answer() {
    let mut net = with_foreign_spoke();
    let sent = net.talk(4 * S, 5 * MS, (A, "10.1.0.9"), (FOREIGN, "10.3.0.9"));
    net.run(S);
    assert!(net.is_direct(A, "10.3.0.9"), "{}", net.explain(A, "10.3.0.9"));
    assert!(net.explain(A, "10.3.0.9").contains("203.0.113.3 (gre)"), "{}", net.explain(A, "10.3.0.9"));
    net.assert_no_loss(&sent);
}

#[test]
fn a_foreign_hub_that_answers_no_ping_is_not_taken_for_lost() {
    let mut net = Net::new();
    let by = |a: &str| RouteTarget::Overlay(Some(ip(a)));
    let mut hub = config("hub", "10.200.0.1", "198.51.100.1", Phase::Three);
    hub.hub = true;
    hub.phase = Phase::One;
    net.add_foreign(hub, &[("10.1.0.0/24", by("10.200.16.1")), ("10.2.0.0/24", by("10.200.16.2"))]);
    // Its kernel has no way back for an answer to a probe: as if ICMP were filtered.
    for (name, tunnel, nbma, lan) in [
        ("a", "10.200.16.1", "203.0.113.1", "10.1.0.0/24"),
        ("b", "10.200.16.2", "203.0.113.2", "10.2.0.0/24"),
    ] {
        let mut spoke = config(name, tunnel, nbma, Phase::Three);
        spoke.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
        spoke.hubs[0].paths = vec![Path::gre(ip("198.51.100.1"))];
        net.add(spoke, &[(lan, RouteTarget::OffOverlay), ("10.0.0.0/8", by("10.200.0.1"))], None);
    }
    net.sites[HUB].mute = true;
    net.run(2 * S);
    let sent = net.talk(10 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert_eq!(net.sites[A].events.len(), 1, "{:?}", net.sites[A].events);
}
