use crate::common::*;
use dmvpn::Event;

/// The hub loses its power and comes back with no memory: shortcuts carry on, and the spokes register again by
/// themselves.
#[test]
fn a_hub_restart_loses_no_shortcut() {
    for phase in BOTH {
        let mut triangle = Triangle::new(21, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let there = net.flow(a, b, 200);
        let back = net.flow(b, a, 200);
        net.run_for(secs(1));
        net.power_off(hub);
        net.run_for(secs(10));
        net.power_on(hub);
        let restarted_at = net.now();
        let registered = |net: &netsim::Net| {
            let is = |e: &&(packet::Instant, Event)| {
                e.0 > restarted_at && matches!(e.1, Event::PeerRegistered { .. })
            };
            net.events(hub).iter().filter(is).count() >= 2
        };
        assert!(net.run_until(secs(30), registered), "{phase:?}: they register again");
        net.run_for(secs(30));
        for flow in [there, back] {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.way_by_way(), [Vec::new()], "{phase:?}");
        }
        sane(&mut net, &[hub, a, b]);
    }
}
