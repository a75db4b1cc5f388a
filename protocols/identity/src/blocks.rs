//! Address blocks (RFC 3779 §2): which addresses a certificate speaks for.
//!
//! The same content stands in one of two extensions: RFC 3779's own, which other PKIs may use, and ours, which our
//! certificates use (the ADR on certificates says why).

use crate::refused;
use const_oid::ObjectIdentifier;
use der::asn1::{BitString, Null, OctetString};
use der::{Choice, Decode as _, Encode as _, Sequence};
use ikev2::CertificateError;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `id-pe-ipAddrBlocks`.
pub(crate) const RFC3779: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.7");
/// Ours: made from the UUID 6227c621-e149-49ec-9a5b-a85ad15f0d5c below the arc that Microsoft keeps for that purpose,
/// since a UUID below 2.25 is one arc of 128 bits, which many readers of certificates (ours too) refuse.
pub(crate) const OURS: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113556.1.8000.2554.25127.50721.57673.18924.39515.11033297.6229340");
/// Prefixes that blocks may come apart into; beyond it a certificate is refused.
const MAX_PREFIXES: usize = 1024;

/// What a certificate says of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Blocks {
    v4: Family,
    v6: Family,
}

/// Of one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Family {
    /// What the issuer has.
    Inherit,
    /// Inclusive ranges, in order, none touching the next. Empty where the family is not mentioned.
    Ranges(Vec<(u128, u128)>),
}

impl Default for Family {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

#[derive(Sequence)]
struct AddressFamily {
    family: OctetString,
    choice: AddressChoice,
}

#[derive(Choice)]
enum AddressChoice {
    Inherit(Null),
    List(Vec<AddressOrRange>),
}

#[derive(Choice)]
enum AddressOrRange {
    Prefix(BitString),
    Range(AddressRange),
}

#[derive(Sequence)]
struct AddressRange {
    min: BitString,
    max: BitString,
}

impl Blocks {
    /// Exactly these prefixes, also if there are none.
    pub(crate) fn from_prefixes(prefixes: &[IpNet]) -> Self {
        let of = |v6: bool| {
            let ranges = prefixes.iter().filter(|p| p.addr().is_ipv6() == v6);
            Family::Ranges(merged(ranges.map(|p| (number(p.network()), number(p.broadcast()))).collect()))
        };
        Self { v4: of(false), v6: of(true) }
    }

    pub(crate) fn from_der(octets: &[u8]) -> Result<Self, CertificateError> {
        let families = Vec::<AddressFamily>::from_der(octets)
            .map_err(|e| refused(format!("its address blocks cannot be read ({e})")))?;
        let (mut v4, mut v6) = (None, None);
        for family in families {
            let (slot, bits) = match family.family.as_bytes() {
                [0, 1] => (&mut v4, 32),
                [0, 2] => (&mut v6, 128),
                other => {
                    return Err(refused(format!(
                        "its address blocks speak of an address family that is not known here ({})",
                        crate::text::hex(other)
                    )));
                }
            };
            let choice = match family.choice {
                AddressChoice::Inherit(_) => Family::Inherit,
                AddressChoice::List(list) => Family::Ranges(merged(
                    list.iter().map(|entry| entry.range(bits)).collect::<Result<_, _>>()?,
                )),
            };
            if slot.replace(choice).is_some() {
                return Err(refused("its address blocks speak of one address family twice"));
            }
        }
        Ok(Self { v4: v4.unwrap_or_default(), v6: v6.unwrap_or_default() })
    }

    pub(crate) fn to_der(&self) -> Result<Vec<u8>, CertificateError> {
        let mut families = Vec::new();
        for (number, family, bits) in [(1, &self.v4, 32), (2, &self.v6, 128)] {
            let choice = match family {
                Family::Inherit => AddressChoice::Inherit(Null),
                Family::Ranges(ranges) if ranges.is_empty() => continue,
                Family::Ranges(ranges) => AddressChoice::List(
                    ranges
                        .iter()
                        .map(|&r| AddressOrRange::of(r, bits))
                        .collect::<Result<_, _>>()
                        .map_err(unwritable)?,
                ),
            };
            let family = OctetString::new([0, number]).map_err(unwritable)?;
            families.push(AddressFamily { family, choice });
        }
        families.to_der().map_err(unwritable)
    }

    /// These blocks below an issuer's: what is inherited filled in, and nothing beyond what the issuer has. `None`: no
    /// certificate above says anything, so that nothing confines.
    ///
    //= rfc3779#2.3
    // "the IP addresses ... are encompassed by those of its issuer"
    pub(crate) fn below(&self, issuer: Option<&Self>) -> Result<Self, CertificateError> {
        Ok(Self {
            v4: self.v4.below(issuer.map(|i| &i.v4), 32)?,
            v6: self.v6.below(issuer.map(|i| &i.v6), 128)?,
        })
    }

    /// The same as prefixes.
    pub(crate) fn prefixes(&self) -> Result<Vec<IpNet>, CertificateError> {
        let mut prefixes = Vec::new();
        for (family, bits) in [(&self.v4, 32), (&self.v6, 128)] {
            let Family::Ranges(ranges) = family else {
                return Err(refused("its address blocks inherit from nobody"));
            };
            for &range in ranges {
                split(range, bits, &mut prefixes)?;
            }
        }
        Ok(prefixes)
    }
}

impl Family {
    fn below(&self, issuer: Option<&Self>, bits: u8) -> Result<Self, CertificateError> {
        match (self, issuer) {
            (Self::Inherit, Some(issuer @ Self::Ranges(_))) => Ok(issuer.clone()),
            (Self::Inherit, _) => Err(refused(
                "it inherits its address blocks, and no certificate above it has any: write them out",
            )),
            (Self::Ranges(_), None) => Ok(self.clone()),
            (Self::Ranges(own), Some(issuer)) => {
                let outside = own.iter().find(|range| !issuer.contains(**range));
                outside.map_or_else(
                    || Ok(self.clone()),
                    |range| {
                        Err(refused(format!(
                            "it claims {}, and its issuer may only give out {}",
                            shown(&[*range], bits),
                            match issuer {
                                Self::Ranges(ranges) => shown(ranges, bits),
                                Self::Inherit => "what it inherits".to_owned(),
                            }
                        )))
                    },
                )
            }
        }
    }

    fn contains(&self, (first, last): (u128, u128)) -> bool {
        match self {
            Self::Inherit => false,
            Self::Ranges(ranges) => ranges.iter().any(|&(from, to)| from <= first && last <= to),
        }
    }
}

impl AddressOrRange {
    fn range(&self, bits: u8) -> Result<(u128, u128), CertificateError> {
        match self {
            Self::Prefix(prefix) => Ok((bound(prefix, bits, false)?, bound(prefix, bits, true)?)),
            Self::Range(AddressRange { min, max }) => {
                let range = (bound(min, bits, false)?, bound(max, bits, true)?);
                if range.0 > range.1 {
                    return Err(refused("its address blocks hold a range that ends before it begins"));
                }
                Ok(range)
            }
        }
    }

    fn of((first, last): (u128, u128), bits: u8) -> der::Result<Self> {
        if let Some(len) = prefix_len(first, last, bits) {
            return Ok(Self::Prefix(significant(first, bits, len)?));
        }
        // RFC 3779 §2.2.3.8: trailing zeros of the minimum and trailing ones of the maximum are left out.
        let trimmed = |run: u32| bits.saturating_sub(u8::try_from(run).unwrap_or(bits));
        Ok(Self::Range(AddressRange {
            min: significant(first, bits, trimmed(first.trailing_zeros()))?,
            max: significant(last, bits, trimmed(last.trailing_ones()))?,
        }))
    }
}

/// An address of which the leading bits are given: the rest is zeros, or ones.
fn bound(given: &BitString, bits: u8, ones: bool) -> Result<u128, CertificateError> {
    let unreadable = || refused("its address blocks hold an address that is too long");
    let len = u8::try_from(given.bit_len()).ok().filter(|len| *len <= bits).ok_or_else(unreadable)?;
    let value = given.raw_bytes().iter().fold(0u128, |value, octet| value << 8 | u128::from(*octet));
    let value = value >> given.unused_bits();
    let rest = bits - len;
    let high = value.checked_shl(rest.into()).unwrap_or(0);
    Ok(if ones { high | low_ones(rest) } else { high })
}

/// The leading `len` bits of an address of `bits` bits.
fn significant(address: u128, bits: u8, len: u8) -> der::Result<BitString> {
    let octets = (address << (128 - u32::from(bits))).to_be_bytes();
    let used = usize::from(len.div_ceil(8));
    BitString::new(
        u8::try_from(used * 8 - usize::from(len)).unwrap_or(0),
        octets.get(..used).unwrap_or_default(),
    )
}

/// The prefix length, if the range is a prefix.
fn prefix_len(first: u128, last: u128, bits: u8) -> Option<u8> {
    let host = u8::try_from((first ^ last).count_ones()).ok()?;
    (first & low_ones(host) == 0 && last == first | low_ones(host)).then(|| bits.saturating_sub(host))
}

const fn low_ones(count: u8) -> u128 {
    if count >= 128 { u128::MAX } else { (1 << count) - 1 }
}

/// In order, overlapping and touching ranges made one.
fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut().filter(|before| first <= before.1.saturating_add(1)) {
            Some(before) => before.1 = before.1.max(last),
            None => merged.push((first, last)),
        }
    }
    merged
}

fn split(
    (mut first, last): (u128, u128),
    bits: u8,
    prefixes: &mut Vec<IpNet>,
) -> Result<(), CertificateError> {
    loop {
        if prefixes.len() >= MAX_PREFIXES {
            return Err(refused(format!(
                "its address blocks come apart into more than {MAX_PREFIXES} prefixes"
            )));
        }
        // The widest prefix that begins at `first` and does not pass `last`.
        let aligned = u8::try_from(first.trailing_zeros()).unwrap_or(bits).min(bits);
        let host = (0..=aligned).rev().find(|&h| last - first >= low_ones(h)).unwrap_or(0);
        prefixes.extend(IpNet::new(address(first, bits), bits - host));
        match first.checked_add(low_ones(host)).filter(|end| *end < last).and_then(|end| end.checked_add(1)) {
            Some(next) => first = next,
            None => return Ok(()),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

fn address(number: u128, bits: u8) -> IpAddr {
    match u32::try_from(number) {
        Ok(short) if bits == 32 => IpAddr::V4(Ipv4Addr::from(short)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

fn shown(ranges: &[(u128, u128)], bits: u8) -> String {
    let mut parts: Vec<String> = ranges
        .iter()
        .take(8)
        .map(|&(first, last)| match prefix_len(first, last, bits) {
            Some(len) => format!("{}/{len}", address(first, bits)),
            None => format!("{}-{}", address(first, bits), address(last, bits)),
        })
        .collect();
    if ranges.len() > parts.len() {
        parts.push("...".to_owned());
    }
    if parts.is_empty() { "nothing of that family".to_owned() } else { parts.join(", ") }
}

fn unwritable(error: der::Error) -> CertificateError {
    refused(format!("cannot write address blocks: {error}"))
}

#[cfg(test)]
mod tests;
