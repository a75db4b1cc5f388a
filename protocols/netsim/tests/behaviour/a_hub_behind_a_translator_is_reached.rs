use crate::common::*;
use dmvpn::Phase;
use netsim::{NatKind, Net};

/// A hub behind a 1:1 translator is reached at its advertised address, also by a spoke behind a translator of its own.
#[test]
fn a_hub_behind_a_translator_is_reached() {
    let mut net = network(101, Phase::Three);
    let front = net.nat(NatKind::OneToOne);
    let hub = net.hub_behind("hub", front);
    let home = net.nat(NatKind::PortPreserving);
    let a = net.spoke("a", &[hub]);
    let b = net.spoke_behind("b", home, &[hub]);
    let up = |net: &Net| [a, b].into_iter().all(|id| is_registered(net, id));
    assert!(net.run_until(secs(10), up));
    net.run_for(secs(1));
    let there = net.flow(a, b, 200);
    let back = net.flow(b, a, 200);
    net.run_for(secs(10));
    for flow in [there, back] {
        let report = net.finish(flow);
        whole(&report);
        assert_eq!(report.way_by_way(), [vec![hub], vec![]]);
    }
    sane(&mut net, &[hub, a, b]);
}
