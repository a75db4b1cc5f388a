//! The way to the API server stays off the overlay.
//!
//! Its address is mostly one of the cluster's Service network, which a route by a tunnel (`10.0.0.0/8`) may cover, or a
//! protected prefix. Before kube-proxy translates it, that is where the kernel believes packets go: so a connection would
//! get the tunnel's address, and stall when the tunnel goes; or the kernel would find no way. A route to this one
//! address, the way that there is without us, keeps the agent, and whoever else on this node asks the API server,
//! apart from what the agent is told to change.

use crate::disturbances::{self, Disturbances};
use crate::kernel::Kernel;
use crate::kernel::monitor::{self, Change};
use crate::kernel::route::{KernelRoute, Kind, Way};
use crate::rib::{Rib, meets_overlay};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Until the kernel is asked again for what it did not do.
const RETRY: Duration = Duration::from_secs(10);

/// Sees to the route while the handle lives. It stays when that is dropped: a successor goes on with it.
pub fn start(server: IpAddr, disturbances: Disturbances) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut keeper = Keeper {
            server,
            disturbances,
            rib: Rib::default(),
            tunnels: BTreeSet::new(),
            held: None,
            refused: None,
        };
        loop {
            keeper.keep().await;
            tokio::time::sleep(RETRY).await;
        }
    }))
}

struct Keeper {
    server: IpAddr,
    disturbances: Disturbances,
    rib: Rib,
    /// The interfaces that lead into overlays.
    tunnels: BTreeSet<u32>,
    /// The route that this process made or found.
    held: Option<Way>,
    /// What the kernel did not do, and why.
    refused: Option<String>,
}

impl Keeper {
    /// Until the kernel says no more.
    async fn keep(&mut self) {
        let opened = Kernel::open().and_then(|kernel| Ok((monitor::watch(kernel.clone())?, kernel)));
        let (mut changes, kernel) = match opened {
            Ok(opened) => opened,
            Err(error) => return tracing::warn!(%error, "the way to the API server is not watched"),
        };
        loop {
            // What was refused is tried again, also when nothing changes.
            let patience = if self.refused.is_some() { RETRY } else { Duration::MAX };
            match timeout(patience, changes.recv()).await {
                Ok(Some(change)) => self.hear(change, &kernel).await,
                Ok(None) => return,
                Err(_) => {}
            }
            while let Ok(change) = changes.try_recv() {
                self.hear(change, &kernel).await;
            }
            self.settle(&kernel).await;
        }
    }

    async fn hear(&mut self, change: Change, kernel: &Kernel) {
        if matches!(change, Change::Snapshot(_)) {
            match kernel.links().await {
                Ok(links) => {
                    self.tunnels =
                        links.iter().filter(|link| link.is_tunnel()).map(|link| link.index).collect();
                }
                Err(error) => tracing::warn!(%error, "cannot read the interfaces"),
            }
        }
        self.rib.apply(change);
    }

    /// Brings the kernel to what is right now.
    async fn settle(&mut self, kernel: &Kernel) {
        let present = self.rib.best(self.server, KernelRoute::is_to_server).and_then(KernelRoute::way);
        let wanted = detour(&self.rib, self.server, &self.tunnels);
        // What we made is what is there, also if the kernel should tell it in other words: else we would make it for ever.
        if present == wanted || (present.is_some() && self.held == wanted) {
            (self.held, self.refused) = (wanted, None);
            return;
        }
        let server = self.server;
        let done = match (wanted, present) {
            (Some(way), _) => {
                let lost = present.is_none() && self.held == Some(way);
                let done = kernel.add_server_route(server, &way).await;
                if lost && done.is_ok() {
                    self.disturbances.note(disturbances::SERVER_ROUTE);
                    tracing::warn!(%server, "somebody removed the route to the API server: put it back");
                }
                done
            }
            (None, Some(way)) => kernel.remove_server_route(server, &way).await,
            (None, None) => Ok(()),
        };
        match done {
            Ok(()) => (self.held, self.refused) = (wanted, None),
            Err(error) => {
                let why = error.to_string();
                if self.refused.as_ref() != Some(&why) {
                    tracing::warn!(why, "the way to the API server may lead by a tunnel; it is tried again");
                }
                self.refused = Some(why);
            }
        }
    }
}

/// How the server is reached without us, where this node is in an overlay; `None`: no route of ours is needed.
fn detour(rib: &Rib, server: IpAddr, tunnels: &BTreeSet<u32>) -> Option<Way> {
    if !meets_overlay(server) {
        return None;
    }
    let ours = |route: &KernelRoute| {
        route.is_to_server()
            || route.protects()
            || route.hops.iter().any(|hop| tunnels.contains(&hop.interface))
    };
    // Before the first route by a tunnel is there: a connection keeps the address that it began with.
    let in_overlay = !tunnels.is_empty() || rib.best(server, KernelRoute::protects).is_some();
    let without_us = rib.best(server, |route| !ours(route) && route.kind != Kind::Nowhere)?;
    let is_own = without_us.kind == Kind::Local;
    // A route to just this address is better than any that we make.
    let is_its_own = without_us.prefix.prefix_len() == without_us.prefix.max_prefix_len();
    if in_overlay && !is_own && !is_its_own { without_us.way() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::route::{
        BGP, Hop, SERVER, SERVER_METRIC, STATIC, TABLE_LOCAL, TABLE_MAIN, WORST_METRIC,
    };

    const SERVER_ADDRESS: &str = "10.96.0.1";
    const TUNNEL: u32 = 9;

    fn route(prefix: &str, protocol: u8, metric: u32, interface: u32, gateway: &str) -> KernelRoute {
        let gateway = gateway.parse().ok();
        let hops = vec![Hop { interface, gateway }];
        let (table, kind) = (TABLE_MAIN, Kind::Unicast);
        let source = "192.0.2.7".parse().ok().filter(|_| interface == 2);
        KernelRoute { prefix: prefix.parse().unwrap(), table, protocol, metric, kind, hops, source }
    }

    fn default_route() -> KernelRoute {
        route("0.0.0.0/0", 3, 0, 2, "192.0.2.254")
    }

    fn summary() -> KernelRoute {
        route("10.0.0.0/8", BGP, 20, TUNNEL, "10.200.0.1")
    }

    fn protected() -> KernelRoute {
        let unicast = route("10.0.0.0/8", STATIC, WORST_METRIC, 0, "");
        KernelRoute { kind: Kind::Nowhere, hops: Vec::new(), ..unicast }
    }

    fn detour_of(routes: Vec<KernelRoute>, tunnels: &[u32]) -> Option<Way> {
        detour_to(SERVER_ADDRESS, routes, tunnels)
    }

    fn detour_to(server: &str, routes: Vec<KernelRoute>, tunnels: &[u32]) -> Option<Way> {
        let mut rib = Rib::default();
        rib.apply(Change::Snapshot(routes));
        detour(&rib, server.parse().unwrap(), &tunnels.iter().copied().collect())
    }

    #[test]
    fn a_node_with_a_tunnel_reaches_the_server_as_without_it() {
        let by_default = default_route().way();
        assert_eq!(detour_of(vec![default_route()], &[TUNNEL]), by_default);
        assert_eq!(detour_of(vec![default_route(), summary()], &[TUNNEL]), by_default);
        assert_eq!(detour_of(vec![default_route(), protected()], &[]), by_default);
        let on_link = route("10.96.0.0/16", 2, 0, 2, "");
        assert_eq!(detour_of(vec![default_route(), on_link.clone(), summary()], &[TUNNEL]), on_link.way());
    }

    #[test]
    fn our_own_route_is_no_reason_to_keep_it_and_follows_the_default_route() {
        let ours = route("10.96.0.1/32", SERVER, SERVER_METRIC, 2, "192.0.2.1");
        assert_eq!(detour_of(vec![default_route(), ours.clone()], &[]), None);
        assert_eq!(detour_of(vec![default_route(), ours, summary()], &[TUNNEL]), default_route().way());
    }

    #[test]
    fn where_there_is_no_other_way_or_a_better_one_none_is_made() {
        assert_eq!(detour_of(vec![summary(), protected()], &[TUNNEL]), None);
        let by_hand = route("10.96.0.1/32", 4, 0, 3, "");
        assert_eq!(detour_of(vec![default_route(), by_hand], &[TUNNEL]), None);
        // As kube-proxy's IPVS mode has all Services.
        let own = KernelRoute { table: TABLE_LOCAL, kind: Kind::Local, ..route("10.96.0.1/32", 2, 0, 4, "") };
        assert_eq!(detour_of(vec![default_route(), own, summary()], &[TUNNEL]), None);
    }

    #[test]
    fn a_node_in_no_overlay_is_left_alone() {
        assert_eq!(detour_of(vec![default_route()], &[]), None);
    }

    #[test]
    fn a_server_on_this_node_or_its_link_is_none_of_the_overlays_business() {
        for server in ["127.0.0.1", "169.254.20.1", "::1", "fe80::1"] {
            assert_eq!(detour_to(server, vec![default_route(), summary()], &[TUNNEL]), None, "{server}");
        }
    }
}
