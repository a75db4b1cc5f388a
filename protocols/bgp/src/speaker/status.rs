//! What people and metrics see.

use super::Speaker;
use crate::session;
use packet::Instant;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// State of a neighbour, as RFC 4271 §8.2.2 names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum State {
    /// No connection, and none is tried now.
    Idle,
    /// A connection is tried.
    Connect,
    /// Our OPEN is sent.
    OpenSent,
    /// The OPENs are agreed on.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// A neighbour, for people.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NeighbourStatus {
    /// Its tunnel address.
    pub address: IpAddr,
    /// Was it configured here, rather than accepted from a range?
    pub configured: bool,
    /// Where its session stands.
    pub state: State,
    /// Since when it is up, or down.
    pub since: Instant,
    /// Its ASN, when it was ever established.
    pub asn: Option<u32>,
    /// Its BGP Identifier.
    pub router_id: Option<Ipv4Addr>,
    /// Prefixes that it announces.
    pub received: usize,
    /// Announcements of this session that were not believed.
    pub refused: u64,
    /// Prefixes that it was told of.
    pub announced: usize,
    /// Its routes are kept while it restarts.
    pub stale: bool,
    /// How its last session, or attempt at one, ended.
    pub last_reason: Option<String>,
}

impl Speaker {
    /// All neighbours.
    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourStatus> {
        self.neighbours.values().map(|neighbour| NeighbourStatus {
            address: neighbour.address,
            configured: neighbour.configured,
            state: neighbour.sessions.iter().map(|s| State::of(&s.state)).max().unwrap_or(State::Idle),
            since: neighbour.since,
            asn: neighbour.party.map(|party| party.asn),
            router_id: neighbour.party.map(|party| party.router_id),
            received: neighbour.prefixes.len(),
            refused: neighbour.refused,
            announced: neighbour.told.len(),
            stale: !neighbour.stale.is_empty(),
            last_reason: neighbour.last_reason.as_ref().map(ToString::to_string),
        })
    }
}

impl State {
    const fn of(state: &session::State) -> Self {
        match state {
            session::State::ExpectConnection => Self::Connect,
            session::State::ExpectOpen => Self::OpenSent,
            session::State::ExpectKeepalive(_) => Self::OpenConfirm,
            session::State::Established(_) => Self::Established,
        }
    }
}
