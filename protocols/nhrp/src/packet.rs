//! NHRP messages (RFC 2332 §5): decoding and encoding.

pub mod address;
pub mod cie;
pub mod codes;
pub(crate) mod reader;

pub use cie::Cie;
pub use codes::{CieCode, ErrorCode, Family, Flags, MessageType, Protocol};

use crate::Error;
use crate::extension::{self, Extension, ExtensionType};
use address::TypeLength;
use reader::Reader;
use std::net::IpAddr;

/// Length of the fixed header, octets.
pub const FIXED_HEADER: usize = 20;

/// A whole message.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |            ar$afn             |          ar$pro.type          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                          ar$pro.snap                          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  ar$pro.snap  |   ar$hopcnt   |            ar$pktsz           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           ar$chksum           |            ar$extoff          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | ar$op.version |   ar$op.type  |    ar$shtl    |    ar$sstl    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Src Proto Len | Dst Proto Len | flags, request ID (types 1-6),|
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ unused, code, offset (7), ... |
/// | source NBMA, source protocol, destination protocol address    |
/// | client information entries (1-6), offending packet (7),       |
/// | triggering packet (8); extensions                             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Family of NBMA addresses.
    pub family: Family,
    /// Protocol whose addresses are resolved.
    pub protocol: Protocol,
    /// Hops it may still take.
    pub hop_count: u8,
    /// NBMA address of the source.
    pub source_nbma: Option<IpAddr>,
    /// Protocol address of the source; replies keep the requester's.
    pub source: IpAddr,
    /// Protocol address of the destination.
    pub destination: IpAddr,
    /// What it says.
    pub body: Body,
    /// Extensions in order, without the end marker.
    pub extensions: Vec<Extension>,
}

/// What a message says, by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Types 1 to 6: requests and replies.
    Exchange(Exchange),
    /// Type 7.
    Error {
        /// What was wrong.
        code: ErrorCode,
        /// Where in the offending packet, octets.
        offset: u16,
        /// The packet, or its beginning.
        offender: Vec<u8>,
    },
    /// Type 8.
    Indication {
        /// Cisco's traffic code, zero.
        code: u16,
        /// The triggering packet from its IP header on, or its beginning.
        trigger: Vec<u8>,
    },
}

/// A request or a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Which.
    pub kind: ExchangeType,
    /// Flags; their meaning is by kind.
    pub flags: Flags,
    /// Names the request among those of its source.
    pub request_id: u32,
    /// Client information entries.
    pub entries: Vec<Cie>,
}

/// The six message types that are requests or replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeType {
    /// Type 1.
    ResolutionRequest,
    /// Type 2.
    ResolutionReply,
    /// Type 3.
    RegistrationRequest,
    /// Type 4.
    RegistrationReply,
    /// Type 5.
    PurgeRequest,
    /// Type 6.
    PurgeReply,
}

impl From<ExchangeType> for MessageType {
    fn from(kind: ExchangeType) -> Self {
        match kind {
            ExchangeType::ResolutionRequest => Self::ResolutionRequest,
            ExchangeType::ResolutionReply => Self::ResolutionReply,
            ExchangeType::RegistrationRequest => Self::RegistrationRequest,
            ExchangeType::RegistrationReply => Self::RegistrationReply,
            ExchangeType::PurgeRequest => Self::PurgeRequest,
            ExchangeType::PurgeReply => Self::PurgeReply,
        }
    }
}

impl Packet {
    /// The message type.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match &self.body {
            Body::Exchange(exchange) => exchange.kind.into(),
            Body::Error { .. } => MessageType::ErrorIndication,
            Body::Indication { .. } => MessageType::TrafficIndication,
        }
    }

    /// Decodes a message; the checksum is verified. What follows the packet size is ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (fixed, bytes) = Fixed::read(bytes)?;
        let extensions_at = usize::from(fixed.extension_offset);
        let (mandatory, extensions) = match extensions_at {
            0 => (bytes, &[][..]),
            at => bytes.split_at_checked(at).ok_or(Error::ExtensionOffset)?,
        };
        let mut reader = Reader::new(mandatory.get(FIXED_HEADER..).ok_or(Error::ExtensionOffset)?);
        let (head, source_nbma, source, destination) = fixed.mandatory(&mut reader)?;
        let (source, destination) =
            (source.ok_or(Error::MissingAddress)?, destination.ok_or(Error::MissingAddress)?);
        let exchange = |kind| -> Result<Body, Error> {
            let entries = Cie::read_all(reader.rest()).map_err(|_| Error::ClientInformation)?;
            let (flags, request_id) = (Flags(head.first), head.second);
            Ok(Body::Exchange(Exchange { kind, flags, request_id, entries }))
        };
        let [high, low] = [(head.second >> 16) as u16, head.second as u16];
        let body = match fixed.message_type {
            MessageType::ResolutionRequest => exchange(ExchangeType::ResolutionRequest)?,
            MessageType::ResolutionReply => exchange(ExchangeType::ResolutionReply)?,
            MessageType::RegistrationRequest => exchange(ExchangeType::RegistrationRequest)?,
            MessageType::RegistrationReply => exchange(ExchangeType::RegistrationReply)?,
            MessageType::PurgeRequest => exchange(ExchangeType::PurgeRequest)?,
            MessageType::PurgeReply => exchange(ExchangeType::PurgeReply)?,
            MessageType::ErrorIndication => {
                Body::Error { code: ErrorCode(high), offset: low, offender: reader.rest().to_vec() }
            }
            MessageType::TrafficIndication => {
                Body::Indication { code: high, trigger: reader.rest().to_vec() }
            }
        };
        Ok(Self {
            family: fixed.family,
            protocol: fixed.protocol,
            hop_count: fixed.hop_count,
            source_nbma,
            source,
            destination,
            body,
            extensions: extension::read_all(extensions)?,
        })
    }

    /// Encodes the message, size, offsets and checksum filled in. With `pad`, so many zero octets are appended
    /// and counted (a quirk of Error Indications).
    pub fn encode(&self, pad: usize) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&(self.family as u16).to_be_bytes());
        out.extend_from_slice(&(self.protocol as u16).to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 0, 0, self.hop_count]);
        out.extend_from_slice(&[0; 6]); // size, checksum, extension offset: below
        out.extend_from_slice(&[1, self.message_type() as u8, address::length(self.source_nbma), 0]);
        out.push(address::length(Some(self.source)));
        out.push(address::length(Some(self.destination)));
        let (first, high, low) = match &self.body {
            Body::Exchange(e) => (e.flags.0, (e.request_id >> 16) as u16, e.request_id as u16),
            Body::Error { code, offset, .. } => (0, code.0, *offset),
            Body::Indication { code, .. } => (0, *code, 0),
        };
        for field in [first, high, low] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        address::write(self.source_nbma, &mut out);
        address::write(Some(self.source), &mut out);
        address::write(Some(self.destination), &mut out);
        match &self.body {
            Body::Exchange(e) => e.entries.iter().for_each(|entry| entry.write(&mut out)),
            Body::Error { offender, .. } => out.extend_from_slice(offender),
            Body::Indication { trigger, .. } => out.extend_from_slice(trigger),
        }
        let mut offset = 0;
        if !self.extensions.is_empty() {
            offset = u16::try_from(out.len()).map_err(|_| Error::TooLarge)?;
            extension::write_all(&self.extensions, &mut out)?;
        }
        out.resize(out.len() + pad, 0);
        let size = u16::try_from(out.len()).map_err(|_| Error::TooLarge)?;
        set_u16(&mut out, SIZE_AT, size);
        set_u16(&mut out, EXTENSION_OFFSET_AT, offset);
        let sum = checksum(&out);
        set_u16(&mut out, CHECKSUM_AT, sum);
        Ok(out)
    }

    /// The first extension of a type.
    #[must_use]
    pub fn extension(&self, kind: ExtensionType) -> Option<&Extension> {
        self.extensions.iter().find(|e| e.kind == kind)
    }

    /// The first extension of a type, to change.
    pub fn extension_mut(&mut self, kind: ExtensionType) -> Option<&mut Extension> {
        self.extensions.iter_mut().find(|e| e.kind == kind)
    }
}

const SIZE_AT: usize = 10;
const CHECKSUM_AT: usize = 12;
const EXTENSION_OFFSET_AT: usize = 14;

fn set_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The first of a fixed header that we need, for messages that can't be decoded whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offender {
    pub(crate) protocol: Protocol,
    pub(crate) message_type: MessageType,
    /// Means something for types 1 to 6 only.
    pub(crate) request_id: u32,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

impl Offender {
    /// Reads the beginning of a message, whatever its checksum and however it ends.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let fixed = Fixed::fields(&mut reader)?;
        let (head, _, source, destination) = fixed.mandatory(&mut reader)?;
        Ok(Self {
            protocol: fixed.protocol,
            message_type: fixed.message_type,
            request_id: head.second,
            source: source.ok_or(Error::MissingAddress)?,
            destination: destination.ok_or(Error::MissingAddress)?,
        })
    }
}

/// The fixed header.
struct Fixed {
    family: Family,
    protocol: Protocol,
    hop_count: u8,
    size: u16,
    extension_offset: u16,
    message_type: MessageType,
    nbma_length: TypeLength,
    subaddress_length: TypeLength,
}

/// The six octets after the protocol lengths; what they mean is by message type.
struct Head {
    first: u16,
    second: u32,
}

type Mandatory = (Head, Option<IpAddr>, Option<IpAddr>, Option<IpAddr>);

impl Fixed {
    /// Verifies size and checksum, and cuts off what lies behind the message.
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let fixed = Self::fields(&mut Reader::new(bytes))?;
        let size = usize::from(fixed.size);
        if size < FIXED_HEADER {
            return Err(Error::PacketSize);
        }
        let bytes = bytes.get(..size).ok_or(Error::Truncated)?;
        if checksum(bytes) != 0 {
            return Err(Error::Checksum);
        }
        Ok((fixed, bytes))
    }

    fn fields(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let family = reader.u16()?;
        let protocol = reader.u16()?;
        let _snap = reader.take(5)?;
        let hop_count = reader.u8()?;
        let size = reader.u16()?;
        let _checksum = reader.u16()?;
        let extension_offset = reader.u16()?;
        let version = reader.u8()?;
        let message_type = reader.u8()?;
        if version != 1 {
            return Err(Error::Version);
        }
        let family = match family {
            1 => Family::V4,
            2 => Family::V6,
            _ => return Err(Error::AddressFamily),
        };
        let protocol = match protocol {
            0x0800 => Protocol::V4,
            0x86dd => Protocol::V6,
            _ => return Err(Error::ProtocolType),
        };
        Ok(Self {
            family,
            protocol,
            hop_count,
            size,
            extension_offset,
            message_type: MessageType::from_wire(message_type).ok_or(Error::MessageType)?,
            nbma_length: TypeLength::read(reader)?,
            subaddress_length: TypeLength::read(reader)?,
        })
    }

    /// Reads the mandatory part up to and including the addresses.
    fn mandatory(&self, reader: &mut Reader<'_>) -> Result<Mandatory, Error> {
        let source_length = usize::from(reader.u8()?);
        let destination_length = usize::from(reader.u8()?);
        let head = Head { first: reader.u16()?, second: reader.u32()? };
        let nbma = self.nbma_length.address(self.subaddress_length, reader)?;
        let source = reader.address(source_length)?;
        let destination = reader.address(destination_length)?;
        Ok((head, nbma, source, destination))
    }
}

/// The ones-complement sum of RFC 1071, complemented: what goes into the field, or 0 when the field is right.
//= rfc2332#5.1
/// It runs over the whole message; an odd last octet counts as if a zero followed it.
fn checksum(bytes: &[u8]) -> u16 {
    let (words, odd) = bytes.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    if let [last] = odd {
        sum += u32::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
