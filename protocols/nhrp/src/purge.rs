//! Purges, both ways (RFC 2332 §5.2.5, §5.2.6): a station that answered or registered something takes it back.

use crate::answered::{AnsweredEntry, overlap};
use crate::config::NhsId;
use crate::extension::{Extension, ExtensionType};
use crate::node::{Incoming, Node};
use crate::packet::{Body, Cie, ErrorCode, Exchange, ExchangeType, Flags, Packet, Protocol};
use crate::timer::Timer;
use crate::{Environment, Error, Event};
use ipnet::IpNet;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Most prefixes in one request.
const MOST_PREFIXES: usize = 32;
/// Longest time between two requests is 2 to this power, seconds.
const LONGEST_BACK_OFF: u32 = 6;

/// A purge that was not acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Purge {
    /// Whom it is for.
    to: IpAddr,
    prefixes: Vec<IpNet>,
    /// The path, when it is not to be looked up: to or by a server that is no longer ours.
    path: Option<Path>,
    /// When what is purged would have ended by itself.
    deadline: Instant,
    attempts: u32,
}

/// Commands.
impl Node {
    /// A route of ours inside, at or around `prefix` went or changed: all whom we answered for it are told, again and
    /// again until they acknowledge or the answer would have ended. Sent by the next [`Node::handle_timeout`],
    /// which is due at once.
    pub fn withdraw(&mut self, now: Instant, prefix: IpNet) {
        self.withdraw_which(now, |answered| overlap(answered, &prefix));
    }

    /// Routes changed: the same for every answer that would not be given again.
    pub fn withdraw_stale(&mut self, now: Instant, env: &dyn Environment) {
        let stale: BTreeSet<IpNet> = self
            .answered()
            .map(|entry| entry.prefix)
            .filter(|answered| {
                !self.leads_here(answered.addr(), env).is_some_and(|now| now.contains(answered))
            })
            .collect();
        if !stale.is_empty() {
            self.withdraw_which(now, |answered| stale.contains(answered));
        }
    }

    /// Takes back all that was registered and answered: on shutdown. What was sent is sent once more as long as
    /// the station is driven.
    pub fn deregister(&mut self, now: Instant) {
        // Answers first: the server passes their purges on only for who is registered, and which server that is
        // we know only now.
        for (requester, prefixes, deadline) in self.state.answered.take(now, |_| true) {
            let path = self.known_path(requester).or_else(|| self.server_path(requester));
            self.start_purges(now, requester, &prefixes, path, deadline);
        }
        for id in self.state.nhs.keys().copied().collect::<Vec<_>>() {
            self.purge_registrations(now, id);
        }
    }

    /// Is there anybody who has not acknowledged what we take back?
    #[must_use]
    pub fn is_purging(&self) -> bool {
        !self.state.purges.is_empty()
    }

    /// Whom we answered.
    pub fn answered(&self) -> impl Iterator<Item = AnsweredEntry> + '_ {
        self.state.answered.iter()
    }
}

impl Node {
    /// These answers.
    pub(crate) fn withdraw_which(&mut self, now: Instant, which: impl Fn(&IpNet) -> bool) {
        for (requester, prefixes, deadline) in self.state.answered.take(now, which) {
            self.start_purges(now, requester, &prefixes, None, deadline);
        }
    }

    fn start_purges(
        &mut self,
        now: Instant,
        to: IpAddr,
        prefixes: &[IpNet],
        path: Option<Path>,
        deadline: Instant,
    ) {
        for chunk in prefixes.chunks(MOST_PREFIXES) {
            self.start_purge(now, to, chunk.to_vec(), path, deadline);
        }
    }

    /// Takes our registrations with a server back, and stops registering there.
    pub(crate) fn purge_registrations(&mut self, now: Instant, id: NhsId) {
        let Some(nhs) = self.state.nhs.get_mut(&id) else { return };
        let mut told = Vec::new();
        for (protocol, registration) in &mut nhs.registrations {
            self.state.timers.stop(Timer::Register(id, *protocol));
            if let Some(accepted) = registration.abandon() {
                told.push((*protocol, accepted));
            }
        }
        for (protocol, accepted) in told {
            let Some(own) = self.own(protocol) else { continue };
            self.start_purge(now, accepted.server, vec![own.into()], Some(accepted.path), accepted.expires);
        }
    }

    fn start_purge(
        &mut self,
        now: Instant,
        to: IpAddr,
        prefixes: Vec<IpNet>,
        path: Option<Path>,
        deadline: Instant,
    ) {
        if self.state.purges.len() >= self.config.max_entries {
            return; // what was answered ends by itself
        }
        // A fixed ID can name only one purge under way: the next gets another.
        let mut id = self.registration_request_id();
        while self.state.purges.contains_key(&id) {
            id = self.take_request_id();
        }
        self.state.purges.insert(id, Purge { to, prefixes, path, deadline, attempts: 0 });
        self.state.timers.set(Timer::Purge(id), now);
    }

    /// The timer of a purge: to be sent, or sent again.
    //= rfc2332#5.2.5
    // Repeated until acknowledged, or until what it purges would have ended.
    pub(crate) fn purge_due(&mut self, now: Instant, id: u32, env: &dyn Environment) {
        let Some(purge) = self.state.purges.get_mut(&id) else { return };
        if now >= purge.deadline {
            self.state.purges.remove(&id);
            return;
        }
        let wait = Duration::from_secs(1 << purge.attempts.min(LONGEST_BACK_OFF));
        purge.attempts = purge.attempts.saturating_add(1);
        let Purge { to, prefixes, path, deadline, .. } = purge.clone();
        let wait = self.jitter(wait);
        self.state.timers.set(Timer::Purge(id), deadline.min(now + wait));
        let (Some(own), Some(path)) = (self.own(Protocol::of(to)), path.or_else(|| self.hop_to(to, env)))
        else {
            return;
        };
        //= rfc2332#5.2.5
        // Code, MTU, holding time and preference of the entries are zero.
        let entries = prefixes
            .iter()
            .map(|p| Cie { prefix_length: p.prefix_len(), protocol: Some(p.addr()), ..Cie::default() })
            .collect();
        let kind = ExchangeType::PurgeRequest;
        let body = Body::Exchange(Exchange { kind, flags: Flags::default(), request_id: id, entries });
        let extensions = vec![
            Extension::of_entries(ExtensionType::FORWARD_TRANSIT, &[]),
            Extension::of_entries(ExtensionType::REVERSE_TRANSIT, &[]),
            Extension::of_entries(ExtensionType::RESPONDER_ADDRESS, &[]),
        ];
        self.send(path, Packet { body, extensions, ..self.blank(own, to) });
    }

    /// A Purge Request for us.
    pub(crate) fn purge_requested(&mut self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        let Incoming { now, path, packet, bytes, .. } = *m;
        let by = packet.source;
        if !self.speaks_for(&path, packet) && !self.knows(by, m) {
            return Err(Error::SpoofedSource);
        }
        //= rfc2332#5.2.5
        // Each entry must have a protocol address.
        let complete = exchange.entries.iter().all(|e| e.protocol.is_some());
        if exchange.entries.is_empty() || exchange.entries.len() > MOST_PREFIXES || !complete {
            self.report(now, path, by, ErrorCode::PROTOCOL_ERROR, bytes);
            return Err(Error::EntryCount);
        }
        for entry in &exchange.entries {
            let Some(address) = entry.protocol else { continue };
            self.purge(entry.prefix(address), by, entry.nbma, path);
        }
        //= rfc2332#5.2.5
        // The reply is sent even when nothing matched, unless N is set; straight back to where it came from.
        if !exchange.flags.contains(Flags::NO_REPLY) {
            let entries = exchange.entries.clone();
            let mut reply = self.reply_to(packet, exchange, ExchangeType::PurgeReply, entries);
            let own = self.own(packet.protocol).unwrap_or(packet.destination);
            self.name_responder(&mut reply, own);
            self.send(path, reply);
        }
        Ok(())
    }

    /// Forgets what `by` registered or answered inside or around `prefix`; an NBMA address narrows it. A registration is
    /// taken back by the path that it came by: whoever passes on messages of others can't end it.
    fn purge(&mut self, prefix: IpNet, by: IpAddr, nbma: Option<IpAddr>, path: Path) {
        let mine = |address: IpAddr, claimed: IpAddr| address == by && nbma.is_none_or(|n| n == claimed);
        let registered: Vec<IpNet> = self
            .state
            .registered
            .iter()
            .filter(|(p, r)| prefix.contains(p) && r.path == path)
            .filter(|(_, r)| mine(r.info.protocol_address, r.info.nbma_claimed))
            .map(|(p, _)| p)
            .collect();
        for prefix in registered {
            self.unregister(prefix, "purged");
        }
        let timers = &mut self.state.timers;
        // A server that answered for others purges for them, too.
        let server = self.state.nhs.values().flat_map(|n| n.accepted()).any(|a| a.server == by);
        self.state.resolved.retain(|p, r| {
            let info = &r.info;
            let gone = overlap(p, &prefix)
                && (mine(info.protocol_address, info.nbma_claimed) || server && prefix.contains(p));
            if gone {
                timers.stop(Timer::Forget(*p));
            }
            !gone
        });
        self.event(Event::Purged { prefix, by });
    }

    /// A Purge Reply for us.
    pub(crate) fn purge_reply(&mut self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        let id = exchange.request_id;
        match self.state.purges.get(&id) {
            Some(purge) if purge.to == m.packet.destination => {
                self.state.purges.remove(&id);
                self.state.timers.stop(Timer::Purge(id));
                Ok(())
            }
            _ => Err(Error::Unsolicited),
        }
    }

    /// An Error Indication came back about a purge request of ours: whoever it was for can't be reached, or won't
    /// understand it the next time either.
    pub(crate) fn purge_error(&mut self, request_id: u32) -> bool {
        self.state.timers.stop(Timer::Purge(request_id));
        self.state.purges.remove(&request_id).is_some()
    }

    /// Does a message from this source come by a path that may speak for it: its own, one of our servers', or,
    /// when other servers have passed it on, that of a server registered with us?
    pub(crate) fn speaks_for(&self, path: &Path, packet: &Packet) -> bool {
        if self.is_nhs_path(path) {
            return true;
        }
        let own_path = self.state.registered.covering(packet.source).is_some_and(|(_, r)| r.path == *path);
        let passed_on = packet.extension(ExtensionType::FORWARD_TRANSIT).is_some_and(|e| !e.value.is_empty());
        own_path || passed_on && self.state.registered.on_path(path) > 0
    }
}
