use crate::common::*;
use dmvpn::Phase;

/// What a spoke no longer has comes to it by the hub, and its own route for it leads to the hub: the packet must end
/// there instead of going round.
#[test]
fn a_packet_never_goes_back_where_it_came_from() {
    for phase in [Phase::One, Phase::Three] {
        let Triangle { mut net, hub, a, b } = Triangle::new(141, phase);
        let lan = net.lan(b);
        net.set_route(b, lan, None);
        net.set_route_via(b, "10.0.0.0/8".parse().unwrap(), hub);
        let flow = net.flow(a, b, 100);
        net.run_for(secs(20));
        let report = net.finish(flow);
        assert_eq!(report.received, 0);
        sane(&mut net, &[hub, a, b]);
    }
}

/// Two spokes each believe that the other has a prefix, and both have shortcuts: nothing goes round between them.
#[test]
fn two_spokes_that_point_at_each_other() {
    for phase in BOTH {
        let mut triangle = Triangle::new(142, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let nowhere = "10.77.0.0/24".parse().unwrap();
        net.set_route_via(a, nowhere, b);
        net.set_route_via(b, nowhere, a);
        let source = net.host(a);
        let flow = net.flow_between(a, source, "10.77.0.9".parse().unwrap(), 100, 100);
        net.run_for(secs(10));
        assert_eq!(net.finish(flow).received, 0);
        sane(&mut net, &[hub, a, b]);
    }
}

/// Many spokes, many pairs, links that come and go: whatever happens, no packet comes to a station twice.
#[test]
fn a_storm_of_changes_makes_no_loop() {
    for phase in BOTH {
        for seed in 0..2 {
            let mut net = network(seed, phase);
            net.set_default_link(netsim::Link::latency_ms(20).jitter_ms(20).loss(0.02));
            let first = net.hub("first");
            let second = net.hub("second");
            let spokes: Vec<_> = (0..6).map(|i| net.spoke(&format!("s{i}"), &[first, second])).collect();
            net.run_for(secs(5));
            for spoke in &spokes {
                let lan = net.lan(*spoke);
                net.set_route_via(second, lan, *spoke);
            }
            for (i, from) in spokes.iter().enumerate() {
                for to in spokes.iter().skip(i + 1) {
                    net.flow(*from, *to, 10);
                    net.flow(*to, *from, 10);
                }
            }
            for round in 0..12usize {
                let (x, y) = (spokes[round % 6], spokes[(round * 5 + 1) % 6]);
                match round % 4 {
                    0 if x != y => net.cut(x, y),
                    1 => {
                        net.power_off(first);
                        net.run_for(secs(2));
                        net.power_on(first);
                    }
                    2 => {
                        net.kill_control(x);
                        net.run_for(ms(700));
                        net.restart_control(x);
                    }
                    _ => net.cut(x, first),
                }
                net.run_for(secs(3));
                if x != y {
                    net.mend(x, y);
                }
                net.mend(x, first);
            }
            net.run_for(secs(30));
            sane(&mut net, &[]);
        }
    }
}
