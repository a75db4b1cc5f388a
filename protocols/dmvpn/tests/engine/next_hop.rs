//! Phase 2: routing preserves the next hop, and the spoke resolves it when it is first used.

use crate::net::{A, B, HUB, MS, Net, S, build_three, ip, three, three_with};
use dmvpn::{Action, Event, Phase};

#[test]
fn a_preserved_next_hop_becomes_direct_under_traffic_and_loses_nothing() {
    let mut net = three(Phase::Two);
    let sent = net.talk(3 * S, MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.is_direct(B, "10.1.0.9"), "{}", net.explain(B, "10.1.0.9"));
    assert!(net.sites[A].applied.routes.is_empty(), "phase 2 needs no route");
}

#[test]
fn a_next_hop_is_renewed_while_used_and_goes_when_idle() {
    let mut net = three_with(Phase::Two, |_, c| {
        c.nhrp.holding_time = 20 * S;
        c.idle_timeout = 10 * S;
    });
    let sent = net.talk(60 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    let gone = |a: &Action| matches!(a, Action::RemoveNeighbour { .. });
    assert_eq!(net.sites[A].actions.iter().filter(|(_, a)| gone(a)).count(), 0);
    net.run(15 * S);
    assert!(!net.is_direct(A, "10.2.0.9"));
    let again = net.talk(10 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&again);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
}

#[test]
fn a_dead_next_hop_goes_by_the_hub_within_a_second() {
    let mut net = three(Phase::Two);
    net.talk(2 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.cut.insert((ip("203.0.113.1"), ip("203.0.113.2")));
    let during = net.talk(2 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let after = net.talk(10 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    let (lost, _) = net.lost_and_doubled(&during);
    assert!(lost.len() <= 2 * 80, "{} lost", lost.len());
    net.assert_no_loss(&after);
    assert!(net.explain(A, "10.2.0.9").contains("by hub"), "{}", net.explain(A, "10.2.0.9"));
}

#[test]
fn in_phase_1_a_next_hop_is_not_resolved() {
    let mut net = three(Phase::One);
    let sent = net.talk(S, 20 * MS, (A, "10.200.16.1"), (B, "10.200.16.2"));
    assert!(!net.is_direct(A, "10.200.16.2"));
    assert!(net.sites[A].tunnel.shortcuts().is_empty());
    assert!(!sent.is_empty());
}

#[test]
fn a_next_hop_that_was_wanted_before_there_was_a_hub_is_resolved_once_there_is_one() {
    let mut net = Net::new();
    build_three(&mut net, Phase::Two, |_, _| (), [None, None]);
    net.sites[HUB].on = false;
    net.talk(S, 100 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let failed = |e: &Event| matches!(e, Event::ShortcutFailed { reason, .. } if reason.contains("no hub"));
    assert_eq!(net.events(A, failed), 1);
    net.sites[HUB].on = true;
    let registered = |net: &Net| net.sites[A].tunnel.hubs().iter().all(|h| h.registered);
    while !registered(&net) {
        net.run(100 * MS);
    }
    net.run(S);
    net.talk(S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
}
