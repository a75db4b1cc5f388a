//! Control processes restart, and the kernels' tables don't move.

mod common;

use bgp::{Config, DownReason, Event, Phase, Restart};
use common::{Net, hub, net, spoke};
use std::net::IpAddr;
use std::time::Duration;

struct Lab {
    net: Net,
    hub: IpAddr,
    a: IpAddr,
    b: IpAddr,
}

fn hub_config() -> Config {
    hub("10.200.0.1", 65000, Phase::Two)
}

fn a_config() -> Config {
    spoke("10.200.16.1", 65010, "10.1.0.0/24")
}

fn restarted(mut config: Config, expected: &[IpAddr]) -> Config {
    config.restart = Some(Restart { expected: expected.to_vec(), deferral: Duration::from_secs(60) });
    config
}

fn lab() -> Lab {
    let mut net = Net::default();
    let hub = net.add(hub_config());
    let a = net.add(a_config());
    let b = net.add(spoke("10.200.16.2", 65020, "10.2.0.0/24"));
    net.connect(a, hub);
    net.connect(b, hub);
    net.run_secs(5);
    for node in net.nodes.values_mut() {
        node.changes.clear();
        node.events.clear();
    }
    Lab { net, hub, a, b }
}

impl Lab {
    fn event(&self, node: IpAddr, wanted: impl Fn(&Event) -> bool) -> bool {
        self.net.nodes[&node].events.iter().any(wanted)
    }

    fn nothing_changed(&self, node: IpAddr) {
        assert!(self.net.nodes[&node].changes.is_empty(), "{:?}", self.net.nodes[&node].changes);
    }
}

#[test]
fn a_spoke_restarts_and_nobody_moves() {
    let mut lab = lab();
    lab.net.restart(restarted(a_config(), &[lab.hub]));
    lab.net.run_secs(2);
    assert!(lab.event(lab.hub, |e| matches!(e, Event::Down { reason: DownReason::Closed, stale: true, .. })));
    assert_eq!(lab.net.kernel(lab.hub, "10.1.0.0/24"), [lab.a]);
    let (a, hub) = (lab.a, lab.hub);
    lab.net.connect(a, hub);
    lab.net.run_secs(5);
    assert!(lab.net.is_up(lab.a, lab.hub));
    assert!(lab.event(lab.a, |e| *e == Event::Settled));
    lab.nothing_changed(lab.hub);
    lab.nothing_changed(lab.b);
    assert_eq!(lab.net.kernel(lab.a, "10.2.0.0/24"), [lab.b]);
    assert!(!lab.event(lab.hub, |e| matches!(e, Event::StaleRemoved { .. })));
}

#[test]
fn a_hub_restarts_and_nobody_moves() {
    let mut lab = lab();
    // What its kernel still holds names those it must wait for.
    lab.net.restart(restarted(hub_config(), &[lab.a, lab.b]));
    lab.net.run_secs(30);
    assert!(lab.event(lab.hub, |e| *e == Event::Settled));
    lab.nothing_changed(lab.a);
    lab.nothing_changed(lab.b);
    assert_eq!(lab.net.kernel(lab.hub, "10.1.0.0/24"), [lab.a]);
}

#[test]
fn a_hub_waits_for_all_before_it_marks_the_end() {
    let mut lab = lab();
    // b is cut off while the hub restarts, and comes back later than a.
    lab.net.dead.insert(lab.b);
    lab.net.restart(restarted(hub_config(), &[lab.a, lab.b]));
    lab.net.run_secs(15);
    assert!(lab.net.is_up(lab.a, lab.hub));
    assert!(!lab.event(lab.hub, |e| *e == Event::Settled));
    assert_eq!(lab.net.kernel(lab.a, "10.2.0.0/24"), [lab.b], "a keeps what the hub has not heard of yet");
    let b = lab.b;
    lab.net.dead.remove(&b);
    lab.net.break_connections(b);
    lab.net.run_secs(45);
    assert!(lab.event(lab.hub, |e| *e == Event::Settled));
    lab.nothing_changed(lab.a);
}

#[test]
fn one_that_does_not_come_back_holds_up_nobody_forever() {
    let mut lab = lab();
    lab.net.dead.insert(lab.b);
    lab.net.restart(restarted(hub_config(), &[lab.a, lab.b]));
    lab.net.run_secs(61);
    assert!(lab.event(lab.hub, |e| *e == Event::Settled));
    lab.net.run_secs(1);
    assert!(lab.net.kernel(lab.a, "10.2.0.0/24").is_empty());
}

#[test]
fn stale_routes_go_when_the_restart_time_is_over() {
    let mut lab = lab();
    lab.net.dead.insert(lab.a);
    let hub = lab.hub;
    // The connection breaks, as when the machine resets, and nobody is there any more.
    let a = lab.a;
    lab.net.break_connections(a);
    lab.net.run_secs(119);
    assert_eq!(lab.net.kernel(hub, "10.1.0.0/24"), [lab.a]);
    lab.net.run_secs(2);
    assert!(lab.net.kernel(hub, "10.1.0.0/24").is_empty());
    assert!(lab.net.kernel(lab.b, "10.1.0.0/24").is_empty());
    assert!(lab.event(hub, |e| *e == Event::StaleRemoved { neighbour: a, routes: 1 }));
}

#[test]
fn what_a_restarted_spoke_no_longer_announces_goes_with_its_end_of_rib() {
    let mut lab = lab();
    let mut config = restarted(a_config(), &[lab.hub]);
    config.announce = vec![net("10.9.0.0/24")];
    lab.net.restart(config);
    let (a, hub) = (lab.a, lab.hub);
    lab.net.connect(a, hub);
    lab.net.run_secs(5);
    assert!(lab.net.kernel(hub, "10.1.0.0/24").is_empty());
    assert_eq!(lab.net.kernel(hub, "10.9.0.0/24"), [a]);
}

#[test]
fn a_node_that_lost_its_kernel_says_so_and_is_not_believed_for_long() {
    let mut lab = lab();
    // It restarts without a word of what its kernel holds: the machine booted.
    lab.net.restart(a_config());
    let (a, hub) = (lab.a, lab.hub);
    lab.net.connect(a, hub);
    lab.net.run_secs(2);
    assert!(lab.event(hub, |e| *e == Event::StaleRemoved { neighbour: a, routes: 1 }));
    assert_eq!(lab.net.kernel(hub, "10.1.0.0/24"), [a], "it announces again what it has");
}

#[test]
fn a_session_that_only_breaks_moves_nobody() {
    let mut lab = lab();
    let a = lab.a;
    lab.net.break_connections(a);
    lab.net.run_secs(10);
    assert!(lab.net.is_up(lab.hub, a));
    for node in [lab.hub, lab.a, lab.b] {
        lab.nothing_changed(node);
    }
}

#[test]
fn twenty_restarts_in_a_row_move_nobody() {
    let mut lab = lab();
    for _ in 0..20 {
        lab.net.restart(restarted(a_config(), &[lab.hub]));
        let (a, hub) = (lab.a, lab.hub);
        lab.net.connect(a, hub);
        lab.net.run_secs(3);
        lab.net.restart(restarted(hub_config(), &[lab.a, lab.b]));
        lab.net.run_secs(5);
    }
    lab.net.run_secs(60);
    lab.nothing_changed(lab.b);
    assert_eq!(lab.net.kernel(lab.hub, "10.1.0.0/24"), [lab.a]);
    assert_eq!(lab.net.kernel(lab.a, "10.2.0.0/24"), [lab.b]);
}

#[test]
fn a_speaker_that_expects_nobody_is_settled_at_once() {
    let mut net = Net::default();
    let hub = net.add(restarted(hub_config(), &[]));
    net.run_secs(0);
    assert!(net.nodes[&hub].events.contains(&Event::Settled));
}

#[test]
fn without_the_capability_nothing_is_kept() {
    let mut net = Net::default();
    let hub = net.add(hub_config());
    let mut config = a_config();
    config.graceful.restart_time = Duration::ZERO;
    let a = net.add(config);
    net.connect(a, hub);
    net.run_secs(3);
    assert_eq!(net.kernel(hub, "10.1.0.0/24"), [a]);
    net.break_connections(a);
    net.run(Duration::ZERO);
    assert!(net.kernel(hub, "10.1.0.0/24").is_empty());
}
