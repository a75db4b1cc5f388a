use crate::common::*;
use netsim::Link;

/// Packets pass from one spoke to the other, but not back: no echo returns, so neither may use the path.
#[test]
fn a_half_open_path_carries_nothing() {
    for phase in BOTH {
        let Triangle { mut net, hub, a, b } = Triangle::new(8, phase);
        net.set_link_one_way(b, a, Link::latency_ms(20).cut());
        let there = net.flow(a, b, 200);
        let back = net.flow(b, a, 200);
        net.run_for(secs(30));
        for flow in [there, back] {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.way_by_way(), [vec![hub]], "{phase:?}");
        }
        sane(&mut net, &[hub, a, b]);
    }
}
