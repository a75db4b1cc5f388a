//! What nobody can make grow without end.

use crate::net::{MS, S, config, hub_entry, ip};
use dmvpn::{Input, Phase, Tunnel};
use packet::Instant;
use std::net::{IpAddr, Ipv4Addr};

#[test]
fn shortcuts_are_bounded_and_those_that_rest_make_room() {
    let mut config = config("a", "10.200.255.1", "203.0.113.1", Phase::Two);
    config.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
    let mut now = Instant::ZERO + S;
    let mut tunnel = Tunnel::new(config, [1; 32], now, 1).unwrap();
    for n in 0..6000u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let address: IpAddr = Ipv4Addr::new(10, 200, high, low).into();
        now += MS;
        tunnel.handle_input(now, Input::NextHopWanted { address });
        while tunnel.poll_action().is_some() {}
    }
    assert_eq!(tunnel.shortcuts().len(), 4096);
    let last = tunnel.explain_path(now, ip("10.200.23.111")).to_string();
    assert!(last.contains("no hub is up"), "{last}");
    let newest = tunnel.shortcuts().iter().any(|s| s.prefix.addr() == ip("10.200.23.111"));
    assert!(newest, "what was wanted last is there");
}
