//! What workers look up: an immutable snapshot, read once per batch. Control changes its own copy and publishes it;
//! what a worker may still be reading is kept until it no longer is, so that workers neither lock nor free.

use crate::messages::{HairpinRoute, Peer, PeerCounters, TunnelSettings};
use crate::mtu::{self, PathMtu};
use crate::owners::Owners;
use crate::stats::PeerStats;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use packet::peer::Mac;
use packet::{Instant, Path, PeerId};
use prefix_trie::joint::JointPrefixMap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Everything a packet's way depends on.
#[derive(Clone, Default)]
pub struct Tables {
    /// The tunnel itself.
    pub tunnel: Arc<TunnelRow>,
    /// The peers.
    pub peers: Arc<PeerTable>,
    /// (Encrypted) who sends for which path.
    pub outbound: Arc<Owners>,
    /// Routes of the hairpin: `Some` peer, or `None` for what the kernel is to route.
    pub hairpin: Arc<JointPrefixMap<IpNet, Option<PeerId>>>,
    /// Who carries what has no direct path.
    pub by_hub: Option<PeerId>,
    /// Who receives multicast and broadcast.
    pub multicast: Arc<[PeerId]>,
    /// Is somebody watching?
    pub capture: bool,
}

/// What [`TunnelSettings`] says to workers.
#[derive(Clone, Debug, Default)]
pub struct TunnelRow {
    /// Our tunnel addresses.
    pub addresses: Vec<IpAddr>,
    /// Only addresses in these are answered for.
    pub networks: Vec<IpNet>,
    /// GRE key.
    pub key: Option<u32>,
    /// MTU of the interface.
    pub mtu: u16,
    /// Tell control of hairpinned packets?
    pub indicate_hairpins: bool,
}

/// The peers, and the ways to find one.
#[derive(Clone, Default)]
pub struct PeerTable {
    slots: Vec<Option<Arc<PeerRow>>>,
    by_path: HashMap<Path, PeerId>,
    by_address: HashMap<IpAddr, PeerId>,
}

/// One peer.
#[derive(Debug)]
pub struct PeerRow {
    /// Its slot.
    pub id: PeerId,
    /// As control described it.
    pub peer: Peer,
    /// Its MAC on the interface.
    pub mac: Mac,
    /// What is known of `measured`.
    pub path_mtu: Arc<PathMtu>,
    /// The path it is sent to by, or was last: one that carries again need not be measured again.
    measured: Option<Path>,
    /// Counters, one for each worker.
    pub stats: Arc<[PeerStats]>,
}

impl Tables {
    /// The peer that holds this slot now, if it is the one meant.
    #[inline]
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<&PeerRow> {
        self.peers.get(id)
    }

    /// The peer a frame to `mac` goes to: the one it names if that has a path, otherwise the hub.
    #[inline]
    #[must_use]
    pub fn towards(&self, mac: Mac) -> Option<(&PeerRow, Path)> {
        let named = PeerId::from_mac(mac).and_then(|id| self.sendable(id));
        named.or_else(|| self.by_hub.and_then(|id| self.sendable(id)))
    }

    /// A peer and the path to it, if there is one.
    #[inline]
    #[must_use]
    pub fn sendable(&self, id: PeerId) -> Option<(&PeerRow, Path)> {
        let row = self.peers.get(id)?;
        Some((row, row.peer.send?))
    }

    /// Octets of the longest inner packet that a peer's path takes.
    #[inline]
    #[must_use]
    pub fn inner_mtu(&self, row: &PeerRow, path: Path, now: Instant) -> u16 {
        match row.path_mtu.get(now) {
            None => self.tunnel.mtu,
            Some(outer) => {
                self.tunnel.mtu.min(mtu::inner(outer, path, self.tunnel.key, self.outbound.suite(path)))
            }
        }
    }

    /// The same, if it is less than what the interface takes.
    #[must_use]
    pub fn narrowed(&self, row: &PeerRow, now: Instant) -> Option<u16> {
        let mtu = self.inner_mtu(row, row.peer.send?, now);
        (mtu < self.tunnel.mtu).then_some(mtu)
    }

    /// Is this one of our tunnel addresses?
    #[inline]
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.tunnel.addresses.contains(&address)
    }

    /// Where the hairpin sends a packet: to a peer, or (`None`) to the kernel.
    #[must_use]
    pub fn hairpin(&self, destination: IpAddr) -> Option<PeerId> {
        self.hairpin.get_lpm(&IpNet::from(destination)).and_then(|(_, peer)| *peer)
    }

    /// Takes over what changed in the settings.
    pub fn configure(&mut self, settings: &TunnelSettings) {
        self.tunnel = Arc::new(TunnelRow {
            addresses: settings.addresses.clone(),
            networks: settings.networks.clone(),
            key: settings.gre_key,
            mtu: settings.mtu,
            indicate_hairpins: settings.indicate_hairpins,
        });
    }

    /// Replaces the hairpin's routes.
    pub fn set_hairpin(&mut self, routes: &[HairpinRoute]) {
        let mut map = JointPrefixMap::new();
        for route in routes {
            map.insert(route.prefix, route.peer);
        }
        self.hairpin = Arc::new(map);
    }

    /// The hairpin's routes, as they were set.
    #[must_use]
    pub fn hairpin_routes(&self) -> Vec<HairpinRoute> {
        self.hairpin.iter().map(|(prefix, peer)| HairpinRoute { prefix, peer: *peer }).collect()
    }

    /// Adds or replaces a peer. Its counters, and what is known of its path, stay if it is the same.
    pub fn set_peer(&mut self, id: PeerId, peer: Peer, workers: usize) {
        Arc::make_mut(&mut self.peers).set(id, peer, workers);
    }

    /// Removes a peer; one that is not there is none.
    pub fn remove_peer(&mut self, id: PeerId) {
        if self.peers.get(id).is_some() {
            Arc::make_mut(&mut self.peers).remove(id);
        }
    }
}

impl PeerTable {
    /// The peer that holds this slot now, if it is the one meant.
    #[inline]
    #[must_use]
    pub fn get(&self, id: PeerId) -> Option<&PeerRow> {
        self.slots.get(id.index as usize)?.as_deref().filter(|row| row.id == id)
    }

    /// The peer that may send by this path.
    #[inline]
    #[must_use]
    pub fn by_path(&self, path: &Path) -> Option<&PeerRow> {
        self.get(*self.by_path.get(path)?)
    }

    /// The peer with this tunnel address.
    #[must_use]
    pub fn by_address(&self, address: IpAddr) -> Option<&PeerRow> {
        self.get(*self.by_address.get(&address)?)
    }

    /// All peers in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &PeerRow> {
        self.slots.iter().flatten().map(Arc::as_ref)
    }

    fn set(&mut self, id: PeerId, peer: Peer, workers: usize) {
        let index = id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, None);
        }
        let old = self.slots[index].take();
        if let Some(old) = &old {
            self.forget(old);
        }
        let same = old.filter(|old| old.id == id);
        let measured = peer.send.or_else(|| same.as_ref().and_then(|old| old.measured));
        let path_mtu = same.as_ref().filter(|old| old.measured == measured).map(|old| old.path_mtu.clone());
        let stats = same.map(|old| old.stats_for(workers));
        for path in &peer.receive {
            self.by_path.insert(*path, id);
        }
        for address in &peer.addresses {
            self.by_address.insert(*address, id);
        }
        self.slots[index] = Some(Arc::new(PeerRow {
            id,
            peer,
            mac: id.mac(),
            path_mtu: path_mtu.unwrap_or_default(),
            measured,
            stats: stats.unwrap_or_else(|| (0..workers).map(|_| PeerStats::default()).collect()),
        }));
    }

    fn remove(&mut self, id: PeerId) {
        if let Some(old) = self.slots.get_mut(id.index as usize).and_then(Option::take) {
            self.forget(&old);
        }
    }

    /// Takes a peer that left its slot out of the indexes. What another claims too is then that one's.
    fn forget(&mut self, old: &PeerRow) {
        for path in &old.peer.receive {
            if self.by_path.get(path) == Some(&old.id) {
                let heir = self.iter().find(|row| row.peer.receive.contains(path)).map(|row| row.id);
                replace(&mut self.by_path, *path, heir);
            }
        }
        for address in &old.peer.addresses {
            if self.by_address.get(address) == Some(&old.id) {
                let heir = self.iter().find(|row| row.peer.addresses.contains(address)).map(|row| row.id);
                replace(&mut self.by_address, *address, heir);
            }
        }
    }
}

impl PeerRow {
    /// May a packet from this address come from the peer?
    #[inline]
    #[must_use]
    pub fn accepts_source(&self, source: IpAddr) -> bool {
        self.peer.sources.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&source)))
    }

    /// The counters for so many workers, with what was counted.
    fn stats_for(&self, workers: usize) -> Arc<[PeerStats]> {
        if self.stats.len() == workers {
            return self.stats.clone();
        }
        let stats: Arc<[PeerStats]> = (0..workers).map(|_| PeerStats::default()).collect();
        let sum = self.counters();
        if let Some(first) = stats.first() {
            first.sent(sum.packets_sent, sum.bytes_sent);
            first.received(sum.packets_received, sum.bytes_received);
        }
        stats
    }

    /// What all workers counted; what its path takes, only the [tables](Tables::narrowed) know.
    #[must_use]
    pub fn counters(&self) -> PeerCounters {
        let mut sum = PeerCounters::default();
        for stats in &*self.stats {
            let [a, b, c, d] = stats.get();
            sum.packets_sent += a;
            sum.bytes_sent += b;
            sum.packets_received += c;
            sum.bytes_received += d;
        }
        sum
    }
}

fn replace<K: Eq + std::hash::Hash>(index: &mut HashMap<K, PeerId>, key: K, heir: Option<PeerId>) {
    match heir {
        Some(heir) => index.insert(key, heir),
        None => index.remove(&key),
    };
}

/// Where control publishes and workers read.
#[derive(Default)]
pub struct Published {
    current: Arc<ArcSwap<Tables>>,
    /// Snapshots a worker may still be reading.
    retired: Vec<Arc<Tables>>,
}

impl Published {
    /// The workers' side.
    #[must_use]
    pub fn reader(&self) -> Arc<ArcSwap<Tables>> {
        self.current.clone()
    }

    /// Makes `tables` what the next batch of every worker reads.
    pub fn publish(&mut self, tables: &Tables) {
        let old = self.current.swap(Arc::new(tables.clone()));
        self.retired.push(old);
        self.retired.retain(|tables| Arc::strong_count(tables) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::peer::BY_HUB_MAC;

    fn id(index: u32, generation: u8) -> PeerId {
        PeerId { index, generation }
    }

    fn path(last: u8) -> Path {
        Path::udp(IpAddr::from([192, 0, 2, last]), 4754)
    }

    fn peer(last: u8) -> Peer {
        Peer {
            addresses: vec![IpAddr::from([10, 0, 0, last])],
            send: Some(path(last)),
            receive: vec![path(last)],
            sources: None,
            ours: true,
        }
    }

    #[test]
    fn a_stale_mac_goes_by_the_hub() {
        let mut tables = Tables::default();
        tables.set_peer(id(0, 0), peer(1), 1);
        tables.set_peer(id(1, 3), peer(2), 1);
        tables.by_hub = Some(id(0, 0));
        let to = |mac| tables.towards(mac).map(|(row, _)| row.id);
        assert_eq!(to(id(1, 3).mac()), Some(id(1, 3)));
        assert_eq!(to(id(1, 2).mac()), Some(id(0, 0)));
        assert_eq!(to(id(7, 0).mac()), Some(id(0, 0)));
        assert_eq!(to(BY_HUB_MAC), Some(id(0, 0)));
    }

    #[test]
    fn a_peer_that_only_receives_is_sent_to_by_the_hub() {
        let mut tables = Tables::default();
        tables.set_peer(id(0, 0), peer(1), 1);
        tables.set_peer(id(1, 0), Peer { send: None, ..peer(2) }, 1);
        tables.by_hub = Some(id(0, 0));
        assert_eq!(tables.towards(id(1, 0).mac()).map(|(row, _)| row.id), Some(id(0, 0)));
        assert_eq!(tables.peers.by_path(&path(2)).map(|row| row.id), Some(id(1, 0)));
    }

    #[test]
    fn a_slot_used_again_answers_to_the_new_peer_only() {
        let mut tables = Tables::default();
        tables.set_peer(id(4, 0), peer(1), 1);
        tables.set_peer(id(4, 1), peer(2), 1);
        assert!(tables.peer(id(4, 0)).is_none());
        assert!(tables.peers.by_path(&path(1)).is_none());
        assert_eq!(tables.peers.by_path(&path(2)).map(|row| row.id), Some(id(4, 1)));
    }

    #[test]
    fn a_path_two_peers_claim_goes_to_the_one_that_stays() {
        let mut tables = Tables::default();
        tables.set_peer(id(0, 0), peer(1), 1);
        tables.set_peer(id(1, 0), Peer { receive: vec![path(1)], ..peer(2) }, 1);
        assert_eq!(tables.peers.by_path(&path(1)).map(|row| row.id), Some(id(1, 0)));
        tables.remove_peer(id(1, 0));
        assert_eq!(tables.peers.by_path(&path(1)).map(|row| row.id), Some(id(0, 0)));
        tables.remove_peer(id(0, 0));
        assert!(tables.peers.by_path(&path(1)).is_none());
    }

    #[test]
    fn a_changed_peer_keeps_its_counters() {
        let mut tables = Tables::default();
        tables.set_peer(id(0, 0), peer(1), 2);
        tables.peer(id(0, 0)).unwrap().stats[1].sent(1, 100);
        tables.set_peer(id(0, 0), Peer { send: None, ..peer(1) }, 2);
        assert_eq!(tables.peer(id(0, 0)).unwrap().counters().bytes_sent, 100);
        tables.set_peer(id(0, 1), peer(1), 2);
        assert_eq!(tables.peer(id(0, 1)).unwrap().counters().bytes_sent, 0);
    }

    #[test]
    fn what_was_learnt_of_a_path_is_there_when_it_carries_again_and_not_of_another() {
        let mut tables = Tables::default();
        tables.configure(&crate::testing::settings());
        let now = Instant::from_nanos(1);
        let narrowed = |tables: &Tables| tables.narrowed(tables.peer(id(0, 0)).unwrap(), now);
        tables.set_peer(id(0, 0), peer(1), 1);
        assert_eq!(narrowed(&tables), None);
        tables.peer(id(0, 0)).unwrap().path_mtu.set(path(1), 1280, now);
        assert!(narrowed(&tables).is_some_and(|mtu| mtu < 1280));
        tables.set_peer(id(0, 0), Peer { send: None, ..peer(1) }, 1);
        assert_eq!(narrowed(&tables), None, "the hub carries");
        tables.set_peer(id(0, 0), peer(1), 1);
        assert!(narrowed(&tables).is_some(), "it carries again");
        tables.set_peer(id(0, 0), Peer { send: Some(path(2)), ..peer(1) }, 1);
        assert_eq!(narrowed(&tables), None, "another path");
    }

    #[test]
    fn the_longest_hairpin_route_wins() {
        let mut tables = Tables::default();
        let route = |prefix: &str, peer| HairpinRoute { prefix: prefix.parse().unwrap(), peer };
        tables.set_hairpin(&[
            route("10.0.0.0/8", Some(id(1, 0))),
            route("10.1.0.0/16", None),
            route("2001:db8::/32", Some(id(2, 0))),
        ]);
        let to = |a: &str| tables.hairpin(a.parse().unwrap());
        assert_eq!(to("10.2.3.4"), Some(id(1, 0)));
        assert_eq!(to("10.1.3.4"), None);
        assert_eq!(to("2001:db8::1"), Some(id(2, 0)));
        assert_eq!(to("192.0.2.1"), None);
    }

    #[test]
    fn a_snapshot_being_read_is_kept() {
        let mut published = Published::default();
        let reading = published.reader().load_full();
        published.publish(&Tables::default());
        assert_eq!(published.retired.len(), 1);
        drop(reading);
        published.publish(&Tables::default());
        assert_eq!(published.retired.len(), 0);
    }
}
