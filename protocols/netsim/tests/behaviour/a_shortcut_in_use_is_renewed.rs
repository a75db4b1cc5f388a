use crate::common::*;

/// Traffic through several holding times stays on the direct path without a gap.
#[test]
fn a_shortcut_in_use_is_renewed() {
    for phase in BOTH {
        let mut triangle = Triangle::unregistered(network(4, phase));
        for id in [triangle.hub, triangle.a, triangle.b] {
            triangle.net.configure(id, |c| c.nhrp.holding_time = secs(30));
        }
        triangle.register();
        let Triangle { mut net, hub, a, b } = triangle;
        let there = net.flow(a, b, 100);
        let back = net.flow(b, a, 100);
        net.run_for(secs(200));
        for flow in [there, back] {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.way_by_way(), [vec![hub], vec![]], "{phase:?}: never by the hub again");
        }
        sane(&mut net, &[hub, a, b]);
    }
}

/// The same when packets flow one way only.
#[test]
fn a_shortcut_in_use_one_way_is_renewed() {
    for phase in BOTH {
        let mut triangle = Triangle::unregistered(network(4, phase));
        for id in [triangle.hub, triangle.a, triangle.b] {
            triangle.net.configure(id, |c| c.nhrp.holding_time = secs(30));
        }
        triangle.register();
        let Triangle { mut net, hub, a, b } = triangle;
        let flow = net.flow(a, b, 100);
        net.run_for(secs(200));
        let report = net.finish(flow);
        whole(&report);
        assert_eq!(report.way_by_way(), [vec![hub], vec![]], "{phase:?}");
        sane(&mut net, &[hub, a, b]);
    }
}
