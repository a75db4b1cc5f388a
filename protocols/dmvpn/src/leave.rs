//! How a shortcut ends: by failure, by age, on request; and what becomes of the path that it used.

use crate::action::Event;
use crate::limits::MAX_SHORTCUTS;
use crate::resting::Resting;
use crate::shortcut::{Leg, Shortcut, State};
use crate::timer::Timer;
use crate::tunnel::Tunnel;
use ipnet::IpNet;
use packet::{Instant, PeerId};
use std::net::IpAddr;
use std::time::Duration;

/// After the first failure, nothing is tried again for this long; then for twice as long, and so on.
const BACK_OFF: Duration = Duration::from_secs(30);
/// The same where the reason may well have gone by then: a path that worked is lost while the peer restarts, and who
/// joined just now is not known everywhere yet.
const SHORT_BACK_OFF: Duration = Duration::from_secs(5);
/// Nothing rests longer.
const MAX_BACK_OFF: Duration = Duration::from_secs(600);
/// Up for so long, and earlier failures are forgiven.
const STABLE: Duration = Duration::from_secs(60);

impl Tunnel {
    /// Every shortcut by this peer is left, since its path is gone; the hub carries.
    pub(crate) fn abandon(&mut self, now: Instant, id: PeerId, why: &str) {
        self.touch(now, id);
        let reason = Resting::Lost(why.into());
        for key in self.shortcuts.keys(|s| s.uses(id)) {
            self.drop_leg(now, key, id, &reason);
        }
    }

    /// Every shortcut by this peer is left, since it has left in good order: the next use asks for it again.
    pub(crate) fn desert(&mut self, now: Instant, id: PeerId, why: &str) {
        self.touch(now, id);
        for key in self.shortcuts.keys(|s| s.uses(id)) {
            self.leave(now, key, Resting::Lost(why.into()), now);
        }
    }

    /// `peer` is no way of this shortcut any more.
    pub(crate) fn drop_leg(&mut self, now: Instant, key: IpNet, peer: PeerId, reason: &Resting) {
        if let Some(s) = self.shortcuts.table.get_mut(&key)
            && let State::Up { leg, next: next @ Some(_) } = &mut s.state
            && leg.peer != peer
        {
            *next = None;
            return;
        }
        self.rest(now, key, reason.clone());
    }

    /// Gives up after a failure, with a back-off.
    pub(crate) fn rest(&mut self, now: Instant, key: IpNet, reason: Resting) {
        let Some(s) = self.shortcuts.table.get_mut(&key) else { return };
        if matches!(s.state, State::Up { .. }) && now.since(s.since) >= STABLE {
            s.failures = 0;
        }
        let first = match reason {
            Resting::Lost(_) | Resting::Unresolved(_) => SHORT_BACK_OFF,
            _ => BACK_OFF,
        };
        let until = now + (first * 2u32.saturating_pow(s.failures.min(8))).min(MAX_BACK_OFF);
        s.failures = s.failures.saturating_add(1);
        // A recursive route has an event of its own, and what carried is told of by `leave`.
        let told = matches!(reason, Resting::Recursive { .. });
        if !told && matches!(s.state, State::Resolving | State::Forming(_)) {
            let (destination, text) = (s.destination, reason.to_string());
            self.events.push_back(Event::ShortcutFailed { destination, reason: text });
        }
        self.leave(now, key, reason, until);
    }

    /// There is a hub to ask again: whatever was not answered, for want of one or of a hub that knew, may be asked again.
    pub(crate) fn wake_unresolved(&mut self, now: Instant) {
        let unresolved =
            |s: &Shortcut| matches!(s.state, State::Resting { reason: Resting::Unresolved(_), .. });
        for key in self.shortcuts.keys(unresolved) {
            if let Some(Shortcut { state: State::Resting { until, .. }, .. }) =
                self.shortcuts.table.get_mut(&key)
            {
                *until = now.min(*until);
            }
            self.retime(now, key);
        }
    }

    /// Leaves a shortcut: the hub carries, and what is still on its way directly is received.
    pub(crate) fn leave(&mut self, now: Instant, key: IpNet, reason: Resting, until: Instant) {
        let Some(s) = self.shortcuts.table.get_mut(&key) else { return };
        if let Some(id) = s.resolution.take() {
            self.shortcuts.resolving.remove(&id);
            self.node.cancel(id);
        }
        let text = reason.to_string();
        let state = std::mem::replace(&mut s.state, State::Resting { reason, until });
        s.since = now;
        s.replaces = None;
        match state {
            State::Up { leg, next } => {
                self.outside.remove_route(key, leg.via);
                self.release(now, leg);
                if let Some(next) = next {
                    self.release(now, next);
                }
                self.events.push_back(Event::ShortcutDown { prefix: key, via: leg.via, reason: text });
            }
            State::Forming(leg) => self.release(now, leg),
            State::Resolving | State::Resting { .. } => {}
        }
        self.retime(now, key);
    }

    /// Nothing more to say about it.
    pub(crate) fn forget(&mut self, now: Instant, key: IpNet) {
        let Some(s) = self.shortcuts.table.remove(&key) else { return };
        if let Some(id) = s.resolution {
            self.shortcuts.resolving.remove(&id);
            self.node.cancel(id);
        }
        match s.state {
            State::Up { leg, .. } => {
                self.outside.remove_route(key, leg.via);
                self.release(now, leg);
            }
            State::Forming(leg) => self.release(now, leg),
            State::Resolving | State::Resting { .. } => {}
        }
        self.timers.stop(Timer::Shortcut(key));
    }

    /// A shortcut no longer needs this way to its peer. The last one to go ends the direct path.
    pub(crate) fn release(&mut self, now: Instant, leg: Leg) {
        if self.peers.get(leg.peer).is_none_or(|p| p.has_role()) {
            return;
        }
        let others = |via: Option<IpAddr>| {
            self.shortcuts.iter().any(|s| {
                let legs = match &s.state {
                    State::Forming(leg) => [Some(*leg), None],
                    State::Up { leg, next } => [Some(*leg), *next],
                    State::Resolving | State::Resting { .. } => [None, None],
                };
                legs.into_iter().flatten().any(|l| l.peer == leg.peer && via.is_none_or(|v| v == l.via))
            })
        };
        let (same_next_hop, same_peer) = (others(Some(leg.via)), others(None));
        if !same_next_hop {
            self.outside.remove_neighbour(leg.via);
        }
        if !same_peer {
            if let Some(p) = self.peers.get_mut(leg.peer) {
                p.listen(now);
            }
            self.touch(now, leg.peer);
        }
    }

    /// Leaves every shortcut, or those that cover `only` or go by it, and forgets their back-off.
    pub(crate) fn clear_shortcuts(&mut self, now: Instant, only: Option<IpAddr>) {
        let concerns = |s: &Shortcut| {
            let via = match &s.state {
                State::Up { leg, .. } | State::Forming(leg) => Some(leg.via),
                State::Resolving | State::Resting { .. } => None,
            };
            only.is_none_or(|a| s.prefix.contains(&a) || via == Some(a))
        };
        for key in self.shortcuts.keys(concerns) {
            self.leave(now, key, Resting::Cleared, now);
            self.forget(now, key);
        }
    }

    /// Another interface leads to `prefix` now: no shortcut may shadow it.
    pub(crate) fn routed_elsewhere(&mut self, now: Instant, prefix: IpNet) {
        for key in self.shortcuts.keys(|s| prefix.contains(&s.prefix)) {
            self.leave(now, key, Resting::Routed, now);
        }
    }

    /// Room for one more shortcut; what rests longest goes first.
    pub(crate) fn make_room(&mut self) -> bool {
        if self.shortcuts.table.len() < MAX_SHORTCUTS {
            return true;
        }
        let resting = self.shortcuts.iter().filter(|s| matches!(s.state, State::Resting { .. }));
        let Some(oldest) = resting.min_by_key(|s| s.since).map(|s| s.prefix) else { return false };
        self.shortcuts.table.remove(&oldest);
        self.timers.stop(Timer::Shortcut(oldest));
        true
    }
}
