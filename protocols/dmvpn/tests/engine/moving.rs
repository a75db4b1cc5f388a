//! Underlay addresses that change.

use crate::net::{A, B, HUB, MS, S, ip, three};
use dmvpn::{Event, Input, Phase};

#[test]
fn a_spoke_that_moves_keeps_its_shortcut() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(net.is_direct(B, "10.1.0.9"));
    net.sites[A].address = ip("203.0.113.201");
    let now = net.now;
    net.sites[A].tunnel.handle_input(now, Input::UnderlayAddress(ip("203.0.113.201")));
    net.drain(A);
    let during = net.talk(2 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    let (lost, doubled) = net.lost_and_doubled(&during);
    assert!(lost.len() <= 2 * 80, "{} lost", lost.len());
    assert!(doubled.is_empty());
    net.run(S);
    assert_eq!(net.row_of(HUB, "10.200.16.1").unwrap().send.map(|p| p.remote), Some(ip("203.0.113.201")));
    let moved = |e: &Event| matches!(e, Event::PeerRegistered { moved_from: Some(_), .. });
    assert_eq!(net.events(HUB, moved), 1);
    let after = net.talk(60 * S, 50 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&after);
    assert!(net.is_direct(B, "10.1.0.9"), "{}", net.explain(B, "10.1.0.9"));
    assert!(net.explain(B, "10.1.0.9").contains("203.0.113.201"), "{}", net.explain(B, "10.1.0.9"));
}

#[test]
fn a_spoke_whose_nat_gives_it_another_port_is_found_again() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    // Its address changes on the way, and it isn't told.
    net.sites[A].address = ip("203.0.113.201");
    net.talk(5 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let after = net.talk(2 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&after);
    assert_eq!(net.row_of(HUB, "10.200.16.1").unwrap().send.map(|p| p.remote), Some(ip("203.0.113.201")));
}
