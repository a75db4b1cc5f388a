//! IPv4 and IPv6 in one tunnel, and IPv6 beneath it.

use crate::net::{A, B, HUB, MS, Net, S, build_three, hub_entry, ip, net as prefix};
use dmvpn::{Event, Phase, RouteTarget};

fn both(underlay: bool) -> Net {
    let mut net = Net::new();
    let address = |at: usize| ip(["fd00:200::1", "fd00:200::16:1", "fd00:200::16:2"][at]);
    build_three(
        &mut net,
        Phase::Three,
        |at, c| {
            c.networks.push(prefix("fd00:200::/64"));
            c.addresses.push(address(at));
            if underlay {
                c.nbma_address = ip(["2001:db8::1", "2001:db8:a::1", "2001:db8:b::1"][at]);
                if at != HUB {
                    c.hubs = vec![hub_entry(0, "2001:db8::1", 0)];
                }
            }
        },
        [None, None],
    );
    let by = |a: &str| Some(RouteTarget::Overlay(Some(ip(a))));
    net.route(HUB, "fd01::/64", by("fd00:200::16:1"));
    net.route(HUB, "fd02::/64", by("fd00:200::16:2"));
    for (at, lan) in [(A, "fd01::/64"), (B, "fd02::/64")] {
        net.route(at, lan, Some(RouteTarget::OffOverlay));
        net.route(at, "fd00::/8", by("fd00:200::1"));
    }
    net.run(2 * S);
    net
}

#[test]
fn both_versions_of_a_station_are_one_peer() {
    let net = both(false);
    assert_eq!(net.sites[HUB].applied.peers.len(), 2);
    let row = net.row_of(HUB, "10.200.16.1").unwrap();
    assert_eq!(row.addresses, [ip("10.200.16.1"), ip("fd00:200::16:1")]);
    assert_eq!(net.events(A, |e| matches!(e, Event::HubUp { .. })), 1);
    assert_eq!(net.sites[A].applied.peers.len(), 1);
}

#[test]
fn shortcuts_of_both_versions_share_one_path() {
    for underlay in [false, true] {
        let mut net = both(underlay);
        let mut sent = net.talk(3 * S, 10 * MS, (A, "fd01::9"), (B, "fd02::9"));
        sent.extend(net.talk(3 * S, 10 * MS, (A, "10.1.0.9"), (B, "10.2.0.9")));
        net.run(S);
        assert!(net.is_direct(A, "fd02::9"), "{}", net.explain(A, "fd02::9"));
        assert!(net.is_direct(A, "10.2.0.9"), "{}", net.explain(A, "10.2.0.9"));
        net.assert_no_loss(&sent);
        assert_eq!(net.sites[A].applied.peers.len(), 2);
    }
}
