//! Error Indications (RFC 2332 §5.2.7).
//!
//! They are sent to where the offending message came from, never about an Error Indication, and no faster than a
//! peer's bucket allows.

use crate::node::Node;
use crate::packet::{Body, ErrorCode, MessageType, Offender, Packet};
use crate::{Environment, Error, Event};
use packet::{Instant, Path};
use std::net::IpAddr;

/// Hop count of ours: routers drop a zero, and this is what Cisco sends.
const HOPS: u8 = 255;
/// Most octets of the offending message that are returned.
const MOST_RETURNED: usize = 256;

impl Node {
    /// Tells the source of a message what was wrong with it.
    //= rfc2332#5.2.7
    pub(crate) fn report(
        &mut self,
        now: Instant,
        path: Path,
        to: IpAddr,
        code: ErrorCode,
        offset: u16,
        offender: &[u8],
    ) {
        // Never an error about an error.
        let about_error =
            Offender::read(offender).is_ok_and(|o| o.message_type == MessageType::ErrorIndication);
        let Some(own) = self.own(crate::packet::Protocol::of(to)) else { return };
        if about_error || !self.limits.errors.take(now, path) {
            return;
        }
        let offender = offender.get(..MOST_RETURNED).unwrap_or(offender).to_vec();
        let packet =
            Packet { hop_count: HOPS, body: Body::Error { code, offset, offender }, ..self.blank(own, to) };
        self.send(path, packet);
    }

    /// A message that could not be decoded. Where even its source is unreadable, or its checksum wrong, there is
    /// nobody to tell.
    pub(crate) fn report_undecodable(&mut self, now: Instant, path: Path, reason: Error, bytes: &[u8]) {
        let code = match reason {
            Error::Checksum | Error::Truncated | Error::PacketSize => return,
            Error::Extension | Error::ExtensionOffset => ErrorCode::INVALID_EXTENSION,
            _ => ErrorCode::PROTOCOL_ERROR,
        };
        if let Ok(offender) = Offender::read(bytes)
            && !self.is_own(offender.source)
        {
            self.report(now, path, offender.source, code, 0, bytes);
        }
    }

    /// An Error Indication arrived.
    pub(crate) fn error_received(
        &mut self,
        path: Path,
        packet: &Packet,
        code: ErrorCode,
        offender: &[u8],
        env: &dyn Environment,
    ) -> Result<(), Error> {
        if !self.is_own(packet.destination) {
            return self.pass_on_error(path, packet, env);
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
                MessageType::PurgeRequest => self.purge_error(about.request_id, code),
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
