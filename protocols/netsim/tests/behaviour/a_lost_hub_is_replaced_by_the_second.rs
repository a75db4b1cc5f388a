use crate::common::*;
use dmvpn::{Event, Phase};
use netsim::{Link, Net, StationId};

fn two_hubs(seed: u64, phase: Phase) -> (Net, [StationId; 2], [StationId; 3]) {
    let mut net = network(seed, phase);
    net.set_default_link(Link::latency_ms(20).jitter_ms(5));
    let first = net.hub("first");
    let second = net.hub("second");
    let hubs = [first, second];
    let spokes = ["a", "b", "c"].map(|name| net.spoke(name, &hubs));
    let both = |net: &Net| {
        spokes.iter().all(|id| {
            let up = |e: &&(packet::Instant, Event)| matches!(e.1, Event::HubUp { .. });
            net.events(*id).iter().filter(up).count() == 2
        })
    };
    assert!(net.run_until(secs(20), both), "everybody registers with both");
    // What a routing protocol would do: the second hub knows the way to the spokes too.
    for spoke in spokes {
        let lan = net.lan(spoke);
        net.set_route_via(second, lan, spoke);
    }
    net.run_for(secs(1));
    (net, hubs, spokes)
}

/// The hub dies. Shortcuts lose nothing; what went by the hub goes by the second within a second.
#[test]
fn a_lost_hub_is_replaced_by_the_second() {
    for phase in BOTH {
        let (mut net, [first, second], [a, b, c]) = two_hubs(11, phase);
        let direct = net.flow(a, b, 200);
        net.run_for(secs(5));
        assert_eq!(net.last_way(direct), Some(&[][..]));
        // A pair that has no direct path.
        net.cut(a, c);
        let by_hub = net.flow(a, c, 200);
        net.run_for(secs(30));
        assert_eq!(net.last_way(by_hub), Some(&[first][..]));
        net.power_off(first);
        let lost_at = net.now();
        net.run_for(secs(20));
        let report = net.finish(direct);
        whole(&report);
        assert_eq!(report.way_by_way(), [vec![first], vec![]], "{phase:?}: the shortcut never noticed");
        let report = net.finish(by_hub);
        assert_eq!(report.last_way(), Some(&[second][..]), "{phase:?}");
        let last = report.lost.last().map(|(_, at)| *at - lost_at);
        assert!(last.is_some_and(|d| d <= secs(1)), "{phase:?}: last lost after {last:?}");
        assert!(net.told(a, lost_at, |e| matches!(e, Event::HubDown { .. })), "{phase:?}: it is told");
        sane(&mut net, &[second, a, b, c]);
    }
}

/// The better hub comes back: traffic returns to it, and nothing is lost by that.
#[test]
fn a_better_hub_that_returns_takes_over_without_loss() {
    let (mut net, [first, second], [a, b, _]) = two_hubs(12, Phase::One);
    net.power_off(first);
    net.run_for(secs(5));
    let flow = net.flow(a, b, 200);
    net.run_for(secs(2));
    net.power_on(first);
    let back = |net: &Net| net.last_way(flow) == Some(&[first][..]);
    assert!(net.run_until(secs(120), back), "it returns");
    let report = net.finish(flow);
    whole(&report);
    assert_eq!(report.way_by_way(), [vec![second], vec![first]]);
}

/// New shortcuts form by the second hub when the first is gone.
#[test]
fn a_shortcut_forms_by_the_second_hub() {
    for phase in BOTH {
        let (mut net, [first, second], [a, b, _]) = two_hubs(13, phase);
        net.power_off(first);
        net.run_for(secs(5));
        let flow = net.flow(a, b, 200);
        net.run_for(secs(10));
        let report = net.finish(flow);
        whole(&report);
        assert_eq!(report.way_by_way(), [vec![second], vec![]], "{phase:?}");
    }
}
