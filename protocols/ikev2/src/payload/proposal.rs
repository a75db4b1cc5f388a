//! SA: proposals, their transforms, and the transforms' attributes (RFC 7296 §3.3). What they mean is `proposal.rs`
//! of the crate.

use crate::codes::{ProtocolId, TransformType};
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;
use crate::writer::{count8, count16, with_length};

/// Proposals in one SA payload, at most.
pub(super) const MAX_PROPOSALS: usize = 64;

/// A set of transforms, of which one of each type is to be chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// From 1; the answer repeats the number of the one chosen.
    pub number: u8,
    /// For what.
    pub protocol: ProtocolId,
    /// By which the sender wants to receive: 4 octets for ESP, 8 when an IKE SA is rekeyed, otherwise none.
    pub spi: Vec<u8>,
    /// At most 255.
    pub transforms: Vec<Transform>,
}

/// One algorithm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transform {
    /// What it is for.
    pub kind: TransformType,
    /// Which, by the registry of that type.
    pub id: u16,
    /// With which parameters.
    pub attributes: Vec<Attribute>,
}

/// A parameter of an algorithm (RFC 7296 §3.3.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// 14: bits of the key.
    KeyLength(u16),
    /// One that isn't known here, in 16 bits: a transform that has it is not to be chosen (RFC 7296 §3.3.6).
    UnknownShort {
        /// Its number, below 0x8000.
        kind: u16,
        /// Its value.
        value: u16,
    },
    /// One that isn't known here, of any length.
    UnknownLong {
        /// Its number, below 0x8000.
        kind: u16,
        /// Its value.
        value: Vec<u8>,
    },
}

impl Transform {
    /// One without attributes.
    #[must_use]
    pub const fn new(kind: TransformType, id: u16) -> Self {
        Self { kind, id, attributes: Vec::new() }
    }

    /// One with a key length, in bits.
    #[must_use]
    pub fn with_key_length(kind: TransformType, id: u16, bits: u16) -> Self {
        Self { kind, id, attributes: vec![Attribute::KeyLength(bits)] }
    }
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Last Substruc |   RESERVED    |         Proposal Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                        SPI (variable)                         ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                        <Transforms>                           ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
pub(super) fn read_all(body: &mut Reader<'_>) -> Result<Vec<Proposal>, Malformed> {
    let mut proposals = Vec::new();
    loop {
        if proposals.len() == MAX_PROPOSALS {
            return Err(Malformed::TooManyProposals);
        }
        let last = last_substructure(body.u8()?, 2, Malformed::ProposalOrder)?;
        let _reserved = body.u8()?;
        let length = usize::from(body.u16()?);
        let mut part = body.part(length.checked_sub(4).ok_or(Malformed::PayloadLength)?)?;
        proposals.push(Proposal::read(&mut part)?);
        part.end()?;
        if last {
            return Ok(proposals);
        }
    }
}

pub(super) fn write_all(proposals: &[Proposal], out: &mut Vec<u8>) -> Result<(), TooLong> {
    for (index, proposal) in proposals.iter().enumerate() {
        let more = if index + 1 < proposals.len() { 2 } else { 0 };
        with_length(out, &[more, 0, 0, 0], 2, |out| proposal.write(out))?;
    }
    Ok(())
}

impl Proposal {
    fn read(part: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = part.u8()?;
        let protocol = ProtocolId(part.u8()?);
        let spi_size = part.u8()?;
        let count = part.u8()?;
        // An SA payload that answers holds one proposal of any number, so order is nobody's concern here but 0 is wrong.
        if number == 0 {
            return Err(Malformed::ProposalOrder);
        }
        match (protocol, spi_size) {
            (ProtocolId::IKE, 0 | 8) | (ProtocolId::ESP | ProtocolId::AH, 4) => {}
            (ProtocolId::IKE | ProtocolId::ESP | ProtocolId::AH, _) => return Err(Malformed::SpiSize),
            _ => {}
        }
        let spi = part.take(usize::from(spi_size))?.to_vec();
        let mut transforms = Vec::with_capacity(usize::from(count).min(16));
        for index in 1..=count {
            let last = last_substructure(part.u8()?, 3, Malformed::TransformCount)?;
            if last != (index == count) {
                return Err(Malformed::TransformCount);
            }
            let _reserved = part.u8()?;
            let length = usize::from(part.u16()?);
            let mut transform = part.part(length.checked_sub(4).ok_or(Malformed::PayloadLength)?)?;
            transforms.push(Transform::read(&mut transform)?);
        }
        Ok(Self { number, protocol, spi, transforms })
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let count = count8(self.transforms.len())?;
        out.extend_from_slice(&[self.number, self.protocol.0, count8(self.spi.len())?, count]);
        out.extend_from_slice(&self.spi);
        for (index, transform) in self.transforms.iter().enumerate() {
            let more = if index + 1 < self.transforms.len() { 3 } else { 0 };
            with_length(out, &[more, 0, 0, 0], 2, |out| transform.write(out))?;
        }
        Ok(())
    }
}

impl Transform {
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |Transform Type |   RESERVED    |          Transform ID         |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~                      Transform Attributes                     ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    fn read(part: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = TransformType(part.u8()?);
        let _reserved = part.u8()?;
        let id = part.u16()?;
        let mut attributes = Vec::new();
        while !part.is_empty() {
            attributes.push(Attribute::read(part)?);
        }
        Ok(Self { kind, id, attributes })
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.extend_from_slice(&[self.kind.0, 0]);
        out.extend_from_slice(&self.id.to_be_bytes());
        self.attributes.iter().try_for_each(|attribute| attribute.write(out))
    }
}

impl Attribute {
    const KEY_LENGTH: u16 = 14;
    /// The AF bit: the value stands in place of a length.
    const IN_PLACE: u16 = 0x8000;

    fn read(part: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (field, value) = (part.u16()?, part.u16()?);
        let kind = field & !Self::IN_PLACE;
        let in_place = field & Self::IN_PLACE != 0;
        match (kind, in_place) {
            (Self::KEY_LENGTH, true) => Ok(Self::KeyLength(value)),
            (Self::KEY_LENGTH, false) => Err(Malformed::KeyLength),
            (kind, true) => Ok(Self::UnknownShort { kind, value }),
            (kind, false) => Ok(Self::UnknownLong { kind, value: part.take(usize::from(value))?.to_vec() }),
        }
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let (kind, value) = match self {
            Self::KeyLength(bits) => (Self::KEY_LENGTH | Self::IN_PLACE, *bits),
            Self::UnknownShort { kind, value } => (kind | Self::IN_PLACE, *value),
            Self::UnknownLong { kind, value } => (*kind, count16(value.len())?),
        };
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
        if let Self::UnknownLong { value, .. } = self {
            out.extend_from_slice(value);
        }
        Ok(())
    }
}

/// "Last Substruc": 0 for the last, `more` for the others.
fn last_substructure(field: u8, more: u8, otherwise: Malformed) -> Result<bool, Malformed> {
    match field {
        0 => Ok(true),
        field if field == more => Ok(false),
        _ => Err(otherwise),
    }
}
