//! Client information entries (RFC 2332 §5.2.0.1).

use super::address::{self, TypeLength};
use super::codes::CieCode;
use super::reader::Reader;
use crate::Error;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A client information entry: one binding of a protocol address to an NBMA address.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Code      | Prefix Length |            unused             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Maximum Transmission Unit    |  Holding Time (seconds)       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Cli Addr T/L | Cli SAddr T/L | Cli Proto Len |  Preference   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   NBMA address, NBMA subaddress, protocol address             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cie {
    /// Success, or why not.
    pub code: CieCode,
    /// As on the wire; [`Cie::prefix`] reads it.
    pub prefix_length: u8,
    /// MTU; 0 is "not said". A hint: some send the tunnel's, some the underlay's.
    pub mtu: u16,
    /// Seconds; 0 in a refusal.
    pub holding_time: u16,
    /// NBMA address; absent in a registration means the one of the common header.
    pub nbma: Option<IpAddr>,
    /// Protocol address; absent in a registration means the source of the common header.
    pub protocol: Option<IpAddr>,
    /// Higher is better.
    pub preference: u8,
}

impl Cie {
    /// The prefix this entry is about, when it is about `address`.
    #[must_use]
    pub fn prefix(&self, address: IpAddr) -> IpNet {
        address::prefix(address, self.prefix_length)
    }

    /// This entry as a refusal.
    ///
    //= rfc2332#5.2.0.1
    /// The holding time of a refusal is zero.
    #[must_use]
    pub fn refused(mut self, code: CieCode) -> Self {
        self.code = code;
        self.holding_time = 0;
        self
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let code = CieCode(reader.u8()?);
        let prefix_length = reader.u8()?;
        let _unused = reader.u16()?;
        let mtu = reader.u16()?;
        let holding_time = reader.u16()?;
        let nbma_length = TypeLength::read(reader)?;
        let subaddress_length = TypeLength::read(reader)?;
        let protocol_length = reader.u8()?;
        let preference = reader.u8()?;
        let nbma = nbma_length.address(subaddress_length, reader)?;
        let protocol = reader.address(usize::from(protocol_length))?;
        Ok(Self { code, prefix_length, mtu, holding_time, nbma, protocol, preference })
    }

    /// Reads entries until there is nothing left.
    pub(crate) fn read_all(bytes: &[u8]) -> Result<Vec<Self>, Error> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while !reader.is_empty() {
            entries.push(Self::read(&mut reader)?);
        }
        Ok(entries)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code.0, self.prefix_length, 0, 0]);
        out.extend_from_slice(&self.mtu.to_be_bytes());
        out.extend_from_slice(&self.holding_time.to_be_bytes());
        let lengths = [address::length(self.nbma), 0, address::length(self.protocol), self.preference];
        out.extend_from_slice(&lengths);
        address::write(self.nbma, out);
        address::write(self.protocol, out);
    }
}
