use crate::common::*;
use dmvpn::Phase;
use std::net::IpAddr;

/// A spoke gets another address: it registers from there, and traffic to it resumes, by the hub and then directly.
#[test]
fn a_moved_spoke_is_found_again() {
    for phase in BOTH {
        let mut triangle = Triangle::new(51, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let there = net.flow(a, b, 200);
        let back = net.flow(b, a, 200);
        net.run_for(secs(2));
        net.move_to(b, IpAddr::from([203, 0, 113, 77]));
        let moved_at = net.now();
        net.run_for(secs(60));
        for flow in [there, back] {
            let report = net.finish(flow);
            let last = report.lost.last().map_or_else(|| ms(0), |(_, at)| *at - moved_at);
            assert!(last <= secs(2), "{phase:?}: last lost after {last:?}");
            assert_eq!(report.last_way(), Some(&[][..]), "{phase:?}: {:?}", report.ways);
        }
        assert!(net.told(hub, moved_at, |e| {
            matches!(e, dmvpn::Event::PeerRegistered { moved_from: Some(_), .. })
        }));
        sane(&mut net, &[hub, a, b]);
    }
}

/// The same when everything goes by the hub.
#[test]
fn a_moved_spoke_is_reached_by_the_hub() {
    let Triangle { mut net, hub, a, b } = Triangle::new(52, Phase::One);
    let flow = net.flow(a, b, 200);
    net.run_for(secs(2));
    net.move_to(b, IpAddr::from([203, 0, 113, 77]));
    let moved_at = net.now();
    net.run_for(secs(20));
    let report = net.finish(flow);
    let last = report.lost.last().map_or_else(|| ms(0), |(_, at)| *at - moved_at);
    assert!(last <= secs(1), "last lost after {last:?}");
    assert_eq!(report.way_by_way(), [vec![hub]]);
}
