use crate::common::*;

/// Nobody uses a shortcut: it goes after the idle timeout. Somebody does again: it comes back. Not a packet is lost by
/// either.
#[test]
fn an_idle_shortcut_is_given_up_and_comes_back() {
    for phase in BOTH {
        for seed in 0..4 {
            let mut triangle = Triangle::new(seed, phase);
            triangle.form_shortcut();
            let Triangle { mut net, hub, a, b } = triangle;
            let idle_since = net.now();
            // One packet now and then, just as the shortcut goes, falls into every gap there may be.
            net.run_for(ms(59_000 + 400 * seed));
            let around = net.flow(a, b, 20);
            net.run_for(ms(300));
            whole(&net.finish(around));
            net.run_for(secs(120));
            assert!(net.told(a, idle_since, is_shortcut_down), "{phase:?}: given up");
            assert!(net.shortcuts(a).is_empty() && net.shortcuts(b).is_empty());
            let there = net.flow(a, b, 500);
            let back = net.flow(b, a, 500);
            net.run_for(secs(10));
            for flow in [there, back] {
                let report = net.finish(flow);
                whole(&report);
                assert_eq!(report.last_way(), Some(&[][..]), "{phase:?}: comes back");
            }
            sane(&mut net, &[hub, a, b]);
        }
    }
}

/// The kernel's neighbour goes stale in its own time; a trickle of packets through the moment when the shortcut goes must
/// find its way.
#[test]
fn a_trickle_survives_the_end_of_a_shortcut() {
    for phase in BOTH {
        let mut triangle = Triangle::new(3, phase);
        for id in [triangle.a, triangle.b] {
            triangle.net.configure(id, |c| c.idle_timeout = secs(5));
        }
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        // A packet every 7 s: longer than the idle timeout.
        let source = net.host(a);
        let destination = net.host(b);
        for _ in 0..20 {
            let flow = net.flow_between(a, source, destination, 1, 100);
            net.run_for(ms(500));
            whole(&net.finish(flow));
            net.run_for(ms(5500));
        }
        sane(&mut net, &[hub, a, b]);
    }
}
