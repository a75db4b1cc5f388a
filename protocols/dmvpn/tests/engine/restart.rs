//! Control that is killed and restarted, and changed configurations.

use crate::net::{A, B, HUB, MS, S, hub_entry, ip, net as prefix, three};
use dmvpn::{Phase, RestoreError, StaticPeer, Tunnel};
use packet::Path;

#[test]
fn control_killed_twenty_times_under_load_loses_nothing() {
    let mut net = three(Phase::Three);
    let mut sent = net.talk(3 * S, 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    for round in 0..20 {
        net.restart_control([A, B, HUB][round % 3]);
        sent.extend(net.talk(S, 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9")));
    }
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9") && net.is_direct(B, "10.1.0.9"));
}

#[test]
fn a_restart_while_a_path_is_forming_forms_it() {
    let mut net = three(Phase::Three);
    let mut sent = net.talk(50 * MS, 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    for _ in 0..10 {
        net.restart_control(A);
        net.restart_control(B);
        sent.extend(net.talk(30 * MS, 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9")));
    }
    sent.extend(net.talk(5 * S, 5 * MS, (A, "10.1.0.9"), (B, "10.2.0.9")));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
}

#[test]
fn a_checkpoint_of_another_station_or_version_is_refused() {
    let net = three(Phase::Three);
    let site = &net.sites[A];
    let checkpoint = site.tunnel.checkpoint(net.now);
    let mut other = site.config.clone();
    other.identity = "x.example.com".into();
    let restore = |config, bytes: &[u8]| Tunnel::restore(config, bytes, [1; 32], net.now).err();
    assert_eq!(restore(other, &checkpoint), Some(RestoreError::OtherStation));
    assert_eq!(restore(site.config.clone(), &checkpoint[..9]), Some(RestoreError::Unreadable));
    assert_eq!(restore(site.config.clone(), &[]), Some(RestoreError::Unreadable));
    assert_eq!(restore(site.config.clone(), &checkpoint), None);
}

#[test]
fn the_same_configuration_again_touches_nothing() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let (now, config) = (net.now, net.sites[A].config.clone());
    let before = net.sites[A].actions.len();
    net.sites[A].tunnel.reconfigure(now, config);
    net.drain(A);
    assert_eq!(net.sites[A].actions.len(), before);
}

#[test]
fn a_hub_added_to_the_configuration_leaves_shortcuts_alone() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let (now, mut config) = (net.now, net.sites[A].config.clone());
    config.hubs.push(hub_entry(7, "198.51.100.7", 9));
    net.sites[A].tunnel.reconfigure(now, config.clone());
    net.sites[A].config = config;
    net.drain(A);
    let sent = net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"));
    assert_eq!(net.sites[A].tunnel.hubs().len(), 2);
}

#[test]
fn another_holding_time_keeps_registrations_and_shortcuts() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let (now, mut config) = (net.now, net.sites[A].config.clone());
    config.nhrp.holding_time = 120 * S;
    net.sites[A].tunnel.reconfigure(now, config.clone());
    net.sites[A].config = config;
    net.drain(A);
    let sent = net.talk(200 * S, 100 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    net.run(S);
    net.assert_no_loss(&sent);
    assert!(net.is_direct(A, "10.2.0.9"));
}

#[test]
fn a_static_peer_has_a_row_a_neighbour_and_its_routes_until_it_is_removed() {
    let mut net = three(Phase::Three);
    let (now, mut config) = (net.now, net.sites[HUB].config.clone());
    let plain = config.clone();
    config.static_peers = vec![StaticPeer {
        tunnel_address: ip("10.200.99.1"),
        path: Path::gre(ip("203.0.113.99")),
        prefixes: vec![prefix("10.99.0.0/16"), prefix("203.0.113.0/24")],
    }];
    net.sites[HUB].tunnel.reconfigure(now, config);
    net.drain(HUB);
    assert_eq!(net.row_of(HUB, "10.200.99.1").unwrap().send, Some(Path::gre(ip("203.0.113.99"))));
    assert_eq!(net.sites[HUB].applied.routes.get(&prefix("10.99.0.0/16")), Some(&ip("10.200.99.1")));
    assert!(!net.sites[HUB].applied.routes.contains_key(&prefix("203.0.113.0/24")), "it would recurse");
    net.run(S);
    assert_eq!(net.sites[HUB].applied.multicast.len(), 3);
    let now = net.now;
    net.sites[HUB].tunnel.reconfigure(now, plain);
    net.drain(HUB);
    net.run(5 * S);
    assert!(net.row_of(HUB, "10.200.99.1").is_none());
    assert!(net.sites[HUB].applied.routes.is_empty());
}
