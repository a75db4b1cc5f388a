use crate::common::*;
use netsim::{Link, Net};

/// A third of all datagrams is lost, others come twice or late: registration and shortcut come about nevertheless, and
/// nothing loops.
#[test]
fn a_lossy_network_still_converges() {
    for phase in BOTH {
        for seed in 0..10 {
            let mut net = network(seed, phase);
            let bad =
                Link { duplication: 0.2, reordering: 0.2, ..Link::latency_ms(20).jitter_ms(20).loss(0.3) };
            net.set_default_link(bad);
            let hub = net.hub("hub");
            let a = net.spoke("a", &[hub]);
            let b = net.spoke("b", &[hub]);
            let up = |net: &Net| [a, b].into_iter().all(|id| is_registered(net, id));
            // Every other attempt fails, and they become rare: of seven in two minutes, all do once in a hundred times.
            assert!(net.run_until(secs(400), up), "{phase:?}, seed {seed}: they register");
            let flow = net.flow(a, b, 50);
            // The path is so bad that it may well be left again.
            let direct = |net: &Net| net.is_direct(flow);
            assert!(net.run_until(secs(120), direct), "{phase:?}, seed {seed}: a shortcut forms");
            net.set_default_link(Link::latency_ms(20));
            net.run_for(secs(120));
            assert_eq!(net.last_way(flow), Some(&[][..]), "{phase:?}, seed {seed}: and holds");
            assert!(net.loops().is_empty());
            sane(&mut net, &[hub, a, b]);
        }
    }
}

/// Copies of datagrams and overtaken ones alone change nothing.
#[test]
fn duplicates_and_late_comers_do_no_harm() {
    for phase in BOTH {
        let mut net = network(41, phase);
        net.set_default_link(Link { reordering: 0.3, ..Link::latency_ms(20).jitter_ms(5) });
        let hub = net.hub("hub");
        let a = net.spoke("a", &[hub]);
        let b = net.spoke("b", &[hub]);
        net.run_for(secs(5));
        let flow = net.flow(a, b, 200);
        net.run_for(secs(60));
        let report = net.finish(flow);
        whole(&report);
        assert_eq!(report.way_by_way(), [vec![hub], vec![]], "{phase:?}");
        sane(&mut net, &[hub, a, b]);
    }
}
