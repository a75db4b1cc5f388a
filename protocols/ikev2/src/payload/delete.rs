//! D: SAs that its sender no longer receives by (RFC 7296 §3.11).

use crate::codes::ProtocolId;
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;
use crate::writer::count16;

/// What is deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delete {
    /// The IKE SA that carries this, and all its children.
    Ike,
    /// ESP SAs, by the SPIs that the sender of this receives.
    Esp(Vec<u32>),
    /// SAs of another protocol, which we never have.
    Other {
        /// Which.
        protocol: ProtocolId,
        /// Octets of an SPI.
        spi_size: u8,
        /// How many.
        count: u16,
        /// Their SPIs.
        spis: Vec<u8>,
    },
}

impl Delete {
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// | Protocol ID   |   SPI Size    |          Num of SPIs          |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let protocol = ProtocolId(body.u8()?);
        let spi_size = body.u8()?;
        let count = body.u16()?;
        match (protocol, spi_size, count) {
            //= rfc7296#3.11
            //# It MUST be zero for IKE (SPI is in message header) or four for AH and ESP.
            (ProtocolId::IKE, 0, 0) => Ok(Self::Ike),
            (ProtocolId::ESP, 4, _) => {
                (0..count).map(|_| body.u32()).collect::<Result<_, _>>().map(Self::Esp)
            }
            (ProtocolId::IKE | ProtocolId::ESP, ..) => Err(Malformed::SpiSize),
            _ => {
                let spis = body.take(usize::from(spi_size) * usize::from(count))?.to_vec();
                Ok(Self::Other { protocol, spi_size, count, spis })
            }
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        match self {
            Self::Ike => out.extend_from_slice(&[ProtocolId::IKE.0, 0, 0, 0]),
            Self::Esp(spis) => {
                out.extend_from_slice(&[ProtocolId::ESP.0, 4]);
                out.extend_from_slice(&count16(spis.len())?.to_be_bytes());
                spis.iter().for_each(|spi| out.extend_from_slice(&spi.to_be_bytes()));
            }
            Self::Other { protocol, spi_size, count, spis } => {
                out.extend_from_slice(&[protocol.0, *spi_size]);
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(spis);
            }
        }
        Ok(())
    }
}
