//! Addresses as NHRP writes them: a length here, the octets there.

use super::reader::Reader;
use crate::Error;
use ipnet::IpNet;
use std::net::IpAddr;

/// The type-and-length octet of an NBMA address (RFC 2332 §5.1): bit 7 zero, bit 6 set for E.164, six bits of length.
#[derive(Clone, Copy)]
pub(crate) struct TypeLength(u8);

impl TypeLength {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let octet = reader.u8()?;
        if octet & 0xc0 != 0 {
            return Err(Error::AddressType);
        }
        Ok(Self(octet))
    }

    /// Reads the address and, behind it, skips the subaddress: IP has none, so that whatever stands there means
    /// nothing to us.
    pub(crate) fn address(self, subaddress: Self, reader: &mut Reader<'_>) -> Result<Option<IpAddr>, Error> {
        let address = reader.address(usize::from(self.0))?;
        reader.take(usize::from(subaddress.0))?;
        Ok(address)
    }
}

/// How many octets an address takes, which is also its type-and-length octet.
pub(crate) const fn length(address: Option<IpAddr>) -> u8 {
    match address {
        None => 0,
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 16,
    }
}

/// Appends the octets of an address.
pub(crate) fn write(address: Option<IpAddr>, out: &mut Vec<u8>) {
    match address {
        None => {}
        Some(IpAddr::V4(a)) => out.extend_from_slice(&a.octets()),
        Some(IpAddr::V6(a)) => out.extend_from_slice(&a.octets()),
    }
}

/// The prefix a CIE speaks of: `address` with the length as on the wire.
///
//= rfc2332#5.2.0.1
/// A length of 0x00 or 0xff (and any that is no shorter than the address) means the host itself: routers are
/// known to send all of them.
#[must_use]
pub fn prefix(address: IpAddr, wire_length: u8) -> IpNet {
    match IpNet::new(address, wire_length) {
        Ok(net) if wire_length != 0 => net.trunc(),
        _ => IpNet::from(address),
    }
}

/// Is the prefix a single address?
#[must_use]
pub fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_lengths_that_mean_the_host() {
        let a: IpAddr = "10.1.2.3".parse().unwrap();
        for length in [0, 32, 33, 128, 255] {
            assert_eq!(prefix(a, length), "10.1.2.3/32".parse().unwrap(), "{length}");
        }
        assert_eq!(prefix(a, 24), "10.1.2.0/24".parse().unwrap());
    }
}
