//! Phase 3: a shortcut forms beside the hub's path, carries, and goes, and no packet is lost at any step.

use crate::net::{A, B, HUB, MS, S, ip, net, three, three_with};
use dmvpn::{Action, Clear, Event, Input, Phase, RouteTarget};
use std::time::Duration;

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

fn formed(change: impl Fn(usize, &mut dmvpn::Config)) -> crate::net::Net {
    let mut net = three_with(Phase::Three, change);
    net.talk(3 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.is_direct(B, "10.1.0.9"), "{}", net.explain(B, "10.1.0.9"));
    net
}

#[test]
fn a_shortcut_in_use_is_renewed_without_a_gap() {
    let mut net = formed(|_, c| c.nhrp.holding_time = 20 * S);
    let route = |n: &crate::net::Net| {
        n.sites[A].actions.iter().filter(|(_, a)| matches!(a, Action::RemoveRoute { .. })).count()
    };
    let sent = net.talk(60 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"));
    assert_eq!(route(&net), 0, "the route stood all the time");
}

#[test]
fn a_shortcut_that_nobody_uses_goes_and_comes_back_without_loss() {
    let mut net = formed(|_, c| c.idle_timeout = 10 * S);
    net.run(15 * S);
    assert!(!net.is_direct(A, "10.2.0.9"));
    assert!(net.explain(A, "10.2.0.9").contains("idle"), "{}", net.explain(A, "10.2.0.9"));
    assert!(net.sites[A].applied.routes.is_empty());
    let sent = net.talk(3 * S, 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
}

#[test]
fn one_side_going_idle_loses_nothing_of_the_other() {
    // A sends to B all the time; B never answers, so that B's side is idle.
    let mut net = formed(|_, c| c.idle_timeout = 10 * S);
    let mut sent = vec![];
    for _ in 0..3000 {
        sent.push(net.send(A, "10.1.0.9", "10.2.0.9"));
        net.run(20 * MS);
    }
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"));
    assert!(!net.is_direct(B, "10.1.0.9"));
}

#[test]
fn a_withdrawn_route_purges_the_shortcut_at_once_and_loses_nothing() {
    let mut net = formed(|_, _| {});
    // B's LAN is reached by another node of the site from now on; B forwards to it for a while, as a router does.
    net.route(B, "10.2.0.128/25", Some(RouteTarget::Overlay(Some(ip("10.200.16.2")))));
    net.run(200 * MS);
    assert!(!net.is_direct(A, "10.2.0.9"));
    assert!(net.explain(A, "10.2.0.9").contains("withdrew"), "{}", net.explain(A, "10.2.0.9"));
    let sent = net.talk(3 * S, 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    let view = net.sites[A].tunnel.shortcuts();
    let up =
        view.iter().find(|s| s.state == dmvpn::view::ShortcutState::Up && s.prefix.contains(&ip("10.2.0.9")));
    assert_eq!(up.unwrap().prefix, net_of("10.2.0.0/25"), "what leads elsewhere is not answered any more");
}

fn net_of(s: &str) -> ipnet::IpNet {
    net(s)
}

#[test]
fn a_dead_direct_path_is_left_within_a_second_and_explained() {
    let mut net = formed(|_, _| {});
    let before = net.talk(S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.assert_no_loss(&before[..before.len() - 20]);
    net.cut.insert((ip("203.0.113.1"), ip("203.0.113.2")));
    let died = net.now;
    let during = net.talk(2 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    let (lost, doubled) = net.lost_and_doubled(&during);
    assert!(doubled.is_empty());
    // Two packets every 10 ms.
    assert!(lost.len() <= 2 * 80, "{} lost in {:?}", lost.len(), net.now.since(died));
    let why = net.explain(A, "10.2.0.9");
    assert!(why.contains("does not answer") && why.contains("not tried again for"), "{why}");
    let down =
        |e: &Event| matches!(e, Event::ShortcutDown { prefix, .. } if *prefix == net_of("10.2.0.0/24"));
    assert_eq!(net.events(A, down), 1);
}

#[test]
fn a_path_that_was_lost_is_tried_again_after_the_back_off_and_not_before() {
    let mut net = formed(|_, _| {});
    net.cut.insert((ip("203.0.113.1"), ip("203.0.113.2")));
    net.talk(2 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.cut.clear();
    let soon = net.talk(2 * S, 50 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(!net.is_direct(A, "10.2.0.9"));
    let later = net.talk(10 * S, 50 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    net.assert_no_loss(&soon);
    net.assert_no_loss(&later);
}

#[test]
fn an_impossible_path_backs_off_for_longer_each_time() {
    let mut net = three(Phase::Three);
    net.cut.insert((ip("203.0.113.1"), ip("203.0.113.2")));
    let sent = net.talk(300 * S, 200 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    let failures: Vec<_> = net.sites[A]
        .events
        .iter()
        .filter(|(_, e)| matches!(e, Event::ShortcutFailed { .. }))
        .map(|(at, _)| *at)
        .collect();
    assert!((3..=6).contains(&failures.len()), "{failures:?}");
    let gaps: Vec<_> = failures.windows(2).map(|w| w[1].since(w[0])).collect();
    assert!(gaps.windows(2).all(|w| w[1] > w[0]), "{gaps:?}");
}

#[test]
fn an_indication_about_traffic_of_the_overlay_makes_nothing() {
    let mut net = three(Phase::Three);
    // B is told that 10.9.0.9 (by the hub) to 10.1.0.9 (by the hub) has a shorter way.
    let mut head = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 9, 10, 1, 0, 9];
    head.extend([0; 8]);
    let from = net.sites[HUB].tunnel.peer_of(packet::Path::udp(ip("203.0.113.2"), 4754)).unwrap();
    let to = net.sites[HUB].tunnel.peer_of(packet::Path::udp(ip("203.0.113.1"), 4754)).unwrap();
    let now = net.now;
    net.sites[HUB].tunnel.handle_input(now, Input::Hairpin { from, to, head });
    net.drain(HUB);
    net.run(S);
    assert!(net.sites[B].tunnel.shortcuts().is_empty());
}

#[test]
fn a_prefix_that_covers_a_peers_own_address_is_refused() {
    let mut net = three(Phase::Three);
    net.route(B, "10.2.0.0/24", None);
    net.route(B, "203.0.113.0/24", Some(RouteTarget::OffOverlay));
    net.route(A, "203.0.113.0/24", Some(RouteTarget::Overlay(Some(ip("10.200.0.1")))));
    net.route(HUB, "203.0.113.0/24", Some(RouteTarget::Overlay(Some(ip("10.200.16.2")))));
    for _ in 0..20 {
        net.send(A, "10.1.0.9", "203.0.113.77");
        net.run(100 * MS);
    }
    assert_eq!(net.events(A, |e| matches!(e, Event::RecursiveRoute { .. })), 1);
    assert!(net.sites[A].applied.routes.is_empty());
    assert!(net.sites[A].tunnel.would_recurse(net_of("203.0.113.0/24")).is_none(), "no longer a peer in use");
    assert!(net.sites[A].tunnel.would_recurse(net_of("198.51.100.0/24")).is_some());
}

#[test]
fn a_prefix_that_the_class_does_not_allow_is_not_used() {
    let class = |identity: &str, prefixes: &[&str]| claims::Class {
        identity: identity.into(),
        tunnel_addresses: vec![],
        prefixes: prefixes.iter().map(|p| net(p)).collect(),
    };
    let mut net = three_with(Phase::Three, |at, c| {
        if at == A {
            c.admission = vec![class("*.example.com", &["10.3.0.0/16"])];
        }
    });
    let sent = net.talk(3 * S, 50 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(!net.is_direct(A, "10.2.0.9"));
    let why = net.explain(A, "10.2.0.9");
    assert!(why.contains("refused by claims"), "{why}");
    let (_, doubled) = net.lost_and_doubled(&sent);
    assert!(doubled.is_empty());
}

#[test]
fn a_lan_of_our_own_is_not_shadowed_by_a_shortcut() {
    let mut net = formed(|_, _| {});
    net.route(A, "10.2.0.0/24", Some(RouteTarget::OffOverlay));
    assert!(net.sites[A].applied.routes.is_empty());
}

#[test]
fn clearing_leaves_shortcuts_and_lets_them_form_again_at_once() {
    let mut net = formed(|_, _| {});
    let now = net.now;
    net.sites[A].tunnel.clear(now, Clear::Shortcuts);
    net.drain(A);
    assert!(!net.is_direct(A, "10.2.0.9"));
    let sent = net.talk(5 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    net.assert_no_loss(&sent);
}

#[test]
fn a_peer_that_shuts_down_is_left_without_a_loss_to_others() {
    let mut net = formed(|_, _| {});
    let now = net.now;
    net.sites[B].tunnel.shutdown(now);
    net.drain(B);
    net.run(S);
    assert!(!net.is_direct(A, "10.2.0.9"));
    assert!(net.sites[A].applied.routes.is_empty());
    assert_eq!(net.events(HUB, |e| matches!(e, Event::PeerUnregistered { .. })), 1);
    net.run(2 * S);
    assert!(net.sites[B].tunnel.is_shut_down());
}

#[test]
fn rows_and_slots_are_given_back_in_the_end() {
    let mut net = formed(|_, c| {
        c.idle_timeout = 5 * S;
        c.nhrp.holding_time = 30 * S;
    });
    net.run(60 * S);
    assert_eq!(net.sites[A].applied.peers.len(), 1, "the hub alone: {:?}", net.sites[A].applied.peers);
}

#[test]
fn a_lan_that_moves_to_another_spoke_is_followed_at_the_renewal_without_a_gap() {
    let mut net = formed(|_, c| c.nhrp.holding_time = 20 * S);
    let mut other = crate::net::config("c", "10.200.16.3", "203.0.113.3", Phase::Three);
    other.hubs = vec![crate::net::hub_entry(0, "198.51.100.1", 0)];
    let by_hub = RouteTarget::Overlay(Some(ip("10.200.0.1")));
    net.add(other, &[("10.2.0.0/24", RouteTarget::OffOverlay), ("10.0.0.0/8", by_hub)], None);
    // The hub learns of the move; the spoke that had the LAN still delivers.
    net.route(HUB, "10.2.0.0/24", Some(RouteTarget::Overlay(Some(ip("10.200.16.3")))));
    let sent = net.talk(40 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    assert!(net.explain(A, "10.2.0.9").contains("10.200.16.3"), "{}", net.explain(A, "10.2.0.9"));
    net.assert_no_loss(&sent);
    assert_eq!(net.sites[A].applied.routes.get(&net_of("10.2.0.0/24")), Some(&ip("10.200.16.3")));
}

#[test]
fn a_far_spoke_that_was_away_for_some_seconds_is_direct_again_soon_after() {
    let mut net = formed(|_, _| ());
    net.sites[B].on = false;
    net.talk(3 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(!net.is_direct(A, "10.2.0.9"));
    net.sites[B].on = true;
    net.talk(10 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
}
