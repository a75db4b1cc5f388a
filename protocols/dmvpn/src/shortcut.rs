//! Shortcuts: what is wanted directly, and how far it got. A next hop of phase 2 is one too, for a single address and
//! without a route.
//!
//! ```text
//!   indicated, or next hop wanted
//!            |                        no answer, refused
//!        Resolving ------------------------------------------+
//!            | answered                                      |
//!   asked    |                 no probe came back            v
//!   -----> Forming --------------------------------------> Resting -- wanted again, back-off over --> Resolving
//!            | a probe came back                             ^
//!            v                 lost, idle, expired, purged   |
//!           Up ----------------------------------------------+
//!            ^ | at 2/3 of the holding time, when used: resolved again, beside what carries
//!            +-+
//! ```

use crate::action::Event;
use crate::limits::MAX_RESOLVING;
use crate::peer::{ATTEMPT, HANDSHAKE, Peer, Verdict};
use crate::resting::Resting;
use crate::timer::Timer;
use crate::tunnel::Tunnel;
use ipnet::IpNet;
use nhrp::{PeerInfo, ResolutionFailure, ResolutionId};
use packet::{Instant, PeerId};
use prefix_trie::joint::map::JointPrefixMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What rests is kept for people to ask about, this long.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A renewal that got no answer is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// An expired answer is looked at this often while no hub is there to renew it.
const NO_HUB: Duration = Duration::from_secs(5);

/// All shortcuts, by prefix.
#[derive(Default)]
pub(crate) struct Shortcuts {
    pub(crate) table: JointPrefixMap<IpNet, Shortcut>,
    pub(crate) resolving: BTreeMap<ResolutionId, IpNet>,
}

/// One shortcut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shortcut {
    pub(crate) prefix: IpNet,
    /// What to ask for when it is renewed.
    pub(crate) destination: IpAddr,
    pub(crate) state: State,
    /// A question that is under way: the first, or a renewal.
    pub(crate) resolution: Option<ResolutionId>,
    pub(crate) since: Instant,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The shortcut that this one takes over from, when a renewal was answered with another prefix.
    pub(crate) replaces: Option<IpNet>,
}

/// How far it got.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum State {
    /// The answer is awaited.
    Resolving,
    /// The path is being proven.
    Forming(Leg),
    /// It carries; `next` is being proven to take over.
    Up { leg: Leg, next: Option<Leg> },
    /// It was given up.
    Resting { reason: Resting, until: Instant },
}

/// By whom, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) peer: PeerId,
    /// Next hop.
    pub(crate) via: IpAddr,
    pub(crate) expires: Instant,
    /// When to ask again, if used.
    pub(crate) renew: Instant,
    /// When the answer came.
    pub(crate) answered: Instant,
}

impl Leg {
    fn new(now: Instant, peer: PeerId, via: IpAddr, holding_time: Duration) -> Self {
        Self { peer, via, expires: now + holding_time, renew: now + holding_time * 2 / 3, answered: now }
    }
}

impl Shortcut {
    /// Those who would miss the peer if its path went.
    pub(crate) fn uses(&self, peer: PeerId) -> bool {
        match &self.state {
            State::Forming(leg) => leg.peer == peer,
            State::Up { leg, next } => leg.peer == peer || next.is_some_and(|n| n.peer == peer),
            State::Resolving | State::Resting { .. } => false,
        }
    }
}

impl Shortcuts {
    /// After a restart: these are the shortcuts.
    pub(crate) fn resumed(all: Vec<Shortcut>) -> Self {
        let mut shortcuts = Self::default();
        for s in all {
            if let Some(id) = s.resolution {
                shortcuts.resolving.insert(id, s.prefix);
            }
            shortcuts.table.insert(s.prefix, s);
        }
        shortcuts
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shortcut> {
        self.table.iter().map(|(_, s)| s)
    }

    pub(crate) fn covering(&self, destination: IpAddr) -> Option<&Shortcut> {
        self.table.get_lpm(&destination.into()).map(|(_, s)| s)
    }

    pub(crate) fn keys(&self, which: impl Fn(&Shortcut) -> bool) -> Vec<IpNet> {
        self.iter().filter(|s| which(s)).map(|s| s.prefix).collect()
    }
}

impl Tunnel {
    /// A direct way to `destination` is wanted. Asks for it, unless that was done, or failed just now.
    pub(crate) fn want(&mut self, now: Instant, destination: IpAddr) {
        let mut failures = 0;
        if let Some(known) = self.shortcuts.covering(destination) {
            match &known.state {
                State::Resting { until, .. } if *until <= now => failures = known.failures,
                _ => return,
            }
        }
        if self.shortcuts.resolving.len() >= MAX_RESOLVING || !self.make_room() {
            return;
        }
        let prefix = IpNet::from(destination);
        let id = self.with_node(|node, world| node.resolve(now, destination, world));
        self.shortcuts.resolving.insert(id, prefix);
        let state = State::Resolving;
        let resolution = Some(id);
        let shortcut =
            Shortcut { prefix, destination, state, resolution, since: now, failures, replaces: None };
        self.shortcuts.table.insert(prefix, shortcut);
        self.retime(now, prefix);
    }

    /// The answer to a question of ours.
    pub(crate) fn resolved(
        &mut self,
        now: Instant,
        id: ResolutionId,
        destination: IpAddr,
        answered: IpNet,
        info: &PeerInfo,
        holding_time: Duration,
    ) {
        let Some(asked) = self.shortcuts.resolving.remove(&id) else { return };
        let Some(shortcut) = self.shortcuts.table.get_mut(&asked) else { return };
        shortcut.resolution = None;
        let via = info.protocol_address;
        if self.config.addresses.contains(&via) {
            return self.rest(now, asked, Resting::Unresolved("this node itself is the egress".into()));
        }
        // An answer wider than the route that leads there now would change nothing: that route is more specific.
        let prefix = match self.routes.lookup(destination) {
            Some((route, _)) if answered.contains(&route) => route,
            _ => answered,
        };
        if self.is_by_hub_already(destination, via) {
            let until = now + holding_time;
            return self.leave(now, asked, Resting::HubIsEgress, until);
        }
        let candidates = self.usable_candidates(info, Some(prefix));
        let route = self.needs_route(prefix, via).then(|| self.recursion(prefix, &candidates)).flatten();
        let covered = info.candidates.first().map(|p| p.remote).filter(|_| candidates.is_empty());
        if let Some(nbma) = route.or(covered) {
            self.events.push_back(Event::RecursiveRoute { prefix, nbma });
            return self.rest(now, asked, Resting::Recursive { prefix, nbma });
        }
        let Some(peer) = self.meet(now, info, &candidates) else {
            return self.rest(now, asked, Resting::NoRoom);
        };
        if let Some(p) = self.peers.get_mut(peer) {
            // Our request told it where we are, for as long.
            p.receive_until = p.receive_until.max(now + self.config.nhrp.holding_time);
        }
        let leg = Leg::new(now, peer, via, holding_time);
        self.adopt(now, asked, prefix, destination, leg);
        self.install_by(now, peer);
    }

    /// Somebody resolved something behind us: start our side, since both must send for a NAT to let either in.
    pub(crate) fn asked(&mut self, now: Instant, info: &PeerInfo, holding_time: Duration) {
        let via = info.protocol_address;
        let prefix = IpNet::from(via);
        if self.config.addresses.contains(&via)
            || self.hubs.has_address(via)
            || self.policy.authorize_registration(info.identity.as_deref(), prefix).is_err()
        {
            return;
        }
        let candidates = self.usable_candidates(info, None);
        if candidates.is_empty() || !self.make_room() {
            return;
        }
        let Some(peer) = self.meet(now, info, &candidates) else { return };
        if let Some(p) = self.peers.get_mut(peer) {
            p.receive_until = p.receive_until.max(now + holding_time);
        }
        if self.peers.get(peer).is_some_and(|p| !p.has_role()) {
            let leg = Leg::new(now, peer, via, holding_time);
            self.adopt(now, prefix, prefix, via, leg);
            self.install_by(now, peer);
        }
    }

    /// A question of ours came to nothing.
    pub(crate) fn unresolved(&mut self, now: Instant, id: ResolutionId, reason: &ResolutionFailure) {
        let Some(prefix) = self.shortcuts.resolving.remove(&id) else { return };
        let Some(shortcut) = self.shortcuts.table.get_mut(&prefix) else { return };
        shortcut.resolution = None;
        let silent = matches!(reason, ResolutionFailure::Timeout | ResolutionFailure::NoRoute);
        if let (State::Up { leg, .. }, true) = (&mut shortcut.state, silent) {
            leg.renew = now + RENEW_AGAIN;
            return self.retime(now, prefix);
        }
        self.rest(now, prefix, crate::explain::failure(reason));
    }

    /// A peer withdrew what it answered or registered.
    pub(crate) fn purged(&mut self, now: Instant, prefix: IpNet, by: IpAddr) {
        let whole = prefix == IpNet::from(by);
        let concerns = |s: &Shortcut| {
            let overlaps = prefix.contains(&s.prefix) || s.prefix.contains(&prefix);
            let by_it = match &s.state {
                State::Up { leg, .. } | State::Forming(leg) => leg.via == by,
                State::Resolving | State::Resting { .. } => false,
            };
            by_it && (whole || overlaps)
        };
        for key in self.shortcuts.keys(concerns) {
            self.leave(now, key, Resting::Purged, now);
        }
    }

    /// What probes of a peer have decided.
    pub(crate) fn decided(&mut self, now: Instant, id: PeerId, verdict: Verdict) {
        // The row first: one message, and what the kernel still sends to the peer goes the right way.
        self.touch(now, id);
        match verdict {
            Verdict::Proven(_) => self.install_by(now, id),
            Verdict::Back => {
                self.hub_back(now, id);
                self.install_by(now, id);
            }
            Verdict::Unproven => {
                let reason = Resting::Unproven(self.why_unproven(id));
                let mut told = false;
                for key in self.shortcuts.keys(|s| s.uses(id)) {
                    // One failure is told once, however many shortcuts it concerns.
                    let events = self.events.len();
                    self.drop_leg(now, key, id, &reason);
                    if told {
                        self.events.truncate(events);
                    }
                    told |= self.events.len() > events;
                }
            }
            Verdict::Lost(path) if self.peers.get(id).is_some_and(|p| p.hub.is_some()) => {
                self.hub_lost(now, id, &format!("{path} does not answer"));
            }
            Verdict::Lost(_) if self.peers.get(id).is_some_and(|p| !p.registrations.is_empty()) => {
                self.registered_lost(id, "does not answer");
            }
            Verdict::Lost(path) => self.abandon(now, id, &format!("{path} does not answer")),
        }
    }

    /// The path to this peer is good: what waited for it carries from now on.
    pub(crate) fn install_by(&mut self, now: Instant, id: PeerId) {
        let Some(path) = self.peers.get(id).and_then(|p| p.direct()) else { return };
        for key in self.shortcuts.keys(|s| s.uses(id)) {
            let Some(s) = self.shortcuts.table.get(&key) else { continue };
            let (leg, before) = match &s.state {
                State::Forming(leg) if leg.peer == id => (*leg, None),
                State::Up { leg: old, next: Some(leg) } if leg.peer == id => (*leg, Some(*old)),
                _ => continue,
            };
            if let Err(why) = self.may_carry(id, leg.via, key) {
                self.drop_leg(now, key, id, &Resting::Denied(why));
                continue;
            }
            let Some(s) = self.shortcuts.table.get_mut(&key) else { continue };
            (s.state, s.since) = (State::Up { leg, next: None }, now);
            let replaced = s.replaces.take();
            // The next hop is resolved before a route leads to it.
            self.outside.set_neighbour(leg.via, Some(id));
            if self.needs_route(key, leg.via) {
                self.outside.add_route(key, leg.via);
            }
            self.events.push_back(Event::ShortcutUp { prefix: key, via: leg.via, path });
            if let Some(old) = before {
                self.release(now, old);
            }
            if let Some(replaced) = replaced {
                self.forget(now, replaced);
            }
            self.retime(now, key);
        }
    }

    /// A shortcut's timer.
    pub(crate) fn shortcut_due(&mut self, now: Instant, key: IpNet) {
        let Some(s) = self.shortcuts.table.get(&key) else { return };
        let resolving = s.resolution.is_some();
        match &s.state {
            State::Resting { until, .. } if now >= *until + REMEMBERED => self.forget(now, key),
            State::Resolving | State::Resting { .. } => {}
            State::Forming(leg) if now >= leg.expires => self.rest(now, key, Resting::Expired),
            State::Forming(_) => {}
            State::Up { leg, .. } => {
                let (leg, destination) = (*leg, s.destination);
                let used = self.peers.get(leg.peer).map_or(Instant::ZERO, |p| p.sent);
                if now >= used.max(s.since) + self.config.idle_timeout {
                    return self.leave(now, key, Resting::Idle, now);
                }
                if now >= leg.expires && self.hubs.any_registered() {
                    return self.leave(now, key, Resting::Expired, now);
                }
                if now >= leg.renew && used > leg.answered && !resolving {
                    let id = self.with_node(|node, world| node.resolve(now, destination, world));
                    self.shortcuts.resolving.insert(id, key);
                    if let Some(s) = self.shortcuts.table.get_mut(&key) {
                        s.resolution = Some(id);
                    }
                }
            }
        }
        self.retime(now, key);
    }

    /// Sets every shortcut's timer, after a restart.
    pub(crate) fn retime_all(&mut self, now: Instant) {
        for key in self.shortcuts.keys(|_| true) {
            self.retime(now, key);
        }
    }

    // ---- helpers

    /// The peer that a message is about, with the ways to it, and an attempt to prove one begun.
    fn meet(&mut self, now: Instant, info: &PeerInfo, candidates: &[packet::Path]) -> Option<PeerId> {
        let encrypted = self.gate.is_some();
        let first = candidates.first().copied();
        // Who a foreign router is, its session tells.
        let same = |p: &Peer| {
            p.identity == info.identity || encrypted && (p.identity.is_none() || info.identity.is_none())
        };
        let same_station =
            |id: &PeerId| self.peers.get(*id).is_some_and(|p| same(p) || p.addresses.is_empty());
        // Somebody else with that tunnel address is not met by the paths of the one before.
        let same_holder = |id: &PeerId| self.peers.get(*id).is_some_and(|p| same(p) || p.has_role());
        let known = self
            .peers
            .by_address(info.protocol_address)
            .filter(same_holder)
            .or_else(|| first.and_then(|path| self.peers.by_path(path)).filter(same_station));
        let id = match known {
            Some(id) => id,
            None => self.create_peer(now)?,
        };
        self.bind_address(now, info.protocol_address, id);
        self.peers.get_mut(id)?.learn(info, encrypted);
        let free: Vec<packet::Path> =
            candidates.iter().copied().filter(|path| self.may_claim(now, *path, id)).collect();
        let patience = if encrypted { ATTEMPT + HANDSHAKE } else { ATTEMPT };
        let p = self.peers.get_mut(id)?;
        if !p.has_role() {
            p.offer(now, &free);
            p.begin(now, patience);
        }
        self.touch(now, id);
        Some(id)
    }

    /// Makes `leg` the way of `prefix`, or the one to prove for it; `asked` is the entry that the question was about.
    fn adopt(&mut self, now: Instant, asked: IpNet, prefix: IpNet, destination: IpAddr, leg: Leg) {
        let mut failures = 0;
        let mut replaces = None;
        if asked != prefix {
            match self.shortcuts.table.get(&asked) {
                // What carries goes on until the new one does.
                Some(s) if matches!(s.state, State::Up { .. }) => replaces = Some(asked),
                Some(s) => {
                    failures = s.failures;
                    self.forget(now, asked);
                }
                None => {}
            }
        }
        match self.shortcuts.table.get_mut(&prefix) {
            Some(Shortcut { state: State::Up { leg: old, next }, .. }) => {
                if (old.peer, old.via) == (leg.peer, leg.via) {
                    (*old, *next) = (leg, None);
                    if let Some(replaced) = replaces {
                        self.forget(now, replaced);
                    }
                } else {
                    *next = Some(leg);
                }
            }
            Some(s) => {
                s.state = State::Forming(leg);
                s.since = now;
                s.destination = destination;
                s.replaces = s.replaces.or(replaces);
            }
            None => {
                let state = State::Forming(leg);
                let s =
                    Shortcut { prefix, destination, state, resolution: None, since: now, failures, replaces };
                self.shortcuts.table.insert(prefix, s);
            }
        }
        self.retime(now, prefix);
    }

    /// Is the hub that would carry it anyway the egress?
    fn is_by_hub_already(&self, destination: IpAddr, via: IpAddr) -> bool {
        let nhrp::Route::Overlay { next_hop, .. } = self.routes.route(destination) else { return false };
        let carries = self.peers.by_address(via).is_some_and(|p| self.outside.standing.by_hub == Some(p));
        carries && (next_hop == via || !self.outside.standing.neighbours.contains_key(&next_hop))
    }

    /// A tunnel address that is on link needs a neighbour only.
    fn needs_route(&self, prefix: IpNet, via: IpAddr) -> bool {
        prefix != IpNet::from(via) || !self.routes.is_on_link(via)
    }

    pub(crate) fn retime(&mut self, now: Instant, key: IpNet) {
        let Some(s) = self.shortcuts.table.get(&key) else { return };
        let at = match &s.state {
            State::Resolving => Instant::NEVER,
            State::Forming(leg) => leg.expires,
            State::Resting { until, .. } => *until + REMEMBERED,
            State::Up { leg, .. } => {
                let used = self.peers.get(leg.peer).map_or(Instant::ZERO, |p| p.sent);
                let idle = used.max(s.since) + self.config.idle_timeout;
                let expires = leg.expires.max(if now >= leg.expires { now + NO_HUB } else { now });
                let renew = match s.resolution {
                    None if leg.renew > now => leg.renew,
                    // Not used since the answer came: look again before it expires.
                    None => now + RENEW_AGAIN,
                    Some(_) => Instant::NEVER,
                };
                idle.min(expires).min(renew)
            }
        };
        self.timers.set(Timer::Shortcut(key), at);
    }
}
