//! A tunnel's snapshot in the words of the API. Pure.

use crate::clock::millis_since;
use crate::conditions;
use crate::control::Snapshot;
use crate::routing::Origin;
use crate::security::Proof;
use crate::sessions;
use dataplane::messages::PeerCounters;
use dmvpn::view::{HubView, PathView, PeerState, PeerView, Role, ShortcutState, ShortcutView, Way};
use nhrp::EntryKind;
use packet::{Instant, PeerId};
use rpc::agent;
use std::fmt::Display;
use std::time::Duration;

/// The tunnel as `status` shows it.
#[must_use]
pub fn tunnel(snapshot: &Snapshot) -> agent::Tunnel {
    let engine = snapshot.config.engine(snapshot.underlay);
    let hub = snapshot.config.is_hub();
    let registered = snapshot.peers.iter().filter(|p| p.role == Role::Registered).count();
    let shortcuts = snapshot.shortcuts.iter().filter(|s| s.state == ShortcutState::Up).count();
    let observed = snapshot.hubs.iter().find_map(|h| h.observed.filter(|o| o.remote != engine.nbma_address));
    agent::Tunnel {
        interface: snapshot.config.interface().to_owned(),
        name: snapshot.config.name.clone(),
        role: if hub { agent::Role::Hub } else { agent::Role::Spoke }.into(),
        phase: match engine.phase {
            dmvpn::Phase::One => 1,
            dmvpn::Phase::Two => 2,
            dmvpn::Phase::Three => 3,
        },
        networks: words(&engine.networks),
        addresses: words(&engine.addresses),
        identity: engine.identity,
        state: state(snapshot).into(),
        since_ms: millis_since(snapshot.now, snapshot.state_since),
        reason: reason(snapshot),
        protection: sessions::protection_of_tunnel(snapshot),
        nbma: if snapshot.underlay.is_some() { engine.nbma_address.to_string() } else { String::new() },
        udp_port: engine.udp_port.into(),
        mtu: engine.mtu.into(),
        observed: word(observed),
        hubs: snapshot.hubs.iter().map(|h| self::hub(snapshot, h)).collect(),
        traffic: Some(total(snapshot)),
        counters: snapshot.totals.clone(),
        peers: count(snapshot.peers.len()),
        registrations: count(registered),
        shortcuts: count(shortcuts),
        bgp_neighbours: snapshot.bgp.clone(),
        address_conflict: !snapshot.conflicts.is_empty(),
        datapath_connected: snapshot.datapath,
        static_routes: static_routes(snapshot),
        encrypted: snapshot.config.protection.is_some(),
        identity_unverified: !snapshot
            .config
            .protection
            .as_ref()
            .is_some_and(|p| p.proof == Proof::Certificates),
        sessions: count(sessions::up(snapshot).count()),
        warnings: sessions::warnings(snapshot),
        conditions: conditions::of(snapshot),
    }
}

/// The peers as `peers` shows them.
#[must_use]
pub fn peers(snapshot: &Snapshot) -> Vec<agent::Peer> {
    snapshot.peers.iter().map(|peer| self::peer(snapshot, peer)).collect()
}

/// The NHRP cache as `cache` shows it.
#[must_use]
pub fn cache(snapshot: &Snapshot) -> Vec<agent::CacheEntry> {
    let entries = snapshot.cache.iter();
    entries
        .map(|entry| agent::CacheEntry {
            interface: snapshot.config.interface().to_owned(),
            kind: match entry.kind {
                EntryKind::Incomplete => "pending",
                EntryKind::Cached => "resolved",
                EntryKind::Registered => "registered",
                EntryKind::Nhs => "nhs",
                EntryKind::Static => "static",
                EntryKind::Local => "local",
            }
            .to_owned(),
            prefix: entry.prefix.to_string(),
            tunnel_address: entry.protocol_address.to_string(),
            nbma: word(entry.nbma_claimed),
            path: word(entry.path),
            natted: entry.natted,
            identity: entry.identity.clone().unwrap_or_default(),
            expires_ms: entry.expires.map_or(0, |at| millis_since(at, snapshot.now)),
            unique: false,
            group: entry.group.clone().unwrap_or_default(),
        })
        .collect()
}

/// The shortcuts as `shortcuts` shows them.
#[must_use]
pub fn shortcuts(snapshot: &Snapshot) -> Vec<agent::Shortcut> {
    // One that rests no longer is forgotten; the engine keeps it a while to know how often it failed.
    let is_current =
        |s: &&ShortcutView| !matches!(s.state, ShortcutState::Resting { until, .. } if until <= snapshot.now);
    snapshot.shortcuts.iter().filter(is_current).map(|shortcut| self::shortcut(snapshot, shortcut)).collect()
}

/// What the way to a packet's source adds to an explanation: it may start behind this node, or come by the overlay, and
/// then this node is only one on its way.
pub fn path_from(reply: &mut agent::PathReply, source: &PathView) {
    let from = source.destination;
    let (who, path) = match &source.way {
        Way::Local | Way::OffOverlay => return,
        Way::Unreachable { reason } => {
            reply.explanation.push(format!(
                "packets from {from} don't start here, and answers to it have no way: {reason}"
            ));
            return;
        }
        Way::Direct { identity, path, .. } => (identity.clone().unwrap_or_else(|| path.to_string()), path),
        Way::ByHub { hub, path, .. } => (format!("hub {hub}"), path),
    };
    reply.explanation.push(format!(
        "packets from {from} don't start here, but by {who} ({path}): ask there for their whole way; this is the way on from here"
    ));
    if ["shortcut", "hub"].contains(&reply.kind.as_str()) && reply.path == path.to_string() {
        reply
            .explanation
            .push(format!("it would go back to where it came from, which is never done: {who} has the way"));
    }
}

/// An explanation as `path` shows it.
#[must_use]
pub fn path(interface: &str, view: &PathView) -> agent::PathReply {
    let mut reply = agent::PathReply {
        destination: view.destination.to_string(),
        prefix: word(view.prefix),
        via: word(view.next_hop),
        interface: interface.to_owned(),
        explanation: view.to_string().split("; ").map(str::to_owned).collect(),
        ..Default::default()
    };
    match &view.way {
        Way::Local => reply.kind = "local".to_owned(),
        Way::OffOverlay => reply.kind = "kernel".to_owned(),
        Way::Unreachable { .. } => reply.kind = "unreachable".to_owned(),
        Way::Direct { identity, path, natted, duration, fallback, .. } => {
            reply.kind = "shortcut".to_owned();
            reply.identity = identity.clone().unwrap_or_default();
            reply.path = path.to_string();
            reply.natted = *natted;
            reply.since_ms = millis(*duration);
            reply.fallback = fallback.clone().unwrap_or_default();
        }
        Way::ByHub { hub, path, .. } => {
            reply.kind = "hub".to_owned();
            reply.identity.clone_from(hub);
            reply.path = path.to_string();
        }
    }
    reply
}

fn state(snapshot: &Snapshot) -> agent::TunnelState {
    if snapshot.up {
        agent::TunnelState::Up
    } else if snapshot.link.is_none() || snapshot.hubs.iter().all(|h| !h.registered && h.reason.is_none()) {
        agent::TunnelState::Starting
    } else {
        agent::TunnelState::Down
    }
}

fn reason(snapshot: &Snapshot) -> String {
    if let Some((hub, address)) = snapshot.conflicts.iter().next() {
        return format!("another node holds {address}, says hub {hub}");
    }
    if snapshot.up {
        return String::new();
    }
    if !snapshot.datapath {
        return snapshot.failures.last().cloned().unwrap_or_else(|| "waiting for the datapath".to_owned());
    }
    if snapshot.underlay.is_none() {
        return "no underlay address: no route to a hub yet".to_owned();
    }
    if let Some((name, why)) = snapshot.unresolved.iter().next() {
        return format!("hub {name} does not resolve: {why}");
    }
    let hub =
        snapshot.hubs.iter().find_map(|h| h.reason.as_ref().map(|why| format!("hub {}: {why}", h.name)));
    hub.unwrap_or_else(|| "no hub has answered yet".to_owned())
}

fn hub(snapshot: &Snapshot, hub: &HubView) -> agent::Hub {
    let peer = hub.peer.and_then(|id| snapshot.peers.iter().find(|p| p.id == id));
    agent::Hub {
        name: hub.name.clone(),
        tunnel_address: hub.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        priority: hub.priority,
        up: hub.registered && hub.reachable,
        since_ms: millis_since(snapshot.now, hub.since),
        path: word(hub.path),
        by_hub: hub.carries,
        reason: match snapshot.unresolved.get(&hub.name) {
            Some(why) => format!("name does not resolve: {why}"),
            None => hub.reason.clone().unwrap_or_default(),
        },
        identity: peer.and_then(|p| p.identity.clone()).unwrap_or_default(),
        rtt_us: hub.rtt.map_or(0, micros),
        candidates: peer.map(|p| words(&p.candidates)).unwrap_or_default(),
    }
}

fn peer(snapshot: &Snapshot, peer: &PeerView) -> agent::Peer {
    let of_peer = |s: &&ShortcutView| s.via.is_some_and(|via| peer.addresses.contains(&via));
    let routes =
        snapshot.routes.iter().filter(|(.., via, why)| why.is_none() && peer.addresses.contains(via));
    let mut prefixes: Vec<String> =
        snapshot.shortcuts.iter().filter(of_peer).map(|s| s.prefix.to_string()).collect();
    prefixes.extend(routes.map(|(_, prefix, ..)| prefix.to_string()));
    prefixes.dedup();
    agent::Peer {
        interface: snapshot.config.interface().to_owned(),
        tunnel_addresses: words(&peer.addresses),
        kind: match peer.role {
            Role::Hub => agent::PeerKind::Hub,
            Role::Registered => agent::PeerKind::Registered,
            Role::Static => agent::PeerKind::Static,
            Role::Spoke => agent::PeerKind::Direct,
        }
        .into(),
        identity: peer.identity.clone().unwrap_or_default(),
        identity_verified: peer
            .path
            .and_then(|path| sessions::session(snapshot, path))
            .is_some_and(sessions::is_verified),
        path: word(peer.path),
        nbma: word(peer.nbma_claimed),
        natted: peer.natted,
        candidates: words(&peer.candidates),
        rtt_us: peer.rtt.map_or(0, micros),
        since_ms: millis_since(snapshot.now, peer.since),
        ours: peer.identity.is_some(),
        traffic: Some(traffic(snapshot, peer.id)),
        group: peer.group.clone().unwrap_or_default(),
        state: match &peer.state {
            PeerState::Up => "up".to_owned(),
            PeerState::Probing => "probing".to_owned(),
            PeerState::Listening => "listening".to_owned(),
            PeerState::Down(why) => format!("down: {why}"),
        },
        last_received_ms: 0,
        prefixes,
        protection: sessions::protection(snapshot, peer.path),
        mtu: peer.path.map_or(0, |_| mtu(snapshot, peer.id).into()),
    }
}

fn shortcut(snapshot: &Snapshot, shortcut: &ShortcutView) -> agent::Shortcut {
    let peer = shortcut.via.and_then(|via| snapshot.peers.iter().find(|p| p.addresses.contains(&via)));
    let (state, reason) = match &shortcut.state {
        ShortcutState::Resolving => ("resolving", String::new()),
        ShortcutState::Forming => {
            ("forming", "the hub carries until the direct path has proven itself".to_owned())
        }
        ShortcutState::Up => ("up", String::new()),
        ShortcutState::Resting { reason, until } => {
            ("resting", format!("{reason}; tried again in {} s", millis_since(*until, snapshot.now) / 1000))
        }
    };
    agent::Shortcut {
        interface: snapshot.config.interface().to_owned(),
        prefix: shortcut.prefix.to_string(),
        via: word(shortcut.via),
        path: word(shortcut.path),
        identity: shortcut.identity.clone().unwrap_or_default(),
        state: state.to_owned(),
        since_ms: millis_since(snapshot.now, shortcut.since),
        expires_ms: shortcut.expires.map_or(0, |at: Instant| millis_since(at, snapshot.now)),
        natted: peer.is_some_and(|p| p.natted),
        rtt_us: peer.and_then(|p| p.rtt).map_or(0, micros),
        reason,
    }
}

fn static_routes(snapshot: &Snapshot) -> Vec<agent::StaticRoute> {
    let by_hand = snapshot.routes.iter().filter(|(origin, ..)| *origin == Origin::Static);
    by_hand
        .map(|(_, prefix, via, why)| agent::StaticRoute {
            prefix: prefix.to_string(),
            via: via.to_string(),
            installed: why.is_none(),
            reason: why.clone().unwrap_or_default(),
        })
        .collect()
}

/// The datapath's totals; rows of the peer table come and go, these stay.
fn total(snapshot: &Snapshot) -> agent::Traffic {
    let named = |name: &str| snapshot.totals.get(name).copied().unwrap_or_default();
    agent::Traffic {
        rx_bytes: named("bytes_received"),
        tx_bytes: named("bytes_sent"),
        rx_packets: named("packets_received"),
        tx_packets: named("packets_sent"),
    }
}

fn traffic(snapshot: &Snapshot, peer: PeerId) -> agent::Traffic {
    let PeerCounters { packets_sent, bytes_sent, packets_received, bytes_received, narrowed: _ } =
        snapshot.counters.get(&peer).copied().unwrap_or_default();
    agent::Traffic {
        rx_bytes: bytes_received,
        tx_bytes: bytes_sent,
        rx_packets: packets_received,
        tx_packets: packets_sent,
    }
}

/// Octets of the longest inner packet to a peer: what the interface takes, or less where ICMP said so.
fn mtu(snapshot: &Snapshot, peer: PeerId) -> u16 {
    let narrowed = snapshot.counters.get(&peer).and_then(|counters| counters.narrowed);
    narrowed.unwrap_or_else(|| snapshot.config.mtu(snapshot.underlay))
}

fn words<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn word(value: Option<impl Display>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
