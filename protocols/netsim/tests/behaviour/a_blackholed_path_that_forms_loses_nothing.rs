use crate::common::*;
use dmvpn::Event;

/// The spokes can't reach each other at all. The hub carries on as if nothing had been tried, and the reason is told.
#[test]
fn a_blackholed_path_that_forms_loses_nothing() {
    for phase in BOTH {
        let Triangle { mut net, hub, a, b } = Triangle::new(7, phase);
        net.cut(a, b);
        let there = net.flow(a, b, 200);
        let back = net.flow(b, a, 200);
        net.run_for(secs(60));
        for flow in [there, back] {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.way_by_way(), [vec![hub]], "{phase:?}");
        }
        let failed = |event: &Event| matches!(event, Event::ShortcutFailed { .. });
        assert!(net.told(a, packet::Instant::ZERO, failed), "{phase:?}: it is told");
        sane(&mut net, &[hub, a, b]);
    }
}
