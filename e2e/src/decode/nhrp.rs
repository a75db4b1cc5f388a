//! NHRP (RFC 2332) as far as stories ask about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Message types.
pub mod kind {
    /// Where is this address?
    pub const RESOLUTION_REQUEST: u8 = 1;
    /// There.
    pub const RESOLUTION_REPLY: u8 = 2;
    /// Here I am.
    pub const REGISTRATION_REQUEST: u8 = 3;
    /// Noted, or not.
    pub const REGISTRATION_REPLY: u8 = 4;
    /// Forget this.
    pub const PURGE_REQUEST: u8 = 5;
    /// Forgotten.
    pub const PURGE_REPLY: u8 = 6;
    /// Something was wrong with your message.
    pub const ERROR_INDICATION: u8 = 7;
    /// There is a better way for this packet.
    pub const TRAFFIC_INDICATION: u8 = 8;
}

/// An NHRP message.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Nhrp {
    /// Message type, see [`kind`].
    pub kind: u8,
    /// Hops it may still go.
    pub hop_count: u8,
    /// Flags of resolution, registration and purge.
    pub flags: u16,
    /// Of resolution, registration and purge.
    pub request_id: u32,
    /// Underlay address of the station that began the exchange.
    pub source_nbma: Option<IpAddr>,
    /// Its tunnel address.
    pub source: Option<IpAddr>,
    /// The protocol address in question.
    pub destination: Option<IpAddr>,
    /// Client information entries.
    pub entries: Vec<Entry>,
    /// Of an error indication.
    pub error: Option<u16>,
    /// Extension types, the end marker left out.
    pub extensions: Vec<u16>,
    /// The password of Cisco's authentication extension.
    pub authentication: Option<String>,
    /// The packet in an indication, from its first octet.
    pub offender: Vec<u8>,
}

/// A client information entry, RFC 2332 §5.2.0.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 0: fine.
    pub code: u8,
    /// Prefix length; 0 and 255: a host.
    pub prefix: u8,
    /// Seconds.
    pub holding: u16,
    /// Underlay address.
    pub nbma: Option<IpAddr>,
    /// Protocol address.
    pub protocol: Option<IpAddr>,
}

impl Nhrp {
    /// The message after the GRE header.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let mut fixed = Cursor(data.get(..20)?);
        fixed.take(9)?;
        let hop_count = fixed.u8()?;
        let size: usize = fixed.u16()?.into();
        fixed.take(2)?;
        let extensions_at: usize = fixed.u16()?.into();
        fixed.take(1)?;
        let kind = fixed.u8()?;
        let nbma_length = usize::from(fixed.u8()? & 0x3f);
        let subaddress = usize::from(fixed.u8()? & 0x3f);
        // A capture may have cut the end off: then there are fewer entries and extensions.
        let data = &data[..size.min(data.len())];
        let end = if extensions_at == 0 { data.len() } else { extensions_at.min(data.len()) };

        let mut body = Cursor(data.get(20..end)?);
        let (source_length, destination_length) = (body.u8()?.into(), body.u8()?.into());
        let flags = body.u16()?;
        let number = body.u32()?;
        let mut message = Self { kind, hop_count, flags, ..Self::default() };
        message.source_nbma = body.address(nbma_length)?;
        body.take(subaddress)?;
        message.source = body.address(source_length)?;
        message.destination = body.address(destination_length)?;
        match kind {
            kind::ERROR_INDICATION => {
                message.error = u16::try_from(number >> 16).ok();
                message.offender = body.0.to_vec();
            }
            kind::TRAFFIC_INDICATION => message.offender = body.0.to_vec(),
            _ => {
                message.request_id = number;
                while let Some(entry) = Entry::parse(&mut body) {
                    message.entries.push(entry);
                }
            }
        }
        if extensions_at != 0 {
            message.parse_extensions(data.get(end..)?);
        }
        Some(message)
    }

    fn parse_extensions(&mut self, data: &[u8]) {
        let mut rest = Cursor(data);
        while let (Some(kind), Some(length)) = (rest.u16(), rest.u16()) {
            let kind = kind & 0x3fff;
            let Some(value) = rest.take(length.into()) else { return };
            match kind {
                0 => return,
                7 => self.authentication = value.get(4..).map(|p| String::from_utf8_lossy(p).into_owned()),
                _ => {}
            }
            self.extensions.push(kind);
        }
    }

    /// The code of the first entry: what a reply says.
    #[must_use]
    pub fn code(&self) -> Option<u8> {
        self.entries.first().map(|e| e.code)
    }

    /// It is about this protocol address.
    #[must_use]
    pub fn about(&self, destination: &str) -> bool {
        destination.parse().ok() == self.destination
    }

    /// The station at this tunnel address began the exchange.
    #[must_use]
    pub fn from(&self, source: &str) -> bool {
        source.parse().ok() == self.source
    }
}

impl Entry {
    fn parse(body: &mut Cursor<'_>) -> Option<Self> {
        let (code, prefix) = (body.u8()?, body.u8()?);
        body.take(4)?;
        let holding = body.u16()?;
        let (nbma, subaddress) = (usize::from(body.u8()? & 0x3f), usize::from(body.u8()? & 0x3f));
        let protocol: usize = body.u8()?.into();
        body.take(1)?;
        let nbma = body.address(nbma)?;
        body.take(subaddress)?;
        let protocol = body.address(protocol)?;
        Some(Self { code, prefix, holding, nbma, protocol })
    }
}

/// Takes fields from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// The outer `None`: cut off. The inner: no address of this length.
    fn address(&mut self, length: usize) -> Option<Option<IpAddr>> {
        let octets = self.take(length)?;
        let v4 = <[u8; 4]>::try_from(octets).map(|o| Ipv4Addr::from(o).into());
        let v6 = <[u8; 16]>::try_from(octets).map(|o| Ipv6Addr::from(o).into());
        Some(v4.or(v6).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Registration Request with Cisco's authentication "secret1", made by hand from the layouts of RFC 2332.
    const REGISTRATION: &str =
        "000108000000000000010 06b5ba90034 0103040004048002 00000001 c633640b 0a000001 0a0000fe
        00ff000005781c2000000000 80040000 80050000 80030000 0009001400200000 0578000004000400 c63364010a0000fe
        8007000b00000001 73656372657431 80000000";

    #[test]
    fn a_registration_request_is_read() {
        let digits: Vec<u8> = REGISTRATION.bytes().filter(u8::is_ascii_hexdigit).collect();
        let octets: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let message = Nhrp::parse(&octets).unwrap();
        assert_eq!(message.kind, kind::REGISTRATION_REQUEST);
        assert_eq!(message.request_id, 1);
        assert_eq!(message.source, "10.0.0.1".parse().ok());
        assert_eq!(message.source_nbma, "198.51.100.11".parse().ok());
        assert_eq!(message.destination, "10.0.0.254".parse().ok());
        assert_eq!(message.entries.len(), 1);
        assert_eq!(message.entries[0].prefix, 255);
        assert_eq!(message.entries[0].holding, 7200);
        assert_eq!(message.extensions, [4, 5, 3, 9, 7]);
        assert_eq!(message.authentication.as_deref(), Some("secret1"));
    }
}
