//! How sessions begin, are kept, and end.

mod common;

use bgp::{AcceptError, DownReason, Event, Notification, Phase, Refusal, State};
use common::{Net, hub, ip, net, spoke};
use std::net::IpAddr;
use std::time::Duration;

fn pair() -> (Net, IpAddr, IpAddr) {
    let mut lab = Net::default();
    let mut config = hub("10.200.0.1", 65000, Phase::Two);
    config.announce = vec![net("10.0.0.0/24")];
    let h = lab.add(config);
    let a = lab.add(spoke("10.200.16.1", 65010, "10.1.0.0/24"));
    lab.connect(a, h);
    lab.run_secs(2);
    assert!(lab.is_up(a, h) && lab.is_up(h, a));
    (lab, h, a)
}

fn down(lab: &Net, node: IpAddr) -> Vec<(DownReason, bool)> {
    let events = lab.nodes[&node].events.iter();
    events
        .filter_map(|event| match event {
            Event::Down { reason, stale, .. } => Some((reason.clone(), *stale)),
            _ => None,
        })
        .collect()
}

#[test]
fn keepalives_keep_a_quiet_session() {
    let (mut lab, h, a) = pair();
    let before = lab.trace.len();
    lab.run_secs(600);
    assert!(lab.is_up(a, h));
    assert!(down(&lab, h).is_empty() && down(&lab, a).is_empty());
    // A third of 30 s, with jitter, both ways: 60 to 80 each.
    let keepalives = lab.trace.len() - before;
    assert!((120..=170).contains(&keepalives), "{keepalives}");
}

#[test]
fn a_dead_peer_is_dropped_after_the_hold_time_with_its_routes() {
    let (mut lab, h, a) = pair();
    lab.dead.insert(a);
    lab.run_secs(20);
    assert!(lab.is_up(h, a));
    lab.run_secs(11);
    assert_eq!(down(&lab, h), [(DownReason::Sent(Notification::HOLD_TIMER_EXPIRED), false)]);
    assert!(lab.kernel(h, "10.1.0.0/24").is_empty());
    assert_eq!(lab.nodes[&h].speaker.neighbours().count(), 0, "nothing is left of a spoke that is gone");
}

#[test]
fn the_shorter_hold_time_counts() {
    let mut lab = Net::default();
    let h = lab.add(hub("10.200.0.1", 65000, Phase::Two));
    let mut config = spoke("10.200.16.1", 65010, "10.1.0.0/24");
    config.hold_time = Duration::from_secs(9);
    let a = lab.add(config);
    lab.connect(a, h);
    lab.run_secs(2);
    lab.dead.insert(a);
    lab.run_secs(10);
    assert!(!lab.is_up(h, a));
}

#[test]
fn a_hub_that_comes_late_is_found() {
    let mut lab = Net::default();
    let a = lab.add(spoke("10.200.16.1", 65010, "10.1.0.0/24"));
    let h = ip("10.200.0.1");
    lab.connect(a, h);
    lab.run_secs(100);
    lab.add(hub("10.200.0.1", 65000, Phase::Two));
    lab.run_secs(16);
    assert!(lab.is_up(a, h));
    let failures = lab.nodes[&a].events.iter().filter(|e| matches!(e, Event::Failed { .. })).count();
    assert_eq!(failures, 1, "the same failure is told once");
}

#[test]
fn strangers_are_not_accepted() {
    let (mut lab, h, a) = pair();
    let now = lab.now;
    let speaker = &mut lab.node(h).speaker;
    assert_eq!(speaker.handle_accepted(now, ip("192.0.2.1")), Err(AcceptError::Unknown));
    assert_eq!(speaker.handle_accepted(now, h), Err(AcceptError::Unknown), "not ourselves");
    let second = speaker.handle_accepted(now, a);
    assert!(second.is_ok());
    assert_eq!(speaker.handle_accepted(now, a), Err(AcceptError::Busy));
}

#[test]
fn there_is_room_for_so_many_neighbours_only() {
    let mut lab = Net::default();
    let mut config = hub("10.200.0.1", 65000, Phase::Two);
    config.limits.dynamic_neighbours = 1;
    let h = lab.add(config);
    let now = lab.now;
    let speaker = &mut lab.node(h).speaker;
    assert!(speaker.handle_accepted(now, ip("10.200.16.1")).is_ok());
    assert_eq!(speaker.handle_accepted(now, ip("10.200.16.2")), Err(AcceptError::Full));
    // One that says nothing makes room again.
    lab.run_secs(31);
    let now = lab.now;
    assert!(lab.node(h).speaker.handle_accepted(now, ip("10.200.16.2")).is_ok());
}

//= rfc4271#6.8: two hubs that connect to each other at once end up with one session
#[test]
fn colliding_connections_end_up_as_one_session() {
    let mut lab = Net::default();
    let h1 = lab.add(hub("10.200.0.1", 65000, Phase::Two));
    let h2 = lab.add(hub("10.200.0.2", 65000, Phase::Two));
    lab.connect(h1, h2);
    lab.connect(h2, h1);
    lab.run_secs(1);
    assert!(lab.is_up(h1, h2) && lab.is_up(h2, h1));
    let before = down(&lab, h1).len() + down(&lab, h2).len();
    lab.run_secs(120);
    assert_eq!(down(&lab, h1).len() + down(&lab, h2).len(), before, "no second thoughts");
    for node in [h1, h2] {
        assert_eq!(lab.nodes[&node].speaker.neighbours().count(), 1);
    }
}

#[test]
fn an_end_in_good_order_takes_the_routes_along_at_once() {
    let (mut lab, h, a) = pair();
    let now = lab.now;
    lab.node(a).speaker.shutdown(now);
    lab.run_secs(1);
    assert_eq!(down(&lab, h), [(DownReason::Received(Notification::SHUTDOWN), false)]);
    assert!(lab.kernel(h, "10.1.0.0/24").is_empty());
    lab.run_secs(60);
    assert!(!lab.is_up(a, h), "a speaker that was shut down does not come back");
}

#[test]
fn a_hub_that_is_removed_is_left() {
    let (mut lab, h, a) = pair();
    let now = lab.now;
    lab.node(a).speaker.remove_neighbour(now, h);
    lab.run_secs(60);
    assert_eq!(down(&lab, h), [(DownReason::Received(Notification::DECONFIGURED), false)]);
    assert!(lab.nodes[&a].kernel.is_empty());
    assert_eq!(lab.nodes[&a].speaker.neighbours().count(), 0);
}

#[test]
fn what_is_not_claimed_is_not_believed_until_it_is() {
    let (mut lab, h, a) = pair();
    lab.node(h).claims.insert(a, vec![net("10.1.0.0/16")]);
    let now = lab.now;
    let both = vec![net("10.1.0.0/24"), net("10.2.0.0/24")];
    lab.node(a).speaker.set_announced(now, both, &|_, _| true);
    lab.run_secs(1);
    assert_eq!(lab.kernel(h, "10.1.0.0/24"), [a]);
    assert!(lab.kernel(h, "10.2.0.0/24").is_empty());
    let refused = Event::Refused { neighbour: a, prefix: net("10.2.0.0/24"), reason: Refusal::NotClaimed };
    assert!(lab.nodes[&h].events.contains(&refused));

    lab.node(h).claims.insert(a, vec![net("10.2.0.0/16")]);
    lab.review(h);
    lab.run_secs(1);
    assert_eq!(lab.kernel(h, "10.2.0.0/24"), [a]);
    assert!(lab.kernel(h, "10.1.0.0/24").is_empty());
}

#[test]
fn what_nobody_may_announce_is_refused() {
    let cases = [
        ("0.0.0.0/0", Refusal::Default),
        ("127.0.0.0/8", Refusal::Martian),
        ("169.254.0.0/16", Refusal::Martian),
        ("10.200.16.0/24", Refusal::TunnelNetwork),
        ("10.200.0.0/16", Refusal::TunnelNetwork),
        ("10.0.0.0/24", Refusal::Own),
        ("10.1.0.1/32", Refusal::Overlong),
    ];
    for (prefix, reason) in cases {
        let mut lab = Net::default();
        let mut config = hub("10.200.0.1", 65000, Phase::Two);
        config.announce = vec![net("10.0.0.0/24")];
        config.import.max_length_v4 = 30;
        let h = lab.add(config);
        let a = lab.add(spoke("10.200.16.1", 65010, prefix));
        lab.connect(a, h);
        lab.run_secs(2);
        assert!(lab.kernel(h, prefix).is_empty());
        let refused = Event::Refused { neighbour: a, prefix: net(prefix), reason };
        assert!(lab.nodes[&h].events.contains(&refused), "{prefix}: {:?}", lab.nodes[&h].events);
    }
}

#[test]
fn a_next_hop_outside_the_tunnel_is_refused() {
    let mut lab = Net::default();
    let h = lab.add(hub("10.200.0.1", 65000, Phase::Two));
    let mut config = spoke("10.200.16.1", 65010, "fd00:1::/48");
    config.local_addresses.push(ip("2001:db8::1"));
    let a = lab.add(config);
    let dual = &mut lab.node(h).speaker;
    assert_eq!(dual.config().networks.len(), 1);
    lab.connect(a, h);
    lab.run_secs(2);
    assert!(lab.nodes[&h].kernel.is_empty());
}

#[test]
fn too_many_prefixes_end_the_session_for_a_while() {
    let mut lab = Net::default();
    let mut config = hub("10.200.0.1", 65000, Phase::Two);
    config.limits.prefixes_dynamic = 3;
    let h = lab.add(config);
    let mut config = spoke("10.200.16.1", 65010, "10.1.0.0/24");
    config.announce = (1..=4).map(|i| net(&format!("10.{i}.0.0/24"))).collect();
    let a = lab.add(config);
    lab.connect(a, h);
    lab.run_secs(30);
    assert_eq!(down(&lab, h), [(DownReason::Sent(Notification::MAXIMUM_PREFIXES), false)]);
    assert!(lab.nodes[&h].kernel.is_empty());
    let now = lab.now;
    assert_eq!(lab.node(h).speaker.handle_accepted(now, a), Err(AcceptError::Barred));
    // It mends its ways, and is welcome again.
    let now = lab.now;
    lab.node(a).speaker.set_announced(now, vec![net("10.1.0.0/24")], &|_, _| true);
    lab.run_secs(60);
    assert!(lab.is_up(h, a));
    assert_eq!(lab.kernel(h, "10.1.0.0/24"), [a]);
}

#[test]
fn errors_of_form_are_answered_with_their_codes() {
    let keepalive = || {
        let mut message = vec![0xff; 16];
        message.extend([0, 19, 4]);
        message
    };
    let open = [&[0xff; 16][..], &[0, 29, 1, 4, 0xfd, 0xf2, 0, 30, 10, 200, 16, 1, 0]].concat();
    let mut unsynchronised = keepalive();
    unsynchronised[0] = 0;
    let cases =
        [(unsynchronised, Notification::NOT_SYNCHRONIZED), (open, Notification::UNEXPECTED_IN_ESTABLISHED)];
    for (bytes, expected) in cases {
        let (mut lab, h, a) = pair();
        lab.inject(a, h, &bytes);
        lab.run(Duration::ZERO);
        assert_eq!(down(&lab, h), [(DownReason::Sent(expected.clone()), false)]);
        assert_eq!(down(&lab, a), [(DownReason::Received(expected), false)]);
        lab.run_secs(5);
        assert!(lab.is_up(a, h), "and it tries again");
    }
}

#[test]
fn a_damaged_route_is_withdrawn_and_the_session_lives() {
    let (mut lab, h, a) = pair();
    // ORIGIN 9 for 10.1.0.0/24, which the hub has.
    let body = [0, 0, 0, 4, 0x40, 1, 1, 9, 24, 10, 1, 0];
    let message = [&[0xff; 16][..], &[0, 31, 2], &body].concat();
    lab.inject(a, h, &message);
    lab.run_secs(1);
    assert!(lab.is_up(h, a));
    assert!(lab.kernel(h, "10.1.0.0/24").is_empty());
    assert!(lab.nodes[&h].events.iter().any(|e| matches!(e, Event::Malformed { .. })));
}

#[test]
fn a_route_refresh_is_answered_with_everything() {
    let (mut lab, h, a) = pair();
    let before = lab.trace.len();
    lab.inject(a, h, &[&[0xff; 16][..], &[0, 23, 5, 0, 1, 0, 1]].concat());
    lab.run(Duration::ZERO);
    let answer: Vec<_> = lab.trace[before..].iter().filter(|(from, ..)| *from == h).collect();
    assert!(answer.iter().any(|(_, _, bytes)| bytes[18] == 2 && bytes.ends_with(&[24, 10, 0, 0])));
    assert!(lab.is_up(h, a));
}

#[test]
fn a_peer_that_reads_nothing_costs_a_window_and_is_dropped() {
    let mut lab = Net::default();
    let mut config = hub("10.200.0.1", 65000, Phase::Two);
    config.announce = (0..20_000_u32)
        .map(|i| net(&format!("10.{}.{}.0/24", 1 + i / 250, i % 250)))
        .filter(|p| !net("10.200.0.0/16").contains(p))
        .collect();
    let h = lab.add(config);
    let now = lab.now;
    let a = ip("10.200.16.1");
    let connection = lab.node(h).speaker.handle_accepted(now, a).unwrap();
    let open = [&[0xff; 16][..], &[0, 29, 1, 4, 0xfd, 0xf2, 0, 30, 10, 200, 16, 1, 0]].concat();
    let keepalive = [&[0xff; 16][..], &[0, 19, 4]].concat();
    let speaker = &mut lab.node(h).speaker;
    speaker.handle_bytes(now, connection, &[open, keepalive.clone()].concat(), &|_, _| true);
    let mut handed_out = 0;
    while let Some(command) = speaker.poll_command() {
        if let bgp::Command::Send { bytes, .. } = command {
            handed_out += bytes.len();
        }
    }
    assert!((64 * 1024..72 * 1024).contains(&handed_out), "{handed_out}");
    // It says that it lives, and reads nothing.
    for _ in 0..7 {
        lab.run_secs(10);
        let now = lab.now;
        lab.node(h).speaker.handle_bytes(now, connection, &keepalive, &|_, _| true);
    }
    assert_eq!(down(&lab, h), [(DownReason::SendHoldExpired, false)]);
}

#[test]
fn status_tells_where_a_session_stands() {
    let (lab, h, a) = pair();
    let status: Vec<_> = lab.nodes[&h].speaker.neighbours().collect();
    let [one] = &status[..] else { panic!("{status:?}") };
    assert_eq!((one.address, one.state, one.asn), (a, State::Established, Some(65010)));
    assert_eq!((one.received, one.announced, one.configured, one.stale), (1, 1, false, false));
}
