use crate::common::*;
use dmvpn::Phase;
use netsim::Link;

/// Hosts don't wait until a new spoke is there. The first packets that the hub passes on tell it of a shorter way before
/// it has proven the newcomer's path, or the newcomer that it may believe the hub. These hints come to nothing, and must
/// not hold up the next ones for long.
#[test]
fn a_spoke_that_joins_under_load_is_direct_soon() {
    for seed in 0..12 {
        let Triangle { mut net, hub, a, .. } = Triangle::new(700 + seed, Phase::Three);
        let c = net.spoke("c", &[hub]);
        net.set_link(a, c, Link::latency_ms(20).jitter_ms(5));
        let flows = [net.flow(a, c, 200), net.flow(c, a, 200)];
        assert!(net.run_until(secs(5), |net| is_registered(net, c)));
        let direct = net.run_until(secs(1), |net| flows.iter().all(|flow| net.is_direct(*flow)));
        assert!(direct, "seed {seed}: not within a second of the registration");
    }
}
