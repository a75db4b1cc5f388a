//! What the datapath and the kernel are told: only differences, in order, with a record of what stands.

use crate::action::{Action, PeerEntry};
use ipnet::IpNet;
use packet::{Path, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Everything that the datapath and the kernel were told and that still stands: what a restarted control process
/// compares with what it finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Rows of the peer table.
    pub peers: BTreeMap<PeerId, PeerEntry>,
    /// Permanent neighbours; `None`: by the hub.
    pub neighbours: BTreeMap<IpAddr, Option<PeerId>>,
    /// Shortcut routes, and those to static peers' prefixes.
    pub routes: BTreeMap<IpNet, IpAddr>,
    /// Who carries what has no direct path.
    pub by_hub: Option<PeerId>,
    /// Who receives multicast.
    pub multicast: Vec<PeerId>,
}

/// The queue of actions, and what they have led to.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    pub(crate) standing: Standing,
    actions: VecDeque<Action>,
}

impl Outside {
    /// After a restart: this stands already.
    pub(crate) fn resumed(standing: Standing) -> Self {
        Self { standing, actions: VecDeque::new() }
    }

    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn set_peer(&mut self, id: PeerId, entry: PeerEntry) {
        if self.standing.peers.get(&id) != Some(&entry) {
            self.standing.peers.insert(id, entry.clone());
            self.actions.push_back(Action::SetPeer(id, entry));
        }
    }

    pub(crate) fn remove_peer(&mut self, id: PeerId) {
        if self.standing.peers.remove(&id).is_some() {
            self.actions.push_back(Action::RemovePeer(id));
        }
    }

    pub(crate) fn set_by_hub(&mut self, hub: Option<PeerId>) {
        if self.standing.by_hub != hub {
            self.standing.by_hub = hub;
            self.actions.push_back(Action::SetByHub(hub));
        }
    }

    pub(crate) fn set_multicast(&mut self, peers: Vec<PeerId>) {
        if self.standing.multicast != peers {
            self.standing.multicast.clone_from(&peers);
            self.actions.push_back(Action::SetMulticast(peers));
        }
    }

    pub(crate) fn transmit(&mut self, path: Path, protocol: u16, payload: Vec<u8>) {
        self.actions.push_back(Action::Transmit { path, protocol, payload });
    }

    pub(crate) fn transmit_ike(&mut self, transmit: ikev2::Transmit) {
        self.actions.push_back(Action::TransmitIke(transmit));
    }

    pub(crate) fn add_inbound(&mut self, path: Path, keys: esp::Keys) {
        self.actions.push_back(Action::AddInboundSa { path, keys });
    }

    pub(crate) fn remove_inbound(&mut self, spi: u32) {
        self.actions.push_back(Action::RemoveInboundSa { spi });
    }

    pub(crate) fn set_outbound(&mut self, path: Path, lane: u16, keys: esp::Keys, soft: (u64, u64)) {
        self.actions.push_back(Action::SetOutboundSa { path, lane, keys, soft });
    }

    pub(crate) fn remove_outbound(&mut self, path: Path, spi: u32) {
        self.actions.push_back(Action::RemoveOutboundSa { path, spi });
    }

    pub(crate) fn set_neighbour(&mut self, address: IpAddr, peer: Option<PeerId>) {
        if self.standing.neighbours.insert(address, peer) != Some(peer) {
            self.actions.push_back(Action::SetNeighbour { address, peer });
        }
    }

    /// The kernel asked for an address that it should know: somebody else removed the entry.
    pub(crate) fn repeat_neighbour(&mut self, address: IpAddr) -> bool {
        let known = self.standing.neighbours.get(&address).copied();
        if let Some(peer) = known {
            self.actions.push_back(Action::SetNeighbour { address, peer });
        }
        known.is_some()
    }

    pub(crate) fn remove_neighbour(&mut self, address: IpAddr) {
        if self.standing.neighbours.remove(&address).is_some() {
            self.actions.push_back(Action::RemoveNeighbour { address });
        }
    }

    /// The next hops that lead to this peer.
    pub(crate) fn neighbours_of(&self, id: PeerId) -> Vec<IpAddr> {
        let leads = |(address, peer): (&IpAddr, &Option<PeerId>)| (*peer == Some(id)).then_some(*address);
        self.standing.neighbours.iter().filter_map(leads).collect()
    }

    pub(crate) fn add_route(&mut self, prefix: IpNet, via: IpAddr) {
        if self.standing.routes.insert(prefix, via) != Some(via) {
            self.actions.push_back(Action::AddRoute { prefix, via });
        }
    }

    /// Removes the route to `prefix`, unless another next hop has taken it over.
    pub(crate) fn remove_route(&mut self, prefix: IpNet, via: IpAddr) {
        if self.standing.routes.get(&prefix) == Some(&via) {
            self.standing.routes.remove(&prefix);
            self.actions.push_back(Action::RemoveRoute { prefix, via });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_already_is_not_told_again() {
        let mut outside = Outside::default();
        let (address, peer) = ("10.200.0.2".parse().unwrap(), PeerId { index: 1, generation: 0 });
        outside.set_neighbour(address, Some(peer));
        outside.set_neighbour(address, Some(peer));
        assert_eq!(outside.poll(), Some(Action::SetNeighbour { address, peer: Some(peer) }));
        assert_eq!(outside.poll(), None);
        outside.set_neighbour(address, None);
        assert_eq!(outside.poll(), Some(Action::SetNeighbour { address, peer: None }));
    }

    #[test]
    fn a_route_that_was_taken_over_is_not_removed_by_its_former_owner() {
        let mut outside = Outside::default();
        let prefix = "10.2.0.0/16".parse().unwrap();
        let (old, new) = ("10.200.0.2".parse().unwrap(), "10.200.0.3".parse().unwrap());
        outside.add_route(prefix, old);
        outside.add_route(prefix, new);
        outside.remove_route(prefix, old);
        assert_eq!(outside.standing.routes.get(&prefix), Some(&new));
    }
}
