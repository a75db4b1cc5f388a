//! The two address families that a tunnel carries (RFC 4760): IPv4 and IPv6 unicast.

use ipnet::IpNet;
use netgauze_iana::address_family::AddressType;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// An address family, always unicast (SAFI 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Family {
    /// AFI 1.
    Ipv4,
    /// AFI 2.
    Ipv6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    pub(crate) const fn of(prefix: IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }

    pub(crate) const fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// By the numbers on the wire; `None` for whatever a tunnel does not carry.
    pub(crate) const fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4),
            (2, 1) => Some(Self::Ipv6),
            _ => None,
        }
    }

    pub(crate) const fn address_type(self) -> AddressType {
        match self {
            Self::Ipv4 => AddressType::Ipv4Unicast,
            Self::Ipv6 => AddressType::Ipv6Unicast,
        }
    }

    pub(crate) fn from_address_type(address_type: AddressType) -> Option<Self> {
        match address_type {
            AddressType::Ipv4Unicast => Some(Self::Ipv4),
            AddressType::Ipv6Unicast => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// A set of families.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    /// None.
    pub const NONE: Self = Self { ipv4: false, ipv6: false };

    /// Is it in the set?
    #[must_use]
    pub const fn contains(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// Is the set empty?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.ipv4 && !self.ipv6
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self.contains(*f))
    }

    pub(crate) const fn set(&mut self, family: Family, present: bool) {
        match family {
            Family::Ipv4 => self.ipv4 = present,
            Family::Ipv6 => self.ipv6 = present,
        }
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 && other.ipv4, ipv6: self.ipv6 && other.ipv6 }
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 && !other.ipv4, ipv6: self.ipv6 && !other.ipv6 }
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::NONE;
        for family in families {
            set.set(family, true);
        }
        set
    }
}
