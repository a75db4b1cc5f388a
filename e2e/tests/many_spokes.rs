//! Many spokes at one hub: what each of them costs it, and how soon all are back when it has died.

use lab::crowd::Crowd;
use lab::network::hub;
use lab::wait;
use lab::{End, Error, Lab, Proof, Result, Uplink, heavy_story, story};
use serde_json::json;
use std::time::{Duration, Instant};

/// Octets of memory for each peer: the agent's (IKE, NHRP, the engine) and the datapath's.
const MOST_MEMORY: u64 = 16 << 10;
/// From the moment the hub is killed until every spoke is registered again.
const MOST_TIME: Duration = Duration::from_secs(10);

/// So many are worth measuring.
const MANY: u16 = 1_000;

/// How many. The stories run the debug build on a machine that is shared; `make scale` is the whole of it: the release
/// build and 2,000 spokes.
fn size() -> u16 {
    std::env::var("DMVPN_SCALE_SPOKES").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

#[test]
fn spokes_are_back_ten_seconds_after_the_hub_was_killed_and_cost_it_little() {
    match size() {
        // Alone on the machine only where it measures.
        few if few < MANY => story("scale", |lab| come_and_come_back(lab, few)),
        many => heavy_story("scale", |lab| come_and_come_back(lab, many)),
    }
}

fn come_and_come_back(lab: &Lab, size: u16) -> Result {
    let quiet = json!({"security": {"exportKeys": false}});
    let hub1 = hub(1).proven_by(Proof::Certificates).without_bgp().tuned(|m| m.with(quiet)).start(lab)?;
    hub1.agent.ask().wait_ready()?;
    let (node, _) = lab.internet().attach("crowd", &["198.51.100.50"], &Uplink::default())?;
    let address = |text: &str| text.parse().map_err(Error::other);
    let (at, to) = (address("198.51.100.50")?, address(&hub1.underlay)?);
    let pki = lab.pki()?;
    let registered = |crowds: &[&Crowd], size: u16, most: u64| {
        let (begun, mut parts) = (Instant::now(), [10, 50, 90, 99].into_iter().peekable());
        wait::until("every spoke to be registered", Duration::from_secs(most), || {
            let there = hub1.agent.ask().tunnel()?.registrations;
            let up: usize = crowds.iter().map(|crowd| crowd.up()).sum();
            while let Some(part) = parts.next_if(|part| there * 100 >= u32::from(size) * part) {
                println!("{part} of 100 were registered after {:.1?}", begun.elapsed());
            }
            if there == u32::from(size) && up == usize::from(size) {
                return Ok(());
            }
            Err(Error::other(format!("{there} of {size}; {up} think so")))
        })
    };
    // Until it has settled: retransmissions, probes, checkpoints.
    let settle = || std::thread::sleep(Duration::from_secs(5));
    // What the first cost is not what each costs: they fill the workers' buffers, which are there in any case.
    let first = size / 10;
    let early = Crowd::start(&node, &pki, at, to, 0..first)?;
    registered(&[&early], first, 60)?;
    settle();
    let before = hub1.agent.memory();
    let begun = Instant::now();
    let late = Crowd::start(&node, &pki, at, to, first..size)?;
    let all = [&early, &late];
    registered(&all, size, 120)?;
    println!("{} more spokes were there after {:.1?}", size - first, begun.elapsed());
    settle();
    let each = hub1.agent.memory().saturating_sub(before) / u64::from(size - first);
    println!("{each} octets of memory for each of them");

    let killed = Instant::now();
    hub1.agent.kill_datapath()?;
    hub1.agent.end(End::Kill)?;
    hub1.agent.launch()?;
    registered(&all, size, 60)?;
    let took = killed.elapsed();
    println!("all were back {took:.1?} after the hub was killed");
    assert!(took <= MOST_TIME, "{took:?}");
    // A few peers don't pay for what a process needs in any case.
    assert!(size < MANY || each <= MOST_MEMORY, "{each} octets for each peer");
    Ok(())
}
