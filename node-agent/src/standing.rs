//! What the engine's standing decisions mean for the datapath, the kernel and the hairpin. Pure.

use crate::kernel::route::{NHRP, SHORTCUT_METRIC, TunnelRoute};
use dataplane::messages::{Peer, Request, SaLimits};
use dmvpn::{Action, PeerEntry, SourceCheck, Standing};
use ikev2::{LocalPort, Transmit, TransmitKind};
use ipnet::IpNet;
use packet::PeerId;
use packet::peer::{BY_HUB_MAC, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::executor::Step;

/// An action of the engine's as a step of the executor's.
#[must_use]
pub fn step(action: Action) -> Step {
    match action {
        Action::SetPeer(id, entry) => Step::Datapath(Request::SetPeer(id, row(&entry))),
        Action::RemovePeer(id) => Step::Datapath(Request::RemovePeer(id)),
        Action::SetByHub(id) => Step::Datapath(Request::SetByHub(id)),
        Action::SetMulticast(ids) => Step::Datapath(Request::SetMulticast(ids)),
        Action::Transmit { path, protocol, payload } => {
            Step::Datapath(Request::Transmit { path, protocol, payload })
        }
        Action::AddInboundSa { path, keys } => Step::Datapath(Request::AddInboundSa { path, keys }),
        Action::RemoveInboundSa { spi } => Step::Datapath(Request::RemoveInboundSa { spi }),
        Action::SetOutboundSa { path, lane, keys, soft: (packets, octets) } => {
            let soft = SaLimits { packets, octets };
            Step::Datapath(Request::SetOutboundSa { path, lane, keys, soft })
        }
        Action::RemoveOutboundSa { path, spi } => Step::Datapath(Request::RemoveOutboundSa { path, spi }),
        Action::TransmitIke(Transmit { address, kind }) => Step::Datapath(Request::TransmitIke {
            remote: address.remote,
            nat_traversal: address.local == LocalPort::NatTraversal,
            message: match kind {
                TransmitKind::Message(message) => Some(message),
                TransmitKind::Keepalive => None,
            },
        }),
        Action::SetNeighbour { address, peer } => Step::SetNeighbour(address, mac(peer)),
        Action::RemoveNeighbour { address } => Step::RemoveNeighbour(address),
        Action::AddRoute { prefix, via } => Step::AddRoute(shortcut(prefix, via)),
        Action::RemoveRoute { prefix, via } => Step::RemoveRoute(shortcut(prefix, via)),
    }
}

/// What brings a datapath that holds `present`, and the kernel, to what stands. New rows come first and stale rows go
/// last, so that a packet always finds a way.
#[must_use]
pub fn refill(standing: &Standing, present: &[(PeerId, Peer)]) -> Vec<Step> {
    let present: BTreeMap<PeerId, &Peer> = present.iter().map(|(id, peer)| (*id, peer)).collect();
    let mut steps = Vec::new();
    for (id, entry) in &standing.peers {
        let wanted = row(entry);
        if present.get(id) != Some(&&wanted) {
            steps.push(Step::Datapath(Request::SetPeer(*id, wanted)));
        }
    }
    steps.push(Step::Datapath(Request::SetByHub(standing.by_hub)));
    steps.push(Step::Datapath(Request::SetMulticast(standing.multicast.clone())));
    steps.push(reconcile(standing));
    let stale = present.keys().filter(|id| !standing.peers.contains_key(id));
    steps.extend(stale.map(|id| Step::Datapath(Request::RemovePeer(*id))));
    steps
}

/// What brings the kernel to what stands.
#[must_use]
pub fn reconcile(standing: &Standing) -> Step {
    Step::Reconcile {
        neighbours: standing.neighbours.iter().map(|(address, peer)| (*address, mac(*peer))).collect(),
        shortcuts: shortcuts(standing).collect(),
    }
}

/// The shortcut routes that the kernel should hold.
pub fn shortcuts(standing: &Standing) -> impl Iterator<Item = TunnelRoute> + '_ {
    standing.routes.iter().map(|(prefix, via)| shortcut(*prefix, *via))
}

/// Every tunnel address with a direct path, and its peer.
#[must_use]
pub fn direct(standing: &Standing) -> BTreeMap<IpAddr, PeerId> {
    let rows = standing.peers.iter().filter(|(_, entry)| entry.send.is_some());
    let mut direct: BTreeMap<IpAddr, PeerId> =
        rows.flat_map(|(id, entry)| entry.addresses.iter().map(|a| (*a, *id))).collect();
    for (address, peer) in &standing.neighbours {
        match peer {
            Some(peer) => direct.insert(*address, *peer),
            None => direct.remove(address),
        };
    }
    direct
}

/// Every underlay address that packets of the tunnel go to.
#[must_use]
pub fn underlay(standing: &Standing) -> BTreeSet<IpAddr> {
    let paths = standing.peers.values().flat_map(|entry| entry.send.iter().chain(&entry.receive));
    paths.map(|path| path.remote).collect()
}

/// The link-layer address of a neighbour.
fn mac(peer: Option<PeerId>) -> Mac {
    peer.map_or(BY_HUB_MAC, PeerId::mac)
}

/// A shortcut as a route of the kernel.
const fn shortcut(prefix: IpNet, via: IpAddr) -> TunnelRoute {
    TunnelRoute { prefix, via, protocol: NHRP, metric: SHORTCUT_METRIC }
}

/// A row of the engine's as the datapath knows it.
fn row(entry: &PeerEntry) -> Peer {
    Peer {
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

    fn entry(address: &str, nbma: &str) -> PeerEntry {
        let path = packet::Path::gre(nbma.parse().unwrap());
        PeerEntry {
            addresses: vec![address.parse().unwrap()],
            send: Some(path),
            receive: vec![path],
            sources: SourceCheck::Any,
            ours: true,
        }
    }

    #[test]
    fn a_row_that_is_there_already_is_not_touched() {
        let standing = Standing {
            peers: BTreeMap::from([(id(1), entry("10.200.0.2", "192.0.2.1"))]),
            ..Default::default()
        };
        let present = [(id(1), row(&standing.peers[&id(1)]))];
        let touched = refill(&standing, &present);
        assert!(
            !touched
                .iter()
                .any(|s| matches!(s, Step::Datapath(Request::SetPeer(..) | Request::RemovePeer(_))))
        );
    }

    #[test]
    fn a_stale_row_goes_after_the_kernel_stopped_using_it() {
        let present = [(id(9), row(&entry("10.200.0.9", "192.0.2.9")))];
        let steps = refill(&Standing::default(), &present);
        let reconcile = steps.iter().position(|s| matches!(s, Step::Reconcile { .. })).unwrap();
        let remove = steps.iter().position(|s| matches!(s, Step::Datapath(Request::RemovePeer(_)))).unwrap();
        assert!(reconcile < remove);
    }

    #[test]
    fn a_neighbour_by_the_hub_has_no_direct_peer() {
        let mut standing = Standing {
            peers: BTreeMap::from([(id(1), entry("10.200.0.2", "192.0.2.1"))]),
            ..Default::default()
        };
        let address: IpAddr = "10.200.0.2".parse().unwrap();
        assert_eq!(direct(&standing), BTreeMap::from([(address, id(1))]));
        standing.neighbours.insert(address, None);
        assert_eq!(direct(&standing), BTreeMap::new());
    }
}
