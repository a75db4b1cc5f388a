//! What neighbours are told.
//!
//! Per neighbour only the set of prefixes that it must be told of is kept; the message is made when there is room for
//! it. So a neighbour that reads slowly costs no memory, and hears the latest state when it reads on.

use super::Speaker;
use crate::attributes::Attributes;
use crate::event::ConnectionId;
use crate::family::{Families, Family};
use crate::policy;
use crate::update;
use ipnet::IpNet;
use packet::Instant;
use std::collections::HashMap;
use std::net::IpAddr;

/// So many prefixes are looked at before the room is looked at again.
const BATCH: usize = 512;

impl Speaker {
    /// Octets that were handed out left.
    pub fn handle_sent(&mut self, now: Instant, connection: ConnectionId, octets: usize) {
        let Some(address) = self.connections.get(&connection).copied() else { return };
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let Some(session) = neighbour.session(connection) else { return };
        let was_full = !session.has_room();
        session.sent(now, octets, &mut self.io);
        if was_full && session.has_room() {
            self.flush(now, address);
        }
    }

    /// Notes that a neighbour must be told of the whole table.
    pub(super) fn tell_everything(&mut self, address: IpAddr, families: Families) {
        if let Some(neighbour) = self.neighbours.get_mut(&address) {
            let prefixes = self.rib.iter().map(|(prefix, _)| prefix);
            neighbour.pending.extend(prefixes.filter(|p| families.contains(Family::of(*p))));
        }
    }

    pub(super) fn flush_all(&mut self, now: Instant) {
        for address in self.neighbours.keys().copied().collect::<Vec<_>>() {
            self.flush(now, address);
        }
    }

    /// Sends what a neighbour must be told, as long as there is room.
    pub(super) fn flush(&mut self, now: Instant, address: IpAddr) {
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let Some((_, agreed)) = neighbour.established() else { return };
        let (families, dialect) = (agreed.families, agreed.dialect);
        let Some(party) = neighbour.party else { return };
        while neighbour.established_mut().is_some_and(|session| session.has_room()) {
            let mut batch = Batch::default();
            for _ in 0..BATCH {
                let Some(prefix) = neighbour.pending.pop_first() else { break };
                let Some(entry) = self.rib.get(prefix) else { continue };
                let id = entry.id;
                let best = entry.best().filter(|_| families.contains(Family::of(prefix)));
                match best.and_then(|route| policy::export(&self.config, &party, prefix, route)) {
                    Some(attributes) => {
                        batch.announce(prefix, attributes);
                        if neighbour.told.insert(id) {
                            self.rib.tell(prefix);
                        }
                    }
                    None => {
                        if neighbour.told.remove(id) {
                            batch.withdraw(prefix);
                            self.rib.untell(id);
                        }
                    }
                }
            }
            let done = neighbour.pending.is_empty();
            let mut messages = batch.messages(dialect);
            if done && self.waiting.is_none() {
                messages.extend(neighbour.end_of_rib.iter().filter_map(update::end_of_rib));
                neighbour.end_of_rib = Families::NONE;
            }
            if let Some(session) = neighbour.established_mut() {
                for message in messages {
                    session.send(now, message, &mut self.io);
                }
            }
            if done {
                break;
            }
        }
    }
}

/// Prefixes by what is said of them, so that each message carries many.
#[derive(Default)]
struct Batch {
    withdrawn: [Vec<IpNet>; 2],
    groups: HashMap<(Family, Attributes), usize>,
    announced: Vec<(Attributes, Vec<IpNet>)>,
}

impl Batch {
    fn withdraw(&mut self, prefix: IpNet) {
        let [v4, v6] = &mut self.withdrawn;
        match prefix {
            IpNet::V4(_) => v4.push(prefix),
            IpNet::V6(_) => v6.push(prefix),
        }
    }

    fn announce(&mut self, prefix: IpNet, attributes: Attributes) {
        let next = self.announced.len();
        let at = *self.groups.entry((Family::of(prefix), attributes.clone())).or_insert(next);
        match self.announced.get_mut(at) {
            Some((_, prefixes)) => prefixes.push(prefix),
            None => self.announced.push((attributes, vec![prefix])),
        }
    }

    fn messages(&self, dialect: update::Dialect) -> Vec<Vec<u8>> {
        let withdrawals = self.withdrawn.iter().flat_map(|prefixes| update::withdraw(prefixes));
        let announced = self.announced.iter();
        withdrawals
            .chain(announced.flat_map(|(attributes, p)| update::announce(attributes, p, dialect)))
            .collect()
    }
}
