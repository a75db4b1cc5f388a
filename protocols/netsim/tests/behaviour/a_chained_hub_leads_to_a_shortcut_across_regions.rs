use crate::common::*;
use dmvpn::Phase;
use netsim::{Link, Net};

/// Two regions, each with a hub, below a third: a spoke of one finds a spoke of the other directly.
#[test]
fn a_chained_hub_leads_to_a_shortcut_across_regions() {
    for seed in 0..5 {
        let mut net = network(seed, Phase::Three);
        net.set_default_link(Link::latency_ms(15).jitter_ms(3));
        let top = net.hub("top");
        let west = net.chained_hub("west", &[top]);
        let east = net.chained_hub("east", &[top]);
        let a = net.spoke("a", &[west]);
        let b = net.spoke("b", &[east]);
        let up = |net: &Net| [west, east, a, b].into_iter().all(|id| is_registered(net, id));
        assert!(net.run_until(secs(20), up), "everybody registers");
        net.run_for(secs(1));
        let there = net.flow(a, b, 200);
        let back = net.flow(b, a, 200);
        net.run_for(secs(10));
        for (flow, via) in [(there, vec![west, top, east]), (back, vec![east, top, west])] {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.ways.first().map(|w| w.1.clone()), Some(via), "seed {seed}");
            assert_eq!(report.last_way(), Some(&[][..]), "seed {seed}: {:?}", report.ways);
        }
        sane(&mut net, &[top, west, east, a, b]);
    }
}
