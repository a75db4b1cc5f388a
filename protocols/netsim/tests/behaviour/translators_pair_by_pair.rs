use crate::common::*;
use dmvpn::Phase;
use netsim::NatKind::{self, EndpointIndependent, PortPreserving, Symmetric};
use netsim::{Link, Net, StationId};

/// Behind what a spoke is; `None`: nothing.
type Behind = Option<NatKind>;

fn spoke(net: &mut Net, name: &str, behind: Behind, hub: StationId) -> StationId {
    match behind {
        Some(kind) => {
            let nat = net.nat(kind);
            net.spoke_behind(name, nat, &[hub])
        }
        None => net.spoke(name, &[hub]),
    }
}

/// Whether a pair gets a direct path. In either case nothing is lost.
fn is_direct(one: Behind, other: Behind, phase: Phase, seed: u64) -> bool {
    let mut net = network(seed, phase);
    net.set_default_link(Link::latency_ms(20).jitter_ms(5));
    let hub = net.hub("hub");
    let a = spoke(&mut net, "a", one, hub);
    let b = spoke(&mut net, "b", other, hub);
    let up = |net: &Net| [a, b].into_iter().all(|id| is_registered(net, id));
    assert!(net.run_until(secs(10), up), "{one:?} and {other:?}: they register");
    net.run_for(secs(1));
    let there = net.flow(a, b, 50);
    let back = net.flow(b, a, 50);
    net.run_for(secs(10));
    let ways = [there, back].map(|flow| {
        let report = net.finish(flow);
        whole(&report);
        report.last_way().map(<[_]>::to_vec)
    });
    assert_eq!(ways[0], ways[1], "{one:?} and {other:?}: both ways alike");
    sane(&mut net, &[hub, a, b]);
    ways[0] == Some(vec![])
}

/// Every pair of kinds that can have a direct path gets one; the others stay with the hub and lose nothing.
#[test]
fn translators_pair_by_pair() {
    let expected = [
        (None, None, true),
        (None, Some(PortPreserving), true),
        (None, Some(EndpointIndependent), true),
        (None, Some(Symmetric), true),
        (Some(PortPreserving), Some(PortPreserving), true),
        (Some(PortPreserving), Some(EndpointIndependent), true),
        (Some(EndpointIndependent), Some(EndpointIndependent), true),
        // The symmetric one comes from a port that nobody could have told, which the other lets in from nobody.
        (Some(PortPreserving), Some(Symmetric), false),
        (Some(EndpointIndependent), Some(Symmetric), false),
        (Some(Symmetric), Some(Symmetric), false),
    ];
    for phase in BOTH {
        for (one, other, direct) in expected {
            assert_eq!(is_direct(one, other, phase, 1), direct, "{phase:?}: {one:?} and {other:?}");
            assert_eq!(is_direct(other, one, phase, 2), direct, "{phase:?}: {other:?} and {one:?}");
        }
    }
}

/// Two spokes behind one translator both register, are told apart, and find each other on their LAN.
#[test]
fn two_spokes_behind_one_translator() {
    for phase in BOTH {
        for (kind, hairpin) in
            [(PortPreserving, false), (PortPreserving, true), (Symmetric, false), (EndpointIndependent, true)]
        {
            let mut net = network(3, phase);
            let hub = net.hub("hub");
            let nat = if hairpin { net.nat_with_hairpin(kind) } else { net.nat(kind) };
            let a = net.spoke_behind("a", nat, &[hub]);
            let b = net.spoke_behind("b", nat, &[hub]);
            let c = net.spoke("c", &[hub]);
            let up = |net: &Net| [a, b, c].into_iter().all(|id| is_registered(net, id));
            assert!(net.run_until(secs(10), up), "{phase:?}, {kind:?}: both register");
            net.run_for(secs(1));
            let flows = [(a, b), (b, a), (c, a), (c, b)].map(|(from, to)| net.flow(from, to, 100));
            net.run_for(secs(20));
            for flow in flows {
                let report = net.finish(flow);
                whole(&report);
                assert_eq!(report.last_way(), Some(&[][..]), "{phase:?}, {kind:?}: {:?}", report.ways);
            }
            sane(&mut net, &[hub, a, b, c]);
        }
    }
}

/// A translator forgets a mapping after a minute without a packet: a spoke with nothing to send must keep its own alive.
#[test]
fn a_quiet_spoke_behind_a_translator_stays_reachable() {
    let mut net = network(4, Phase::One);
    let hub = net.hub("hub");
    let a = net.spoke("a", &[hub]);
    let nat = net.nat(PortPreserving);
    let b = net.spoke_behind("b", nat, &[hub]);
    net.run_for(secs(600));
    let flow = net.flow(a, b, 100);
    net.run_for(secs(1));
    whole(&net.finish(flow));
}
