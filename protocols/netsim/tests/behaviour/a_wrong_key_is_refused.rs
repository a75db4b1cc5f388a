use crate::common::*;
use dmvpn::{Event, Phase};
use packet::Instant;

/// A spoke with the wrong NHRP key is not registered, both sides are told, and the others don't suffer.
#[test]
fn a_wrong_key_is_refused() {
    let mut net = network(71, Phase::Three);
    let hub = net.hub("hub");
    let a = net.spoke("a", &[hub]);
    let b = net.spoke("b", &[hub]);
    let wrong = net.spoke("wrong", &[hub]);
    for id in [hub, a, b] {
        net.configure(id, |c| c.nhrp.authentication = Some(b"secret1".to_vec()));
    }
    net.configure(wrong, |c| c.nhrp.authentication = Some(b"secret2".to_vec()));
    net.run_for(secs(30));
    assert!(is_registered(&net, a) && is_registered(&net, b));
    assert!(!is_registered(&net, wrong));
    assert!(net.told(hub, Instant::ZERO, |e| matches!(e, Event::RegistrationDenied { .. })));
    let flow = net.flow(a, b, 100);
    net.run_for(secs(5));
    let report = net.finish(flow);
    whole(&report);
    assert_eq!(report.way_by_way(), [vec![hub], vec![]]);
}
