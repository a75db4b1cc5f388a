//! Sessions begin: by us, or by a stranger.

use super::Endpoint;
use crate::codes::{ExchangeType, NotifyType};
use crate::counters::Drop;
use crate::payload::{Notify, Payload};
use crate::session::{self, Cx, Id, Session, State, init};
use crate::{Address, Failure, Header, Message, Transmit, TransmitKind, rules};
use packet::{Instant, Path};

impl Endpoint {
    /// We begin.
    pub(super) fn begin(&mut self, now: Instant, path: Path) {
        if self.sessions.len() >= self.settings.config.limits.sessions {
            let reason = Failure::Full(self.settings.config.limits.sessions);
            self.report(now, path, true, true, reason);
            return;
        }
        self.make(now, path, |cx, id| Some(init::begin(cx, id, path)));
    }

    /// Makes a session, if `make` does.
    fn make(
        &mut self,
        now: Instant,
        path: Path,
        make: impl FnOnce(&mut Cx<'_>, Id) -> Option<Session>,
    ) -> Option<Id> {
        let (expect, generation) = self.standing(path, None);
        let (id, told) = (self.next_id, self.out.events.len());
        let mut notes = Vec::new();
        let mut cx = Cx {
            now,
            unix: self.unix,
            settings: &self.settings,
            credentials: self.credentials.as_ref(),
            rng: &mut self.rng,
            out: &mut self.out,
            notes: &mut notes,
            met: &self.met,
            spis: &self.inbound,
            expect,
            generation,
        };
        let session = make(&mut cx, id)?;
        self.next_id += 1;
        let next = session.base.timers.next();
        self.paths.entry(session.base.path).or_default().sessions.push(id);
        self.sessions.insert(id, session);
        self.after(id, next, told, notes);
        Some(id)
    }

    /// A stranger begins: who costs more than it has proven pays with a cookie, or waits.
    pub(super) fn handle_init(&mut self, now: Instant, from: Address, header: &Header, datagram: &[u8]) {
        let stranger = (from, header.initiator_spi);
        if let Some(&id) = self.by_stranger.get(&stranger) {
            self.with(now, id, |session, cx| match &session.state {
                State::ExpectAuth(state) => state.answer_again(&session.base, cx, datagram),
                _ => cx.drop(Drop::State),
            });
            return;
        }
        if header.initiator_spi == 0 || self.by_spi.contains_key(&header.initiator_spi) {
            return self.out.counters.drop(Drop::Reflected);
        }
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(malformed) => return self.out.counters.drop_named(malformed.name()),
        };
        if rules::check(ExchangeType::IKE_SA_INIT, false, &message.payloads).is_err() {
            return self.out.counters.drop(Drop::Illegal);
        }
        if !self.may_begin(now, from, &message) {
            return;
        }
        let path = session::path_of(from);
        let mut refused = None;
        let id = self.make(now, path, |cx, id| {
            init::respond(cx, id, from, &message, datagram).map_err(|r| refused = Some(r)).ok()
        });
        if let Some(id) = id {
            self.by_stranger.insert(stranger, id);
        }
        if let Some(refused) = refused {
            self.answer_in_clear(now, from, header, refused.notify.clone());
            // With the right group it comes again.
            if refused.notify.kind != NotifyType::INVALID_KE_PAYLOAD {
                self.report(now, path, true, false, refused.failure);
            }
        }
    }

    /// May this stranger begin? Counts and answers those that may not.
    fn may_begin(&mut self, now: Instant, from: Address, message: &Message) -> bool {
        let limits = self.settings.config.limits;
        let half_open = self.by_stranger.len();
        if half_open >= limits.half_open || self.sessions.len() >= limits.sessions {
            self.out.counters.drop(Drop::Full);
            return false;
        }
        if half_open >= limits.cookie_from {
            let (spi, nonce) = (message.header.initiator_spi, message.nonce().unwrap_or_default());
            let cookie = message.notify(NotifyType::COOKIE).map(|n| n.data.as_slice());
            let good = cookie.is_some_and(|c| self.cookies.check(&mut self.rng, now, from, spi, nonce, c));
            if !good {
                let cookie = self.cookies.make(&mut self.rng, now, from, spi, nonce);
                self.out.counters.cookies += 1;
                self.out.counters.drop(Drop::Cookie);
                self.answer_in_clear(now, from, &message.header, Notify::new(NotifyType::COOKIE, cookie));
                return false;
            }
            // Whoever really is at one address must not take all there is for all addresses. Forgers, who don't get
            // cookies, are not worth the count.
            let from_there = |(stranger, _): &&(Address, u64)| stranger.remote.ip() == from.remote.ip();
            if self.by_stranger.keys().filter(from_there).count() >= (limits.half_open / 4).max(1) {
                self.out.counters.drop(Drop::Full);
                return false;
            }
        }
        if !self.inits.take(now) {
            self.out.counters.drop(Drop::Rate);
            return false;
        }
        true
    }

    /// Answers a message that belongs to no IKE SA, as often as is bearable; never with more octets than it had.
    ///
    /// ```text
    /// //= rfc7296#2.21.4
    /// If a response is sent, the response MUST be sent to the IP address and port from where it came with the same IKE
    /// SPIs and the Message ID copied. The response MUST NOT be cryptographically protected
    /// ```
    ///
    /// ```text
    /// //= rfc7296#1.5
    /// The message is a response message, and thus it is sent to the IP address and port from whence it came with the
    /// same IKE SPIs and the Message ID and Exchange Type are copied from the request. The Response flag is set to 1
    /// ```
    pub(super) fn answer_in_clear(&mut self, now: Instant, to: Address, header: &Header, notify: Notify) {
        // A cookie is what a flood is stopped with: it must not depend on what the flood leaves over.
        if notify.kind != NotifyType::COOKIE && !self.complaints.take(now) {
            return self.out.counters.drop(Drop::Rate);
        }
        let header = Header { initiator: !header.initiator, response: true, ..*header };
        self.send_in_clear(to, Message { header, payloads: vec![Payload::Notify(notify)] });
    }

    pub(super) fn send_in_clear(&mut self, address: Address, message: Message) {
        if let Ok(datagram) = message.encode() {
            self.out.counters.sent += 1;
            self.out.transmits.push_back(Transmit { address, kind: TransmitKind::Message(datagram) });
        }
    }
}
