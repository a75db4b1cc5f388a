//! The hairpin's routes: what a hub's datapath may forward from peer to peer without the kernel. Pure.
//!
//! A route that leaves by the tunnel to a peer with a direct path names that peer. Anything else inside such a route
//! is listed as "not by the tunnel", so that a more specific route out by another interface wins, as in the kernel.
//! What matches nothing goes to the kernel too, so leaving out a route is always safe, only slower.

use dataplane::messages::HairpinRoute;
use dmvpn::action::RouteTarget;
use ipnet::IpNet;
use packet::PeerId;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The most routes a snapshot holds. A hub with more forwards by the kernel.
pub const MAX_ROUTES: usize = 65_536;

/// Computes the snapshot from the routes in force and the peers with a direct path.
#[must_use]
pub fn snapshot(
    routes: impl IntoIterator<Item = (IpNet, RouteTarget)>,
    direct: &BTreeMap<IpAddr, PeerId>,
) -> Vec<HairpinRoute> {
    let mut snapshot = BTreeMap::<IpNet, Option<PeerId>>::new();
    let mut on_link = Vec::new();
    let mut others = Vec::new();
    for (prefix, target) in routes {
        match target {
            RouteTarget::Overlay(Some(via)) => match direct.get(&via) {
                Some(peer) => drop(snapshot.insert(prefix, Some(*peer))),
                None => others.push(prefix),
            },
            RouteTarget::Overlay(None) => on_link.push(prefix),
            RouteTarget::Local | RouteTarget::OffOverlay | RouteTarget::Nowhere => others.push(prefix),
        }
    }
    // Peers themselves, where the tunnel network is on link; a host route of the table has been seen above.
    for (address, peer) in direct {
        if on_link.iter().any(|p| p.contains(address)) {
            snapshot.entry(IpNet::from(*address)).or_insert(Some(*peer));
        }
    }
    let overlay: Vec<IpNet> = snapshot.keys().copied().collect();
    for prefix in others {
        // Only what lies inside an overlay route needs saying. Sorted: a covering prefix stands before what it covers.
        let covered = (0..=prefix.prefix_len()).any(|len| {
            IpNet::new(prefix.addr(), len).is_ok_and(|p| overlay.binary_search(&p.trunc()).is_ok())
        });
        if covered {
            snapshot.entry(prefix).or_insert(None);
        }
    }
    if snapshot.len() > MAX_ROUTES {
        return Vec::new();
    }
    snapshot.into_iter().map(|(prefix, peer)| HairpinRoute { prefix, peer }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    fn via(s: &str) -> RouteTarget {
        RouteTarget::Overlay(Some(s.parse().unwrap()))
    }

    fn peers() -> BTreeMap<IpAddr, PeerId> {
        let id = |index| PeerId { index, generation: 0 };
        BTreeMap::from([("10.200.16.1".parse().unwrap(), id(1)), ("10.200.17.1".parse().unwrap(), id(2))])
    }

    fn peer(snapshot: &[HairpinRoute], prefix: &str) -> Option<Option<u32>> {
        snapshot.iter().find(|r| r.prefix == net(prefix)).map(|r| r.peer.map(|p| p.index))
    }

    #[test]
    fn a_lan_of_a_spoke_is_forwarded_to_that_spoke() {
        let routes =
            [(net("10.200.0.0/16"), RouteTarget::Overlay(None)), (net("10.1.0.0/16"), via("10.200.16.1"))];
        let snapshot = snapshot(routes, &peers());
        assert_eq!(peer(&snapshot, "10.1.0.0/16"), Some(Some(1)));
        assert_eq!(peer(&snapshot, "10.200.17.1/32"), Some(Some(2)));
        assert_eq!(peer(&snapshot, "10.200.0.0/16"), None);
    }

    #[test]
    fn a_more_specific_route_by_another_interface_goes_to_the_kernel() {
        let routes =
            [(net("10.1.0.0/16"), via("10.200.16.1")), (net("10.1.5.0/24"), RouteTarget::OffOverlay)];
        assert_eq!(peer(&snapshot(routes, &peers()), "10.1.5.0/24"), Some(None));
    }

    #[test]
    fn a_route_outside_the_overlay_is_not_listed() {
        let routes = [(net("10.1.0.0/16"), via("10.200.16.1")), (net("0.0.0.0/0"), RouteTarget::OffOverlay)];
        assert_eq!(peer(&snapshot(routes, &peers()), "0.0.0.0/0"), None);
    }

    #[test]
    fn a_next_hop_without_direct_path_is_left_to_the_kernel() {
        let routes = [(net("10.0.0.0/8"), via("10.200.16.1")), (net("10.9.0.0/16"), via("10.200.99.1"))];
        assert_eq!(peer(&snapshot(routes, &peers()), "10.9.0.0/16"), Some(None));
    }

    #[test]
    fn more_routes_than_fit_mean_none() {
        let routes = (0..=MAX_ROUTES as u32).map(|i| {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + (i << 4));
            (IpNet::new(address.into(), 28).unwrap(), via("10.200.16.1"))
        });
        assert!(snapshot(routes, &peers()).is_empty());
    }
}
