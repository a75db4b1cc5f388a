use crate::common::*;

/// The direct path dies under load: the hub carries again within a second, it is told why, and the direct path is tried
/// again once it works.
#[test]
fn a_dead_direct_path_falls_back_to_the_hub() {
    for phase in BOTH {
        for seed in 0..3 {
            let mut triangle = Triangle::new(seed, phase);
            triangle.form_shortcut();
            let Triangle { mut net, hub, a, b } = triangle;
            let there = net.flow(a, b, 200);
            let back = net.flow(b, a, 200);
            net.run_for(ms(2000 + 137 * seed));
            net.cut(a, b);
            let cut_at = net.now();
            net.run_for(secs(5));
            for (flow, from) in [(there, a), (back, b)] {
                let report = net.report(flow);
                let lost: Vec<_> = report.lost.iter().filter(|(_, at)| *at < net.now() - ms(100)).collect();
                let last = lost.last().map(|(_, at)| *at - cut_at);
                assert!(
                    last.is_some_and(|d| d <= secs(1)),
                    "{phase:?}, seed {seed}: last lost after {last:?}"
                );
                assert_eq!(report.last_way(), Some(&[hub][..]));
                assert!(report.duplicated.is_empty());
                assert!(net.told(from, cut_at, is_shortcut_down), "{phase:?}: it is told");
            }
            net.mend(a, b);
            let direct = |net: &netsim::Net| net.is_direct(there);
            assert!(net.run_until(secs(120), direct), "{phase:?}, seed {seed}: tried again");
            sane(&mut net, &[]);
        }
    }
}
