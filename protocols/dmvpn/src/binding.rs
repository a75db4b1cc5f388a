//! Which peer an address and a path lead to, and the row that the datapath has of it.

use crate::timer::Timer;
use crate::tunnel::Tunnel;
use packet::{Instant, Path, PeerId};
use std::net::IpAddr;

impl Tunnel {
    /// A new peer; one that matters less goes when there are too many.
    pub(crate) fn create_peer(&mut self, now: Instant) -> Option<PeerId> {
        if let Some(victim) = self.peers.victim() {
            self.remove_peer(now, victim);
        }
        self.peers.create(now)
    }

    pub(crate) fn remove_peer(&mut self, now: Instant, id: PeerId) {
        self.abandon(now, id, "there are too many peers");
        self.forget_hub_peer(id);
        for address in self.outside.neighbours_of(id) {
            self.remove_routes_via(address);
            self.outside.remove_neighbour(address);
        }
        self.timers.stop(Timer::Peer(id));
        self.peers.remove(now, id);
        self.outside.remove_peer(id);
    }

    /// `address` names `id` from now on; nobody else.
    pub(crate) fn bind_address(&mut self, now: Instant, address: IpAddr, id: PeerId) {
        if let Some(before) = self.peers.bind(address, id) {
            if let Some(p) = self.peers.get_mut(before) {
                p.registrations.retain(|(a, _)| *a != address);
                if !p.has_role() {
                    p.take_back(now);
                }
            }
            self.abandon(now, before, "another peer has its tunnel address");
            self.touch(now, before);
        }
    }

    /// `path` leads to `id` from now on, whoever had it.
    pub(crate) fn own_path(&mut self, now: Instant, path: Path, id: PeerId) {
        let Some(owner) = self.peers.by_path(path).filter(|owner| *owner != id) else { return };
        let carried = self.peers.get_mut(owner).is_some_and(|p| p.lose_path(now, path));
        self.peers.forget_path(path, owner);
        if carried {
            self.abandon(now, owner, "another peer has registered from its address");
        }
        self.touch(now, owner);
    }

    /// May a message (or a probe) make `path` lead to `id`? Not if it is another's for certain, or somebody else has
    /// proven to be there.
    pub(crate) fn may_claim(&mut self, now: Instant, path: Path, id: PeerId) -> bool {
        let there = self.gate.as_ref().and_then(|gate| gate.identity(path));
        if let Some(Err(why)) = there.map(|identity| self.may_be_at(Some(id), path, identity)) {
            tracing::debug!(%path, "not a path of this peer: {why}");
            if let Some(peer) = self.peers.get_mut(id) {
                peer.refused = Some(why);
            }
            return false;
        }
        match self.peers.by_path(path).filter(|owner| *owner != id) {
            None => true,
            Some(owner) => {
                let certain = self.peers.get(owner).is_some_and(|p| p.has_role() || p.direct() == Some(path));
                if !certain {
                    self.own_path(now, path, id);
                }
                !certain
            }
        }
    }

    /// Something about a peer changed: its row, its paths' index and its timer follow.
    pub(crate) fn touch(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(id) else { return };
        let row = peer.row(self.sources(peer));
        let known = self.outside.standing.peers.get(&id);
        let gone: Vec<Path> = known
            .map(|old| old.receive.iter().copied().filter(|p| !row.receive.contains(p)).collect())
            .unwrap_or_default();
        for path in gone {
            self.peers.forget_path(path, id);
        }
        for path in &row.receive {
            self.peers.index_path(*path, id);
        }
        self.outside.set_peer(id, row);
        self.retime_peer(now, id);
    }

    pub(crate) fn retime_peer(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.peers.get(id) {
            self.timers.set(Timer::Peer(id), peer.wake(now));
        }
    }
}
