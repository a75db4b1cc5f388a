//! Two thousand spokes with sessions to one hub, which is killed: how soon all are back, and what the hub has to
//! remember of each.

use dmvpn::{Event, Phase};
use netsim::{Link, Net, StationId};
use packet::Instant;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SPOKES: usize = 2000;

/// Octets on the hub for each spoke, in all: its session, its registration, its row.
const MOST_STATE: usize = 16 << 10;

/// From the moment the hub is killed, until every spoke is registered again. It is down for the first of them.
const MOST_TIME: Duration = Duration::from_secs(10);

fn in_use() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn registered(net: &Net, hub: StationId, since: Instant) -> usize {
    let new = |(at, event): &&(Instant, Event)| *at >= since && matches!(event, Event::PeerRegistered { .. });
    net.events(hub).iter().filter(new).count()
}

#[test]
fn two_thousand_spokes_are_back_ten_seconds_after_the_hub_was_killed() {
    let mut net = Net::new(1, Phase::One).with_encryption().without_checkpoints();
    net.set_default_link(Link::latency_ms(20).jitter_ms(10).loss(0.001));
    let hub = net.hub("hub");
    for i in 0..SPOKES {
        net.spoke(&format!("s{i}"), &[hub]);
    }
    let begun = net.now();
    assert!(net.run_until(Duration::from_secs(30), |net| registered(net, hub, begun) == SPOKES));
    // Idle, as most are: nothing but their own probes tells them.
    net.run_for(Duration::from_secs(60));

    let killed = net.now();
    net.power_off(hub);
    net.run_for(Duration::from_secs(1));
    net.power_on(hub);
    let back = |net: &Net| registered(net, hub, killed) >= SPOKES;
    let done = net.run_until(MOST_TIME - Duration::from_secs(1), back);
    println!("{} spokes are back after {:.1?}", registered(&net, hub, killed), net.now().since(killed));
    assert!(done, "{} of {SPOKES} spokes are back", registered(&net, hub, killed));

    net.run_for(Duration::from_secs(60));
    assert_eq!(net.tunnel(hub).peers().len(), SPOKES);
    let with = in_use();
    drop(net.take_tunnel(hub));
    let state = (with - in_use()) / SPOKES;
    println!("{state} octets a spoke");
    assert!(state <= MOST_STATE, "{state} octets a spoke");
    assert!(state > 500, "the hub remembers something: {state}");
}
