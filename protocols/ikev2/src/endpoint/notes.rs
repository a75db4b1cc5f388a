//! What sessions tell their endpoint.

use super::Endpoint;
use crate::Failure;
use crate::session::{Id, Note, State};
use packet::{Instant, Path};

impl Endpoint {
    /// Acts on everything that sessions have told, in order.
    pub(super) fn settle_notes(&mut self, now: Instant) {
        while let Some((id, note)) = self.notes.pop_front() {
            match note {
                Note::Spi(spi) => {
                    self.by_spi.insert(spi, id);
                }
                Note::SpiGone(spi) => {
                    self.by_spi.remove(&spi);
                }
                Note::Established { restarted, began } => self.established(now, id, restarted, began),
                Note::Ready(inbound) => {
                    self.child_ready(now, id, inbound);
                }
                Note::Removed { path, lane, inbound } => self.child_removed(now, path, lane, inbound),
                Note::Moved { from } => self.moved_from(now, id, from),
                Note::Suspect => self.suspect(now, id),
                Note::Leaving(reason) => self.leave(now, id, reason),
                Note::Refused(reason) => {
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.base.told = true;
                        let (path, initiator) = (session.base.path, session.base.initiator);
                        self.report(now, path, true, initiator, reason);
                    }
                }
                Note::Over(reason) => self.end(now, id, reason),
            }
        }
    }

    /// A peer is authenticated.
    fn established(&mut self, now: Instant, id: Id, restarted: bool, began: Path) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(stranger) = session.base.stranger.take() {
            self.by_stranger.remove(&stranger);
        }
        let Some(live) = session.live() else { return };
        let (path, born, name) = (session.base.path, session.base.born, live.identity.name.clone());
        // RFC 7296 §2.23: where a NAT was found it floats to port 4500 meanwhile.
        if let Some(state) = self.paths.get_mut(&began).filter(|_| began != path) {
            state.sessions.retain(|other| *other != id);
            self.tidy(began);
        }
        let state = self.paths.entry(path).or_default();
        if !state.sessions.contains(&id) {
            state.sessions.push(id);
        }
        if self.met.len() < 2 * self.settings.config.limits.sessions {
            self.met.insert(name.clone());
            self.met.insert(path.remote.to_string());
        }
        // What was there before is of no use if the peer has lost it, or if another peer is at this path now. What
        // began while this session was made is not meant: the peer has it.
        let gone: Vec<Id> = self
            .on_path(path)
            .filter(|other| other.base.id != id)
            .filter(|other| {
                other.live().is_some_and(|o| o.identity.name != name || (restarted && o.at < born))
            })
            .map(|other| other.base.id)
            .collect();
        for other in gone {
            self.supersede(now, other);
        }
        self.settle(now, path);
    }

    /// A peer is at another path.
    fn moved_from(&mut self, now: Instant, id: Id, from: Path) {
        let Some(to) = self.sessions.get(&id).map(|s| s.base.path) else { return };
        if let Some(state) = self.paths.get_mut(&from) {
            state.sessions.retain(|other| *other != id);
        }
        let state = self.paths.entry(to).or_default();
        if !state.sessions.contains(&id) {
            state.sessions.push(id);
        }
        tracing::debug!(%from, %to, "peer moved");
        self.report(now, from, false, false, Failure::Closed);
    }

    /// Forgets a session that its peer has forgotten, without a word to it.
    fn supersede(&mut self, now: Instant, id: Id) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.base.told = true;
            debug_assert!(matches!(session.state, State::Established(_)));
            if let Some(state) = self.paths.get_mut(&session.base.path) {
                state.restarted = true;
            }
        }
        self.end(now, id, Failure::Restarted);
    }
}
