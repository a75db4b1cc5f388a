use crate::common::*;
use dmvpn::{Event, Phase};
use packet::Instant;

/// A spoke has in its LAN what the underlay uses: a shortcut to that would carry the tunnel's own packets. It is refused
/// and told, and the hub carries.
#[test]
fn a_route_to_the_underlay_is_refused() {
    let mut triangle = Triangle::unregistered(network(91, Phase::Three));
    let (hub, a, b) = (triangle.hub, triangle.a, triangle.b);
    let covers = "203.0.0.0/16".parse().unwrap();
    triangle.net.set_lans(b, &[covers]);
    triangle.register();
    let Triangle { mut net, .. } = triangle;
    net.set_route_via(a, covers, hub);
    let (source, destination) = (net.host(a), net.host(b));
    let flow = net.flow_between(a, source, destination, 100, 100);
    net.run_for(secs(20));
    let report = net.finish(flow);
    whole(&report);
    assert_eq!(report.way_by_way(), [vec![hub]]);
    assert!(!net.shortcuts(a).contains_key(&covers));
    assert!(
        net.told(a, Instant::ZERO, |e| matches!(e, Event::RecursiveRoute { .. })),
        "{:#?}",
        net.events(a)
    );
}
