use crate::common::*;
use dmvpn::Phase;

/// A third spoke comes. The hub's configuration has never heard of it; it registers, is reached, and gets a shortcut.
#[test]
fn a_spoke_joins_while_the_hub_is_untouched() {
    let mut triangle = Triangle::new(131, Phase::Three);
    triangle.form_shortcut();
    let Triangle { mut net, hub, a, b } = triangle;
    let old = net.flow(a, b, 200);
    net.run_for(secs(1));
    let c = net.spoke("c", &[hub]);
    assert!(net.run_until(secs(5), |net| is_registered(net, c)));
    net.run_for(secs(1));
    let new = net.flow(c, a, 200);
    net.run_for(secs(5));
    let report = net.finish(new);
    whole(&report);
    assert_eq!(report.way_by_way(), [vec![hub], vec![]]);
    let report = net.finish(old);
    whole(&report);
    assert_eq!(report.way_by_way(), [Vec::new()]);
    sane(&mut net, &[hub, a, b, c]);
}
