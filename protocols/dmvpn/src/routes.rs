//! A mirror of the kernel's routes, without our own shortcuts: what decides where a packet would go if there were none.

use crate::RouteTarget;
use ipnet::IpNet;
use nhrp::Route;
use prefix_trie::joint::map::JointPrefixMap;
use std::net::IpAddr;

/// The kernel's routes.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    table: JointPrefixMap<IpNet, RouteTarget>,
}

impl Routes {
    /// A route appeared, changed, or went (`None`). Returns what the prefix led to before.
    pub(crate) fn set(&mut self, prefix: IpNet, target: Option<RouteTarget>) -> Option<RouteTarget> {
        match target {
            Some(target) => self.table.insert(prefix.trunc(), target),
            None => self.table.remove(&prefix.trunc()),
        }
    }

    /// Every route.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, RouteTarget)> {
        self.table.iter().map(|(prefix, target)| (prefix, *target))
    }

    /// What exactly this prefix leads to.
    pub(crate) fn get(&self, prefix: IpNet) -> Option<RouteTarget> {
        self.table.get(&prefix.trunc()).copied()
    }

    /// The route that a packet to `destination` takes: longest prefix match.
    pub(crate) fn lookup(&self, destination: IpAddr) -> Option<(IpNet, RouteTarget)> {
        self.table.get_lpm(&destination.into()).map(|(prefix, target)| (prefix, *target))
    }

    /// Where a packet to `destination` goes, in NHRP's terms.
    pub(crate) fn route(&self, destination: IpAddr) -> Route {
        match self.lookup(destination) {
            None | Some((_, RouteTarget::Nowhere)) => Route::Unreachable,
            // An address of ours on a LAN of ours is answered as a part of that LAN: one shortcut serves both.
            Some((own, RouteTarget::Local)) => match self.lan_around(own) {
                Some(lan) => Route::OffOverlay { prefix: self.answerable(lan, destination) },
                None => Route::Local,
            },
            Some((prefix, RouteTarget::OffOverlay)) => {
                Route::OffOverlay { prefix: self.answerable(prefix, destination) }
            }
            Some((prefix, RouteTarget::Overlay(next_hop))) => {
                Route::Overlay { next_hop: next_hop.unwrap_or(destination), prefix }
            }
        }
    }

    /// Is `address` here, on this node or behind it by another interface? Packets from anywhere else came over the
    /// overlay, and never make us resolve anything (RFC 2332 §6.4).
    pub(crate) fn is_ours(&self, address: IpAddr) -> bool {
        matches!(self.lookup(address), Some((_, RouteTarget::Local | RouteTarget::OffOverlay)))
    }

    /// Is `address` a neighbour on the tunnel network itself, reached without a route of its own?
    pub(crate) fn is_on_link(&self, address: IpAddr) -> bool {
        matches!(self.lookup(address), Some((_, RouteTarget::Overlay(None))))
    }

    /// Would an outer packet to `address` be sent into a tunnel again?
    pub(crate) fn leads_into_the_overlay(&self, address: IpAddr) -> bool {
        matches!(self.lookup(address), Some((_, RouteTarget::Overlay(_))))
    }

    /// Is this tunnel address the next hop of any route?
    pub(crate) fn lead_by(&self, next_hop: IpAddr) -> bool {
        self.table.iter().any(|(_, target)| *target == RouteTarget::Overlay(Some(next_hop)))
    }

    //= rfc2332#6.3
    /// The widest prefix inside `route` that covers `destination` and has nothing in it that leads elsewhere. Of a
    /// default route only the host itself: what else it covers is whatever nobody else has claimed yet.
    fn answerable(&self, route: IpNet, destination: IpAddr) -> IpNet {
        let host = IpNet::from(destination);
        if route.prefix_len() == 0 {
            return host;
        }
        for len in route.prefix_len()..host.prefix_len() {
            let Ok(candidate) = IpNet::new(destination, len).map(|n| n.trunc()) else { break };
            let elsewhere = |(_, target): (IpNet, &RouteTarget)| {
                !matches!(target, RouteTarget::Local | RouteTarget::OffOverlay)
            };
            if !self.table.children(&candidate).any(elsewhere) {
                return candidate;
            }
        }
        host
    }

    /// The route by another interface that an address of ours lies in, if nothing of the overlay comes between.
    fn lan_around(&self, own: IpNet) -> Option<IpNet> {
        let mut outer = own.supernet();
        while let Some(prefix) = outer {
            match self.table.get(&prefix) {
                Some(RouteTarget::OffOverlay) if prefix.prefix_len() > 0 => return Some(prefix),
                Some(RouteTarget::Local) | None => outer = prefix.supernet(),
                Some(_) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RouteTarget::{Local, Nowhere, OffOverlay, Overlay};
    use proptest::prelude::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn routes(of: &[(&str, RouteTarget)]) -> Routes {
        let mut routes = Routes::default();
        for (prefix, target) in of {
            routes.set(net(prefix), Some(*target));
        }
        routes
    }

    fn spoke() -> Routes {
        routes(&[
            ("0.0.0.0/0", OffOverlay),
            ("10.0.0.0/8", Nowhere),
            ("10.200.0.0/16", Overlay(None)),
            ("10.200.16.1/32", Local),
            ("10.1.0.0/16", OffOverlay),
            ("10.1.0.1/32", Local),
            ("10.1.7.0/24", Overlay(Some("10.200.16.9".parse().unwrap()))),
            ("10.2.0.0/16", Overlay(Some("10.200.0.1".parse().unwrap()))),
        ])
    }

    #[test]
    fn the_answer_is_the_widest_prefix_with_nothing_else_in_it() {
        // 10.1.7.0/24 leads over the overlay, so the /16 can't be answered for a destination beside it.
        assert_eq!(spoke().route(ip("10.1.128.9")), Route::OffOverlay { prefix: net("10.1.128.0/17") });
        assert_eq!(spoke().route(ip("10.1.6.1")), Route::OffOverlay { prefix: net("10.1.6.0/24") });
    }

    #[test]
    fn a_lan_with_our_own_address_in_it_is_answered_whole() {
        let routes = routes(&[("192.168.7.0/24", OffOverlay), ("192.168.7.1/32", Local)]);
        assert_eq!(routes.route(ip("192.168.7.9")), Route::OffOverlay { prefix: net("192.168.7.0/24") });
        assert_eq!(routes.route(ip("192.168.7.1")), Route::OffOverlay { prefix: net("192.168.7.0/24") });
    }

    #[test]
    fn our_tunnel_address_is_local_and_not_part_of_a_lan() {
        assert_eq!(spoke().route(ip("10.200.16.1")), Route::Local);
    }

    #[test]
    fn what_only_the_default_route_covers_is_answered_as_a_host() {
        assert_eq!(spoke().route(ip("8.8.8.8")), Route::OffOverlay { prefix: net("8.8.8.8/32") });
    }

    #[test]
    fn an_on_link_destination_is_its_own_next_hop() {
        let route = Route::Overlay { next_hop: ip("10.200.16.2"), prefix: net("10.200.0.0/16") };
        assert_eq!(spoke().route(ip("10.200.16.2")), route);
        assert!(spoke().is_on_link(ip("10.200.16.2")));
        assert!(!spoke().is_on_link(ip("10.2.0.1")));
    }

    #[test]
    fn only_addresses_here_are_ours() {
        assert!(spoke().is_ours(ip("10.1.128.9")) && spoke().is_ours(ip("10.200.16.1")));
        assert!(!spoke().is_ours(ip("10.2.0.1")) && !spoke().is_ours(ip("10.1.7.1")));
        assert!(!spoke().is_ours(ip("10.9.0.1")), "unreachable is not ours");
    }

    #[test]
    fn a_withdrawn_route_uncovers_the_one_around_it() {
        let mut routes = spoke();
        assert_eq!(routes.set(net("10.2.0.0/16"), None), Some(Overlay(Some(ip("10.200.0.1")))));
        assert_eq!(routes.route(ip("10.2.0.1")), Route::Unreachable);
    }

    proptest! {
        #[test]
        fn an_answer_covers_its_destination_and_nothing_of_the_overlay(
            overlay in proptest::collection::vec((any::<u16>(), 17u8..=32), 0..12),
            host in any::<u16>(),
        ) {
            let mut routes = routes(&[("10.1.0.0/16", OffOverlay)]);
            let prefixes: Vec<IpNet> = overlay
                .iter()
                .map(|(low, len)| IpNet::new(IpAddr::V4((0x0a01_0000 | u32::from(*low)).into()), *len).unwrap().trunc())
                .collect();
            for prefix in &prefixes {
                routes.set(*prefix, Some(Overlay(None)));
            }
            let destination = IpAddr::V4((0x0a01_0000 | u32::from(host)).into());
            if let Route::OffOverlay { prefix } = routes.route(destination) {
                prop_assert!(prefix.contains(&destination));
                prop_assert!(prefixes.iter().all(|p| !prefix.contains(p) && !p.contains(&prefix)));
                // Widest: one bit less would take in something of the overlay, or leave the route.
                if prefix.prefix_len() > 16 {
                    let wider = prefix.supernet().unwrap();
                    prop_assert!(prefixes.iter().any(|p| wider.contains(p)));
                }
            } else {
                prop_assert!(prefixes.iter().any(|p| p.contains(&destination)));
            }
        }
    }
}
