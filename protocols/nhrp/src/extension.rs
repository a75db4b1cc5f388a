//! Extensions (RFC 2332 §5.3): a list of type, length and value behind the mandatory part, whose order is kept.

use crate::Error;
use crate::packet::Cie;
use crate::packet::reader::Reader;
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// Type of an extension: 14 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtensionType(pub u16);

impl ExtensionType {
    /// Ends the list.
    pub const END: Self = Self(0);
    /// Who answered: empty in a request, one CIE in the reply.
    pub const RESPONDER_ADDRESS: Self = Self(3);
    /// Servers a request passed.
    pub const FORWARD_TRANSIT: Self = Self(4);
    /// Servers a reply passed.
    pub const REVERSE_TRANSIT: Self = Self(5);
    /// Hop-by-hop authentication.
    pub const AUTHENTICATION: Self = Self(7);
    /// Anything of a vendor: an OUI and data.
    pub const VENDOR: Self = Self(8);
    /// Cisco's NAT addresses: CIEs. (RFC 2735 gives the number to device capabilities.)
    pub const NAT: Self = Self(9);
    /// Mobile authentication (RFC 2520): ignored.
    pub const MOBILE_AUTHENTICATION: Self = Self(10);

    /// Do we know what it means, or at least what to do with it?
    #[must_use]
    pub const fn is_known(self) -> bool {
        matches!(
            self,
            Self::RESPONDER_ADDRESS
                | Self::FORWARD_TRANSIT
                | Self::REVERSE_TRANSIT
                | Self::AUTHENTICATION
                | Self::VENDOR
                | Self::NAT
                | Self::MOBILE_AUTHENTICATION
        )
    }
}

const COMPULSORY: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// An extension.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |C|u|        Type               |        Length                 |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                         Value...                              |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Which.
    pub kind: ExtensionType,
    /// The C bit: who doesn't know it must not act on the message.
    pub compulsory: bool,
    /// Its value, as on the wire.
    pub value: Vec<u8>,
}

impl Extension {
    /// An extension with a list of CIEs; the C bit is set as RFC 2332 has it for types 3, 4 and 5.
    #[must_use]
    pub fn of_entries(kind: ExtensionType, entries: &[Cie]) -> Self {
        let compulsory = kind != ExtensionType::NAT;
        let mut extension = Self { kind, compulsory, value: Vec::new() };
        entries.iter().for_each(|entry| extension.push(entry));
        extension
    }

    /// The value read as CIEs. An unreadable list is none: type 9 clashes with RFC 2735.
    #[must_use]
    pub fn entries(&self) -> Vec<Cie> {
        Cie::read_all(&self.value).unwrap_or_default()
    }

    /// Appends a CIE to the value.
    pub fn push(&mut self, entry: &Cie) {
        entry.write(&mut self.value);
    }

    /// Does one of the CIEs name one of these protocol addresses?
    #[must_use]
    pub fn names(&self, addresses: &[IpAddr]) -> bool {
        self.entries().iter().any(|entry| entry.protocol.is_some_and(|p| addresses.contains(&p)))
    }

    /// Cisco's plain-text authentication: SPI 1, then the password, no padding.
    #[must_use]
    pub fn authentication(password: &[u8]) -> Self {
        let mut value = PLAIN_TEXT_SPI.to_vec();
        value.extend_from_slice(password);
        Self { kind: ExtensionType::AUTHENTICATION, compulsory: true, value }
    }

    /// Does the value prove this password? Takes as long whether it does or not.
    #[must_use]
    pub fn authenticates(&self, password: &[u8]) -> bool {
        match self.value.split_at_checked(PLAIN_TEXT_SPI.len()) {
            Some((spi, presented)) => spi == PLAIN_TEXT_SPI && bool::from(presented.ct_eq(password)),
            None => false,
        }
    }
}

/// Reserved (2 octets) and SPI (2 octets) as Cisco has them for plain text.
const PLAIN_TEXT_SPI: [u8; 4] = [0, 0, 0, 1];

/// Reads extensions up to the end marker. A list that ends with the message, without a marker, is accepted.
pub(crate) fn read_all(bytes: &[u8]) -> Result<Vec<Extension>, Error> {
    let mut reader = Reader::new(bytes);
    let mut extensions = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u16().map_err(|_| Error::Extension)?;
        let length = reader.u16().map_err(|_| Error::Extension)?;
        let value = reader.take(usize::from(length)).map_err(|_| Error::Extension)?.to_vec();
        let compulsory = kind & COMPULSORY != 0;
        let kind = ExtensionType(kind & TYPE_MASK);
        if kind == ExtensionType::END {
            break;
        }
        extensions.push(Extension { kind, compulsory, value });
    }
    Ok(extensions)
}

/// Writes extensions and the end marker.
pub(crate) fn write_all(extensions: &[Extension], out: &mut Vec<u8>) -> Result<(), Error> {
    for extension in extensions {
        let compulsory = if extension.compulsory { COMPULSORY } else { 0 };
        out.extend_from_slice(&(extension.kind.0 & TYPE_MASK | compulsory).to_be_bytes());
        let length = u16::try_from(extension.value.len()).map_err(|_| Error::TooLarge)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&extension.value);
    }
    out.extend_from_slice(&(ExtensionType::END.0 | COMPULSORY).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    Ok(())
}
