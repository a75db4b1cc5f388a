//! What sessions mean for peers: who is at the end of a path, and what becomes of the path when he goes.

use crate::action::Event;
use crate::peer::{Reach, Verdict};
use crate::timer::Timer;
use crate::tunnel::{GRE_NHRP, Tunnel};
use claims::Identity;
use ikev2::{Failure, SessionView};
use packet::{Instant, Path, PeerId};
use std::net::IpAddr;
use std::time::Duration;

/// Between two looks at which sessions are needed.
const SWEEP: Duration = Duration::from_secs(5);

impl Tunnel {
    /// The sessions of an encrypted tunnel, also those that are only being made.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionView> {
        self.gate.as_ref().map(|gate| gate.sessions()).unwrap_or_default()
    }

    /// The paths by which the peer with this tunnel address has sessions. `None`: there is no such peer.
    #[must_use]
    pub fn peer_paths(&self, address: IpAddr) -> Option<Vec<Path>> {
        let peer = self.peers.get(self.peers.by_address(address)?)?;
        Some(peer.paths().filter(|path| self.gate.as_ref().is_some_and(|gate| gate.is_open(*path))).collect())
    }

    /// Ends the session of a path, in good order. If anybody needs the path, there will be another.
    pub fn close_session(&mut self, now: Instant, path: Path) {
        if let Some(gate) = &mut self.gate {
            gate.close(now, path, None);
        }
        self.settle(now);
    }

    /// Replaces the keys of a path's session before their time: of its IKE SA, or (`ike` false) of each child SA. False:
    /// there is no session by this path.
    pub fn rekey(&mut self, now: Instant, path: Path, ike: bool) -> bool {
        let Some(gate) = self.gate.as_mut().filter(|gate| gate.is_open(path)) else { return false };
        if ike {
            gate.endpoint().rekey_ike(now, path);
        } else {
            let sessions = gate.sessions().into_iter().filter(|s| s.path == path);
            for child in sessions.flat_map(|s| s.children) {
                gate.endpoint().rekey_child(now, child.outbound);
            }
        }
        self.settle(now);
        true
    }

    /// What IKE has sent, received, dropped and replaced; `None`: the tunnel is not encrypted.
    #[must_use]
    pub fn ike_counters(&self) -> Option<&ikev2::Counters> {
        self.gate.as_ref().map(|gate| gate.counters())
    }

    /// What the gate of an encrypted tunnel did not let pass, by reason; since the process started.
    #[must_use]
    pub fn gate_drops(&self) -> crate::GateDrops {
        self.gate.as_ref().map(|gate| gate.drops).unwrap_or_default()
    }

    /// The datapath crashed, and with it went every SA. They are never restored, since nobody knows how far their
    /// sequence numbers had got: all sessions are made anew. Tell the new datapath what stands ([`Self::standing`])
    /// first.
    pub fn datapath_lost(&mut self, now: Instant) {
        // Hubs may have noticed the gap, and forgotten us.
        let hubs: Vec<_> = self.hubs.iter().map(|hub| hub.id).collect();
        hubs.into_iter().for_each(|id| self.node.register_now(now, id));
        let (Some(gate), Some(security)) = (&self.gate, self.config.security.clone()) else {
            return self.settle(now);
        };
        let paths = gate.open_paths();
        let seed = self.seed();
        match crate::gate::Gate::new(&security, seed, now) {
            Ok(gate) => self.gate = Some(gate),
            Err(error) => {
                debug_assert!(false, "this configuration was good until now: {error}");
                return;
            }
        }
        for path in paths {
            self.connect(now, path);
        }
        self.watch_sessions(now);
        self.settle(now);
    }

    /// Our underlay address is another one. The sessions go on; peers notice, and make new ones with where we are now.
    pub(crate) fn bind_sessions(&mut self, now: Instant, old: IpAddr, new: IpAddr) {
        let (Some(gate), Some(security)) = (&mut self.gate, &mut self.config.security) else { return };
        let before = security.clone();
        security.ike.local.iter_mut().filter(|local| **local == old).for_each(|local| *local = new);
        if let Err(error) = gate.reconfigure(now, &before, security) {
            debug_assert!(false, "this configuration was good until now: {error}");
        }
    }

    /// A hub's entry changed: is it still the one that is wanted?
    pub(crate) fn recheck_hub(&mut self, now: Instant, paths: &[Path]) {
        for path in paths {
            let Some(identity) = self.gate.as_ref().and_then(|gate| gate.identity(*path)).cloned() else {
                continue;
            };
            let owner = self.peers.by_path(*path);
            if let Err(why) = self.may_be_at(owner, *path, &identity) {
                self.refuse(now, owner, *path, why);
            }
        }
    }

    /// Sends a message by a path, or has it wait until that is open.
    pub(crate) fn transmit(&mut self, now: Instant, path: Path, protocol: u16, payload: Vec<u8>) {
        if self.gate.as_ref().is_none_or(|gate| gate.is_open(path)) {
            return self.outside.transmit(path, protocol, payload);
        }
        let expect = self.expected_at(path);
        // Probes are sent again soon enough; one that had waited would make the path look slow.
        let message = (protocol == GRE_NHRP).then_some((protocol, payload));
        if let Some(gate) = &mut self.gate {
            gate.hold(now, path, message, expect);
        }
    }

    /// Is there a session by this path, or should there be one?
    pub(crate) fn connect(&mut self, now: Instant, path: Path) {
        let expect = self.expected_at(path);
        if let Some(gate) = self.gate.as_mut().filter(|gate| !gate.is_open(path)) {
            gate.hold(now, path, None, expect);
        }
    }

    /// Does what arrived by this path count?
    pub(crate) fn is_heard(&self, path: Path) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.is_open(path))
    }

    /// Something arrived by a path that is not open. A peer's first message may overtake what tells us that he is there.
    pub(crate) fn hear_later(&mut self, now: Instant, path: Path, message: Option<Vec<u8>>) {
        let Some(gate) = &mut self.gate else { return };
        match message {
            Some(message) => gate.hear_later(now, path, message),
            None => gate.drops.no_session += 1,
        }
    }

    /// Carries out what the endpoint wants. Answers whether there was anything to learn from it.
    pub(crate) fn pump(&mut self, now: Instant) -> bool {
        let Some(gate) = &mut self.gate else { return false };
        let news = gate.pump(now, &mut self.outside);
        let any = !news.is_empty();
        for event in news {
            match event {
                ikev2::Event::Up { path, identity, .. } => self.session_up(now, path, &identity),
                ikev2::Event::Down { path, reason } => self.session_down(now, path, reason),
                ikev2::Event::Failed { path, initiator, reason } => {
                    self.session_failed(now, path, initiator, reason);
                }
                ikev2::Event::IkeKeys { line } => self.events.push_back(Event::IkeKeys { line }),
                _ => {}
            }
        }
        any
    }

    /// Somebody has proven who he is.
    fn session_up(&mut self, now: Instant, path: Path, identity: &Identity) {
        self.events.push_back(Event::SessionUp { path, identity: identity.clone() });
        if let Some(from) = self.gate.as_mut().and_then(|gate| gate.moved_from(path)) {
            self.follow(now, from, path, identity);
        }
        let owner = self.peers.by_path(path);
        if let Err(why) = self.may_be_at(owner, path, identity) {
            return self.refuse(now, owner, path, why);
        }
        let verdict = owner
            .and_then(|id| self.peers.get_mut(id))
            .and_then(|peer| peer.opened(now, path, &identity.name));
        if let Some(id) = owner {
            self.touch(now, id);
        }
        let waiting = self.gate.as_mut().map(|gate| gate.take_waiting(now, path)).unwrap_or_default();
        let silent = waiting.to_send.is_empty();
        for message in waiting.heard {
            self.nhrp_arrived(now, path, &message);
        }
        for (protocol, payload) in waiting.to_send {
            self.transmit(now, path, protocol, payload);
        }
        if let (Some(id), Some(verdict)) = (owner, verdict) {
            return self.decided(now, id, verdict);
        }
        // A hub that makes a session anew has forgotten us, or sees us elsewhere.
        if let Some(hub) = owner.and_then(|id| self.peers.get(id)?.hub).filter(|_| silent) {
            self.node.register_now(now, hub);
        }
    }

    /// A peer that was at one path is at another, and has proven to be the same.
    fn follow(&mut self, now: Instant, from: Path, to: Path, identity: &Identity) {
        let same =
            |id: &PeerId| self.peers.get(*id).is_some_and(|p| p.identity.as_deref() == Some(&identity.name));
        let Some(id) = self.peers.by_path(from).filter(same) else { return };
        if self.peers.get(id).is_some_and(|p| !p.registrations.is_empty() && p.hub.is_none()) {
            self.node.move_registrations(from, to);
        } else if self.may_claim(now, to, id)
            && let Some(peer) = self.peers.get_mut(id).filter(|p| !p.has_role())
        {
            peer.reflect(now, to);
            self.touch(now, id);
        }
    }

    /// Whoever was at the end of this path is no longer, and its SAs are gone: nothing goes there any more.
    fn session_down(&mut self, now: Instant, path: Path, reason: Failure) {
        let why = format!("the session by {path} has ended: {reason}");
        let in_good_order = matches!(reason, Failure::Closed | Failure::Deleted | Failure::Restarted);
        let moves = self.gate.as_ref().is_some_and(|gate| gate.moves_to(now, path).is_some());
        self.events.push_back(Event::SessionDown { path, reason });
        if self.farewell.is_closing() {
            return; // It is we who go.
        }
        let Some(id) = self.peers.by_path(path) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        match peer.reach() {
            // It is elsewhere: its registration follows when it has made itself known there.
            Reach::Given { path: given, .. } if given == path && peer.hub.is_none() && moves => {}
            Reach::Given { path: given, .. } if given == path && peer.hub.is_none() => {
                self.registered_lost(id, "its session has ended");
            }
            Reach::Given { .. } if peer.closed(now, path) => {
                self.touch(now, id);
                self.hub_lost(now, id, &why);
            }
            Reach::Direct { path: direct, .. } if direct == path => {
                peer.listen(now);
                if moves || in_good_order {
                    self.desert(now, id, &why);
                } else {
                    self.abandon(now, id, &why);
                }
            }
            _ => {}
        }
    }

    fn session_failed(&mut self, now: Instant, path: Path, initiator: bool, reason: Failure) {
        let why = format!("IKE with {path}: {reason}");
        self.events.push_back(Event::SessionFailed { path, initiator, reason });
        if !initiator {
            return;
        }
        self.hub_is_closed(path, why);
        if let Some(id) = self.peers.by_path(path) {
            self.give_up_early(now, id);
        }
    }

    /// When every way to a peer has failed, there is nothing to wait for.
    fn give_up_early(&mut self, now: Instant, id: PeerId) {
        let (Some(gate), Some(peer)) = (&self.gate, self.peers.get_mut(id)) else { return };
        let Reach::Probing { since, .. } = peer.reach() else { return };
        if peer.paths().all(|path| gate.has_failed(path, since)) {
            peer.listen(now);
            self.decided(now, id, Verdict::Unproven);
        }
    }

    /// The wrong one is at the end of this path: the session ends, and whom the path was for loses it.
    fn refuse(&mut self, now: Instant, owner: Option<PeerId>, path: Path, why: String) {
        tracing::warn!(%path, "session refused: {why}");
        if let Some(gate) = &mut self.gate {
            gate.close(now, path, Some(why.clone()));
        }
        let Some(id) = owner else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.hub.is_some() {
            return self.hub_is_closed(path, why);
        }
        if !peer.registrations.is_empty() && peer.given() == Some(path) {
            return self.registered_lost(id, "another identity is at its address");
        }
        if peer.fixed {
            return;
        }
        let carried = peer.lose_path(now, path);
        peer.refused = Some(why.clone());
        self.peers.forget_path(path, id);
        if carried {
            self.abandon(now, id, &why);
        }
        self.touch(now, id);
        self.give_up_early(now, id);
    }

    /// Sets the timer of [`Self::sweep_sessions`].
    pub(crate) fn watch_sessions(&mut self, now: Instant) {
        if self.gate.is_some() {
            self.timers.set(Timer::Sessions, now + SWEEP);
        }
    }

    /// Closes sessions that nobody needs, and makes those that somebody does.
    pub(crate) fn sweep_sessions(&mut self, now: Instant) {
        let wanted: Vec<Path> = self.peers.iter().filter(|p| p.fixed).filter_map(|p| p.given()).collect();
        for path in wanted {
            self.connect(now, path);
        }
        let (peers, hubs) = (&self.peers, &self.hubs);
        if let Some(gate) = &mut self.gate {
            gate.sweep(now, |path| match peers.by_path(path).and_then(|id| peers.get(id)) {
                Some(peer) => peer.needs(path),
                None => hubs.iter().any(|h| h.paths.contains(&path)),
            });
        }
        self.watch_sessions(now);
    }
}
