//! What neighbours say.

use super::Speaker;
use crate::error::Notification;
use crate::event::{ConnectionId, DownReason, Event};
use crate::family::{Families, Family};
use crate::policy::{self, ImportFilter};
use crate::rib::{Route, Source};
use crate::session::Step;
use crate::timer::Timer;
use crate::update::Update;
use packet::Instant;
use std::net::IpAddr;
use std::sync::Arc;

impl Speaker {
    /// Octets arrived. `filter` says what the neighbour may announce.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        bytes: &[u8],
        filter: &dyn ImportFilter,
    ) {
        let Some(address) = self.connections.get(&connection).copied() else { return };
        if let Some(session) = self.neighbours.get_mut(&address).and_then(|n| n.session(connection)) {
            session.push(bytes);
        }
        // Each turn takes a message; the session may be gone after any of them.
        loop {
            let session = self.neighbours.get_mut(&address).and_then(|n| n.session(connection));
            let Some(session) = session else { break };
            let step = match session.next(now, &self.config, &mut self.io) {
                Ok(Some(step)) => self.step(now, address, connection, step, filter),
                Ok(None) => break,
                Err(notification) => Err(notification),
            };
            if let Err(notification) = step {
                self.end(now, connection, DownReason::Sent(notification));
            }
        }
        self.settle(now);
    }

    fn step(
        &mut self,
        now: Instant,
        address: IpAddr,
        connection: ConnectionId,
        step: Step,
        filter: &dyn ImportFilter,
    ) -> Result<(), Notification> {
        match step {
            Step::Opened => self.opened(now, address, connection),
            Step::Established => self.up(now, address, connection),
            Step::Alive => self.alive(now, address),
            Step::Update(update) => self.update(now, address, update, filter)?,
            Step::Refresh(family) => {
                self.tell_everything(address, [family].into_iter().collect());
                self.flush(now, address);
            }
            Step::Ignored => {}
            Step::Ended(notification) => self.end(now, connection, DownReason::Received(notification)),
        }
        Ok(())
    }

    /// A peer that will not mark the end of its table has sent it when it sends a KEEPALIVE (RFC 4724 §4.1).
    fn alive(&mut self, now: Instant, address: IpAddr) {
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let marks = neighbour.established().is_some_and(|(_, agreed)| agreed.open.graceful.is_some());
        if !marks && !neighbour.unfinished.is_empty() {
            neighbour.unfinished = Families::NONE;
            self.done_waiting(now, address);
        }
    }

    fn update(
        &mut self,
        now: Instant,
        address: IpAddr,
        update: Update,
        filter: &dyn ImportFilter,
    ) -> Result<(), Notification> {
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(now, address, family);
            return Ok(());
        }
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return Ok(()) };
        let Some(party) = neighbour.party else { return Ok(()) };
        let families = neighbour.established().map_or(Families::NONE, |(_, agreed)| agreed.families);
        let limit = if neighbour.configured {
            self.config.limits.prefixes_configured
        } else {
            self.config.limits.prefixes_dynamic
        };
        if let Some(detail) = update.malformed
            && neighbour.may_complain()
        {
            self.io.events.push_back(Event::Malformed { neighbour: address, detail });
        }
        for prefix in update.withdrawn {
            if neighbour.prefixes.remove(&prefix) {
                self.rib.remove(prefix, |route| route.source.is(address));
            }
        }
        let source = Source::Neighbour {
            address,
            router_id: party.router_id,
            internal: party.internal,
            client: party.dynamic,
        };
        for (attributes, prefixes) in update.announced {
            for prefix in prefixes.into_iter().filter(|p| families.contains(Family::of(*p))) {
                let refused = policy::import(&self.config, &party, prefix, &attributes, filter).err();
                if let Some(reason) = refused.filter(|reason| !reason.is_echo()) {
                    neighbour.refused += 1;
                    if neighbour.may_complain() {
                        self.io.events.push_back(Event::Refused { neighbour: address, prefix, reason });
                    }
                }
                neighbour.prefixes.insert(prefix);
                //= rfc4486#4: subcode 1
                if neighbour.prefixes.len() > limit {
                    neighbour.prefixes.remove(&prefix);
                    return Err(Notification::MAXIMUM_PREFIXES);
                }
                let attributes = Arc::clone(&attributes);
                self.rib.insert(prefix, Route { source, attributes, refused, stale: false });
            }
        }
        Ok(())
    }

    //= rfc4724#4.2: with the End-of-RIB, what is still stale goes
    fn end_of_rib(&mut self, now: Instant, address: IpAddr, family: Family) {
        self.forget_stale_family(address, family);
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        neighbour.unfinished.set(family, false);
        if neighbour.stale.is_empty() {
            self.io.timers.stop(Timer::Stale(address));
        }
        if neighbour.unfinished.is_empty() {
            self.done_waiting(now, address);
        }
    }
}
