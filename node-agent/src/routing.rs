//! The seam between the control loop and whoever decides about routes: by hand, or BGP.
//!
//! A routing protocol runs as a task of its own. The loop tells it what to announce and which peers came and went; it
//! tells the loop which routes to hold in the kernel. The loop installs them, unless one would carry the tunnel's own
//! outer packets, and takes them away again when the protocol is gone.

use crate::kernel::route::{BGP, BGP_METRIC, STATIC, STATIC_METRIC, TunnelRoute};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tokio::sync::mpsc;

/// What a routing protocol is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToRouting {
    /// Announce exactly these from now on, this node being the next hop.
    Announce(Vec<IpNet>),
    /// A hub that this node registered with is up: a neighbour to connect to.
    HubUp {
        /// Its tunnel address.
        address: IpAddr,
        /// What it says its identity is.
        identity: Option<String>,
    },
    /// That hub is down.
    HubDown {
        /// Its tunnel address.
        address: IpAddr,
    },
    /// (On a hub) a peer registered: it may connect, and announce within what its identity may claim.
    PeerUp {
        /// Its tunnel address.
        address: IpAddr,
        /// What it says its identity is.
        identity: Option<String>,
        /// Who it has proven to be: then its certificate limits what it may announce.
        proven: Option<claims::Identity>,
    },
    /// (On a hub) its registration ended.
    PeerDown {
        /// Its tunnel address.
        address: IpAddr,
    },
    /// What peers may claim changed.
    Claims(claims::Policy),
    /// End sessions in good order. With `keep_routes`, so that the routes are kept by the others while a successor
    /// starts (graceful restart).
    Shutdown {
        /// Will there be a successor?
        keep_routes: bool,
    },
}

/// What a routing protocol tells.
#[derive(Clone, Debug)]
pub enum FromRouting {
    /// The best way to `prefix` is by this tunnel address. Replaces what was told of the prefix before.
    Install {
        /// Destination.
        prefix: IpNet,
        /// Next hop, a tunnel address.
        via: IpAddr,
    },
    /// There is no way to `prefix` any more.
    Withdraw {
        /// Destination.
        prefix: IpNet,
    },
    /// Everything that was known before a restart has been told anew: routes in the kernel that were not are stale.
    Converged,
    /// The neighbours, after any change.
    Neighbours(Vec<rpc::agent::BgpNeighbour>),
    /// News for people.
    Told {
        /// How bad it is.
        severity: rpc::agent::Severity,
        /// In one word.
        reason: &'static str,
        /// In a sentence.
        message: String,
    },
}

/// A routing protocol that runs.
#[derive(Debug)]
pub struct Routing {
    /// For what it must know.
    pub commands: mpsc::UnboundedSender<ToRouting>,
    /// What it decides.
    pub events: mpsc::Receiver<FromRouting>,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// `routing.static`.
    Static,
    /// BGP.
    Bgp,
}

impl Origin {
    /// Its route protocol in the kernel.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Static => STATIC,
            Self::Bgp => BGP,
        }
    }

    const fn metric(self) -> u32 {
        match self {
            Self::Static => STATIC_METRIC,
            Self::Bgp => BGP_METRIC,
        }
    }

    /// The route as the kernel holds it.
    #[must_use]
    pub const fn route(self, prefix: IpNet, via: IpAddr) -> TunnelRoute {
        TunnelRoute { prefix, via, protocol: self.protocol(), metric: self.metric() }
    }
}

/// The routes that are wanted, and which of them are installed.
#[derive(Debug, Default)]
pub struct Wanted {
    routes: BTreeMap<(Origin, IpNet), Entry>,
    /// What changed since it was last judged.
    unjudged: BTreeSet<(Origin, IpNet)>,
}

#[derive(Debug)]
struct Entry {
    via: IpAddr,
    /// Why it is not installed; `None`: it is.
    refused: Option<String>,
    installed: Option<IpAddr>,
}

/// A change to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteStep {
    /// Add or replace.
    Add(TunnelRoute),
    /// Remove.
    Remove(TunnelRoute),
}

impl Wanted {
    /// Wants a route, in place of one of the same origin and prefix.
    pub fn install(&mut self, origin: Origin, prefix: IpNet, via: IpAddr) {
        let entry =
            self.routes.entry((origin, prefix)).or_insert(Entry { via, refused: None, installed: None });
        entry.via = via;
        self.unjudged.insert((origin, prefix));
    }

    /// Does not want it any more. Returns what that means for the kernel.
    pub fn withdraw(&mut self, origin: Origin, prefix: IpNet) -> Option<RouteStep> {
        let via = self.routes.remove(&(origin, prefix))?.installed?;
        Some(RouteStep::Remove(origin.route(prefix, via)))
    }

    /// Forgets the routes of this origin, and leaves the kernel's as they are: whoever decides next will tell which of
    /// them to keep.
    pub fn abandon(&mut self, origin: Origin) {
        self.routes.retain(|(o, _), _| *o != origin);
    }

    /// Wants exactly these of this origin.
    pub fn replace_all(&mut self, origin: Origin, routes: &[(IpNet, IpAddr)]) -> Vec<RouteStep> {
        let gone: Vec<IpNet> = self
            .routes
            .keys()
            .filter(|(o, p)| *o == origin && !routes.iter().any(|(prefix, _)| prefix == p))
            .map(|(_, p)| *p)
            .collect();
        for (prefix, via) in routes {
            self.install(origin, *prefix, *via);
        }
        gone.into_iter().filter_map(|prefix| self.withdraw(origin, prefix)).collect()
    }

    /// Judges what changed, and says what must change in the kernel. `refusal`: why a prefix must not be routed by the
    /// tunnel, if so.
    pub fn settle(&mut self, refusal: impl Fn(IpNet) -> Option<String>) -> Vec<RouteStep> {
        let mut steps = Vec::new();
        for key in std::mem::take(&mut self.unjudged) {
            let Some(entry) = self.routes.get_mut(&key) else { continue };
            let (origin, prefix) = key;
            let refused = refusal(prefix);
            if refused.is_some() && refused != entry.refused {
                tracing::warn!(%prefix, via = %entry.via, reason = refused.as_deref(), "route not installed");
            }
            entry.refused = refused;
            match (&entry.refused, entry.installed) {
                (Some(_), Some(via)) => {
                    steps.push(RouteStep::Remove(origin.route(prefix, via)));
                    entry.installed = None;
                }
                (None, installed) if installed != Some(entry.via) => {
                    steps.push(RouteStep::Add(origin.route(prefix, entry.via)));
                    entry.installed = Some(entry.via);
                }
                _ => {}
            }
        }
        steps
    }

    /// The grounds of judgement changed: every route must be judged again.
    pub fn doubt(&mut self) {
        self.unjudged.extend(self.routes.keys());
    }

    /// The interface was made anew and holds no route: everything must be installed again.
    pub fn forget_installed(&mut self) {
        for entry in self.routes.values_mut() {
            entry.installed = None;
        }
        self.doubt();
    }

    /// The routes that are installed.
    pub fn all_installed(&self) -> impl Iterator<Item = TunnelRoute> + '_ {
        self.routes.iter().filter_map(|((origin, prefix), e)| Some(origin.route(*prefix, e.installed?)))
    }

    /// The prefixes of this origin that are installed.
    #[must_use]
    pub fn installed(&self, origin: Origin) -> BTreeSet<IpNet> {
        let of_origin =
            self.routes.iter().filter(|((o, _), entry)| *o == origin && entry.installed.is_some());
        of_origin.map(|((_, prefix), _)| *prefix).collect()
    }

    /// For people: prefix, next hop, and why it is not installed.
    pub fn list(&self, origin: Origin) -> impl Iterator<Item = (IpNet, IpAddr, Option<&str>)> {
        let of_origin = self.routes.iter().filter(move |((o, _), _)| *o == origin);
        of_origin.map(|((_, prefix), entry)| (*prefix, entry.via, entry.refused.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    fn hub() -> IpAddr {
        "10.200.0.1".parse().unwrap()
    }

    #[test]
    fn a_route_is_installed_once() {
        let mut wanted = Wanted::default();
        wanted.install(Origin::Static, net("10.0.0.0/8"), hub());
        let route = Origin::Static.route(net("10.0.0.0/8"), hub());
        assert_eq!(wanted.settle(|_| None), [RouteStep::Add(route)]);
        assert_eq!(wanted.settle(|_| None), []);
    }

    #[test]
    fn a_route_that_became_dangerous_is_removed_and_comes_back() {
        let mut wanted = Wanted::default();
        wanted.install(Origin::Bgp, net("0.0.0.0/0"), hub());
        let route = Origin::Bgp.route(net("0.0.0.0/0"), hub());
        wanted.settle(|_| None);
        wanted.doubt();
        assert_eq!(wanted.settle(|_| Some("covers the hub".to_owned())), [RouteStep::Remove(route)]);
        assert_eq!(wanted.list(Origin::Bgp).next().unwrap().2, Some("covers the hub"));
        wanted.doubt();
        assert_eq!(wanted.settle(|_| None), [RouteStep::Add(route)]);
    }

    #[test]
    fn a_withdrawn_route_that_was_never_installed_is_not_removed() {
        let mut wanted = Wanted::default();
        wanted.install(Origin::Bgp, net("10.1.0.0/16"), hub());
        assert_eq!(wanted.withdraw(Origin::Bgp, net("10.1.0.0/16")), None);
    }

    #[test]
    fn a_new_configuration_removes_only_what_it_lacks() {
        let mut wanted = Wanted::default();
        wanted.replace_all(Origin::Static, &[(net("10.1.0.0/16"), hub()), (net("10.2.0.0/16"), hub())]);
        wanted.settle(|_| None);
        let removed = wanted.replace_all(Origin::Static, &[(net("10.2.0.0/16"), hub())]);
        assert_eq!(removed, [RouteStep::Remove(Origin::Static.route(net("10.1.0.0/16"), hub()))]);
        assert_eq!(wanted.settle(|_| None), []);
    }
}
