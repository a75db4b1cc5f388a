use crate::common::*;
use claims::Class;
use dmvpn::Phase;

/// A spoke answers for a prefix that its identity may not have: nobody makes a shortcut of it, and the hub carries.
#[test]
fn a_foreign_prefix_is_not_believed() {
    let mut triangle = Triangle::unregistered(network(81, Phase::Three));
    let (hub, a, b) = (triangle.hub, triangle.a, triangle.b);
    let (lan_a, lan_b) = (triangle.net.lan(a), triangle.net.lan(b));
    let class = |identity: &str, prefix| Class {
        identity: identity.to_owned(),
        tunnel_addresses: vec![],
        prefixes: vec![prefix],
    };
    // b may have the LAN of a (so it is known), but not its own.
    for id in [hub, a, b] {
        let all = "10.100.0.0/16".parse().unwrap();
        let admission =
            vec![class("a.example.com", lan_a), class("b.example.com", lan_a), class("hub.example.com", all)];
        triangle.net.configure(id, |c| c.admission = admission);
    }
    triangle.register();
    let Triangle { mut net, .. } = triangle;
    let flow = net.flow(a, b, 100);
    net.run_for(secs(30));
    let report = net.finish(flow);
    whole(&report);
    assert_eq!(report.way_by_way(), [vec![hub]]);
    assert!(!net.shortcuts(a).contains_key(&lan_b));
}
