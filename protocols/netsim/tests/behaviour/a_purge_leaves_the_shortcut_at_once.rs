use crate::common::*;
use dmvpn::{Phase, RouteTarget};

/// What lies behind a spoke is withdrawn: whoever had a shortcut to it leaves it at once, long before it expires.
#[test]
fn a_withdrawn_prefix_is_purged() {
    let mut triangle = Triangle::new(5, Phase::Three);
    triangle.form_shortcut();
    let Triangle { mut net, hub, a, b } = triangle;
    let flow = net.flow(a, b, 100);
    net.run_for(secs(1));
    let lan = net.lan(b);
    assert!(net.shortcuts(a).contains_key(&lan));
    net.set_route(b, lan, Some(RouteTarget::Nowhere));
    let withdrawn_at = net.now();
    let gone = |net: &netsim::Net| !net.shortcuts(a).contains_key(&lan);
    assert!(net.run_until(secs(1), gone), "the shortcut is left at once");
    assert!(net.told(a, withdrawn_at, is_shortcut_down));
    net.set_route(b, lan, Some(RouteTarget::OffOverlay));
    net.run_for(secs(120));
    assert_eq!(net.last_way(flow), Some(&[][..]), "and comes back with the prefix");
    sane(&mut net, &[hub, a, b]);
}

/// The same prefix moves to another spoke: traffic follows, and nothing is lost if both can deliver meanwhile.
#[test]
fn a_prefix_that_moves_takes_its_traffic_along_without_loss() {
    let mut triangle = Triangle::unregistered(network(6, Phase::Three));
    let c = triangle.net.spoke("c", &[triangle.hub]);
    let lan = triangle.net.lan(triangle.b);
    triangle.register();
    triangle.form_shortcut();
    let Triangle { mut net, hub, a, b } = triangle;
    let flow = net.flow(a, b, 500);
    net.run_for(secs(2));
    // It is multihomed first; then the hub prefers the other; then the first withdraws.
    net.set_lans(c, &[lan]);
    net.set_route(c, lan, Some(RouteTarget::OffOverlay));
    net.run_for(ms(100));
    net.set_route_via(hub, lan, c);
    net.run_for(ms(100));
    net.set_route_via(b, lan, c);
    net.run_for(secs(20));
    let report = net.finish(flow);
    whole(&report);
    assert_eq!(report.last_way(), Some(&[][..]), "directly to the new place: {:?}", report.ways);
    assert_eq!(net.shortcuts(a).get(&lan), Some(&net.tunnel_address(c)));
    sane(&mut net, &[hub, a, b, c]);
}

/// A spoke takes its leave: its peers forget it at once.
#[test]
fn a_spoke_that_shuts_down_is_forgotten_at_once() {
    for phase in BOTH {
        let mut triangle = Triangle::new(5, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let flow = net.flow(a, b, 100);
        net.run_for(secs(1));
        net.shut_down(b);
        assert!(net.run_until(secs(5), |net| net.tunnel(b).is_shut_down()), "{phase:?}");
        let (gone_at, address) = (net.now(), net.tunnel_address(b));
        assert!(
            net.told(
                hub,
                gone_at - secs(6),
                |e| matches!(e, dmvpn::Event::PeerUnregistered { address: a, .. } if *a == address)
            ),
            "{phase:?}: the hub is told"
        );
        net.power_off(b);
        net.run_for(secs(1));
        assert!(net.told(a, gone_at - secs(6), is_shortcut_down), "{phase:?}: left");
        assert!(net.shortcuts(a).is_empty());
        let _ = net.finish(flow);
        sane(&mut net, &[hub, a]);
    }
}
