//! The hub's side: stations that registered with us, those mapped by hand, and who receives multicast.

use crate::action::Event;
use crate::config::{Phase, StaticPeer};
use crate::tunnel::Tunnel;
use ipnet::IpNet;
use nhrp::{PeerInfo, StaticEntry};
use packet::{Instant, Path, PeerId};
use std::net::IpAddr;
use std::time::Duration;

/// The multicast list is told at most this often: two thousand spokes that register at once change it as often.
pub(crate) const MULTICAST_PACE: Duration = Duration::from_millis(50);

impl Tunnel {
    /// A station registered, refreshed, or moved.
    pub(crate) fn registered(
        &mut self,
        now: Instant,
        info: &PeerInfo,
        prefix: IpNet,
        expires: Instant,
        moved_from: Option<Path>,
        new: bool,
    ) {
        let (address, Some(&path)) = (info.protocol_address, info.candidates.first()) else { return };
        // Both IP versions of one station share its path; somebody else's registration from there replaces it.
        let same_station = |id: &PeerId| {
            self.peers.get(*id).is_some_and(|p| p.identity == info.identity || p.addresses.is_empty())
        };
        let known = self
            .peers
            .by_address(address)
            .or_else(|| self.peers.by_path(path).filter(same_station))
            .or_else(|| self.create_peer(now));
        let Some(id) = known else { return };
        self.own_path(now, path, id);
        self.bind_address(now, address, id);
        self.outgrow(address, id);
        let encrypted = self.gate.is_some();
        if let Some(p) = self.peers.get_mut(id) {
            p.learn(info, encrypted);
            p.registrations.retain(|(a, _)| *a != address);
            p.registrations.push((address, expires));
            if p.hub.is_none() {
                p.give(now, path);
            }
        }
        self.touch(now, id);
        self.outside.set_neighbour(address, Some(id));
        if prefix != IpNet::from(address) && self.recursion(prefix, &[path]).is_none() {
            self.outside.add_route(prefix, address);
        }
        self.multicast_changed();
        self.install_by(now, id);
        if new || moved_from.is_some() {
            let identity = info.identity.clone();
            self.events.push_back(Event::PeerRegistered { address, identity, path, moved_from });
        }
    }

    /// A station has one tunnel address of each IP version. One that came back with another, while its row still
    /// drained, has the old one no longer.
    fn outgrow(&mut self, address: IpAddr, id: PeerId) {
        let Some(p) = self.peers.get(id).filter(|p| p.hub.is_none()) else { return };
        let held =
            |a: &IpAddr| *a == address || p.registrations.iter().any(|(registered, _)| registered == a);
        let old: Vec<IpAddr> =
            p.addresses.iter().copied().filter(|a| a.is_ipv4() == address.is_ipv4() && !held(a)).collect();
        for a in old {
            self.peers.unbind(a, id);
        }
    }

    /// A registration ended.
    pub(crate) fn unregistered(&mut self, now: Instant, address: IpAddr, reason: &str) {
        self.events.push_back(Event::PeerUnregistered { address, reason: reason.into() });
        let Some(id) = self.peers.by_address(address) else { return };
        let Some(p) = self.peers.get_mut(id) else { return };
        p.registrations.retain(|(a, _)| *a != address);
        if !p.has_role() {
            p.take_back(now);
            self.abandon(now, id, "its registration ended");
        }
        if self.peers.get(id).is_some_and(|p| p.hub.is_none()) {
            self.remove_routes_via(address);
            self.outside.remove_neighbour(address);
        }
        self.touch(now, id);
        self.multicast_changed();
    }

    /// A station that registered with us died without a word. Routing and who is sent to it learn of it now and not
    /// when its registration would have ended; if it lives after all, it finds its hub silent and registers again.
    pub(crate) fn registered_lost(&mut self, id: PeerId, why: &'static str) {
        let registrations = self.peers.get(id).map(|p| p.registrations.clone()).unwrap_or_default();
        for (address, _) in registrations {
            self.node.end_registration(address, why);
        }
    }

    /// A packet went from one peer to another through us. That is a reason to tell the first of the shorter way.
    pub(crate) fn hairpinned(&mut self, now: Instant, from: PeerId, to: PeerId, head: &[u8]) {
        if !self.config.hub || self.config.phase != Phase::Three || from == to {
            return;
        }
        let Some(peer) = self.peers.get(from) else { return };
        // Our own hub is not told: what it sends us is not for it to shorten.
        if let (Some(path), None) = (peer.direct(), peer.hub) {
            self.node.indicate(now, path, head);
        }
    }

    /// A peer without NHRP was configured.
    pub(crate) fn add_static(&mut self, now: Instant, peer: &StaticPeer) {
        let address = peer.tunnel_address;
        let known = self.peers.by_address(address).or_else(|| self.create_peer(now));
        let Some(id) = known else { return };
        self.own_path(now, peer.path, id);
        self.bind_address(now, address, id);
        if let Some(p) = self.peers.get_mut(id) {
            p.fixed = true;
            p.nbma_claimed = Some(peer.path.remote);
            p.give(now, peer.path);
        }
        self.touch(now, id);
        self.connect(now, peer.path);
        self.outside.set_neighbour(address, Some(id));
        let routed = |prefix: &IpNet| self.shortcuts.iter().any(|s| s.prefix == *prefix);
        let gone: Vec<IpNet> = self
            .routes_via(address)
            .into_iter()
            .filter(|prefix| !peer.prefixes.contains(prefix) && !routed(prefix))
            .collect();
        gone.into_iter().for_each(|prefix| self.outside.remove_route(prefix, address));
        let mut prefixes = Vec::new();
        for prefix in &peer.prefixes {
            match self.recursion(*prefix, &[peer.path]) {
                Some(nbma) => self.events.push_back(Event::RecursiveRoute { prefix: *prefix, nbma }),
                None => {
                    self.outside.add_route(*prefix, address);
                    prefixes.push(*prefix);
                }
            }
        }
        self.node.add_static(StaticEntry { protocol_address: address, path: peer.path, prefixes });
        self.multicast_changed();
    }

    /// A peer without NHRP was taken out of the configuration.
    pub(crate) fn remove_static(&mut self, now: Instant, address: IpAddr) {
        self.node.remove_static(now, address);
        let Some(id) = self.peers.by_address(address) else { return };
        if let Some(p) = self.peers.get_mut(id) {
            p.fixed = false;
            p.take_back(now);
        }
        self.remove_routes_via(address);
        self.outside.remove_neighbour(address);
        self.abandon(now, id, "it was removed from the configuration");
        self.touch(now, id);
        self.multicast_changed();
    }

    /// Those who receive multicast: from a spoke its hubs, from a hub everyone. Never another spoke over a shortcut:
    /// the hub's copy reaches it.
    pub(crate) fn multicast_members(&self) -> Vec<PeerId> {
        let member = |p: &&crate::peer::Peer| {
            let registered_hub =
                p.hub.and_then(|id| self.hubs.get(id)).is_some_and(|h| !h.registered.is_empty());
            registered_hub || p.fixed || !p.registrations.is_empty()
        };
        self.peers.iter().filter(member).map(|p| p.id).collect()
    }

    pub(crate) fn remove_routes_via(&mut self, address: IpAddr) {
        for prefix in self.routes_via(address) {
            self.outside.remove_route(prefix, address);
        }
    }

    fn routes_via(&self, address: IpAddr) -> Vec<IpNet> {
        self.outside.standing.routes.iter().filter(|(_, via)| **via == address).map(|(p, _)| *p).collect()
    }
}
