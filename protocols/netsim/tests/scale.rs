//! Two thousand spokes and one hub: how long it takes, and what the hub has to remember.

use dmvpn::{Event, Phase, RouteTarget};
use netsim::{Link, Net, StationId};
use packet::Instant;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SPOKES: usize = 2000;

/// Octets of the engine's state on the hub, for each spoke.
const MOST_STATE: usize = 8 << 10;

/// Of one core, for all of it, when optimised.
const MOST_TIME: Duration = Duration::from_secs(20);
/// Unoptimised and checked code takes several times as long.
const MOST_TIME_UNOPTIMISED: Duration = Duration::from_secs(40);

fn in_use() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What this thread has had of a processor: other tests may run beside it.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn count(net: &Net, ids: &[StationId], is: impl Fn(&Event) -> bool + Copy) -> usize {
    ids.iter().filter(|id| net.told(**id, Instant::ZERO, is)).count()
}

#[test]
fn two_thousand_spokes_register_resolve_and_withdraw() {
    let begun = processor_time();
    let mut net = Net::new(1, Phase::Three).without_checkpoints();
    net.set_default_link(Link::latency_ms(20).jitter_ms(10).loss(0.001));
    let hub = net.hub("hub");
    let spokes: Vec<_> = (0..SPOKES).map(|i| net.spoke(&format!("s{i}"), &[hub])).collect();

    // Everybody registers, at the same moment.
    net.run_for(Duration::from_secs(30));
    assert_eq!(count(&net, &spokes, |e| matches!(e, Event::HubUp { .. })), SPOKES);
    assert_eq!(net.tunnel(hub).peers().len(), SPOKES);

    // Everybody talks to somebody, and is talked to.
    let flows: Vec<_> = (0..SPOKES)
        .map(|i| {
            let flow = net.flow(spokes[i], spokes[(i * 7 + 1) % SPOKES], 10);
            net.run_for(Duration::from_millis(2));
            flow
        })
        .collect();
    net.run_for(Duration::from_secs(5));
    let direct = flows.iter().filter(|flow| net.is_direct(**flow)).count();
    assert!(direct >= SPOKES * 99 / 100, "{direct} flows go directly");
    assert!(net.loops().is_empty());

    // Everybody withdraws what lies behind him, and whoever had a shortcut to it leaves it.
    let up = |net: &Net| spokes.iter().map(|id| net.shortcuts(*id).len()).sum::<usize>();
    assert!(up(&net) >= direct);
    for spoke in &spokes {
        let lan = net.lan(*spoke);
        net.set_route(*spoke, lan, Some(RouteTarget::Nowhere));
    }
    net.run_for(Duration::from_secs(5));
    let left: usize = spokes
        .iter()
        .map(|id| net.shortcuts(*id).keys().filter(|prefix| prefix.prefix_len() == 24).count())
        .sum();
    assert_eq!(left, 0, "shortcuts to what was withdrawn");

    let took = processor_time() - begun;
    let most = if cfg!(debug_assertions) { MOST_TIME_UNOPTIMISED } else { MOST_TIME };
    let with = in_use();
    drop(net.take_tunnel(hub));
    let state = (with - in_use()) / SPOKES;
    println!("{took:.1?} of a processor, {state} octets a spoke");
    assert!(took <= most, "{took:?}");
    assert!(state <= MOST_STATE, "{state} octets a spoke");
    assert!(state > 100, "the hub remembers something: {state}");
}
