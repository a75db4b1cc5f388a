//! TSi and TSr: which packets an SA carries (RFC 7296 §3.13).

use crate::codes::SelectorType;
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;
use crate::writer::{count8, with_length};
use std::fmt;
use std::net::IpAddr;

/// IP protocol GRE.
const GRE: u8 = 47;

/// One selector.
#[derive(Clone, PartialEq, Eq)]
pub enum TrafficSelector {
    /// Packets with an address within a range.
    Range(AddressRange),
    /// One of a type that isn't known here.
    Unknown {
        /// Its type.
        kind: SelectorType,
        /// The IP protocol, or whatever stands there.
        protocol: u8,
        /// All behind the length.
        data: Vec<u8>,
    },
}

/// Packets of a protocol with an address and a port within ranges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// IP protocol; 0 for any.
    pub protocol: u8,
    /// First and last port. (0, 65535) for any; (65535, 0) for OPAQUE: packets whose port can't be seen.
    pub ports: (u16, u16),
    /// First and last address, of one family.
    pub addresses: (IpAddr, IpAddr),
}

impl AddressRange {
    /// All ports.
    pub const ANY_PORT: (u16, u16) = (0, u16::MAX);

    /// GRE from or to one address.
    #[must_use]
    pub const fn gre(address: IpAddr) -> Self {
        Self { protocol: GRE, ports: Self::ANY_PORT, addresses: (address, address) }
    }

    /// Does it cover GRE from or to this address? (The ports don't matter: GRE has none, and trap initiators put the
    /// GRE key's halves there.)
    #[must_use]
    pub fn covers_gre(&self, address: IpAddr) -> bool {
        matches!(self.protocol, 0 | GRE) && self.contains(address)
    }

    /// Is this address within the range?
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last) = self.addresses;
        address.is_ipv4() == first.is_ipv4() && first <= address && address <= last
    }

    /// The only address, if there is one only.
    #[must_use]
    pub fn single_address(&self) -> Option<IpAddr> {
        (self.addresses.0 == self.addresses.1).then_some(self.addresses.0)
    }
}

impl fmt::Debug for AddressRange {
    /// As strongSwan shows it: `198.51.100.11[gre/42]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addresses.0)?;
        if self.single_address().is_none() {
            write!(f, "-{}", self.addresses.1)?;
        }
        match self.protocol {
            0 => f.write_str("[any")?,
            GRE => f.write_str("[gre")?,
            other => write!(f, "[{other}")?,
        }
        match self.ports {
            Self::ANY_PORT => f.write_str("]"),
            (first, last) if first == last => write!(f, "/{first}]"),
            (first, last) => write!(f, "/{first}-{last}]"),
        }
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Unknown { kind, data, .. } => write!(f, "{kind}, {} octets", data.len()),
        }
    }
}

impl From<AddressRange> for TrafficSelector {
    fn from(range: AddressRange) -> Self {
        Self::Range(range)
    }
}

pub(super) fn read_all(body: &mut Reader<'_>) -> Result<Vec<TrafficSelector>, Malformed> {
    let count = body.u8()?;
    let _reserved = body.take(3)?;
    (0..count).map(|_| TrafficSelector::read(body)).collect()
}

pub(super) fn write_all(selectors: &[TrafficSelector], out: &mut Vec<u8>) -> Result<(), TooLong> {
    out.extend_from_slice(&[count8(selectors.len())?, 0, 0, 0]);
    selectors.iter().try_for_each(|selector| selector.write(out))
}

impl TrafficSelector {
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |   TS Type     |IP Protocol ID |       Selector Length         |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |           Start Port          |           End Port            |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ~              Starting Address, Ending Address                 ~
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = SelectorType(body.u8()?);
        let protocol = body.u8()?;
        let length = usize::from(body.u16()?);
        let mut part = body.part(length.checked_sub(4).ok_or(Malformed::Selector)?)?;
        if !matches!(kind, SelectorType::IPV4_ADDR_RANGE | SelectorType::IPV6_ADDR_RANGE) {
            return Ok(Self::Unknown { kind, protocol, data: part.rest().to_vec() });
        }
        let ports = (part.u16()?, part.u16()?);
        let addresses: (IpAddr, IpAddr) = if kind == SelectorType::IPV4_ADDR_RANGE {
            (part.array::<4>()?.into(), part.array::<4>()?.into())
        } else {
            (part.array::<16>()?.into(), part.array::<16>()?.into())
        };
        part.end()?;
        if addresses.0 > addresses.1 {
            return Err(Malformed::Selector);
        }
        Ok(Self::Range(AddressRange { protocol, ports, addresses }))
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        match self {
            Self::Unknown { kind, protocol, data } => {
                with_length(out, &[kind.0, *protocol, 0, 0], 2, |out| {
                    out.extend_from_slice(data);
                    Ok(())
                })
            }
            Self::Range(range) => {
                let kind = if range.addresses.0.is_ipv4() {
                    SelectorType::IPV4_ADDR_RANGE
                } else {
                    SelectorType::IPV6_ADDR_RANGE
                };
                with_length(out, &[kind.0, range.protocol, 0, 0], 2, |out| {
                    out.extend_from_slice(&range.ports.0.to_be_bytes());
                    out.extend_from_slice(&range.ports.1.to_be_bytes());
                    for address in [range.addresses.0, range.addresses.1] {
                        match address {
                            IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
                            IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
                        }
                    }
                    Ok(())
                })
            }
        }
    }
}
