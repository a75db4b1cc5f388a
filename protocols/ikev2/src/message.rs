//! A message: the header and a chain of payloads.

use crate::codes::{ExchangeType, NotifyType, PayloadType};
use crate::malformed::{Malformed, TooLong};
use crate::payload::{self, AuthPayload, IdPayload, Proposal, TrafficSelector};
use crate::payload::{Delete, KeyExchange, Notify, Payload};
use crate::reader::Reader;

/// Octets of the header.
pub const HEADER_LEN: usize = 28;

/// Major version 2, minor version 0.
const VERSION: u8 = 0x20;

/// The header of every message (RFC 7296 §3.1), without what follows from the payloads.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       IKE SA Initiator's SPI                  |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       IKE SA Responder's SPI                  |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                          Message ID                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                            Length                             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Chosen by who began the IKE SA; never 0.
    pub initiator_spi: u64,
    /// Chosen by the other; 0 in the very first message.
    pub responder_spi: u64,
    /// What it belongs to.
    pub exchange: ExchangeType,
    /// The I flag: sent by who began the *IKE SA* (not the exchange).
    pub initiator: bool,
    /// The R flag: an answer to the request with the same message ID.
    pub response: bool,
    /// Number of the request, from 0, by each side on its own.
    pub message_id: u32,
}

impl Header {
    const INITIATOR: u8 = 0x08;
    const RESPONSE: u8 = 0x20;

    /// Reads the header of a datagram, and checks nothing but version and length: enough to find the IKE SA.
    ///
    /// # Errors
    /// It is too short, of another length than it says, or of another major version.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        Ok(Self::read(datagram)?.0)
    }

    /// The header, the type of the first payload, and the payloads.
    pub(crate) fn read(datagram: &[u8]) -> Result<(Self, PayloadType, Reader<'_>), Malformed> {
        let mut reader = Reader::new(datagram);
        let initiator_spi = reader.u64()?;
        let responder_spi = reader.u64()?;
        let first = PayloadType(reader.u8()?);
        let version = reader.u8()?;
        let exchange = ExchangeType(reader.u8()?);
        let flags = reader.u8()?;
        let message_id = reader.u32()?;
        let length = reader.u32()?;
        //= rfc7296#2.5
        //# The minor version number indicates new capabilities, and MUST be ignored by a node with a smaller minor version
        //# number
        if version >> 4 != VERSION >> 4 {
            return Err(Malformed::Version);
        }
        if usize::try_from(length) != Ok(datagram.len()) {
            return Err(Malformed::Length);
        }
        let (initiator, response) = (flags & Self::INITIATOR != 0, flags & Self::RESPONSE != 0);
        Ok((Self { initiator_spi, responder_spi, exchange, initiator, response, message_id }, first, reader))
    }

    /// Writes it, with a length to be corrected by [`set_length`].
    pub(crate) fn write(&self, first: PayloadType, out: &mut Vec<u8>) {
        let flags =
            if self.initiator { Self::INITIATOR } else { 0 } | if self.response { Self::RESPONSE } else { 0 };
        out.extend_from_slice(&self.initiator_spi.to_be_bytes());
        out.extend_from_slice(&self.responder_spi.to_be_bytes());
        out.extend_from_slice(&[first.0, VERSION, self.exchange.0, flags]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

/// Writes the length of a message into its header.
pub(crate) fn set_length(message: &mut [u8]) -> Result<(), TooLong> {
    let length = u32::try_from(message.len()).map_err(|_| TooLong)?;
    if let Some(field) = message.get_mut(24..HEADER_LEN) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// A whole message. What came protected has its inner payloads here ([`crate::crypto::Opener`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its payloads, in order.
    pub payloads: Vec<Payload>,
}

impl Message {
    /// Reads a datagram. One that is protected ends with a [`Payload::Encrypted`] or [`Payload::EncryptedFragment`].
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let (header, first, mut reader) = Header::read(datagram)?;
        let payloads = payload::read_chain(first, &mut reader, payload::Place::Outer)?;
        Ok(Self { header, payloads })
    }

    /// Writes a message in the clear.
    ///
    /// # Errors
    /// A payload is longer than its length field can say.
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let mut out = Vec::with_capacity(512);
        self.header.write(payload::first_type(&self.payloads), &mut out);
        payload::write_chain(&self.payloads, &mut out)?;
        set_length(&mut out)?;
        Ok(out)
    }

    /// The proposals of the SA payload.
    #[must_use]
    pub fn proposals(&self) -> Option<&[Proposal]> {
        self.payloads.iter().find_map(|p| match p {
            Payload::SecurityAssociation(proposals) => Some(proposals.as_slice()),
            _ => None,
        })
    }

    /// The KE payload.
    #[must_use]
    pub fn key_exchange(&self) -> Option<&KeyExchange> {
        self.payloads.iter().find_map(|p| match p {
            Payload::KeyExchange(ke) => Some(ke),
            _ => None,
        })
    }

    /// The nonce.
    #[must_use]
    pub fn nonce(&self) -> Option<&[u8]> {
        self.payloads.iter().find_map(|p| match p {
            Payload::Nonce(nonce) => Some(nonce.as_slice()),
            _ => None,
        })
    }

    /// The initiator's identity.
    #[must_use]
    pub fn id_initiator(&self) -> Option<&IdPayload> {
        self.payloads.iter().find_map(|p| match p {
            Payload::IdInitiator(id) => Some(id),
            _ => None,
        })
    }

    /// The responder's identity.
    #[must_use]
    pub fn id_responder(&self) -> Option<&IdPayload> {
        self.payloads.iter().find_map(|p| match p {
            Payload::IdResponder(id) => Some(id),
            _ => None,
        })
    }

    /// The AUTH payload.
    #[must_use]
    pub fn authentication(&self) -> Option<&AuthPayload> {
        self.payloads.iter().find_map(|p| match p {
            Payload::Authentication(auth) => Some(auth),
            _ => None,
        })
    }

    /// X.509 certificates, in the order they came: the end entity's first (RFC 7296 §3.6).
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().filter_map(|p| match p {
            Payload::Certificate(c) if c.encoding == crate::codes::CertificateEncoding::X509_SIGNATURE => {
                Some(c.data.as_slice())
            }
            _ => None,
        })
    }

    /// The initiator's and the responder's traffic selectors; both, or nothing.
    #[must_use]
    pub fn selectors(&self) -> Option<(&[TrafficSelector], &[TrafficSelector])> {
        let initiator = self.payloads.iter().find_map(|p| match p {
            Payload::SelectorsInitiator(ts) => Some(ts.as_slice()),
            _ => None,
        })?;
        let responder = self.payloads.iter().find_map(|p| match p {
            Payload::SelectorsResponder(ts) => Some(ts.as_slice()),
            _ => None,
        })?;
        Some((initiator, responder))
    }

    /// All notifications.
    pub fn notifies(&self) -> impl Iterator<Item = &Notify> {
        self.payloads.iter().filter_map(|p| match p {
            Payload::Notify(notify) => Some(notify),
            _ => None,
        })
    }

    /// The first notification of a type.
    #[must_use]
    pub fn notify(&self, kind: NotifyType) -> Option<&Notify> {
        self.notifies().find(|n| n.kind == kind)
    }

    /// The first notification that says what failed.
    #[must_use]
    pub fn error(&self) -> Option<&Notify> {
        self.notifies().find(|n| n.kind.is_error())
    }

    /// All deletions.
    pub fn deletes(&self) -> impl Iterator<Item = &Delete> {
        self.payloads.iter().filter_map(|p| match p {
            Payload::Delete(delete) => Some(delete),
            _ => None,
        })
    }
}
