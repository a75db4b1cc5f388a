//! The routing information base: what every neighbour announced, and which of it is best.
//!
//! The Adj-RIBs-In of RFC 4271 §3.2 are kept in one table, by prefix, next to the selection made from them: the
//! decision about a prefix looks at nothing else. What was announced to whom is a set of bits at the neighbour,
//! numbered by [`Entry::id`].

use crate::attributes::Attributes;
use crate::policy::{DEFAULT_LOCAL_PREF, Refusal};
use ipnet::IpNet;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Where a route comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// We announce it.
    Local,
    /// We summarise others by it.
    Summary,
    /// A neighbour announced it.
    Neighbour {
        address: IpAddr,
        router_id: Ipv4Addr,
        /// Of our AS.
        internal: bool,
        /// A client of reflection.
        client: bool,
    },
}

/// A route to a prefix.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Route {
    pub(crate) source: Source,
    pub(crate) attributes: Arc<Attributes>,
    /// Why it is not used. It is kept, since claims can change.
    pub(crate) refused: Option<Refusal>,
    /// Its neighbour restarts, and has not announced it again yet.
    pub(crate) stale: bool,
}

/// All about one prefix.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Stands for the prefix in sets of bits.
    pub(crate) id: u32,
    routes: Vec<Route>,
    best: Option<Route>,
    next_hops: Vec<IpAddr>,
    /// How many neighbours were told of it.
    told: u32,
}

/// What a new selection changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Change {
    /// Others must be told something else.
    pub(crate) best: bool,
    /// The kernel must hold something else.
    pub(crate) next_hops: bool,
    /// A route appeared where none was (`Some(true)`), or the last one went (`Some(false)`).
    pub(crate) presence: Option<bool>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Rib {
    entries: BTreeMap<IpNet, Entry>,
    /// Prefixes by number.
    names: Vec<IpNet>,
    free: Vec<u32>,
    /// Prefixes whose routes changed since the last selection.
    dirty: BTreeSet<IpNet>,
    max_paths: usize,
}

impl Rib {
    pub(crate) const fn new(max_paths: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            names: Vec::new(),
            free: Vec::new(),
            dirty: BTreeSet::new(),
            max_paths,
        }
    }

    pub(crate) fn get(&self, prefix: IpNet) -> Option<&Entry> {
        self.entries.get(&prefix)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, &Entry)> {
        self.entries.iter().map(|(prefix, entry)| (*prefix, entry))
    }

    /// Adds a route, in place of the one of the same source.
    pub(crate) fn insert(&mut self, prefix: IpNet, route: Route) {
        let entry = self.entries.entry(prefix).or_insert_with(|| {
            let id = self.free.pop().unwrap_or_else(|| u32::try_from(self.names.len()).unwrap_or(u32::MAX));
            match self.names.get_mut(id as usize) {
                Some(name) => *name = prefix,
                None => self.names.push(prefix),
            }
            Entry { id, routes: Vec::new(), best: None, next_hops: Vec::new(), told: 0 }
        });
        match entry.routes.iter_mut().find(|r| r.source.same(&route.source)) {
            Some(old) => {
                if *old == route {
                    return;
                }
                *old = route;
            }
            None => entry.routes.push(route),
        }
        self.dirty.insert(prefix);
    }

    /// Removes the routes that `which` picks.
    pub(crate) fn remove(&mut self, prefix: IpNet, which: impl Fn(&Route) -> bool) -> bool {
        let Some(entry) = self.entries.get_mut(&prefix) else { return false };
        let before = entry.routes.len();
        entry.routes.retain(|route| !which(route));
        let removed = entry.routes.len() != before;
        if removed {
            self.dirty.insert(prefix);
        }
        removed
    }

    /// Marks a neighbour's routes to these prefixes as stale.
    pub(crate) fn mark_stale(&mut self, from: IpAddr, prefixes: &BTreeSet<IpNet>) {
        for prefix in prefixes {
            if let Some(entry) = self.entries.get_mut(prefix) {
                entry.routes.iter_mut().filter(|r| r.source.is(from)).for_each(|r| r.stale = true);
            }
        }
    }

    /// Asks again whether a neighbour's route is believed.
    pub(crate) fn review(
        &mut self,
        prefix: IpNet,
        from: IpAddr,
        verdict: impl Fn(&Attributes) -> Option<Refusal>,
    ) {
        let Some(entry) = self.entries.get_mut(&prefix) else { return };
        for route in entry.routes.iter_mut().filter(|r| r.source.is(from)) {
            let refused = verdict(&route.attributes);
            if refused != route.refused {
                route.refused = refused;
                self.dirty.insert(prefix);
            }
        }
    }

    /// Takes one prefix whose routes changed, selects anew, and says what that changed. The entry of a prefix without
    /// routes stays until [`Rib::release`], since neighbours may have to be told.
    pub(crate) fn select_next(&mut self) -> Option<(IpNet, Change)> {
        let prefix = self.dirty.pop_first()?;
        let Some(entry) = self.entries.get_mut(&prefix) else { return Some((prefix, Change::default())) };
        let selected = select(&entry.routes, self.max_paths);
        let best = selected.first().map(|route| Route::clone(route));
        let next_hops: Vec<IpAddr> = selected
            .iter()
            .filter(|route| matches!(route.source, Source::Neighbour { .. }))
            .map(|route| route.attributes.next_hop)
            .collect();
        let told = |route: &Option<Route>| route.as_ref().map(|r| (r.source, Arc::clone(&r.attributes)));
        let change = Change {
            best: told(&best) != told(&entry.best),
            next_hops: next_hops != entry.next_hops,
            presence: (best.is_some() != entry.best.is_some()).then_some(best.is_some()),
        };
        entry.best = best;
        entry.next_hops = next_hops;
        Some((prefix, change))
    }

    /// A neighbour was told of the prefix.
    pub(crate) fn tell(&mut self, prefix: IpNet) {
        if let Some(entry) = self.entries.get_mut(&prefix) {
            entry.told += 1;
        }
    }

    /// A neighbour that was told of the prefix with this number was told that it went, or is gone itself.
    pub(crate) fn untell(&mut self, id: u32) {
        let Some(prefix) = self.names.get(id as usize).copied() else { return };
        if let Some(entry) = self.entries.get_mut(&prefix).filter(|entry| entry.id == id) {
            entry.told = entry.told.saturating_sub(1);
            self.release(prefix);
        }
    }

    /// Forgets a prefix that has no routes left and that no neighbour still believes in.
    pub(crate) fn release(&mut self, prefix: IpNet) {
        let Some(entry) = self.entries.get(&prefix) else { return };
        if entry.routes.is_empty() && entry.best.is_none() && entry.told == 0 {
            self.free.push(entry.id);
            self.entries.remove(&prefix);
        }
    }
}

impl Entry {
    pub(crate) const fn best(&self) -> Option<&Route> {
        self.best.as_ref()
    }

    pub(crate) fn next_hops(&self) -> &[IpAddr] {
        &self.next_hops
    }
}

impl Source {
    /// Is it this neighbour?
    pub(crate) fn is(&self, neighbour: IpAddr) -> bool {
        matches!(self, Self::Neighbour { address, .. } if *address == neighbour)
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local, Self::Local) | (Self::Summary, Self::Summary) => true,
            (Self::Neighbour { address: a, .. }, Self::Neighbour { address: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// The best route, and those as good that have another next hop (RFC 4271 §9.1.2.2).
fn select(routes: &[Route], max_paths: usize) -> Vec<&Route> {
    let mut usable: Vec<&Route> = routes.iter().filter(|route| route.refused.is_none()).collect();
    let Some(top) = usable.iter().map(|route| degree(route)).min() else { return Vec::new() };
    usable.retain(|route| degree(route) == top);
    // MED compares routes of the same neighbouring AS only, so it removes rather than orders.
    let beaten = |route: &Route| {
        usable.iter().any(|other| {
            other.attributes.as_path.first() == route.attributes.as_path.first()
                && other.attributes.med.unwrap_or(0) < route.attributes.med.unwrap_or(0)
        })
    };
    let mut best: Vec<&Route> = usable.iter().copied().filter(|route| !beaten(route)).collect();
    best.sort_by(|a, b| tie_break(a, b));
    let Some(first) = best.first().copied() else { return Vec::new() };
    let mut next_hops = BTreeSet::new();
    best.retain(|route| {
        is_external(route) == is_external(first) && next_hops.insert(route.attributes.next_hop)
    });
    best.truncate(max_paths.max(1));
    best
}

/// The steps before MED: our own first, then preference, length of the path, origin. Lower is better. A summary of ours
/// comes last: a hub above that announces the same one has a way for what we have none for.
fn degree(route: &Route) -> (u8, Reverse<u32>, usize, u8) {
    let own = match route.source {
        Source::Local => 0,
        Source::Neighbour { .. } => 1,
        Source::Summary => 2,
    };
    let attributes = &route.attributes;
    let preference = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
    (own, Reverse(preference), attributes.as_path.len(), attributes.origin as u8)
}

/// The steps after MED: external first, then the lower identifier (the originator's, RFC 4456 §9), the shorter cluster
/// list, the lower address.
fn tie_break(a: &Route, b: &Route) -> Ordering {
    let key = |route: &Route| match route.source {
        Source::Local | Source::Summary => None,
        Source::Neighbour { address, router_id, .. } => Some((
            !is_external(route),
            route.attributes.originator_id.unwrap_or(router_id),
            route.attributes.cluster_list.len(),
            address,
        )),
    };
    key(a).cmp(&key(b))
}

const fn is_external(route: &Route) -> bool {
    matches!(route.source, Source::Neighbour { internal: false, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::AsPath;

    fn from(last: u8, change: impl FnOnce(&mut Attributes)) -> Route {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let mut attributes = Attributes::local(address);
        attributes.as_path = AsPath::sequence(&[u32::from(last)]);
        change(&mut attributes);
        Route {
            source: Source::Neighbour {
                address,
                router_id: Ipv4Addr::new(1, 1, 1, last),
                internal: false,
                client: false,
            },
            attributes: Arc::new(attributes),
            refused: None,
            stale: false,
        }
    }

    fn winner(routes: &[Route]) -> IpAddr {
        let forwards = select(routes, 1)[0].attributes.next_hop;
        let mut reversed = routes.to_vec();
        reversed.reverse();
        assert_eq!(select(&reversed, 1)[0].attributes.next_hop, forwards, "the order of arrival decided");
        forwards
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn preference_then_path_then_origin_then_identifier() {
        assert_eq!(winner(&[from(1, |_| ()), from(2, |a| a.local_pref = Some(200))]), address(2));
        assert_eq!(winner(&[from(1, |a| a.as_path.prepend(9)), from(2, |_| ())]), address(2));
        assert_eq!(winner(&[from(1, |a| a.origin = crate::Origin::Incomplete), from(2, |_| ())]), address(2));
        assert_eq!(winner(&[from(2, |_| ()), from(1, |_| ())]), address(1));
    }

    #[test]
    fn med_counts_between_routes_of_one_as_only() {
        let same = |a: &mut Attributes| a.as_path = AsPath::sequence(&[7]);
        let with = |med| {
            move |a: &mut Attributes| {
                same(a);
                a.med = Some(med);
            }
        };
        assert_eq!(winner(&[from(1, with(50)), from(2, with(10))]), address(2));
        // Another AS with a better identifier and a worse MED wins; the order doesn't matter.
        let other = |a: &mut Attributes| a.med = Some(99);
        assert_eq!(winner(&[from(2, with(50)), from(3, with(10)), from(1, other)]), address(1));
    }

    #[test]
    fn external_beats_internal() {
        let mut internal = from(1, |a| a.as_path = AsPath::sequence(&[1]));
        if let Source::Neighbour { internal, .. } = &mut internal.source {
            *internal = true;
        }
        assert_eq!(winner(&[internal, from(2, |_| ())]), address(2));
    }

    #[test]
    fn equal_routes_share_the_load() {
        let routes = [from(1, |_| ()), from(2, |_| ()), from(3, |a| a.as_path.prepend(3))];
        let next_hops: Vec<_> = select(&routes, 4).iter().map(|r| r.attributes.next_hop).collect();
        assert_eq!(next_hops, [address(1), address(2)]);
    }

    #[test]
    fn a_refused_route_is_kept_and_not_used() {
        let mut route = from(1, |_| ());
        route.refused = Some(Refusal::NotClaimed);
        assert!(select(&[route], 1).is_empty());
    }

    #[test]
    fn numbers_of_forgotten_prefixes_are_used_again() {
        let mut rib = Rib::new(1);
        let prefix: IpNet = "10.1.0.0/24".parse().unwrap();
        rib.insert(prefix, from(1, |_| ()));
        let (_, change) = rib.select_next().unwrap();
        assert_eq!(change, Change { best: true, next_hops: true, presence: Some(true) });
        rib.tell(prefix);
        assert!(rib.remove(prefix, |r| r.source.is(address(1))));
        let (_, change) = rib.select_next().unwrap();
        assert_eq!(change.presence, Some(false));
        rib.release(prefix);
        assert!(rib.get(prefix).is_some(), "a neighbour must be told first");
        rib.untell(0);
        assert!(rib.get(prefix).is_none());
        rib.insert("10.2.0.0/24".parse().unwrap(), from(1, |_| ()));
        assert_eq!(rib.get("10.2.0.0/24".parse().unwrap()).unwrap().id, 0);
    }
}
