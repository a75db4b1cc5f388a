//! Stations that leave: in good order over a bad network, without a word, and on request.

use crate::net::{A, B, HUB, MS, S, build_three, ip, three};
use dmvpn::{Clear, Event, Phase};

fn unregistered(event: &Event, why: &str) -> bool {
    matches!(event, Event::PeerUnregistered { reason, .. } if reason == why)
}

/// The first withdrawal is lost. The hub passes the second on only for who is still registered with it.
#[test]
fn a_withdrawal_that_is_lost_is_repeated_before_the_station_deregisters() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(net.is_direct(A, "10.2.0.9"));
    let now = net.now;
    net.cut.insert((ip("203.0.113.2"), ip("198.51.100.1")));
    net.sites[B].tunnel.shutdown(now);
    net.drain(B);
    net.run(300 * MS);
    net.cut.clear();
    net.run(1500 * MS);
    assert_eq!(net.events(A, |e| matches!(e, Event::ShortcutDown { .. })), 1);
    net.run(1500 * MS);
    assert!(net.sites[B].tunnel.is_shut_down());
    assert_eq!(net.events(HUB, |e| unregistered(e, "purged")), 1);
}

#[test]
fn a_station_whom_everybody_acknowledges_is_gone_at_once() {
    let mut net = three(Phase::Three);
    let now = net.now;
    net.sites[B].tunnel.shutdown(now);
    net.drain(B);
    net.run(300 * MS);
    assert!(net.sites[B].tunnel.is_shut_down());
}

#[test]
fn a_registered_spoke_that_dies_without_a_word_is_noticed_by_its_traffic() {
    let mut net = three(Phase::One);
    net.run(5 * S);
    net.sites[B].on = false;
    for _ in 0..150 {
        net.send(A, "10.1.0.9", "10.2.0.9");
        net.run(20 * MS);
    }
    assert_eq!(net.events(HUB, |e| unregistered(e, "does not answer")), 1);
    assert!(net.row_of(HUB, "10.200.16.2").is_none_or(|row| row.send.is_none()));
}

/// ICMP said to `at` that nobody listens where the other spoke was.
fn refused(net: &mut crate::net::Net, at: usize) {
    let (now, path) = (net.now, packet::Path::udp(ip("203.0.113.2"), 4754));
    net.sites[at].tunnel.handle_input(now, dmvpn::Input::NobodyThere(path));
    net.drain(at);
}

#[test]
fn a_spoke_whose_port_is_closed_is_gone_within_half_a_second() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    assert!(net.is_direct(A, "10.2.0.9"));
    net.sites[B].on = false;
    net.run(300 * MS);
    for at in [A, HUB] {
        refused(&mut net, at);
    }
    net.run(450 * MS);
    assert!(!net.is_direct(A, "10.2.0.9"));
    assert_eq!(net.events(HUB, |e| unregistered(e, "does not answer")), 1);
}

#[test]
fn who_answers_is_there_whatever_icmp_says() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    for _ in 0..50 {
        refused(&mut net, A);
        refused(&mut net, HUB);
        net.run(100 * MS);
    }
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
    assert_eq!(net.events(HUB, |e| matches!(e, Event::PeerUnregistered { .. })), 0);
}

#[test]
fn a_registered_spoke_that_only_listens_is_not_taken_for_dead() {
    let mut net = three(Phase::One);
    for _ in 0..500 {
        net.send(A, "10.1.0.9", "10.2.0.9");
        net.run(20 * MS);
    }
    assert_eq!(net.events(HUB, |e| matches!(e, Event::PeerUnregistered { .. })), 0);
}

#[test]
fn a_cleared_registration_frees_the_address_for_another() {
    let mut net = three(Phase::Three);
    let now = net.now;
    net.sites[HUB].tunnel.clear(now, Clear::Registration(ip("10.200.16.2")));
    net.drain(HUB);
    assert_eq!(net.events(HUB, |e| unregistered(e, "cleared")), 1);
    assert!(net.sites[HUB].tunnel.cache().iter().all(|e| e.protocol_address != ip("10.200.16.2")));
}

/// A station that registers by raw GRE because one request in UDP was lost is known by a path that it leaves again.
#[test]
fn one_lost_request_in_udp_does_not_make_a_station_known_by_raw_gre() {
    let mut net = crate::net::Net::new();
    net.cut.insert((ip("203.0.113.2"), ip("198.51.100.1")));
    let auto = |at: usize, c: &mut dmvpn::Config| {
        if at == B {
            c.hubs[0].paths.push(packet::Path::gre(ip("198.51.100.1")));
        }
    };
    build_three(&mut net, Phase::Three, auto, [None, None]);
    net.run(500 * MS);
    net.cut.clear();
    net.run(3 * S);
    let row = net.row_of(HUB, "10.200.16.2").unwrap();
    assert_eq!(row.receive, [packet::Path::udp(ip("203.0.113.2"), 4754)]);
    assert_eq!(net.events(HUB, |e| matches!(e, Event::PeerRegistered { moved_from: Some(_), .. })), 0);
}
