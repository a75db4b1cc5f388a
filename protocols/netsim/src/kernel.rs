//! The kernel of a station, as far as the overlay knows it: routes, and neighbours on the tunnel interface.

use dmvpn::RouteTarget;
use ipnet::IpNet;
use packet::peer::{BY_HUB_MAC, Mac};
use packet::{Instant, PeerId};
use prefix_trie::joint::map::JointPrefixMap;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long Linux believes an answer (`base_reachable_time`), and how long a stale one is used before it asks
/// (`delay_first_probe_time`).
const REACHABLE: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_secs(5);

/// Routes and neighbours.
#[derive(Default)]
pub(crate) struct Kernel {
    routes: JointPrefixMap<IpNet, RouteTarget>,
    shortcuts: JointPrefixMap<IpNet, IpAddr>,
    neighbours: BTreeMap<IpAddr, Neighbour>,
}

#[derive(Clone, Copy, Debug)]
enum Neighbour {
    Permanent(Mac),
    Learnt {
        mac: Mac,
        /// When it was last answered; `None`: never, it was made stale by hand.
        answered: Option<Instant>,
        /// Since when a stale one has been in use.
        delayed: Option<Instant>,
    },
}

/// What a frame gets as destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// This.
    Known(Mac),
    /// The kernel asks on the interface first. Tell it the answer by [`Kernel::learn`].
    Ask,
}

impl Kernel {
    /// Adds, changes or removes a route that is not a shortcut.
    pub(crate) fn set_route(&mut self, prefix: IpNet, target: Option<RouteTarget>) {
        match target {
            Some(target) => drop(self.routes.insert(prefix, target)),
            None => drop(self.routes.remove(&prefix)),
        }
    }

    /// Every route that is not a shortcut.
    pub(crate) fn routes(&self) -> Vec<(IpNet, RouteTarget)> {
        self.routes.iter().map(|(prefix, target)| (prefix, *target)).collect()
    }

    pub(crate) fn add_shortcut(&mut self, prefix: IpNet, via: IpAddr) {
        self.shortcuts.insert(prefix, via);
    }

    /// Removes a shortcut, if it still leads there.
    pub(crate) fn remove_shortcut(&mut self, prefix: IpNet, via: IpAddr) {
        if self.shortcuts.get(&prefix) == Some(&via) {
            self.shortcuts.remove(&prefix);
        }
    }

    /// The shortcuts there are.
    pub(crate) fn shortcuts(&self) -> BTreeMap<IpNet, IpAddr> {
        self.shortcuts.iter().map(|(prefix, via)| (prefix, *via)).collect()
    }

    /// Where a packet goes: the longest prefix, and a shortcut before another route of the same length.
    pub(crate) fn lookup(&self, destination: IpAddr) -> RouteTarget {
        let host = IpNet::from(destination);
        let route = self.routes.get_lpm(&host);
        match (self.shortcuts.get_lpm(&host), route) {
            (Some((short, via)), Some((other, _))) if short.prefix_len() >= other.prefix_len() => {
                RouteTarget::Overlay(Some(*via))
            }
            (Some((_, via)), None) => RouteTarget::Overlay(Some(*via)),
            (_, Some((_, target))) => *target,
            (None, None) => RouteTarget::Nowhere,
        }
    }

    pub(crate) fn set_neighbour(&mut self, address: IpAddr, peer: Option<PeerId>) {
        let mac = peer.map_or(BY_HUB_MAC, PeerId::mac);
        self.neighbours.insert(address, Neighbour::Permanent(mac));
    }

    /// A neighbour in use is not deleted (packets that wait for an answer might be lost) but made stale.
    pub(crate) fn remove_neighbour(&mut self, address: IpAddr) {
        if let Some(neighbour) = self.neighbours.get_mut(&address) {
            *neighbour = Neighbour::Learnt { mac: BY_HUB_MAC, answered: None, delayed: None };
        }
    }

    /// The permanent neighbours.
    pub(crate) fn permanent(&self) -> BTreeMap<IpAddr, Mac> {
        let mac = |n: &Neighbour| if let Neighbour::Permanent(mac) = n { Some(*mac) } else { None };
        self.neighbours.iter().filter_map(|(a, n)| Some((*a, mac(n)?))).collect()
    }

    /// The link-layer address of a next hop.
    pub(crate) fn resolve(&mut self, now: Instant, address: IpAddr) -> Resolution {
        match self.neighbours.get_mut(&address) {
            Some(Neighbour::Permanent(mac)) => Resolution::Known(*mac),
            Some(Neighbour::Learnt { mac, answered, .. })
                if answered.is_some_and(|at| now.since(at) < REACHABLE) =>
            {
                Resolution::Known(*mac)
            }
            Some(Neighbour::Learnt { mac, delayed, .. }) => match delayed {
                Some(since) if now.since(*since) >= DELAY => Resolution::Ask,
                Some(_) => Resolution::Known(*mac),
                None => {
                    *delayed = Some(now);
                    Resolution::Known(*mac)
                }
            },
            None => Resolution::Ask,
        }
    }

    /// An answer to a question.
    pub(crate) fn learn(&mut self, now: Instant, address: IpAddr, mac: Mac) {
        self.neighbours.insert(address, Neighbour::Learnt { mac, answered: Some(now), delayed: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_shortcut_wins_over_a_route_of_the_same_length_but_not_over_a_longer_one() {
        let mut kernel = Kernel::default();
        let via = |a| RouteTarget::Overlay(Some(ip(a)));
        kernel.set_route("10.2.0.0/16".parse().unwrap(), Some(via("10.200.0.1")));
        kernel.set_route("10.2.3.0/24".parse().unwrap(), Some(RouteTarget::OffOverlay));
        kernel.add_shortcut("10.2.0.0/16".parse().unwrap(), ip("10.200.16.2"));
        assert_eq!(kernel.lookup(ip("10.2.0.9")), via("10.200.16.2"));
        assert_eq!(kernel.lookup(ip("10.2.3.9")), RouteTarget::OffOverlay);
        kernel.remove_shortcut("10.2.0.0/16".parse().unwrap(), ip("10.200.16.3"));
        assert_eq!(kernel.lookup(ip("10.2.0.9")), via("10.200.16.2"));
        kernel.remove_shortcut("10.2.0.0/16".parse().unwrap(), ip("10.200.16.2"));
        assert_eq!(kernel.lookup(ip("10.2.0.9")), via("10.200.0.1"));
    }

    #[test]
    fn a_removed_neighbour_goes_by_the_hub_until_the_kernel_asks() {
        let mut kernel = Kernel::default();
        let (a, start) = (ip("10.200.16.2"), Instant::ZERO);
        assert_eq!(kernel.resolve(start, a), Resolution::Ask);
        kernel.set_neighbour(a, Some(PeerId { index: 1, generation: 0 }));
        kernel.remove_neighbour(a);
        assert_eq!(kernel.resolve(start, a), Resolution::Known(BY_HUB_MAC));
        assert_eq!(kernel.resolve(start + DELAY, a), Resolution::Ask);
        kernel.learn(start + DELAY, a, BY_HUB_MAC);
        assert_eq!(kernel.resolve(start + DELAY + DELAY, a), Resolution::Known(BY_HUB_MAC));
    }
}
