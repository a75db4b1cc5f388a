//! Guard against recursive routing: a route by the tunnel must not carry the tunnel's own outer packets. Pure.

use crate::kernel::route::{BGP, KernelRoute, NHRP, STATIC};
use crate::rib::Rib;
use dmvpn::action::RouteTarget;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The underlay address among `underlay` whose packets a route for `prefix` by the tunnel would capture: `prefix`
/// covers it, and nothing more specific leads to it outside the tunnel.
pub fn captured(prefix: IpNet, underlay: &BTreeSet<IpAddr>, rib: &Rib) -> Option<IpAddr> {
    underlay.range(prefix.network()..=prefix.broadcast()).copied().find(|address| {
        match rib.underlay_match(*address, &OURS) {
            Some((known, RouteTarget::OffOverlay | RouteTarget::Local)) => {
                known.prefix_len() <= prefix.prefix_len()
            }
            _ => true,
        }
    })
}

/// Can this route by the tunnel change what the guard says? Ours can't: it looks past them.
#[must_use]
pub fn is_ours(route: &KernelRoute, interface: u32) -> bool {
    OURS.contains(&route.protocol) && route.hops.iter().any(|h| h.interface == interface)
}

const OURS: [u8; 3] = [NHRP, BGP, STATIC];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::monitor::Change;
    use crate::kernel::route::{Hop, Kind, TABLE_MAIN};

    fn rib(prefixes: &[&str]) -> Rib {
        let mut rib = Rib::new(9);
        let routes = prefixes.iter().map(|p| KernelRoute {
            prefix: p.parse().unwrap(),
            table: TABLE_MAIN,
            protocol: 4,
            metric: 0,
            kind: Kind::Unicast,
            hops: vec![Hop { interface: 2, gateway: None }],
            source: None,
        });
        rib.apply(Change::Snapshot(routes.collect()));
        rib
    }

    #[test]
    fn a_default_route_over_the_tunnel_captures_a_hub_behind_the_default_route() {
        let hub: IpAddr = "198.51.100.1".parse().unwrap();
        let all = "0.0.0.0/0".parse().unwrap();
        assert_eq!(captured(all, &BTreeSet::from([hub]), &rib(&["0.0.0.0/0"])), Some(hub));
        assert_eq!(captured(all, &BTreeSet::from([hub]), &rib(&["0.0.0.0/0", "198.51.100.1/32"])), None);
    }

    #[test]
    fn a_prefix_that_covers_no_underlay_address_is_harmless() {
        let hub: IpAddr = "198.51.100.1".parse().unwrap();
        assert_eq!(
            captured("10.0.0.0/8".parse().unwrap(), &BTreeSet::from([hub]), &rib(&["0.0.0.0/0"])),
            None
        );
    }

    #[test]
    fn a_more_specific_route_over_the_tunnel_captures_a_hub_in_a_connected_net() {
        let hub: IpAddr = "198.51.100.1".parse().unwrap();
        assert_eq!(
            captured("198.51.100.0/25".parse().unwrap(), &BTreeSet::from([hub]), &rib(&["198.51.100.0/24"])),
            Some(hub)
        );
        assert_eq!(
            captured("198.51.0.0/16".parse().unwrap(), &BTreeSet::from([hub]), &rib(&["198.51.100.0/24"])),
            None
        );
    }
}
