//! Connections: how they begin, which of two is kept, how they end.

use super::Speaker;
use crate::error::Notification;
use crate::event::{Command, ConnectionId, DownReason, Event};
use crate::family::{Families, Family};
use crate::graceful;
use crate::neighbour::Neighbour;
use crate::open;
use crate::policy::Party;
use crate::session::{Agreed, Session, State};
use crate::timer::Timer;
use packet::Instant;
use std::net::IpAddr;
use std::time::Duration;

/// How long a neighbour that announced too much is not spoken to.
const PENALTY: Duration = Duration::from_secs(60);

/// Two connections that meet within this time collide, even if one of them is established here already: it may not
/// be at the peer, and both sides must choose the same (RFC 4271 §8.1.1, CollisionDetectEstablishedState). Later, a
/// second connection is a sign of a restart, if the peer says so.
const COLLISION_TIME: Duration = Duration::from_secs(3);

/// Why a connection is not accepted; the driver closes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcceptError {
    /// Not from a range that neighbours may come from.
    #[error("not from a range of neighbours")]
    Unknown,
    /// It announced too much, and must wait.
    #[error("barred for a while")]
    Barred,
    /// It has two connections already.
    #[error("two connections already")]
    Busy,
    /// No room for another neighbour.
    #[error("too many neighbours")]
    Full,
}

impl Speaker {
    /// Somebody connected to us. An error: close the connection.
    pub fn handle_accepted(&mut self, now: Instant, remote: IpAddr) -> Result<ConnectionId, AcceptError> {
        if let Some(neighbour) = self.neighbours.get(&remote) {
            if neighbour.barred_until > now {
                return Err(AcceptError::Barred);
            }
            if neighbour.sessions.len() >= 2 {
                return Err(AcceptError::Busy);
            }
        } else {
            let in_range = self.config.listen_ranges.iter().any(|range| range.contains(&remote));
            if !in_range || self.config.local_addresses.contains(&remote) {
                return Err(AcceptError::Unknown);
            }
            let dynamic = self.neighbours.values().filter(|n| !n.configured).count();
            if dynamic >= self.config.limits.dynamic_neighbours {
                return Err(AcceptError::Full);
            }
            self.neighbours.insert(remote, Neighbour::new(remote, false, now));
        }
        let connection = self.new_connection(remote);
        let open = self.our_open(remote);
        if let Some(neighbour) = self.neighbours.get_mut(&remote) {
            let mut session = Session::accept(connection);
            session.open(now, open, &mut self.io);
            neighbour.sessions.push(session);
        }
        Ok(connection)
    }

    /// A connection that we wanted is there.
    pub fn handle_connected(&mut self, now: Instant, connection: ConnectionId) {
        let Some(address) = self.connections.get(&connection).copied() else { return };
        let open = self.our_open(address);
        let session = self.neighbours.get_mut(&address).and_then(|n| n.session(connection));
        if let Some(session) = session.filter(|session| session.state == State::ExpectConnection) {
            session.open(now, open, &mut self.io);
        }
    }

    /// A connection broke, was closed, or could not be made.
    pub fn handle_closed(&mut self, now: Instant, connection: ConnectionId) {
        self.finish(now, connection, DownReason::Closed, false);
        self.settle(now);
    }

    pub(super) fn connect(&mut self, now: Instant, address: IpAddr) {
        let connection = self.new_connection(address);
        if let Some(neighbour) = self.neighbours.get_mut(&address) {
            neighbour.sessions.push(Session::connect(connection, now, &mut self.io));
            self.io.commands.push_back(Command::Connect { connection, remote: address });
        }
    }

    pub(super) fn retry(&mut self, now: Instant, address: IpAddr) {
        let Some(neighbour) = self.neighbours.get(&address) else { return };
        if neighbour.is_idle(now) {
            self.neighbours.remove(&address);
        } else if neighbour.configured && neighbour.sessions.is_empty() {
            self.connect(now, address);
        }
    }

    pub(super) fn hold_expired(&mut self, now: Instant, connection: ConnectionId) {
        let address = self.connections.get(&connection);
        let neighbour = address.and_then(|address| self.neighbours.get_mut(address));
        let Some(session) = neighbour.and_then(|n| n.session(connection)) else { return };
        let reason = match session.state {
            State::ExpectConnection => DownReason::Closed,
            _ => DownReason::Sent(Notification::HOLD_TIMER_EXPIRED),
        };
        self.end(now, connection, reason);
    }

    /// Our OPEN's graceful restart capability tells what the kernel still holds: after a restart what the speaker
    /// before us left there, and while we run whatever a broken session left.
    fn our_open(&self, to: IpAddr) -> Vec<u8> {
        let before = self.neighbours.get(&to).is_some_and(|n| n.party.is_some());
        let forwarding = before || self.config.restart.is_some();
        open::write(&self.config, self.waiting.is_some(), forwarding)
    }

    fn new_connection(&mut self, address: IpAddr) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(connection, address);
        connection
    }

    pub(super) fn connections_of(&self, address: IpAddr) -> Vec<ConnectionId> {
        let sessions = self.neighbours.get(&address).map(|n| n.sessions.iter());
        sessions.into_iter().flatten().map(|session| session.id).collect()
    }

    /// The peer's OPEN is acceptable. If there is another connection to it, one of the two goes (RFC 4271 §6.8).
    pub(super) fn opened(&mut self, now: Instant, address: IpAddr, connection: ConnectionId) {
        let collision = DownReason::Sent(Notification::COLLISION);
        let Some(neighbour) = self.neighbours.get(&address) else { return };
        let Some(new) = neighbour.sessions.iter().find(|s| s.id == connection) else { return };
        let Some(peer) = new.peer() else { return };
        let other = neighbour.sessions.iter().find(|s| s.id != connection);
        let verdict = other.and_then(|old| {
            old.peer()?;
            if let Some(agreed) = old.established()
                && now.since(neighbour.since) >= COLLISION_TIME
            {
                //= rfc4724#4.2: a restarted peer's new connection replaces the one it had
                let restarted = peer.graceful.is_some_and(|g| g.restarting) && agreed.open.graceful.is_some();
                return Some(if restarted { (old.id, DownReason::Replaced) } else { (new.id, collision) });
            }
            //= rfc4271#6.8: the connection of the higher identifier (RFC 6286: then the higher ASN) is kept
            let ours_wins = (self.config.router_id, self.config.asn) > (peer.router_id, peer.asn);
            let keep_new = old.active == new.active || new.active == ours_wins;
            Some((if keep_new { old.id } else { new.id }, collision))
        });
        if let Some((loser, reason)) = verdict {
            self.end(now, loser, reason);
            if loser == connection {
                return;
            }
        }
        if let Some(session) = self.neighbours.get_mut(&address).and_then(|n| n.session(connection)) {
            session.confirm(now, &mut self.io);
        }
    }

    /// A session is up.
    pub(super) fn up(&mut self, now: Instant, address: IpAddr, connection: ConnectionId) {
        for other in self.connections_of(address).into_iter().filter(|id| *id != connection) {
            self.end(now, other, DownReason::Sent(Notification::COLLISION));
        }
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let Some((_, agreed)) = neighbour.established() else { return };
        let agreed = agreed.clone();
        neighbour.begin(now);
        neighbour.party = Some(Party {
            address,
            asn: agreed.open.asn,
            router_id: agreed.open.router_id,
            internal: agreed.dialect.internal,
            dynamic: !neighbour.configured,
            extended_next_hop: agreed.dialect.extended_next_hop,
        });
        neighbour.unfinished = agreed.families;
        neighbour.end_of_rib = if agreed.open.graceful.is_some() { agreed.families } else { Families::NONE };
        let waiting = graceful::still_waiting(neighbour.stale, &agreed);
        let gone = neighbour.stale.without(waiting);
        self.io.timers.stop(Timer::ConnectRetry(address));
        self.io.timers.stop(Timer::Restart(address));
        self.io.events.push_back(Event::Up { neighbour: address, asn: agreed.open.asn });
        for family in gone.iter() {
            self.forget_stale_family(address, family);
        }
        if !waiting.is_empty() {
            self.io.timers.set(Timer::Stale(address), now + self.config.graceful.stale_time);
        }
        //= rfc4724#4.1: a peer that restarts itself is not waited for
        if agreed.open.graceful.is_some_and(|g| g.restarting) {
            self.done_waiting(now, address);
        }
        self.settle(now);
        self.tell_everything(address, agreed.families);
        self.flush(now, address);
    }

    /// Ends a session from our side.
    pub(super) fn end(&mut self, now: Instant, connection: ConnectionId, reason: DownReason) {
        self.finish(now, connection, reason, true);
    }

    fn finish(&mut self, now: Instant, connection: ConnectionId, reason: DownReason, close: bool) {
        let Some(address) = self.connections.remove(&connection) else { return };
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let Some(at) = neighbour.sessions.iter().position(|s| s.id == connection) else { return };
        let session = neighbour.sessions.remove(at);
        if close {
            let farewell =
                if let DownReason::Sent(notification) = &reason { Some(notification) } else { None };
            session.close(farewell, &mut self.io);
        } else {
            session.forget(&mut self.io);
        }
        if reason == DownReason::Sent(Notification::MAXIMUM_PREFIXES) {
            neighbour.barred_until = now + PENALTY;
        }
        if let Some(agreed) = session.established() {
            self.down(now, address, agreed, reason);
        } else {
            let collision = reason == DownReason::Sent(Notification::COLLISION);
            if !collision && neighbour.last_reason.as_ref() != Some(&reason) {
                self.io.events.push_back(Event::Failed { neighbour: address, reason: reason.clone() });
                neighbour.last_reason = Some(reason);
            }
        }
        self.reschedule(now, address);
    }

    /// An established session is over: keep its routes for a while, or forget them.
    fn down(&mut self, now: Instant, address: IpAddr, agreed: &Agreed, reason: DownReason) {
        let (kept, time) = graceful::kept(&reason, agreed, &self.config.graceful);
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        neighbour.since = now;
        neighbour.pending.clear();
        neighbour.end_of_rib = Families::NONE;
        neighbour.unfinished = Families::NONE;
        for id in std::mem::take(&mut neighbour.told).iter() {
            self.rib.untell(id);
        }
        //= rfc4724#4.2: what was stale before the session broke again is not kept a second time
        neighbour.prefixes.retain(|prefix| {
            let family_kept = kept.contains(Family::of(*prefix));
            let gone = |r: &crate::rib::Route| r.source.is(address) && (r.stale || !family_kept);
            !self.rib.remove(*prefix, gone)
        });
        self.rib.mark_stale(address, &neighbour.prefixes);
        neighbour.stale = neighbour.prefixes.iter().map(|prefix| Family::of(*prefix)).collect();
        self.io.timers.stop(Timer::Stale(address));
        let stale = !neighbour.stale.is_empty();
        if stale {
            self.io.timers.set(Timer::Restart(address), now + time);
        }
        neighbour.last_reason = Some(reason.clone());
        self.io.events.push_back(Event::Down { neighbour: address, reason, stale });
    }

    /// After a connection ended: try again, or forget who is of no interest any more.
    fn reschedule(&mut self, now: Instant, address: IpAddr) {
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let barred = neighbour.barred_until.since(now);
        if neighbour.is_idle(now) {
            self.neighbours.remove(&address);
        } else if neighbour.sessions.is_empty() && (neighbour.configured || !barred.is_zero()) {
            let wait = neighbour.next_retry(self.config.connect_retry);
            let wait = self.io.jitter(wait).max(barred);
            self.io.timers.set(Timer::ConnectRetry(address), now + wait);
        }
    }

    /// The time of stale routes is over.
    pub(super) fn forget_stale(&mut self, now: Instant, address: IpAddr) {
        for timer in [Timer::Restart(address), Timer::Stale(address)] {
            self.io.timers.stop(timer);
        }
        for family in Family::ALL {
            self.forget_stale_family(address, family);
        }
        self.reschedule_if_alone(now, address);
    }

    fn reschedule_if_alone(&mut self, now: Instant, address: IpAddr) {
        if self.neighbours.get(&address).is_some_and(|n| n.is_idle(now)) {
            self.neighbours.remove(&address);
        }
    }

    pub(super) fn forget_stale_family(&mut self, address: IpAddr, family: Family) {
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        if !neighbour.stale.contains(family) {
            return;
        }
        neighbour.stale.set(family, false);
        let before = neighbour.prefixes.len();
        neighbour.prefixes.retain(|prefix| {
            Family::of(*prefix) != family || !self.rib.remove(*prefix, |r| r.source.is(address) && r.stale)
        });
        let routes = before - neighbour.prefixes.len();
        if routes > 0 {
            self.io.events.push_back(Event::StaleRemoved { neighbour: address, routes });
        }
    }
}
