use crate::common::*;
use dmvpn::Phase;

/// In phase 1 everything goes by the hub for ever, and nobody asks for anything else.
#[test]
fn phase_one_stays_with_the_hub() {
    let Triangle { mut net, hub, a, b } = Triangle::new(1, Phase::One);
    let flow = net.flow(a, b, 100);
    net.run_for(secs(60));
    let report = net.finish(flow);
    whole(&report);
    assert_eq!(report.way_by_way(), [vec![hub]]);
    assert!(net.shortcuts(a).is_empty());
    assert!(net.tunnel(a).shortcuts().is_empty());
    sane(&mut net, &[hub, a, b]);
}
