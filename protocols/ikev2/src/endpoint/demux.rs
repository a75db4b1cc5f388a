//! Whose message is it? And what of packets that belong to nobody.

use super::Endpoint;
use crate::codes::{ExchangeType, NotifyType};
use crate::counters::Drop;
use crate::payload::{Notify, Payload};
use crate::session::{self, Id, Session};
use crate::{Address, Header, Malformed, Message};
use packet::{Instant, Path};
use rand::RngExt;
use std::time::Duration;

/// A session whose SAs are said to be lost is replaced at most so often: anybody who sees packets can say so.
const SUSPICION: Duration = Duration::from_secs(10);

impl Endpoint {
    /// Takes an IKE message, without the non-ESP marker.
    pub fn handle_packet(&mut self, now: Instant, from: Address, message: &[u8]) {
        self.out.counters.received += 1;
        let header = match Header::decode(message) {
            Ok(header) => header,
            Err(malformed) => {
                self.out.counters.drop_named(malformed.name());
                if malformed == Malformed::Version {
                    self.wrong_version(now, from, message);
                }
                return;
            }
        };
        let begins = header.exchange == ExchangeType::IKE_SA_INIT && !header.response;
        let ours = if header.initiator { header.responder_spi } else { header.initiator_spi };
        if begins && header.initiator && header.responder_spi == 0 && header.message_id == 0 {
            self.handle_init(now, from, &header, message);
        } else if let Some(&id) = self.by_spi.get(&ours) {
            self.with(now, id, |session, cx| session.handle(cx, from, &header, message));
        } else {
            self.handle_stranger(now, from, &header, message);
        }
        self.settle_notes(now);
    }

    /// A message of an IKE SA that we don't have.
    fn handle_stranger(&mut self, now: Instant, from: Address, header: &Header, datagram: &[u8]) {
        self.out.counters.drop(Drop::UnknownSpi);
        if header.response {
            return;
        }
        match Message::decode(datagram) {
            Ok(message) => {
                if let Some(notify) = message.notify(NotifyType::INVALID_SPI) {
                    return self.lost_by_peer(now, from, notify);
                }
                // Only what belongs to an IKE SA of before is worth an answer.
                let protected = matches!(
                    message.payloads.last(),
                    Some(Payload::Encrypted(_) | Payload::EncryptedFragment(_))
                );
                if protected {
                    let error = Notify::empty(NotifyType::INVALID_IKE_SPI);
                    self.answer_in_clear(now, from, header, error);
                }
            }
            Err(malformed) => self.out.counters.drop_named(malformed.name()),
        }
    }

    //= rfc7296#2.5
    //# If an endpoint receives a message with a higher major version number, it MUST drop the message and SHOULD send an
    //# unauthenticated Notify message of type INVALID_MAJOR_VERSION containing the highest (closest) version number it
    //# supports.
    fn wrong_version(&mut self, now: Instant, from: Address, datagram: &[u8]) {
        const VERSION: usize = 17;
        let mut readable = datagram.to_vec();
        let higher = readable.get(VERSION).is_some_and(|v| v >> 4 > 2);
        if let Some(version) = readable.get_mut(VERSION) {
            *version = 0x20;
        }
        if let (true, Ok(header)) = (higher, Header::decode(&readable))
            && !header.response
        {
            self.answer_in_clear(now, from, &header, Notify::empty(NotifyType::INVALID_MAJOR_VERSION));
        }
    }

    /// An ESP packet of an SA that we don't have came by this path: its sender has not noticed that we began anew.
    ///
    /// It is told in the clear, which proves nothing to it, and makes it look (RFC 7296 §1.5): one of ours begins a
    /// session beside the one it has. (RFC 6290 has tokens for this, which need a secret that outlives a crash; to
    /// begin beside what there is costs a handshake, and nothing when it was a lie.)
    pub fn unknown_spi(&mut self, now: Instant, path: Path, spi: u32) {
        if self.inbound.contains_key(&spi) || !self.complaints.take(now) {
            return;
        }
        //= rfc7296#1.5
        //# ... there are no IKE SPI values that would be meaningful to the recipient of such a notification; using zero
        //# values or random values are both acceptable ... The Initiator flag is set to 1, the Response flag is set to 0,
        //# and the version flags are set in the normal fashion
        let header = Header {
            initiator_spi: self.rng.random(),
            responder_spi: self.rng.random(),
            exchange: ExchangeType::INFORMATIONAL,
            initiator: true,
            response: false,
            message_id: 0,
        };
        let notify = Notify::new(NotifyType::INVALID_SPI, spi.to_be_bytes().to_vec());
        let to = session::address_of(path, self.settings.config.ports);
        self.send_in_clear(to, Message { header, payloads: vec![Payload::Notify(notify)] });
    }

    /// The peer says that it does not have an SA that we send by.
    fn lost_by_peer(&mut self, now: Instant, from: Address, notify: &Notify) {
        let Ok(spi) = notify.data.as_slice().try_into().map(u32::from_be_bytes) else { return };
        let path = session::path_of(from);
        let carrier = self.paths.get(&path).into_iter().flat_map(|p| p.lanes.iter().flatten());
        let ids: Vec<Id> = carrier.filter(|c| c.outbound == spi).map(|c| c.session).take(1).collect();
        for id in ids {
            self.suspect(now, id);
        }
    }

    /// What a session has agreed upon may be lost at its peer: begins another beside it, which replaces it.
    pub(super) fn suspect(&mut self, now: Instant, id: Id) {
        let Some(path) = self.sessions.get(&id).filter(|s| s.live().is_some()).map(|s| s.base.path) else {
            return;
        };
        let lately = |at: Instant| now.since(at) < SUSPICION;
        let Some(live) = self.sessions.get_mut(&id).and_then(Session::established_mut) else { return };
        if live.suspected.is_some_and(lately) {
            return;
        }
        live.suspected = Some(now);
        let begun = self.on_path(path).any(|s| s.base.initiator && s.established().is_none());
        if !begun {
            self.begin(now, path);
        }
    }
}
