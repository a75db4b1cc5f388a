//! Who learns what, with which next hop, phase by phase.

mod common;

use bgp::{AsPath, Phase, RemoteAs};
use common::{Net, hub, ip, net, spoke};
use std::net::IpAddr;

/// A hub and two spokes, each with a prefix; everybody is up.
fn star(phase: Phase, asns: [u32; 3], change: impl FnOnce(&mut bgp::Config)) -> (Net, [IpAddr; 3]) {
    let mut lab = Net::default();
    let mut config = hub("10.200.0.1", asns[0], phase);
    config.announce = vec![net("10.0.0.0/24")];
    change(&mut config);
    let h = lab.add(config);
    let a = lab.add(spoke("10.200.16.1", asns[1], "10.1.0.0/24"));
    let b = lab.add(spoke("10.200.16.2", asns[2], "10.2.0.0/24"));
    lab.connect(a, h);
    lab.connect(b, h);
    lab.run_secs(5);
    assert!(lab.is_up(a, h) && lab.is_up(h, a) && lab.is_up(b, h));
    (lab, [h, a, b])
}

#[test]
fn phase_two_keeps_the_spokes_next_hop() {
    let (lab, [h, a, b]) = star(Phase::Two, [65000, 65010, 65020], |_| ());
    assert_eq!(lab.kernel(a, "10.2.0.0/24"), [b]);
    assert_eq!(lab.kernel(b, "10.1.0.0/24"), [a]);
    assert_eq!(lab.kernel(h, "10.1.0.0/24"), [a]);
    assert_eq!(lab.kernel(a, "10.0.0.0/24"), [h]);
    let best = lab.nodes[&a].speaker.best(net("10.2.0.0/24")).unwrap();
    assert_eq!(best.as_path, AsPath::sequence(&[65000, 65020]));
}

#[test]
fn phases_one_and_three_name_the_hub() {
    for phase in [Phase::One, Phase::Three] {
        let (lab, [h, a, b]) = star(phase, [65000, 65010, 65020], |_| ());
        assert_eq!(lab.kernel(a, "10.2.0.0/24"), [h]);
        assert_eq!(lab.kernel(b, "10.1.0.0/24"), [h]);
        assert_eq!(lab.kernel(h, "10.1.0.0/24"), [a]);
    }
}

#[test]
fn a_summary_stands_for_what_it_covers() {
    let summary = |config: &mut bgp::Config| config.summaries = vec![net("10.0.0.0/8")];
    let (mut lab, [h, a, b]) = star(Phase::Three, [65000, 65010, 65020], summary);
    assert_eq!(lab.kernel(a, "10.0.0.0/8"), [h]);
    assert_eq!(lab.nodes[&a].kernel.len(), 1, "{:?}", lab.nodes[&a].kernel);
    let best = lab.nodes[&a].speaker.best(net("10.0.0.0/8")).unwrap();
    assert!(best.atomic_aggregate && best.aggregator == Some((65000, "10.200.0.1".parse().unwrap())));
    assert_eq!(lab.kernel(h, "10.0.0.0/8"), Vec::<IpAddr>::new(), "the hub itself needs no route for it");

    // The last component goes, and the summary with it.
    let now = lab.now;
    lab.node(h).speaker.set_announced(now, vec![], &|_, _| true);
    for spoke in [a, b] {
        lab.node(spoke).speaker.set_announced(now, vec![], &|_, _| true);
    }
    lab.run_secs(1);
    assert!(lab.nodes[&a].kernel.is_empty(), "{:?}", lab.nodes[&a].kernel);
}

#[test]
fn in_phase_two_a_summary_comes_along_with_the_rest() {
    let summary = |config: &mut bgp::Config| config.summaries = vec![net("10.0.0.0/8")];
    let (lab, [h, a, b]) = star(Phase::Two, [65000, 65010, 65020], summary);
    assert_eq!(lab.kernel(a, "10.0.0.0/8"), [h]);
    assert_eq!(lab.kernel(a, "10.2.0.0/24"), [b]);
}

#[test]
fn spokes_that_share_an_asn_hear_of_each_other() {
    for phase in [Phase::One, Phase::Two, Phase::Three] {
        let (mut lab, [h, a, b]) = star(phase, [65000, 65010, 65010], |_| ());
        // Even if the spoke does not put up with its own ASN in a path.
        let strict = |config: &mut bgp::Config| config.import.own_as = false;
        let mut config = spoke("10.200.16.1", 65010, "10.1.0.0/24");
        strict(&mut config);
        lab.restart(config);
        lab.connect(a, h);
        lab.run_secs(5);
        let next_hop = if phase == Phase::Two { b } else { h };
        assert_eq!(lab.kernel(a, "10.2.0.0/24"), [next_hop]);
        let best = lab.nodes[&a].speaker.best(net("10.2.0.0/24")).unwrap();
        assert_eq!(best.as_path, AsPath::sequence(&[65000, 65000]));
    }
}

#[test]
fn in_one_as_the_hub_reflects() {
    for (phase, by_hub) in [(Phase::Two, false), (Phase::Three, true)] {
        let (lab, [h, a, b]) = star(phase, [65000, 65000, 65000], |_| ());
        assert_eq!(lab.kernel(a, "10.2.0.0/24"), [if by_hub { h } else { b }]);
        let best = lab.nodes[&a].speaker.best(net("10.2.0.0/24")).unwrap();
        assert!(best.as_path.is_empty());
        assert_eq!(best.originator_id, Some("10.200.16.2".parse().unwrap()));
        assert_eq!(best.cluster_list, ["10.200.0.1".parse::<std::net::Ipv4Addr>().unwrap()]);
        assert_eq!(best.local_pref, Some(100));
    }
}

#[test]
fn reflected_routes_do_not_circle_between_hubs() {
    let mut lab = Net::default();
    let h1 = lab.add(hub("10.200.0.1", 65000, Phase::Two));
    let h2 = lab.add(hub("10.200.0.2", 65000, Phase::Two));
    let a = lab.add(spoke("10.200.16.1", 65000, "10.1.0.0/24"));
    let b = lab.add(spoke("10.200.16.2", 65000, "10.2.0.0/24"));
    for (from, to) in [(a, h1), (a, h2), (b, h2), (h1, h2)] {
        lab.connect(from, to);
    }
    lab.run_secs(10);
    assert_eq!(lab.kernel(a, "10.2.0.0/24"), [b]);
    assert_eq!(lab.kernel(b, "10.1.0.0/24"), [a]);
    assert_eq!(lab.kernel(h1, "10.2.0.0/24"), [b]);
    let now = lab.now;
    lab.node(b).speaker.shutdown(now);
    lab.run_secs(2);
    for node in [h1, h2, a] {
        assert_eq!(lab.kernel(node, "10.2.0.0/24"), Vec::<IpAddr>::new());
    }
}

#[test]
fn a_spoke_is_no_way_between_two_hubs() {
    let mut lab = Net::default();
    let mut one = hub("10.200.0.1", 65000, Phase::Three);
    one.announce = vec![net("10.8.0.0/24")];
    let h1 = lab.add(one);
    let h2 = lab.add(hub("10.200.0.2", 65001, Phase::Three));
    let a = lab.add(spoke("10.200.16.1", 65010, "10.1.0.0/24"));
    lab.connect(a, h1);
    lab.connect(a, h2);
    lab.run_secs(5);
    assert_eq!(lab.kernel(a, "10.8.0.0/24"), [h1]);
    assert_eq!(lab.kernel(h2, "10.8.0.0/24"), Vec::<IpAddr>::new());
}

#[test]
fn two_hubs_share_the_load_when_asked_to() {
    let mut lab = Net::default();
    let h1 = lab.add(hub("10.200.0.1", 65000, Phase::Three));
    let h2 = lab.add(hub("10.200.0.2", 65000, Phase::Three));
    let mut config = spoke("10.200.16.1", 65010, "10.1.0.0/24");
    config.max_paths = 2;
    let a = lab.add(config);
    let b = lab.add(spoke("10.200.16.2", 65020, "10.2.0.0/24"));
    for (from, to) in [(a, h1), (a, h2), (b, h1), (b, h2)] {
        lab.connect(from, to);
    }
    lab.run_secs(5);
    assert_eq!(lab.kernel(a, "10.2.0.0/24"), [h1, h2]);
    assert_eq!(lab.kernel(b, "10.1.0.0/24"), [h1]);
}

#[test]
fn hubs_behind_hubs_summarise_and_still_reach_each_others_spokes() {
    for asn in [65000, 65001] {
        let mut lab = Net::default();
        let with_summary = |address: &str, asn, lan: &str| {
            let mut config = hub(address, asn, Phase::Three);
            config.announce = vec![net(lan)];
            config.summaries = vec![net("10.0.0.0/8")];
            config
        };
        let upper = lab.add(with_summary("10.200.0.1", 65000, "10.100.1.0/24"));
        let lower = lab.add(with_summary("10.200.0.2", asn, "10.100.2.0/24"));
        let a = lab.add(spoke("10.200.16.1", 65010, "10.1.0.0/24"));
        let b = lab.add(spoke("10.200.16.2", 65020, "10.2.0.0/24"));
        for (from, to) in [(lower, upper), (a, upper), (b, lower)] {
            lab.connect(from, to);
        }
        lab.run_secs(5);
        // a -> upper -> lower -> b, by the specific route that the lower hub sends up.
        assert_eq!(lab.kernel(a, "10.0.0.0/8"), [upper]);
        assert_eq!(lab.kernel(upper, "10.2.0.0/24"), [lower]);
        // b -> lower -> upper -> a, by the upper hub's summary.
        assert_eq!(lab.kernel(b, "10.0.0.0/8"), [lower]);
        assert_eq!(lab.kernel(lower, "10.0.0.0/8"), [upper]);
        assert_eq!(lab.kernel(upper, "10.0.0.0/8"), Vec::<IpAddr>::new(), "no hub sends its summary up");
    }
}

#[test]
fn dual_stack_over_one_session() {
    let mut lab = Net::default();
    let dual = |mut config: bgp::Config, address: &str| {
        config.networks.push(net("fd00:200::/32"));
        config.local_addresses.push(ip(address));
        config
    };
    let h = lab.add(dual(hub("10.200.0.1", 65000, Phase::Two), "fd00:200::1"));
    let mut spoke_a = dual(spoke("10.200.16.1", 65010, "10.1.0.0/24"), "fd00:200::16:1");
    spoke_a.announce.push(net("fd00:1::/48"));
    let a = lab.add(spoke_a);
    let b = lab.add(dual(spoke("10.200.16.2", 65020, "fd00:2::/48"), "fd00:200::16:2"));
    lab.connect(a, h);
    lab.connect(b, h);
    lab.run_secs(5);
    assert_eq!(lab.kernel(b, "fd00:1::/48"), [ip("fd00:200::16:1")]);
    assert_eq!(lab.kernel(a, "fd00:2::/48"), [ip("fd00:200::16:2")]);
    assert_eq!(lab.kernel(b, "10.1.0.0/24"), [a]);
    let now = lab.now;
    lab.node(a).speaker.set_announced(now, vec![], &|_, _| true);
    lab.run_secs(1);
    assert!(lab.nodes[&b].kernel.is_empty());
}

#[test]
fn ipv4_prefixes_over_an_ipv6_only_tunnel() {
    let mut lab = Net::default();
    let v6 = |mut config: bgp::Config, address: &str| {
        config.networks = vec![net("fd00:200::/32")];
        config.listen_ranges = config.networks.clone();
        config.local_addresses = vec![ip(address)];
        config
    };
    let h = lab.add(v6(hub("10.200.0.1", 65000, Phase::Two), "fd00:200::1"));
    let a = lab.add(v6(spoke("10.200.16.1", 65010, "10.1.0.0/24"), "fd00:200::16:1"));
    let b = lab.add(v6(spoke("10.200.16.2", 65020, "10.2.0.0/24"), "fd00:200::16:2"));
    lab.connect(a, h);
    lab.connect(b, h);
    lab.run_secs(5);
    assert_eq!(lab.kernel(a, "10.2.0.0/24"), [b]);
}

#[test]
fn neighbours_of_another_class_are_refused() {
    let (mut lab, [h, ..]) = star(Phase::Two, [65000, 65010, 65020], |c| {
        c.remote_as = RemoteAs::Only(vec![65000..=65999]);
    });
    let c = lab.add(spoke("10.200.16.3", 64999, "10.3.0.0/24"));
    lab.connect(c, h);
    lab.run_secs(3);
    assert!(!lab.is_up(h, c));
    let refused = bgp::DownReason::Received(bgp::Notification::BAD_PEER_AS);
    assert!(
        lab.nodes[&c].events.contains(&bgp::Event::Failed { neighbour: h, reason: refused }),
        "{:?}",
        lab.nodes[&c].events
    );
}

#[test]
fn a_new_prefix_is_told_and_taken_back() {
    let (mut lab, [_, a, b]) = star(Phase::Two, [65000, 65010, 65020], |_| ());
    let now = lab.now;
    let both = vec![net("10.1.0.0/24"), net("192.168.7.0/24")];
    lab.node(a).speaker.set_announced(now, both, &|_, _| true);
    lab.run_secs(1);
    assert_eq!(lab.kernel(b, "192.168.7.0/24"), [a]);
    let now = lab.now;
    lab.node(a).speaker.set_announced(now, vec![net("10.1.0.0/24")], &|_, _| true);
    lab.run_secs(1);
    assert_eq!(lab.kernel(b, "192.168.7.0/24"), Vec::<IpAddr>::new());
    assert_eq!(lab.kernel(b, "10.1.0.0/24"), [a]);
}
