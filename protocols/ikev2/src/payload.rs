//! Payloads (RFC 7296 §3.2 to §3.16), and chains of them.

mod certificate;
mod delete;
mod encrypted;
mod identity;
mod notify;
mod proposal;
mod selector;

pub use certificate::{AuthPayload, Certificate, CertificateRequest, KeyExchange, UnsupportedAuth};
pub use delete::Delete;
pub use encrypted::{Encrypted, EncryptedFragment};
pub use identity::{IdPayload, UnsupportedId};
pub use notify::Notify;
pub use proposal::{Attribute, Proposal, Transform};
pub use selector::{AddressRange, TrafficSelector};

use crate::codes::PayloadType;
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;
use crate::writer::with_length;

/// Payloads in one chain, at most. A long chain of certificates has ten.
pub const MAX_PAYLOADS: usize = 100;

/// Octets of a nonce (RFC 7296 §2.10, §3.9).
pub const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=256;

/// One payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// SA: proposals, or the chosen one.
    SecurityAssociation(Vec<Proposal>),
    /// KE.
    KeyExchange(KeyExchange),
    /// IDi.
    IdInitiator(IdPayload),
    /// IDr.
    IdResponder(IdPayload),
    /// CERT.
    Certificate(Certificate),
    /// CERTREQ.
    CertificateRequest(CertificateRequest),
    /// AUTH.
    Authentication(AuthPayload),
    /// Ni, Nr: [`NONCE_LEN`] octets.
    Nonce(Vec<u8>),
    /// N.
    Notify(Notify),
    /// D.
    Delete(Delete),
    /// V.
    Vendor(Vec<u8>),
    /// TSi.
    SelectorsInitiator(Vec<TrafficSelector>),
    /// TSr.
    SelectorsResponder(Vec<TrafficSelector>),
    /// SK, not opened.
    Encrypted(Encrypted),
    /// SKF, not opened.
    EncryptedFragment(EncryptedFragment),
    /// One that isn't known here, and isn't critical (CP and EAP among them).
    Unknown {
        /// Its number.
        kind: PayloadType,
        /// All behind its generic header.
        data: Vec<u8>,
    },
}

impl Payload {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> PayloadType {
        match self {
            Self::SecurityAssociation(_) => PayloadType::SA,
            Self::KeyExchange(_) => PayloadType::KE,
            Self::IdInitiator(_) => PayloadType::IDI,
            Self::IdResponder(_) => PayloadType::IDR,
            Self::Certificate(_) => PayloadType::CERT,
            Self::CertificateRequest(_) => PayloadType::CERTREQ,
            Self::Authentication(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::Vendor(_) => PayloadType::VENDOR,
            Self::SelectorsInitiator(_) => PayloadType::TSI,
            Self::SelectorsResponder(_) => PayloadType::TSR,
            Self::Encrypted(_) => PayloadType::SK,
            Self::EncryptedFragment(_) => PayloadType::SKF,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    fn read(kind: PayloadType, critical: bool, mut body: Reader<'_>) -> Result<Self, Malformed> {
        let payload = match kind {
            PayloadType::SA => Self::SecurityAssociation(proposal::read_all(&mut body)?),
            PayloadType::KE => Self::KeyExchange(KeyExchange::read(&mut body)?),
            PayloadType::IDI => Self::IdInitiator(IdPayload::read(&mut body)?),
            PayloadType::IDR => Self::IdResponder(IdPayload::read(&mut body)?),
            PayloadType::CERT => Self::Certificate(Certificate::read(&mut body)?),
            PayloadType::CERTREQ => Self::CertificateRequest(CertificateRequest::read(&mut body)?),
            PayloadType::AUTH => Self::Authentication(AuthPayload::read(&mut body)?),
            PayloadType::NONCE => Self::Nonce(read_nonce(&mut body)?),
            PayloadType::NOTIFY => Self::Notify(Notify::read(&mut body)?),
            PayloadType::DELETE => Self::Delete(Delete::read(&mut body)?),
            PayloadType::VENDOR => Self::Vendor(body.rest().to_vec()),
            PayloadType::TSI => Self::SelectorsInitiator(selector::read_all(&mut body)?),
            PayloadType::TSR => Self::SelectorsResponder(selector::read_all(&mut body)?),
            // In RFC 7296, so known by their numbers: the bit means nothing.
            PayloadType::CP | PayloadType::EAP => Self::Unknown { kind, data: body.rest().to_vec() },
            //= rfc7296#2.5
            //# If the critical flag is set and the payload type is unrecognized, the message MUST be rejected
            _ if critical => return Err(Malformed::Critical(kind)),
            //= rfc7296#2.5
            //# If the critical flag is not set and the payload type is unsupported, that payload MUST be ignored.
            _ => Self::Unknown { kind, data: body.rest().to_vec() },
        };
        body.end()?;
        Ok(payload)
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        match self {
            Self::SecurityAssociation(proposals) => proposal::write_all(proposals, out),
            Self::KeyExchange(ke) => ke.write(out),
            Self::IdInitiator(id) | Self::IdResponder(id) => id.write(out),
            Self::Certificate(certificate) => certificate.write(out),
            Self::CertificateRequest(request) => request.write(out),
            Self::Authentication(auth) => auth.write(out),
            Self::Notify(notify) => notify.write(out),
            Self::Delete(delete) => delete.write(out),
            Self::SelectorsInitiator(ts) | Self::SelectorsResponder(ts) => selector::write_all(ts, out),
            Self::Encrypted(sk) => sk.write(out),
            Self::EncryptedFragment(skf) => skf.write(out),
            Self::Nonce(data) | Self::Vendor(data) | Self::Unknown { data, .. } => {
                out.extend_from_slice(data);
                Ok(())
            }
        }
    }
}

/// Where a chain stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind the header, in the clear.
    Outer,
    /// Within SK.
    Inner,
}

/// Reads a chain of payloads to the end.
pub(crate) fn read_chain(
    first: PayloadType,
    reader: &mut Reader<'_>,
    place: Place,
) -> Result<Vec<Payload>, Malformed> {
    let mut payloads = Vec::new();
    let mut kind = first;
    while kind != PayloadType::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(Malformed::TooManyPayloads);
        }
        let (next, critical, mut body) = read_generic(reader)?;
        if matches!(kind, PayloadType::SK | PayloadType::SKF) {
            //= rfc7296#3.14
            //# The Encrypted payload, if present in a message, MUST be the last payload in the message.
            if place == Place::Inner || !reader.is_empty() {
                return Err(Malformed::EncryptedNotLast);
            }
            payloads.push(if kind == PayloadType::SK {
                Payload::Encrypted(Encrypted::read(next, &mut body))
            } else {
                Payload::EncryptedFragment(EncryptedFragment::read(next, &mut body)?)
            });
            return Ok(payloads);
        }
        payloads.push(Payload::read(kind, critical, body)?);
        kind = next;
    }
    reader.end()?;
    Ok(payloads)
}

/// Generic payload header (RFC 7296 §3.2): the type of the next payload, the critical bit, and the body.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
fn read_generic<'a>(reader: &mut Reader<'a>) -> Result<(PayloadType, bool, Reader<'a>), Malformed> {
    let next = PayloadType(reader.u8()?);
    let critical = reader.u8()? & 0x80 != 0;
    let length = usize::from(reader.u16()?);
    let body = length.checked_sub(4).ok_or(Malformed::PayloadLength)?;
    Ok((next, critical, reader.part(body)?))
}

/// The type of the first payload of a chain.
pub(crate) fn first_type(payloads: &[Payload]) -> PayloadType {
    payloads.first().map_or(PayloadType::NONE, Payload::kind)
}

/// Writes a chain of payloads.
pub(crate) fn write_chain(payloads: &[Payload], out: &mut Vec<u8>) -> Result<(), TooLong> {
    for (index, payload) in payloads.iter().enumerate() {
        let next = match payload {
            // What "next" means in these two is the first payload inside.
            Payload::Encrypted(sk) => sk.first,
            Payload::EncryptedFragment(skf) => skf.first,
            _ => payloads.get(index + 1).map_or(PayloadType::NONE, Payload::kind),
        };
        with_length(out, &[next.0, 0, 0, 0], 2, |out| payload.write(out))?;
    }
    Ok(())
}

fn read_nonce(body: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let nonce = body.rest();
    //= rfc7296#3.9
    //# The size of the Nonce Data MUST be between 16 and 256 octets, inclusive.
    if !NONCE_LEN.contains(&nonce.len()) {
        return Err(Malformed::NonceSize);
    }
    Ok(nonce.to_vec())
}
