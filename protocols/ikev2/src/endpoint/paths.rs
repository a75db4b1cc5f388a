//! Which session carries a path: what is sent by, and who is there.

use super::Endpoint;
use crate::session::child::{Child, DRAIN, Sending};
use crate::session::task::Job;
use crate::session::{Id, Session};
use crate::{Event, Failure};
use claims::Identity;
use packet::{Instant, Path};

/// What is known of a path.
#[derive(Default)]
pub(crate) struct PathState {
    /// Pattern of who has to be there.
    pub expect: Option<String>,
    /// Sessions on it; mostly one.
    pub sessions: Vec<Id>,
    /// Who is there, as told.
    pub up: Option<Identity>,
    /// It began anew, which is to be told.
    pub restarted: bool,
    /// What is sent by, by lane.
    pub lanes: Vec<Option<Carrier>>,
}

/// A child SA that is sent by.
#[derive(Clone, Copy)]
pub(crate) struct Carrier {
    pub session: Id,
    pub inbound: u32,
    pub outbound: u32,
}

impl PathState {
    fn lane(&self, lane: u16) -> Option<Carrier> {
        self.lanes.get(usize::from(lane)).copied().flatten()
    }

    fn set_lane(&mut self, lane: u16, carrier: Option<Carrier>) {
        let index = usize::from(lane);
        if index >= self.lanes.len() {
            self.lanes.resize(index + 1, None);
        }
        if let Some(slot) = self.lanes.get_mut(index) {
            *slot = carrier;
        }
    }
}

impl Endpoint {
    /// The peer receives by this child: send by it, unless a better session carries the lane. Is it sent by?
    pub(super) fn child_ready(&mut self, now: Instant, id: Id, inbound: u32) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let path = session.base.path;
        let Some(live) = session.live() else { return false };
        let Some(lane) = live.kept().find(|c| c.inbound == inbound && c.sending.is_waiting()).map(|c| c.lane)
        else {
            return false;
        };
        let (identity, initiator) = (live.identity.clone(), session.base.initiator);
        let before = self.paths.get(&path).and_then(|p| p.lane(lane));
        if before.is_some_and(|b| b.session != id && self.is_better(b.session, id)) {
            return false;
        }
        let taken = self.sessions.get_mut(&id).and_then(Session::established_mut);
        let Some((_, keys)) = taken.and_then(|e| e.take_outbound(inbound)) else { return false };
        let carrier = Carrier { session: id, inbound, outbound: keys.spi };
        self.out.events.push_back(Event::SetOutbound { path, lane, keys });
        let state = self.paths.entry(path).or_default();
        state.set_lane(lane, Some(carrier));
        // Also when the same peer has begun anew: it has forgotten everything.
        let restarted = std::mem::take(&mut state.restarted);
        let up = state.up.as_ref() != Some(&identity) || restarted;
        if up {
            state.up = Some(identity.clone());
            self.out.events.push_back(Event::Up { path, identity, initiator });
        }
        if let Some(before) = before {
            self.spend(before);
        }
        self.settle(now, path);
        true
    }

    /// Does another session on a path take precedence?
    fn is_better(&self, other: Id, than: Id) -> bool {
        let (Some(other), Some(than)) = (self.sessions.get(&other), self.sessions.get(&than)) else {
            return false;
        };
        // By name: the certificate of one of them may be newer.
        let name = |s: &Session| s.live().map(|e| e.identity.name.clone());
        other.live().is_some() && name(other) == name(than) && other.precedence() > than.precedence()
    }

    /// What was sent by is not sent by again.
    fn spend(&mut self, carrier: Carrier) {
        let session = self.sessions.get_mut(&carrier.session).and_then(Session::established_mut);
        if let Some(child) = session.and_then(|e| e.child_mut(carrier.inbound)) {
            child.sending = Sending::Spent;
        }
    }

    /// A child is no longer sent by: another one is, or none.
    pub(super) fn child_removed(&mut self, now: Instant, path: Path, lane: u16, inbound: u32) {
        let Some(state) = self.paths.get_mut(&path) else { return };
        let Some(carrier) = state.lane(lane).filter(|c| c.inbound == inbound) else { return };
        state.set_lane(lane, None);
        // Who deletes a session for another has that other one, with its first child; what else was granted on it may
        // still be under way to the peer, and is told to be ready by itself.
        let waiting = self.candidate(path, lane, |c| c.sending.is_waiting() && c.certain);
        let spent = self.candidate(path, lane, |c| matches!(c.sending, Sending::Spent));
        if !waiting.is_some_and(|(id, inbound)| self.child_ready(now, id, inbound)) {
            self.out.events.push_back(Event::RemoveOutbound { path, spi: carrier.outbound });
            if let Some((id, inbound)) = spent {
                // It was left for the one that is gone; its successor can be sent by.
                self.ask(now, id, Job::RekeyChild(inbound));
            }
        }
    }

    /// A child on a path and lane that is received by, of the session with the highest precedence.
    fn candidate(&self, path: Path, lane: u16, fits: impl Fn(&Child) -> bool) -> Option<(Id, u32)> {
        let session = |s: &&Session| s.live().is_some_and(|e| e.kept().any(|c| c.lane == lane && fits(c)));
        let best = self.on_path(path).filter(session).max_by(|a, b| a.precedence().cmp(&b.precedence()))?;
        let child = best.live()?.kept().find(|c| c.lane == lane && fits(c))?;
        Some((best.base.id, child.inbound))
    }

    /// Several sessions with one peer on one path come from beginning at the same time, or from replacing one. The one
    /// with the highest precedence stays; who began it deletes the others, once it certainly carries: both ends have it
    /// installed when its initiator has the answer.
    pub(super) fn settle(&mut self, now: Instant, path: Path) {
        let Some(best) = self
            .on_path(path)
            .filter(|s| s.live().is_some_and(|e| e.kept().any(|c| matches!(c.sending, Sending::Live))))
            .max_by(|a, b| a.precedence().cmp(&b.precedence()))
        else {
            return;
        };
        if !best.base.initiator {
            return;
        }
        let (best, identity) = (best.base.id, best.live().map(|e| e.identity.name.clone()));
        let others: Vec<Id> = self
            .on_path(path)
            .filter(|s| s.base.id != best && s.live().map(|e| e.identity.name.clone()) == identity)
            .filter(|s| !self.is_better(s.base.id, best))
            .map(|s| s.base.id)
            .collect();
        for id in others {
            self.leave(now, id, Failure::Closed);
        }
    }

    /// Closes a session: tells its peer, if it has one. What it carried another one carries, or none; receiving goes on
    /// until the peer has answered.
    pub(super) fn leave(&mut self, now: Instant, id: Id, reason: Failure) {
        let Some(session) = self.sessions.get(&id) else { return };
        let path = session.base.path;
        if session.established().is_none() {
            self.end(now, id, reason);
            return;
        }
        if session.live().is_none() {
            return;
        }
        let children: Vec<(Path, u16, u32)> = session
            .live()
            .map(|e| e.kept().map(|c| (c.path, c.lane, c.inbound)).collect())
            .unwrap_or_default();
        self.with(now, id, |session, cx| {
            if let crate::session::State::Established(state) = &mut session.state {
                state.close(&mut session.base, cx);
                state.children.iter_mut().for_each(|c| c.sending = Sending::Spent);
                if matches!(reason, Failure::Credentials(_)) {
                    // Whoever is not believed is not heard any more, whatever is under way.
                    for child in state.children.drain(..) {
                        cx.event(Event::RemoveInbound { spi: child.inbound });
                    }
                }
            }
        });
        for (bound, lane, inbound) in children {
            self.child_removed(now, bound, lane, inbound);
        }
        self.report(now, path, false, false, reason);
    }

    /// A session is over: forgets it.
    pub(super) fn end(&mut self, now: Instant, id: Id, reason: Failure) {
        let Some(session) = self.sessions.remove(&id) else { return };
        let path = session.base.path;
        if let Some(at) = self.scheduled.remove(&id) {
            self.schedule.remove(&(at, id));
        }
        for spi in session.state.locals() {
            self.by_spi.remove(&spi);
        }
        if let Some(stranger) = session.base.stranger {
            self.by_stranger.remove(&stranger);
        }
        if let Some(state) = self.paths.get_mut(&path) {
            state.sessions.retain(|other| *other != id);
        }
        let was_live = session.live().is_some();
        let stranger = !session.base.initiator && session.established().is_none();
        if let Some(established) = session.established() {
            // A peer that has left, or begun anew, may have packets under way; one that is dead or revoked has none.
            let drain = matches!(reason, Failure::Closed | Failure::Deleted | Failure::Restarted);
            for child in &established.children {
                if drain {
                    self.draining.insert((now + DRAIN, child.inbound));
                } else {
                    self.inbound.remove(&child.inbound);
                    self.out.events.push_back(Event::RemoveInbound { spi: child.inbound });
                }
            }
            for child in &established.children {
                self.child_removed(now, child.path, child.lane, child.inbound);
            }
        }
        if !session.base.told {
            let failed = !was_live && session.established().is_none();
            self.report(now, path, failed && !stranger, session.base.initiator, reason);
        }
        self.tidy(path);
    }

    /// Tells that a path went down, or that a handshake failed, if that is what it means.
    pub(super) fn report(
        &mut self,
        now: Instant,
        path: Path,
        failed: bool,
        initiator: bool,
        reason: Failure,
    ) {
        let carried = self.on_path(path).any(|s| s.live().is_some());
        if carried {
            return;
        }
        if self.paths.get_mut(&path).is_some_and(|p| p.up.take().is_some()) {
            self.out.events.push_back(Event::Down { path, reason });
        } else if failed && reason != Failure::Closed && (initiator || self.reports.take(now)) {
            self.out.counters.failed += 1;
            self.out.events.push_back(Event::Failed { path, initiator, reason });
        }
    }

    /// Takes a session in that another endpoint had.
    pub(crate) fn adopt(&mut self, now: Instant, session: Session) {
        let (id, path) = (session.base.id, session.base.path);
        for spi in session.state.locals() {
            self.by_spi.insert(spi, id);
        }
        for child in session.established().into_iter().flat_map(|e| &e.children) {
            self.inbound.insert(child.inbound, id);
            if matches!(child.sending, Sending::Live) {
                let carrier = Carrier { session: id, inbound: child.inbound, outbound: child.outbound };
                let state = self.paths.entry(child.path).or_default();
                state.set_lane(child.lane, Some(carrier));
            }
        }
        self.paths.entry(path).or_default().sessions.push(id);
        self.sessions.insert(id, session);
        self.with(now, id, |session, cx| {
            if let crate::session::State::Established(state) = &mut session.state {
                state.run(&mut session.base, cx);
            }
        });
        self.settle_notes(now);
    }

    /// Forgets a path that nobody is on.
    pub(super) fn tidy(&mut self, path: Path) {
        let idle = |p: &PathState| p.sessions.is_empty() && p.lanes.iter().all(Option::is_none);
        if self.paths.get(&path).is_some_and(idle) {
            self.paths.remove(&path);
        }
    }
}
