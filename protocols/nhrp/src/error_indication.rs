//! Error Indications (RFC 2332 §5.2.7).
//!
//! They are sent to where the offending message came from, never about an Error Indication, and no faster than a
//! peer's bucket allows.

use crate::extension::ExtensionType;
use crate::node::{Incoming, Node};
use crate::packet::{Body, ErrorCode, MessageType, Offender, Packet};
use crate::{Error, Event};
use packet::{Instant, Path};
use std::net::IpAddr;

/// Hop count of ours: routers drop a zero, and this is what Cisco sends.
const HOPS: u8 = 255;
/// Most octets of the offending message that are returned.
const MOST_RETURNED: usize = 256;

impl Node {
    /// Tells the source of a message what was wrong with it.
    //= rfc2332#5.2.7
    /// Tells whether it was said: not too often, and never to everyone.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        path: Path,
        to: IpAddr,
        code: ErrorCode,
        offender: &[u8],
    ) -> bool {
        // Never an error about an error.
        let about_error =
            Offender::read(offender).is_ok_and(|o| o.message_type == MessageType::ErrorIndication);
        let Some(own) = self.own(crate::packet::Protocol::of(to)) else { return false };
        if about_error || self.is_own(to) || !self.limits.errors.take(now, path) {
            return false;
        }
        let offender = offender.get(..MOST_RETURNED).unwrap_or(offender).to_vec();
        let packet = Packet {
            hop_count: HOPS,
            body: Body::Error { code, offset: 0, offender },
            ..self.blank(own, to)
        };
        self.send(path, packet);
        true
    }

    /// Tells who wrote a message: of a request its source, of a reply the responder.
    pub(crate) fn report_to_author(&mut self, m: &Incoming<'_>, code: ErrorCode) -> bool {
        let Incoming { packet, .. } = *m;
        let responder = || {
            let named = packet.extension(ExtensionType::RESPONDER_ADDRESS)?.entries().pop()?;
            named.protocol
        };
        let author = match packet.message_type().is_reply() {
            true => responder().unwrap_or(packet.destination),
            false => packet.source,
        };
        self.report(m.now, m.path, author, code, m.bytes)
    }

    /// Tells the source of a message that could not be passed on: by its own path where we know it, since a
    /// message that went round came from elsewhere.
    pub(crate) fn report_in_transit(&mut self, m: &Incoming<'_>, code: ErrorCode) {
        let to = m.packet.source;
        let path = self.known_path(to).unwrap_or(m.path);
        self.report(m.now, path, to, code, m.bytes);
    }

    /// A message that could not be decoded. Where even its source is unreadable, or its checksum wrong, there is
    /// nobody to tell.
    pub(crate) fn report_undecodable(&mut self, now: Instant, path: Path, reason: Error, bytes: &[u8]) {
        let code = match reason {
            Error::Checksum | Error::Truncated | Error::PacketSize => return,
            Error::Extension | Error::ExtensionOffset => ErrorCode::INVALID_EXTENSION,
            _ => ErrorCode::PROTOCOL_ERROR,
        };
        if let Ok(offender) = Offender::read(bytes) {
            let reply = offender.message_type.is_reply();
            let author = if reply { offender.destination } else { offender.source };
            self.report(now, path, author, code, bytes);
        }
    }

    /// An Error Indication arrived.
    pub(crate) fn error_received(
        &mut self,
        m: &Incoming<'_>,
        code: ErrorCode,
        offender: &[u8],
    ) -> Result<(), Error> {
        let Incoming { path, packet, .. } = *m;
        if !self.is_own(packet.destination) {
            return self.pass_on_error(m);
        }
        let code = code.normalised();
        if let Ok(about) = Offender::read(offender)
            && self.is_own(about.source)
        {
            let explained = match about.message_type {
                MessageType::ResolutionRequest => self.resolution_error(path, about.request_id, code),
                MessageType::RegistrationRequest => {
                    self.registration_error(path, about.protocol, about.request_id, code.describe())
                }
                MessageType::PurgeRequest => self.purge_error(about.request_id),
                _ => false,
            };
            if explained {
                return Ok(());
            }
        }
        self.event(Event::PeerError { code: code.0, from: packet.source });
        Ok(())
    }
}
