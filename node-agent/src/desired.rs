//! What the engine's actions add up to: what the datapath and the kernel should hold now. Pure.
//!
//! Kept so that a new datapath can be filled, a table that somebody disturbed be repaired, and a control process that
//! comes after a crash know what the one before it had decided.

use crate::kernel::route::{NHRP, SHORTCUT_METRIC, TunnelRoute};
use dmvpn::Action;
use dmvpn::action::{PeerEntry, SourceCheck};
use ipnet::IpNet;
use packet::PeerId;
use packet::peer::{BY_HUB_MAC, Mac};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The sum of all actions so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Rows of the datapath.
    pub peers: BTreeMap<PeerId, PeerEntry>,
    /// Who carries what has no direct path.
    pub by_hub: Option<PeerId>,
    /// Who receives multicast.
    pub multicast: Vec<PeerId>,
    /// Permanent neighbours; `None`: the by-hub MAC.
    pub neighbours: BTreeMap<IpAddr, Option<PeerId>>,
    /// Shortcut routes and their next hops.
    pub shortcuts: BTreeMap<IpNet, IpAddr>,
}

impl Desired {
    /// Takes an action into account. Returns false when it leaves no trace (a message to send).
    pub fn apply(&mut self, action: &Action) -> bool {
        match action {
            Action::SetPeer(id, entry) => {
                self.peers.insert(*id, entry.clone());
            }
            Action::RemovePeer(id) => {
                self.peers.remove(id);
            }
            Action::SetByHub(id) => self.by_hub = *id,
            Action::SetMulticast(ids) => self.multicast.clone_from(ids),
            Action::SetNeighbour { address, peer } => {
                self.neighbours.insert(*address, *peer);
            }
            Action::RemoveNeighbour { address } => {
                self.neighbours.remove(address);
            }
            Action::AddRoute { prefix, via } => {
                self.shortcuts.insert(*prefix, *via);
            }
            Action::RemoveRoute { prefix, via } => {
                if self.shortcuts.get(prefix) == Some(via) {
                    self.shortcuts.remove(prefix);
                }
            }
            Action::Transmit { .. } => return false,
        }
        true
    }

    /// The neighbour entries as the kernel holds them.
    #[must_use]
    pub fn neighbour_macs(&self) -> BTreeMap<IpAddr, Mac> {
        self.neighbours.iter().map(|(address, peer)| (*address, mac(*peer))).collect()
    }

    /// The shortcut routes as the kernel holds them.
    #[must_use]
    pub fn routes(&self) -> Vec<TunnelRoute> {
        self.shortcuts.iter().map(|(prefix, via)| shortcut(*prefix, *via)).collect()
    }

    /// The peer that packets to this tunnel address leave to directly, if any.
    #[must_use]
    pub fn peer_of(&self, address: IpAddr) -> Option<PeerId> {
        if let Some(peer) = self.neighbours.get(&address) {
            return *peer;
        }
        self.peers
            .iter()
            .find(|(_, entry)| entry.send.is_some() && entry.addresses.contains(&address))
            .map(|(id, _)| *id)
    }

    /// Every tunnel address with a direct path, and its peer.
    #[must_use]
    pub fn direct(&self) -> BTreeMap<IpAddr, PeerId> {
        let rows = self.peers.iter().filter(|(_, entry)| entry.send.is_some());
        let mut direct: BTreeMap<IpAddr, PeerId> =
            rows.flat_map(|(id, entry)| entry.addresses.iter().map(|a| (*a, *id))).collect();
        for (address, peer) in &self.neighbours {
            match peer {
                Some(peer) => direct.insert(*address, *peer),
                None => direct.remove(address),
            };
        }
        direct
    }
}

/// The link-layer address of a neighbour.
#[must_use]
pub fn mac(peer: Option<PeerId>) -> Mac {
    peer.map_or(BY_HUB_MAC, PeerId::mac)
}

/// A shortcut as a route of the kernel.
#[must_use]
pub fn shortcut(prefix: IpNet, via: IpAddr) -> TunnelRoute {
    TunnelRoute { prefix, via, protocol: NHRP, metric: SHORTCUT_METRIC }
}

/// A row of the engine's as the datapath knows it.
#[must_use]
pub fn row(entry: &PeerEntry) -> dataplane::messages::Peer {
    dataplane::messages::Peer {
        addresses: entry.addresses.clone(),
        send: entry.send,
        receive: entry.receive.clone(),
        sources: match &entry.sources {
            SourceCheck::Any => None,
            SourceCheck::Only(prefixes) => Some(prefixes.clone()),
        },
        ours: entry.ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> PeerId {
        PeerId { index, generation: 0 }
    }

    #[test]
    fn removing_a_replaced_shortcut_leaves_the_new_one() {
        let prefix: IpNet = "10.2.0.0/16".parse().unwrap();
        let (old, new): (IpAddr, IpAddr) = ("10.200.0.2".parse().unwrap(), "10.200.0.3".parse().unwrap());
        let mut desired = Desired::default();
        desired.apply(&Action::AddRoute { prefix, via: old });
        desired.apply(&Action::AddRoute { prefix, via: new });
        desired.apply(&Action::RemoveRoute { prefix, via: old });
        assert_eq!(desired.routes(), [shortcut(prefix, new)]);
    }

    #[test]
    fn a_neighbour_by_the_hub_has_no_direct_peer() {
        let address: IpAddr = "10.200.0.2".parse().unwrap();
        let entry = PeerEntry {
            addresses: vec![address],
            send: Some(packet::Path::gre("192.0.2.1".parse().unwrap())),
            receive: vec![],
            sources: SourceCheck::Any,
            ours: true,
        };
        let mut desired = Desired::default();
        desired.apply(&Action::SetPeer(id(1), entry));
        assert_eq!(desired.peer_of(address), Some(id(1)));
        desired.apply(&Action::SetNeighbour { address, peer: None });
        assert_eq!(desired.peer_of(address), None);
        assert!(desired.direct().is_empty());
        assert_eq!(desired.neighbour_macs()[&address], BY_HUB_MAC);
    }
}
