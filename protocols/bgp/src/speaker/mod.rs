//! The speaker: all neighbours, one table.

mod receive;
mod send;
mod sessions;
mod status;

pub use sessions::AcceptError;
pub use status::{NeighbourStatus, State};

use crate::attributes::Attributes;
use crate::config::{Config, ConfigError};
use crate::error::Notification;
use crate::event::{Command, ConnectionId, DownReason, Event, RouteChange};
use crate::family::Family;
use crate::neighbour::Neighbour;
use crate::policy::{self, ImportFilter};
use crate::rib::{Rib, Route, Source};
use crate::session::Io;
use crate::timer::Timer;
use ipnet::IpNet;
use packet::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A BGP-4 speaker. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
    neighbours: BTreeMap<IpAddr, Neighbour>,
    connections: BTreeMap<ConnectionId, IpAddr>,
    rib: Rib,
    io: Io,
    /// Prefixes about which the kernel must be told.
    changed: BTreeSet<IpNet>,
    /// Summaries, and how many prefixes each has to summarise.
    summaries: Vec<(IpNet, usize)>,
    /// After our restart: neighbours whose End-of-RIB we wait for.
    waiting: Option<BTreeSet<IpAddr>>,
    next_connection: u64,
}

impl Speaker {
    /// A speaker. `seed` is for jitter only.
    pub fn new(now: Instant, config: Config, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let mut speaker = Self {
            neighbours: BTreeMap::new(),
            connections: BTreeMap::new(),
            rib: Rib::new(config.max_paths),
            io: Io::new(seed),
            changed: BTreeSet::new(),
            summaries: config.summaries.iter().map(|summary| (summary.trunc(), 0)).collect(),
            waiting: None,
            next_connection: 0,
            config,
        };
        speaker.begin_restart(now);
        for prefix in speaker.config.announce.clone() {
            speaker.originate(prefix.trunc(), Source::Local);
        }
        speaker.settle(now);
        Ok(speaker)
    }

    /// What it was told at start, with the changes since.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Connects to a neighbour, and keeps trying. On a spoke: a hub, once its tunnel address is known.
    pub fn add_neighbour(&mut self, now: Instant, address: IpAddr) {
        let neighbour = self.neighbours.entry(address).or_insert_with(|| Neighbour::new(address, true, now));
        neighbour.configured = true;
        if neighbour.sessions.is_empty() {
            self.connect(now, address);
        }
    }

    /// Ends the session with a neighbour and forgets its routes: it was removed from the configuration, or it is known
    /// to be gone for good.
    pub fn remove_neighbour(&mut self, now: Instant, address: IpAddr) {
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        neighbour.configured = false;
        let connections: Vec<_> = neighbour.sessions.iter().map(|session| session.id).collect();
        for connection in connections {
            self.end(now, connection, DownReason::Sent(Notification::DECONFIGURED));
        }
        self.forget_stale(now, address);
        self.neighbours.remove(&address);
        self.io.timers.stop(Timer::ConnectRetry(address));
        self.done_waiting(now, address);
        self.settle(now);
    }

    /// Ends all sessions in good order (RFC 4486, administrative shutdown): neighbours drop our routes at once, and so
    /// do we theirs.
    pub fn shutdown(&mut self, now: Instant) {
        for address in self.neighbours.keys().copied().collect::<Vec<_>>() {
            if let Some(neighbour) = self.neighbours.get_mut(&address) {
                neighbour.configured = false;
            }
            for connection in self.connections_of(address) {
                self.end(now, connection, DownReason::Sent(Notification::SHUTDOWN));
            }
            self.forget_stale(now, address);
        }
        self.settle(now);
    }

    /// Replaces the prefixes we announce.
    pub fn set_announced(&mut self, now: Instant, prefixes: Vec<IpNet>, filter: &dyn ImportFilter) {
        let new: BTreeSet<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        for old in std::mem::take(&mut self.config.announce) {
            if !new.contains(&old.trunc()) {
                self.rib.remove(old.trunc(), |route| route.source == Source::Local);
            }
        }
        self.config.announce = new.iter().copied().collect();
        for prefix in new {
            self.originate(prefix, Source::Local);
        }
        self.review(now, filter);
    }

    /// Claims changed: asks again of every route whether it is believed.
    pub fn review(&mut self, now: Instant, filter: &dyn ImportFilter) {
        for neighbour in self.neighbours.values() {
            let Some(party) = &neighbour.party else { continue };
            for prefix in &neighbour.prefixes {
                self.rib.review(*prefix, party.address, |attributes| {
                    policy::import(&self.config, party, *prefix, attributes, filter).err()
                });
            }
        }
        self.settle(now);
    }

    /// Something is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.io.timers.pop(now) {
            match timer {
                Timer::ConnectRetry(address) => self.retry(now, address),
                Timer::Hold(connection) => self.hold_expired(now, connection),
                Timer::Keepalive(connection) => {
                    let address = self.connections.get(&connection);
                    let neighbour = address.and_then(|address| self.neighbours.get_mut(address));
                    if let Some(session) = neighbour.and_then(|n| n.session(connection)) {
                        session.keep_alive(now, &mut self.io);
                    }
                }
                Timer::SendHold(connection) => self.end(now, connection, DownReason::SendHoldExpired),
                Timer::Restart(address) | Timer::Stale(address) => self.forget_stale(now, address),
                Timer::Deferral => self.settled(now),
                Timer::Advertise => self.flush_all(now),
            }
        }
        self.settle(now);
    }

    /// What to do with connections.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.io.commands.pop_front()
    }

    /// What the kernel shall hold.
    pub fn poll_route(&mut self) -> Option<RouteChange> {
        let prefix = self.changed.pop_first()?;
        let next_hops = self.rib.get(prefix).map(|entry| entry.next_hops().to_vec()).unwrap_or_default();
        Some(RouteChange { prefix, next_hops })
    }

    /// What people want to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.io.events.pop_front()
    }

    /// When [`Speaker::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.io.timers.next()
    }

    /// All routes the kernel shall hold: what a kernel that has lost them, or a new driver, is told.
    pub fn routes(&self) -> impl Iterator<Item = RouteChange> {
        self.rib
            .iter()
            .filter(|(_, entry)| !entry.next_hops().is_empty())
            .map(|(prefix, entry)| RouteChange { prefix, next_hops: entry.next_hops().to_vec() })
    }

    /// The attributes of the route in use, for people.
    #[must_use]
    pub fn best(&self, prefix: IpNet) -> Option<&Attributes> {
        self.rib.get(prefix)?.best().map(|route| &*route.attributes)
    }

    /// Puts a route of our own into the table. Its next hop is chosen for each neighbour when it is sent.
    fn originate(&mut self, prefix: IpNet, source: Source) {
        let local = self.config.local_address(Family::of(prefix));
        let Some(next_hop) = local.or_else(|| self.config.local_addresses.first().copied()) else { return };
        let mut attributes = Attributes::local(next_hop);
        if source == Source::Summary {
            //= rfc4271#9.2.2.2: an aggregate that hides paths says so; without AS_SET (RFC 6472)
            attributes.atomic_aggregate = true;
            attributes.aggregator = Some((self.config.asn, self.config.router_id));
        }
        let route = Route { source, attributes: Arc::new(attributes), refused: None, stale: false };
        self.rib.insert(prefix, route);
    }

    /// Selects anew where routes changed, and notes who must be told.
    fn settle(&mut self, now: Instant) {
        let mut news = false;
        while let Some((prefix, change)) = self.rib.select_next() {
            if change.next_hops {
                self.changed.insert(prefix);
            }
            if let Some(present) = change.presence {
                self.summarise(prefix, present);
            }
            if change.best {
                for neighbour in self.neighbours.values_mut().filter(|n| n.established().is_some()) {
                    neighbour.pending.insert(prefix);
                    news = true;
                }
            }
            self.rib.release(prefix);
        }
        if news && !self.io.timers.is_running(Timer::Advertise) {
            self.io.timers.set(Timer::Advertise, now + self.config.advertisement_interval);
        }
    }

    /// A summary exists as long as there is something to summarise (RFC 4271 §9.2.2.2).
    fn summarise(&mut self, prefix: IpNet, present: bool) {
        let mut begun = Vec::new();
        for (summary, count) in &mut self.summaries {
            if *summary == prefix || !summary.contains(&prefix) {
                continue;
            }
            *count = if present { *count + 1 } else { count.saturating_sub(1) };
            match (present, *count) {
                (true, 1) => begun.push(*summary),
                (false, 0) => {
                    self.rib.remove(*summary, |route| route.source == Source::Summary);
                }
                _ => {}
            }
        }
        for summary in begun {
            self.originate(summary, Source::Summary);
        }
    }

    //= rfc4724#4.1: the End-of-RIB is held back until the neighbours' were heard
    fn begin_restart(&mut self, now: Instant) {
        if let Some(restart) = self.config.restart.clone() {
            self.waiting = Some(restart.expected.into_iter().collect());
            self.io.timers.set(Timer::Deferral, now + restart.deferral);
            if self.waiting.as_ref().is_some_and(BTreeSet::is_empty) {
                self.settled(now);
            }
        }
    }

    /// A neighbour needs no more waiting for.
    fn done_waiting(&mut self, now: Instant, address: IpAddr) {
        let Some(waiting) = &mut self.waiting else { return };
        if waiting.remove(&address) && waiting.is_empty() {
            self.settled(now);
        }
    }

    /// Our restart is over.
    fn settled(&mut self, now: Instant) {
        if self.waiting.take().is_some() {
            self.io.timers.stop(Timer::Deferral);
            self.settle(now);
            self.io.events.push_back(Event::Settled);
            self.flush_all(now);
        }
    }
}
