//! A flood of handshakes from addresses that don't exist: who is connected notices nothing, and who comes is served.

use lab::attack::{Flood, Forger, udp};
use lab::decode::exchange;
use lab::network::{hub, spoke, start_and_join};
use lab::traffic::Flow;
use lab::wait;
use lab::{Error, Proof, heavy_story};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Handshakes a second, and for how long. The stories run the debug build on a machine that is shared with other stories'
/// builds; `make flood` is the whole of it: the release build, 10,000 a second for 30 seconds.
fn extent() -> (u32, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("DMVPN_FLOOD_RATE").unwrap_or(1_000), number("DMVPN_FLOOD_SECONDS").unwrap_or(8).into())
}

#[test]
fn a_flood_of_spoofed_handshakes_costs_peers_nothing() {
    heavy_story("flood", |lab| {
        let (rate, seconds) = extent();
        let hub1 = hub(1).proven_by(Proof::Certificates).start(lab)?;
        let at_hub = hub1.wire()?;
        let plan = |n| spoke(n, &[1]).proven_by(Proof::Certificates);
        let spokes = start_and_join(lab, &[&hub1], vec![plan(1), plan(2)])?;
        let [a, b] = &spokes[..] else { unreachable!("two spokes") };
        // A real one is the model.
        let real = at_hub.frames().into_iter().find(|f| {
            let ike = lab::decode::Ip::in_frame(&f.data, lab.keys()).and_then(|ip| ip.ike().copied());
            !f.outgoing
                && ike.is_some_and(|m| m.exchange == exchange::INIT && !m.is_response())
                && f.length < 600
        });
        let real = real.ok_or_else(|| Error::other("no IKE_SA_INIT was captured"))?;
        // Behind Ethernet, IPv4 and UDP; with the non-ESP marker.
        let model = real.data[42..].to_vec();
        let hub_at: Ipv4Addr = hub1.underlay.parse().map_err(Error::other)?;
        let forger = Forger::at(lab.internet())?;

        let newcomer = spoke(3, &[1]).proven_by(Proof::Certificates).build(lab)?;
        let before = hub1.agent.memory();
        let flows = [
            Flow::start((&a.host, &a.host_address), (&hub1.host, &hub1.host_address), 7001, 500, 200)?,
            Flow::start((&hub1.host, &hub1.host_address), (&b.host, &b.host_address), 7002, 500, 200)?,
        ];
        let start = Instant::now();
        let flood = Flood::start(forger, rate, move |n| {
            let mut message = model.clone();
            // Behind the marker: the initiator's SPI.
            message[4..12].copy_from_slice(&(n + 1).to_be_bytes());
            let from = Ipv4Addr::from(0x0a64_0000 + u32::try_from(n % 0x00ff_ffff).unwrap_or(0));
            let port = 1024 + u16::try_from(n % 60_000).unwrap_or(0);
            (from, hub_at, 17, udp(port, 4500, &message))
        });
        std::thread::sleep(Duration::from_secs(seconds) / 2);
        let joins = Instant::now();
        newcomer.agent.launch()?;
        wait::until("the newcomer to be up", Duration::from_secs(20), || newcomer.agent.ask().wait_hubs(1))?;
        let took = joins.elapsed();
        std::thread::sleep(Duration::from_secs(seconds).saturating_sub(start.elapsed()));
        let (sent, lasted) = (flood.sent(), start.elapsed());
        drop(flood);
        let grown = hub1.agent.memory().saturating_sub(before);
        println!(
            "{sent} handshakes in {lasted:.1?}; the newcomer took {took:.1?}; {} KiB more memory",
            grown / 1024
        );
        for flow in flows {
            flow.stop().assert_nothing_lost();
        }
        assert!(sent >= u64::from(rate) * seconds * 9 / 10, "only {sent} were sent");
        assert!(took <= Duration::from_secs(3), "the newcomer took {took:?}");
        assert!(grown <= 64 * MIB, "{grown} octets more");
        Ok(())
    });
}
