//! What the kernel's routes mean for one tunnel. Pure.
//!
//! Two readers: the engine wants to know where a prefix leads without its own shortcuts (it is told of changes); the
//! hairpin of a hub wants every route that is in force.

use crate::kernel::monitor::Change;
use crate::kernel::route::{KernelRoute, Kind, NHRP, TABLE_LOCAL, TunnelRoute};
use dmvpn::action::RouteTarget;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The routes of the kernel, best first per prefix.
#[derive(Debug, Default)]
pub struct Rib {
    interface: u32,
    routes: BTreeMap<IpNet, Vec<KernelRoute>>,
    /// What the engine was told.
    told: BTreeMap<IpNet, RouteTarget>,
}

/// A change of what a prefix leads to.
pub type Told = (IpNet, Option<RouteTarget>);

impl Rib {
    /// An empty table for the tunnel interface with this index.
    #[must_use]
    pub fn new(interface: u32) -> Self {
        Self { interface, ..Self::default() }
    }

    /// The interface has another index now. Returns what changes for the engine.
    pub fn set_interface(&mut self, interface: u32) -> Vec<Told> {
        self.interface = interface;
        self.retell()
    }

    /// Takes a change of the kernel's. Returns what changes for the engine.
    pub fn apply(&mut self, change: Change) -> Vec<Told> {
        match change {
            Change::Snapshot(routes) => {
                self.routes.clear();
                for route in routes.into_iter().filter(is_relevant) {
                    insert(self.routes.entry(route.prefix).or_default(), route);
                }
                self.retell()
            }
            Change::Added { route, replaced } => {
                if !is_relevant(&route) {
                    return Vec::new();
                }
                let prefix = route.prefix;
                let list = self.routes.entry(prefix).or_default();
                // IPv6 tells a multipath route whole, each time it grows.
                let old = list.iter().position(|r| same_slot(r, &route));
                if let (Some(old), true) = (old, replaced || prefix.addr().is_ipv6()) {
                    list.remove(old);
                }
                if !list.contains(&route) {
                    insert(list, route);
                }
                self.retell_one(prefix)
            }
            Change::Removed(route) => {
                let prefix = route.prefix;
                if let Some(list) = self.routes.get_mut(&prefix) {
                    list.retain(|r| {
                        !(same_slot(r, &route) && r.protocol == route.protocol && r.hops == route.hops)
                    });
                    if list.is_empty() {
                        self.routes.remove(&prefix);
                    }
                }
                self.retell_one(prefix)
            }
        }
    }

    /// Everything the engine should know: for an engine that was just made.
    #[must_use]
    pub fn all(&self) -> Vec<Told> {
        self.told.iter().map(|(prefix, target)| (*prefix, Some(*target))).collect()
    }

    /// Every prefix and where it leads now, shortcuts included.
    pub fn in_force(&self) -> impl Iterator<Item = (IpNet, RouteTarget)> + '_ {
        self.routes.iter().filter_map(|(prefix, list)| Some((*prefix, self.target(list.first()?))))
    }

    /// The longest prefix without our own routes of `protocols` by the tunnel that covers `address`, and where it leads.
    #[must_use]
    pub fn underlay_match(&self, address: IpAddr, protocols: &[u8]) -> Option<(IpNet, RouteTarget)> {
        let ours = |route: &KernelRoute| protocols.contains(&route.protocol) && self.by_tunnel(route);
        let route = self.best(address, |route| !ours(route))?;
        Some((route.prefix, self.target(route)))
    }

    /// The prefix of the route in force that leads to `address` by the tunnel, if it does.
    #[must_use]
    pub fn tunnel_match(&self, address: IpAddr) -> Option<IpNet> {
        let route = self.best(address, |_| true)?;
        matches!(self.target(route), RouteTarget::Overlay(_)).then_some(route.prefix)
    }

    /// Of the routes that `admit` lets count, the one by which the kernel would go to `address`.
    pub fn best(&self, address: IpAddr, admit: impl Fn(&KernelRoute) -> bool) -> Option<&KernelRoute> {
        let host = IpNet::from(address);
        (0..=host.prefix_len()).rev().find_map(|len| {
            let prefix = IpNet::new(address, len).ok()?.trunc();
            self.routes.get(&prefix)?.iter().find(|route| admit(route))
        })
    }

    /// Does the kernel hold this route of ours?
    #[must_use]
    pub fn holds(&self, route: &TunnelRoute) -> bool {
        let same = |r: &KernelRoute| {
            (r.protocol, r.metric) == (route.protocol, route.metric)
                && r.hops.iter().any(|h| h.interface == self.interface && h.gateway == Some(route.via))
        };
        self.routes.get(&route.prefix).is_some_and(|list| list.iter().any(same))
    }

    fn retell(&mut self) -> Vec<Told> {
        let wanted: BTreeMap<IpNet, RouteTarget> = self
            .routes
            .iter()
            .filter_map(|(prefix, list)| Some((*prefix, self.engine_target(list)?)))
            .collect();
        let gone = self.told.keys().filter(|p| !wanted.contains_key(p)).map(|p| (*p, None));
        let new = wanted.iter().filter(|(p, t)| self.told.get(p) != Some(t)).map(|(p, t)| (*p, Some(*t)));
        let changes = gone.chain(new).collect();
        self.told = wanted;
        changes
    }

    fn retell_one(&mut self, prefix: IpNet) -> Vec<Told> {
        let target = self.routes.get(&prefix).and_then(|list| self.engine_target(list));
        let before = match target {
            Some(target) => self.told.insert(prefix, target),
            None => self.told.remove(&prefix),
        };
        if before == target { Vec::new() } else { vec![(prefix, target)] }
    }

    fn engine_target(&self, list: &[KernelRoute]) -> Option<RouteTarget> {
        list.iter().find(|r| !(r.protocol == NHRP && self.by_tunnel(r))).map(|r| self.target(r))
    }

    fn target(&self, route: &KernelRoute) -> RouteTarget {
        match route.kind {
            Kind::Local => RouteTarget::Local,
            Kind::Nowhere => RouteTarget::Nowhere,
            Kind::Unicast => match route.hops.iter().find(|h| h.interface == self.interface) {
                Some(hop) => RouteTarget::Overlay(hop.gateway),
                None => RouteTarget::OffOverlay,
            },
        }
    }

    fn by_tunnel(&self, route: &KernelRoute) -> bool {
        route.hops.iter().any(|h| h.interface == self.interface)
    }
}

fn is_relevant(route: &KernelRoute) -> bool {
    meets_overlay(route.prefix.addr())
}

/// Loopback, link-local and multicast addresses never do, and routes to them are not known here.
#[must_use]
pub const fn meets_overlay(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !(a.is_loopback() || a.is_multicast() || a.is_link_local()),
        IpAddr::V6(a) => !(a.is_loopback() || a.is_multicast() || a.is_unicast_link_local()),
    }
}

/// The kernel looks into the local table first, then for the lowest metric.
fn rank(route: &KernelRoute) -> (bool, u32) {
    (route.table != TABLE_LOCAL, route.metric)
}

fn same_slot(a: &KernelRoute, b: &KernelRoute) -> bool {
    (a.table, a.metric) == (b.table, b.metric)
}

fn insert(list: &mut Vec<KernelRoute>, route: KernelRoute) {
    let at = list.partition_point(|r| rank(r) <= rank(&route));
    list.insert(at, route);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::route::{Hop, SHORTCUT_METRIC, TABLE_MAIN};

    const TUNNEL: u32 = 9;

    fn route(prefix: &str, protocol: u8, metric: u32, interface: u32, via: Option<&str>) -> KernelRoute {
        KernelRoute {
            prefix: prefix.parse().unwrap(),
            table: TABLE_MAIN,
            protocol,
            metric,
            kind: Kind::Unicast,
            hops: vec![Hop { interface, gateway: via.map(|v| v.parse().unwrap()) }],
            source: None,
        }
    }

    fn added(route: KernelRoute) -> Change {
        Change::Added { route, replaced: false }
    }

    fn overlay(via: &str) -> Option<RouteTarget> {
        Some(RouteTarget::Overlay(Some(via.parse().unwrap())))
    }

    #[test]
    fn the_engine_never_hears_of_its_own_shortcut() {
        let mut rib = Rib::new(TUNNEL);
        let bgp = route("10.2.0.0/16", 186, 20, TUNNEL, Some("10.200.0.1"));
        let told = rib.apply(added(bgp));
        assert_eq!(told, [("10.2.0.0/16".parse().unwrap(), overlay("10.200.0.1"))]);
        let shortcut = route("10.2.0.0/16", NHRP, SHORTCUT_METRIC, TUNNEL, Some("10.200.17.2"));
        assert_eq!(rib.apply(added(shortcut)), []);
        let in_force: Vec<_> = rib.in_force().collect();
        assert_eq!(in_force, [("10.2.0.0/16".parse().unwrap(), overlay("10.200.17.2").unwrap())]);
    }

    #[test]
    fn a_foreign_route_of_protocol_nhrp_is_told() {
        let mut rib = Rib::new(TUNNEL);
        let told = rib.apply(added(route("10.2.0.0/16", NHRP, 5, 3, Some("192.0.2.1"))));
        assert_eq!(told, [("10.2.0.0/16".parse().unwrap(), Some(RouteTarget::OffOverlay))]);
    }

    #[test]
    fn only_the_best_route_is_told() {
        let mut rib = Rib::new(TUNNEL);
        rib.apply(added(route("10.2.0.0/16", 4, 10, 3, None)));
        assert_eq!(rib.apply(added(route("10.2.0.0/16", 186, 20, TUNNEL, Some("10.200.0.1")))), []);
        let told = rib.apply(Change::Removed(route("10.2.0.0/16", 4, 10, 3, None)));
        assert_eq!(told, [("10.2.0.0/16".parse().unwrap(), overlay("10.200.0.1"))]);
    }

    #[test]
    fn a_replaced_route_does_not_linger() {
        let mut rib = Rib::new(TUNNEL);
        rib.apply(added(route("10.2.0.0/16", 186, 20, TUNNEL, Some("10.200.0.1"))));
        let route = route("10.2.0.0/16", 186, 20, TUNNEL, Some("10.200.0.2"));
        rib.apply(Change::Added { route: route.clone(), replaced: true });
        assert_eq!(rib.apply(Change::Removed(route)), [("10.2.0.0/16".parse().unwrap(), None)]);
    }

    #[test]
    fn a_snapshot_tells_only_differences() {
        let mut rib = Rib::new(TUNNEL);
        let kept = route("10.1.0.0/16", 4, 0, 3, None);
        rib.apply(Change::Snapshot(vec![kept.clone(), route("10.2.0.0/16", 4, 0, 3, None)]));
        let new = route("10.3.0.0/16", 4, 0, 3, None);
        let told = rib.apply(Change::Snapshot(vec![kept, new]));
        assert_eq!(
            told,
            [
                ("10.2.0.0/16".parse().unwrap(), None),
                ("10.3.0.0/16".parse().unwrap(), Some(RouteTarget::OffOverlay)),
            ]
        );
    }

    #[test]
    fn an_own_address_wins_over_any_metric() {
        let mut rib = Rib::new(TUNNEL);
        rib.apply(added(route("10.9.9.9/32", 4, 0, 3, None)));
        let local = KernelRoute {
            table: TABLE_LOCAL,
            kind: Kind::Local,
            metric: 50,
            ..route("10.9.9.9/32", 2, 50, 3, None)
        };
        assert_eq!(rib.apply(added(local)), [("10.9.9.9/32".parse().unwrap(), Some(RouteTarget::Local))]);
    }
}
