use crate::common::*;

/// The hub carries the first packets, then the direct path does: none is lost, none comes twice, and there is no third
/// way in between.
#[test]
fn a_shortcut_forms_without_loss() {
    for phase in BOTH {
        for seed in 0..5 {
            let Triangle { mut net, hub, a, b } = Triangle::new(seed, phase);
            let there = net.flow(a, b, 500);
            let back = net.flow(b, a, 500);
            net.run_for(secs(5));
            assert!(net.delay(there).is_some_and(|d| d < ms(30)), "{phase:?}: 20 ms directly, 60 by the hub");
            for flow in [there, back] {
                let report = net.finish(flow);
                whole(&report);
                assert_eq!(report.way_by_way(), [vec![hub], vec![]], "{phase:?}, seed {seed}");
                assert!(report.ways[1].0 < 500, "direct within a second: {:?}", report.ways);
            }
            for id in [a, b] {
                assert!(net.told(id, packet::Instant::ZERO, is_shortcut_up), "{phase:?}: it is told");
            }
            sane(&mut net, &[hub, a, b]);
        }
    }
}
