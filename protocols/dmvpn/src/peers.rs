//! Every peer, found by slot, by tunnel address and by path.

use crate::limits::{MAX_ADDRESSES, MAX_PEERS, MAX_SPOKES};
use crate::peer::{Peer, Reach};
use crate::slots::Slots;
use packet::{Instant, Path, PeerId};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// The table of peers. A path leads to one peer only, as a tunnel address does.
#[derive(Default)]
pub(crate) struct Peers {
    pub(crate) slots: Slots,
    table: BTreeMap<PeerId, Peer>,
    by_path: HashMap<Path, PeerId>,
    by_address: HashMap<IpAddr, PeerId>,
}

impl Peers {
    /// After a restart: these are the peers.
    pub(crate) fn resumed(slots: Slots, peers: Vec<Peer>) -> Self {
        let mut all = Self { slots, ..Self::default() };
        for peer in peers {
            let id = peer.id;
            all.by_address.extend(peer.addresses.iter().map(|a| (*a, id)));
            all.by_path.extend(peer.paths().map(|p| (p, id)));
            all.table.insert(id, peer);
        }
        all
    }

    pub(crate) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.table.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.table.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.table.values()
    }

    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.table.keys().copied().collect()
    }

    pub(crate) fn by_path(&self, path: Path) -> Option<PeerId> {
        self.by_path.get(&path).copied()
    }

    pub(crate) fn by_address(&self, address: IpAddr) -> Option<PeerId> {
        self.by_address.get(&address).copied()
    }

    /// A new peer; `None` when there are too many.
    pub(crate) fn create(&mut self, now: Instant) -> Option<PeerId> {
        if self.table.len() >= MAX_PEERS {
            return None;
        }
        let id = self.slots.allocate(now)?;
        self.table.insert(id, Peer::new(id, now));
        Some(id)
    }

    /// When there are too many peers without a role: the one that matters least.
    pub(crate) fn victim(&self) -> Option<PeerId> {
        let spokes = || self.table.values().filter(|p| !p.has_role());
        if self.table.len() < MAX_SPOKES || spokes().count() < MAX_SPOKES {
            return None;
        }
        spokes()
            .filter(|p| matches!(p.reach(), Reach::Listening { .. }))
            .min_by_key(|p| p.receive_until)
            .map(|p| p.id)
    }

    pub(crate) fn remove(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.table.remove(&id) {
            for address in &peer.addresses {
                self.unbind(*address, id);
            }
            for path in peer.paths() {
                self.forget_path(path, id);
            }
            self.slots.free(now, id);
        }
    }

    /// `address` is `id`'s from now on. Returns the peer that had it before, if another.
    pub(crate) fn bind(&mut self, address: IpAddr, id: PeerId) -> Option<PeerId> {
        let before = self.by_address.insert(address, id).filter(|before| *before != id);
        if let Some(peer) = before.and_then(|b| self.table.get_mut(&b)) {
            peer.addresses.retain(|a| *a != address);
        }
        if let Some(peer) = self.table.get_mut(&id)
            && !peer.addresses.contains(&address)
        {
            if peer.addresses.len() >= MAX_ADDRESSES {
                let oldest = peer.addresses.remove(0);
                self.by_address.remove(&oldest);
            }
            peer.addresses.push(address);
        }
        before
    }

    /// `address` is `id`'s no longer.
    pub(crate) fn unbind(&mut self, address: IpAddr, id: PeerId) {
        if self.by_address.get(&address) == Some(&id) {
            self.by_address.remove(&address);
        }
        if let Some(peer) = self.table.get_mut(&id) {
            peer.addresses.retain(|a| *a != address);
        }
    }

    /// `path` leads to `id` from now on.
    pub(crate) fn index_path(&mut self, path: Path, id: PeerId) {
        self.by_path.insert(path, id);
    }

    /// `path` leads to `id` no longer.
    pub(crate) fn forget_path(&mut self, path: Path, id: PeerId) {
        if self.by_path.get(&path) == Some(&id) {
            self.by_path.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_peer_that_was_to_be_received_from_shortest_makes_room() {
        let (mut peers, now) = (Peers::default(), Instant::ZERO);
        for n in 0..MAX_SPOKES as u64 {
            assert_eq!(peers.victim(), None);
            let id = peers.create(now).unwrap();
            peers.get_mut(id).unwrap().receive_until = now + Duration::from_secs(5000 - n);
        }
        let victim = peers.victim().unwrap();
        assert_eq!(victim.index as usize, MAX_SPOKES - 1);
        peers.remove(now, victim);
        assert_eq!(peers.victim(), None);
    }

    #[test]
    fn an_address_that_changes_hands_is_the_last_ones() {
        let (mut peers, now) = (Peers::default(), Instant::ZERO);
        let (one, two) = (peers.create(now).unwrap(), peers.create(now).unwrap());
        let address: IpAddr = "10.200.0.2".parse().unwrap();
        assert_eq!(peers.bind(address, one), None);
        assert_eq!(peers.bind(address, two), Some(one));
        assert_eq!(peers.by_address(address), Some(two));
        assert!(peers.get(one).unwrap().addresses.is_empty());
        peers.unbind(address, one);
        assert_eq!(peers.by_address(address), Some(two), "it is not the first one's to give back");
    }
}
