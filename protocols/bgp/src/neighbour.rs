//! A neighbour: its connections, what it announced, what it was told.

use crate::bits::Bits;
use crate::event::{ConnectionId, DownReason};
use crate::family::Families;
use crate::policy::Party;
use crate::session::{Agreed, Session};
use ipnet::IpNet;
use packet::Instant;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// The first wait before connecting again: a hub may hear of our registration a moment after it has answered it.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// How many damaged or refused routes of a session are told one by one.
const COMPLAINTS: u8 = 8;

#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) address: IpAddr,
    /// We connect to it.
    pub(crate) configured: bool,
    /// At most two: one, or two that collide.
    pub(crate) sessions: Vec<Session>,
    /// How it was known when last established.
    pub(crate) party: Option<Party>,
    /// What it announced, believed or not (the keys of its Adj-RIB-In).
    pub(crate) prefixes: BTreeSet<IpNet>,
    /// Prefixes, by number, that it was told of (its Adj-RIB-Out).
    pub(crate) told: Bits,
    /// Prefixes that it must be told of.
    pub(crate) pending: BTreeSet<IpNet>,
    /// Families whose End-of-RIB it must be told when nothing is pending.
    pub(crate) end_of_rib: Families,
    /// Families whose End-of-RIB it has not said yet in this session.
    pub(crate) unfinished: Families,
    /// Families of which stale routes are kept.
    pub(crate) stale: Families,
    /// Not accepted before this moment.
    pub(crate) barred_until: Instant,
    pub(crate) since: Instant,
    pub(crate) last_reason: Option<DownReason>,
    pub(crate) refused: u64,
    retry: Duration,
    complaints: u8,
}

impl Neighbour {
    pub(crate) const fn new(address: IpAddr, configured: bool, now: Instant) -> Self {
        Self {
            address,
            configured,
            sessions: Vec::new(),
            party: None,
            prefixes: BTreeSet::new(),
            told: Bits::EMPTY,
            pending: BTreeSet::new(),
            end_of_rib: Families::NONE,
            unfinished: Families::NONE,
            stale: Families::NONE,
            barred_until: Instant::ZERO,
            since: now,
            last_reason: None,
            refused: 0,
            retry: FIRST_RETRY,
            complaints: 0,
        }
    }

    pub(crate) fn session(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    pub(crate) fn established(&self) -> Option<(&Session, &Agreed)> {
        self.sessions.iter().find_map(|session| Some((session, session.established()?)))
    }

    pub(crate) fn established_mut(&mut self) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.established().is_some())
    }

    /// How long to wait before the next attempt; each longer than the one before.
    pub(crate) fn next_retry(&mut self, longest: Duration) -> Duration {
        let wait = self.retry.min(longest);
        self.retry = (self.retry * 2).min(longest);
        wait
    }

    pub(crate) const fn begin(&mut self, now: Instant) {
        self.retry = FIRST_RETRY;
        self.complaints = 0;
        self.refused = 0;
        self.since = now;
    }

    /// May another complaint about it be told?
    pub(crate) const fn may_complain(&mut self) -> bool {
        self.complaints = self.complaints.saturating_add(1);
        self.complaints <= COMPLAINTS
    }

    /// Nothing is left that needs remembering.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        !self.configured
            && self.sessions.is_empty()
            && self.prefixes.is_empty()
            && self.stale.is_empty()
            && self.barred_until <= now
    }
}
