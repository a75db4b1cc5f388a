//! N: errors and states (RFC 7296 §3.10).

use crate::codes::{GroupId, NotifyType, ProtocolId};
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;
use crate::writer::count8;

/// A notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// Of which protocol the SPI is.
    pub protocol: ProtocolId,
    /// Which SA is meant; empty for none, and for the IKE SA that carries this.
    pub spi: Vec<u8>,
    /// What it says.
    pub kind: NotifyType,
    /// More about it.
    pub data: Vec<u8>,
}

impl Notify {
    /// One without an SPI.
    #[must_use]
    pub const fn new(kind: NotifyType, data: Vec<u8>) -> Self {
        Self { protocol: ProtocolId::NONE, spi: Vec::new(), kind, data }
    }

    /// One without an SPI and without data.
    #[must_use]
    pub const fn empty(kind: NotifyType) -> Self {
        Self::new(kind, Vec::new())
    }

    /// One about an ESP SA, by the SPI that its sender receives.
    #[must_use]
    pub fn esp(kind: NotifyType, spi: u32) -> Self {
        Self { protocol: ProtocolId::ESP, spi: spi.to_be_bytes().to_vec(), kind, data: Vec::new() }
    }

    /// The SPI, if it is one of ESP.
    #[must_use]
    pub fn esp_spi(&self) -> Option<u32> {
        match self.protocol {
            ProtocolId::ESP => Some(u32::from_be_bytes(self.spi.as_slice().try_into().ok()?)),
            _ => None,
        }
    }

    /// INVALID_KE_PAYLOAD: the group that would have been right (RFC 7296 §1.3).
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        Some(GroupId(u16::from_be_bytes(self.data.as_slice().try_into().ok()?)))
    }

    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |  Protocol ID  |   SPI Size    |      Notify Message Type      |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let protocol = ProtocolId(body.u8()?);
        let spi_size = usize::from(body.u8()?);
        let kind = NotifyType(body.u16()?);
        let spi = body.take(spi_size)?.to_vec();
        Ok(Self { protocol, spi, kind, data: body.rest().to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.extend_from_slice(&[self.protocol.0, count8(self.spi.len())?]);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&self.data);
        Ok(())
    }
}
