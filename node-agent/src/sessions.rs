//! IKE sessions and SAs in the words of the API. Pure.

use crate::clock::millis_since;
use crate::control::Snapshot;
use claims::Proof;
use ikev2::{ChildView, SessionView};
use packet::{Encapsulation, Instant, Path};
use rpc::agent;
use std::time::Duration;

/// The sessions as `sa` shows them.
#[must_use]
pub fn sessions(snapshot: &Snapshot) -> Vec<agent::Session> {
    snapshot.sessions.iter().map(|session| describe(snapshot, session)).collect()
}

/// The session on a path.
#[must_use]
pub fn session(snapshot: &Snapshot, path: Path) -> Option<&SessionView> {
    up(snapshot).find(|session| session.path == path)
}

/// The sessions that are up.
pub fn up(snapshot: &Snapshot) -> impl Iterator<Item = &SessionView> {
    snapshot.sessions.iter().filter(|session| session.established.is_some())
}

/// Has the peer proven its name?
#[must_use]
pub fn is_verified(session: &SessionView) -> bool {
    session.identity.as_ref().is_some_and(|identity| identity.certified().is_some())
}

/// What protects packets to this path: a suite; `none` where that was asked for; nothing where there is no SA.
#[must_use]
pub fn protection(snapshot: &Snapshot, path: Option<Path>) -> String {
    if snapshot.config.protection.is_none() {
        return "none".to_owned();
    }
    let child = path.and_then(|path| newest(session(snapshot, path)?));
    child.map(|child| child.suite.to_string()).unwrap_or_default()
}

/// What protects the tunnel, as a column of `status`: the SA with the hub that carries; on a hub, the suites in use.
#[must_use]
pub fn protection_of_tunnel(snapshot: &Snapshot) -> String {
    if snapshot.config.protection.is_none() {
        return "none".to_owned();
    }
    let hub = snapshot.hubs.iter().find(|hub| hub.carries).and_then(|hub| session(snapshot, hub.path?));
    if let Some(session) = hub
        && let Some(child) = newest(session)
    {
        return format!("{}, {}", child.suite, age(snapshot.now, session, child));
    }
    let mut suites: Vec<String> =
        up(snapshot).filter_map(newest).map(|child| child.suite.to_string()).collect();
    suites.sort();
    suites.dedup();
    if suites.is_empty() { "no SA yet".to_owned() } else { suites.join(" ") }
}

/// What should be changed about the tunnel's security.
#[must_use]
pub fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let weak = snapshot.config.protection.iter().flat_map(|protection| protection.warnings.clone());
    let exported = snapshot.key_folder.iter().map(|folder| {
        format!(
            "the keys of every SA are written to {}: remove security.exportKeys when the fault is found",
            folder.display()
        )
    });
    weak.chain(exported).collect()
}

/// A path as people know it: without UDP it is ESP.
#[must_use]
pub fn place(path: Path) -> String {
    match path.encapsulation {
        Encapsulation::Gre => format!("{} (esp)", path.remote),
        Encapsulation::Udp { .. } => path.to_string(),
    }
}

fn describe(snapshot: &Snapshot, session: &SessionView) -> agent::Session {
    let ago = |moment: Option<Instant>| moment.map_or(0, |at| millis_since(snapshot.now, at));
    let certified = session.identity.as_ref().and_then(claims::Identity::certified);
    let identity = session.identity.as_ref().map(|identity| identity.name.clone()).unwrap_or_default();
    let remote_id = session.remote_id.as_ref().map(ToString::to_string).filter(|id| *id != identity);
    let is_at = |path: Path| path == session.path;
    let peers: Vec<_> = snapshot
        .peers
        .iter()
        .filter(|peer| peer.path.is_some_and(is_at) || peer.candidates.iter().copied().any(is_at))
        .collect();
    let (initiator_spi, responder_spi) = session.spis;
    let (detected, we_behind_nat) = session.nat;
    // Peers of ours claim so in any case, to have ESP put into UDP; NHRP knows better.
    let peer_behind_nat = peers.first().map_or(detected, |peer| peer.natted);
    agent::Session {
        interface: snapshot.config.interface().to_owned(),
        verified: is_verified(session),
        identity,
        remote_id: remote_id.unwrap_or_default(),
        path: place(session.path),
        tunnel_addresses: peers.iter().flat_map(|peer| &peer.addresses).map(ToString::to_string).collect(),
        initiator: session.initiator,
        state: session.state.to_owned(),
        ike: session.ike.clone().unwrap_or_default(),
        initiator_spi: format!("{initiator_spi:016x}"),
        responder_spi: format!("{responder_spi:016x}"),
        established_ms: ago(session.established),
        rekeyed_ms: ago(session.rekeyed),
        peer_behind_nat,
        we_behind_nat,
        sas: session.children.iter().map(|child| sa(snapshot, child)).collect(),
        certificate: certified.map(|c| hexadecimal(&c.fingerprint)).unwrap_or_default(),
        not_after: certified.map_or(0, |c| c.not_after),
        claims: session.identity.as_ref().map(claims_of).unwrap_or_default(),
        serial: certified.and_then(serial).unwrap_or_default(),
    }
}

/// The serial number of a peer's certificate.
fn serial(certified: &claims::Certified) -> Option<String> {
    identity::pki::serial_of(certified.chain.certificates().first()?)
}

fn claims_of(identity: &claims::Identity) -> Vec<String> {
    match &identity.proof {
        Proof::SharedKey => Vec::new(),
        Proof::Certificate(certified) => {
            let addresses = certified.tunnel_addresses.iter().map(ToString::to_string);
            addresses.chain(certified.prefixes.iter().flatten().map(ToString::to_string)).collect()
        }
    }
}

fn sa(snapshot: &Snapshot, child: &ChildView) -> agent::Sa {
    let (received, sent) =
        (snapshot.sas.get(&(false, child.inbound)), snapshot.sas.get(&(true, child.outbound)));
    agent::Sa {
        suite: child.suite.to_string(),
        esn: child.esn,
        inbound_spi: format!("{:08x}", child.inbound),
        outbound_spi: format!("{:08x}", child.outbound),
        lane: child.lane.into(),
        age_ms: millis_since(snapshot.now, child.installed),
        rekey_in_ms: millis_since(child.rekey_at, snapshot.now),
        traffic: Some(agent::Traffic {
            rx_bytes: received.map_or(0, |sa| sa.octets),
            tx_bytes: sent.map_or(0, |sa| sa.octets),
            rx_packets: received.map_or(0, |sa| sa.packets),
            tx_packets: sent.map_or(0, |sa| sa.packets),
        }),
        replayed: received.map_or(0, |sa| sa.replayed),
        forged: received.map_or(0, |sa| sa.forged),
        received_sequence: received.map_or(0, |sa| sa.sequence),
        sent_sequence: sent.map_or(0, |sa| sa.sequence),
    }
}

fn newest(session: &SessionView) -> Option<&ChildView> {
    session.children.iter().max_by_key(|child| child.installed)
}

/// How old keys are. A child that is older than a few seconds against its session has replaced another.
fn age(now: Instant, session: &SessionView, child: &ChildView) -> String {
    let span = span(now.since(child.installed));
    let with_session =
        session.established.is_some_and(|at| child.installed.since(at) < Duration::from_secs(5));
    if with_session { format!("keyed {span} ago") } else { format!("rekeyed {span} ago") }
}

/// By its largest unit, as `status` has it: `12m`.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
