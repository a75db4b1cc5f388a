//! What a peer costs: at most 16 kB in all, whatever it does.

mod pair;

use dmvpn_ikev2::config::Config;
use dmvpn_ikev2::{Address, Endpoint, LocalPort, TransmitKind};
use packet::{Instant, Path};
use pair::{A, B, SharedKey, Side, config};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PEERS: u32 = 100;
const MOST: isize = 16 * 1024;

/// Everything that travels between a spoke and the hub, until nothing does.
fn exchange(now: Instant, hub: &mut Endpoint, spoke: &mut Endpoint, ip: IpAddr) {
    loop {
        let mut moved = false;
        for (from, to, sender) in [(ip, true, 0), (B.ip(), false, 1)] {
            let mut sent = Vec::new();
            let end = if sender == 0 { &mut *spoke } else { &mut *hub };
            while end.poll_event().is_some() {}
            while let Some(transmit) = end.poll_transmit() {
                sent.push(transmit);
            }
            for transmit in sent {
                let TransmitKind::Message(message) = transmit.kind else { continue };
                let from = Address { remote: SocketAddr::new(from, 4500), local: LocalPort::NatTraversal };
                let receiver = if to { &mut *hub } else { &mut *spoke };
                receiver.handle_packet(now, from, &message);
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}

#[test]
fn a_peer_with_four_lanes_costs_at_most_16_kb() {
    let lanes = |side: Side, local| Config { workers: 4, lanes: 4, local: vec![local], ..config(side) };
    let mut now = Instant::from_nanos(1_000_000_000);
    let hub_config = lanes(B, B.ip());
    let mut hub = Endpoint::new(hub_config, Arc::new(SharedKey::new(B)), [1; 32], now).unwrap();
    let mut spokes = Vec::new();
    for index in 0..PEERS {
        let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + index));
        let credentials = SharedKey { name: format!("spoke{index}.example.com"), ..SharedKey::new(A) };
        let mut seed = [2; 32];
        seed[..4].copy_from_slice(&index.to_be_bytes());
        let spoke = Endpoint::new(lanes(A, ip), Arc::new(credentials), seed, now).unwrap();
        spokes.push((ip, spoke));
    }
    // Memory of both ends of each session is counted; the spokes have one session each.
    let region = Region::new(ALLOCATOR);
    for (ip, spoke) in &mut spokes {
        spoke.connect(now, Path::udp(B.ip(), 4500), None);
        exchange(now, &mut hub, spoke, *ip);
        spoke.rekey_ike(now, Path::udp(B.ip(), 4500));
        exchange(now, &mut hub, spoke, *ip);
    }
    let change = region.change();
    let kept = change.bytes_allocated as isize - change.bytes_deallocated as isize + change.bytes_reallocated;
    assert_eq!(hub.sessions().filter(|s| s.children.len() == 4).count(), PEERS as usize);
    // Half of it is the hub's; the hub's alone must stay below.
    let each = kept / PEERS as isize;
    println!("{each} octets for both ends of a session with four lanes, just after a rekey");
    assert!(each / 2 <= MOST, "{each} octets for both ends of a session");
    // Later on what the exchanges left behind is gone.
    now += std::time::Duration::from_secs(100);
    hub.handle_timeout(now);
}
