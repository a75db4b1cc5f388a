use crate::common::*;

/// The underlay is IPv6.
#[test]
fn ipv6_carries() {
    for phase in BOTH {
        let mut triangle = Triangle::unregistered(network(111, phase).with_underlay_v6());
        triangle.register();
        let Triangle { mut net, hub, a, b } = triangle;
        let flow = net.flow(a, b, 200);
        net.run_for(secs(5));
        let report = net.finish(flow);
        whole(&report);
        assert_eq!(report.way_by_way(), [vec![hub], vec![]], "{phase:?}");
        sane(&mut net, &[hub, a, b]);
    }
}

/// The overlay is IPv4 and IPv6 at once.
#[test]
fn ipv6_is_carried() {
    for phase in BOTH {
        let mut triangle = Triangle::unregistered(network(112, phase).with_overlay_v6());
        triangle.register();
        let Triangle { mut net, hub, a, b } = triangle;
        let flows = [net.flow_v6(a, b, 200), net.flow(a, b, 200), net.flow_v6(b, a, 200)];
        net.run_for(secs(8));
        for flow in flows {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.way_by_way(), [vec![hub], vec![]], "{phase:?}");
        }
        sane(&mut net, &[hub, a, b]);
    }
}
