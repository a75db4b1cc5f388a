//! Probes that lie.

use crate::net::{A, B, MS, Net, S, config, hub_entry, ip, three};
use dmvpn::{Input, Phase, RouteTarget};
use packet::Path;
use packet::probe::{Kind, Probe};

fn probe(net: &mut Net, kind: Kind, token: u64, path: Path) {
    let (source, destination) = (ip("10.200.16.2"), ip("10.200.16.1"));
    let packet = Probe { kind, source, destination, token, opaque: 1 }.to_vec();
    let now = net.now;
    net.sites[A].tunnel.handle_input(now, Input::Echo { path, packet });
    net.drain(A);
}

#[test]
fn a_probe_without_the_token_moves_nothing_and_is_counted() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let before = net.sites[A].actions.len();
    let elsewhere = Path::udp(ip("203.0.113.66"), 4754);
    probe(&mut net, Kind::Request, 1, elsewhere);
    probe(&mut net, Kind::Reply, 2, elsewhere);
    assert_eq!(net.sites[A].actions.len(), before);
    assert_eq!(net.sites[A].tunnel.probe_drops().wrong_token, 2);
}

#[test]
fn what_is_no_probe_or_from_nobody_is_counted() {
    let mut net = three(Phase::Three);
    probe(&mut net, Kind::Request, 1, Path::udp(ip("203.0.113.2"), 4754));
    let now = net.now;
    let path = Path::gre(ip("203.0.113.2"));
    net.sites[A].tunnel.handle_input(now, Input::Echo { path, packet: vec![0; 52] });
    let drops = net.sites[A].tunnel.probe_drops();
    assert_eq!((drops.unknown_prober, drops.no_probe), (1, 1));
}

#[test]
fn another_station_with_the_tunnel_address_of_one_that_went_is_met_by_its_own_paths() {
    let mut net = three(Phase::Three);
    net.talk(3 * S, 20 * MS, (A, "10.1.0.9"), (B, "10.2.0.9"));
    let now = net.now;
    net.sites[B].tunnel.shutdown(now);
    net.drain(B);
    net.run(3 * S);
    net.sites[B].on = false;
    let mut heir = config("heir", "10.200.16.2", "203.0.113.77", Phase::Three);
    heir.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
    let by_hub = RouteTarget::Overlay(Some(ip("10.200.0.1")));
    let heir = net.add(heir, &[("10.2.0.0/24", RouteTarget::OffOverlay), ("10.0.0.0/8", by_hub)], None);
    net.run(2 * S);
    let sent = net.talk(5 * S, 20 * MS, (A, "10.1.0.9"), (heir, "10.2.0.9"));
    net.run(S);
    assert!(net.explain(A, "10.2.0.9").contains("203.0.113.77"), "{}", net.explain(A, "10.2.0.9"));
    net.assert_no_loss(&sent);
}
