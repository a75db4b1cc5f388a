//! Reading an UPDATE.
//!
//! The message is cut into its parts and attributes here, by lengths only, and each value is then parsed from a slice
//! of its own. So one damaged attribute never shifts the others, and each gets exactly the treatment that RFC 7606
//! prescribes: discarded alone, the routes taken as withdrawn, or the session reset.

use super::{Dialect, Update, code};
use crate::attributes::{AsPath, Attributes, Carried, Origin, Segment};
use crate::config::AS_TRANS;
use crate::error::Notification;
use crate::family::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::path_attribute::{
    Aggregator, AsPath as WirePath, AsPathSegmentType, Origin as WireOrigin, PathAttribute,
    PathAttributeValue,
};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::{ParseFrom, ParseFromWithOneInput};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const PARTIAL: u8 = 0x20;
const EXTENDED_LENGTH: u8 = 0x10;

/// Reads the body of an UPDATE. An error resets the session.
pub(crate) fn decode(body: &[u8], dialect: Dialect) -> Result<Update, Notification> {
    let (withdrawn, rest) = counted(body).ok_or(Notification::MALFORMED_ATTRIBUTE_LIST)?;
    let (attributes, nlri) = counted(rest).ok_or(Notification::MALFORMED_ATTRIBUTE_LIST)?;
    let mut update = Update { withdrawn: prefixes(Family::Ipv4, withdrawn)?, ..Update::default() };
    let nlri = prefixes(Family::Ipv4, nlri)?;
    if update.withdrawn.is_empty() && attributes.is_empty() && nlri.is_empty() {
        update.end_of_rib = Some(Family::Ipv4);
        return Ok(update);
    }

    let mut reading = Reading::new(dialect);
    reading.all(attributes)?;
    if let Some((family, prefixes)) = reading.unreach.take() {
        //= rfc4724#2: only MP_UNREACH_NLRI with no withdrawn routes is the End-of-RIB marker of its family
        if prefixes.is_empty() && reading.seen.count == 1 && nlri.is_empty() && update.withdrawn.is_empty() {
            update.end_of_rib = family;
            return Ok(update);
        }
        update.withdrawn.extend(prefixes);
    }
    reading.finish(nlri, &mut update);
    Ok(update)
}

/// Two octets of length, and as many octets.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

//= rfc7606#5.3: prefixes that can't be parsed reset the session
fn prefixes(family: Family, bytes: &[u8]) -> Result<Vec<IpNet>, Notification> {
    let mut reader = SliceReader::new(bytes);
    let mut found = Vec::new();
    while !reader.is_empty() {
        let net = match family {
            Family::Ipv4 => Ipv4Net::parse(&mut reader).ok().map(IpNet::V4),
            Family::Ipv6 => Ipv6Net::parse(&mut reader).ok().map(IpNet::V6),
        };
        found.push(net.ok_or(Notification::INVALID_NETWORK)?.trunc());
    }
    Ok(found)
}

/// Which attribute codes were there.
#[derive(Default)]
struct Seen {
    codes: [u64; 4],
    count: usize,
}

impl Seen {
    /// Is it the first of its code?
    fn first(&mut self, code: u8) -> bool {
        self.count += 1;
        let mask = 1_u64 << (code % 64);
        let Some(word) = self.codes.get_mut(usize::from(code / 64)) else { return true };
        let first = *word & mask == 0;
        *word |= mask;
        first
    }
}

/// What RFC 7606 has us do about one attribute.
enum Damage {
    /// Forget the attribute.
    Discard,
    /// Take the routes as withdrawn.
    Withdraw,
    /// Reset the session.
    Reset(Notification),
}

/// Attributes as far as they were read.
struct Reading {
    dialect: Dialect,
    context: BgpParsingContext,
    seen: Seen,
    origin: Option<Origin>,
    as_path: Option<AsPath>,
    as4_path: Option<AsPath>,
    next_hop: Option<Ipv4Addr>,
    med: Option<u32>,
    local_pref: Option<u32>,
    atomic_aggregate: bool,
    aggregator: Option<(u32, Ipv4Addr)>,
    communities: Vec<u32>,
    originator_id: Option<Ipv4Addr>,
    cluster_list: Vec<Ipv4Addr>,
    carried: Vec<Carried>,
    reach: Option<(IpAddr, Vec<IpNet>)>,
    unreach: Option<(Option<Family>, Vec<IpNet>)>,
    /// Why the routes are taken as withdrawn.
    withdraw: Option<String>,
    /// What else was damaged.
    discarded: Option<String>,
}

impl Reading {
    fn new(dialect: Dialect) -> Self {
        let none = HashMap::new;
        Self {
            dialect,
            context: BgpParsingContext::new(dialect.asn4, none(), HashMap::new(), true, true, true, true),
            seen: Seen::default(),
            origin: None,
            as_path: None,
            as4_path: None,
            next_hop: None,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            carried: Vec::new(),
            reach: None,
            unreach: None,
            withdraw: None,
            discarded: None,
        }
    }

    fn all(&mut self, mut rest: &[u8]) -> Result<(), Notification> {
        while !rest.is_empty() {
            let Some((raw, after)) = Raw::cut(rest) else {
                //= rfc7606#4: an attribute that overruns the list: take the routes as withdrawn
                self.withdraw.get_or_insert_with(|| "attribute overruns the list".to_owned());
                return Ok(());
            };
            rest = after;
            let code = raw.code;
            if !self.seen.first(code) {
                //= rfc7606#3: MP attributes twice reset the session, of others the first counts
                if matches!(code, code::MP_REACH | code::MP_UNREACH) {
                    return Err(Notification::MALFORMED_ATTRIBUTE_LIST);
                }
                continue;
            }
            match self.one(&raw) {
                Ok(()) => {}
                Err(Damage::Discard) => {
                    self.discarded.get_or_insert_with(|| format!("attribute {code} discarded"));
                }
                Err(Damage::Withdraw) => {
                    self.withdraw.get_or_insert_with(|| format!("attribute {code} damaged"));
                }
                Err(Damage::Reset(notification)) => return Err(notification),
            }
        }
        Ok(())
    }

    fn one(&mut self, raw: &Raw<'_>) -> Result<(), Damage> {
        let Raw { flags, code, value, whole } = *raw;
        match code {
            code::MP_REACH => self.mp_reach(flags, value),
            code::MP_UNREACH => self.mp_unreach(flags, value),
            // Not from a neighbour of another AS (RFC 4456 §8, RFC 7606 §7.5, §7.9, §7.10).
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if !self.dialect.internal => {
                Err(Damage::Discard)
            }
            // Only between a speaker with four-octet ASNs and one without (RFC 6793 §4.1).
            code::AS4_PATH | code::AS4_AGGREGATOR if self.dialect.asn4 => Err(Damage::Discard),
            code::AS4_AGGREGATOR => Ok(()),
            // The library would pass over what follows the four octets.
            code::ORIGINATOR_ID if value.len() != 4 => Err(Damage::Withdraw),
            code::ORIGIN..=code::CLUSTER_LIST | code::AS4_PATH => self.known(code, whole),
            _ => self.unknown(flags, code, value),
        }
    }

    /// An attribute that the library reads.
    fn known(&mut self, code: u8, whole: &[u8]) -> Result<(), Damage> {
        let damage = || match code {
            //= rfc7606#7.6: malformed ATOMIC_AGGREGATE, AGGREGATOR (§7.7), AS4_PATH (RFC 6793 §6): discard
            code::ATOMIC_AGGREGATE | code::AGGREGATOR | code::AS4_PATH => Damage::Discard,
            _ => Damage::Withdraw,
        };
        //= rfc7606#3: only the Optional and Transitive bits must be right; so Partial is not shown
        let mut bytes = whole.to_vec();
        if let Some(flags) = bytes.first_mut() {
            *flags &= !PARTIAL;
        }
        let mut reader = SliceReader::new(&bytes);
        let attribute = PathAttribute::parse(&mut reader, &mut self.context).map_err(|_| damage())?;
        if !reader.is_empty() {
            return Err(damage());
        }
        self.take(attribute.value()).ok_or_else(damage)
    }

    /// `None`: the value makes no sense.
    fn take(&mut self, value: &PathAttributeValue) -> Option<()> {
        match value {
            PathAttributeValue::Origin(origin) => {
                self.origin = Some(match origin {
                    WireOrigin::IGP => Origin::Igp,
                    WireOrigin::EGP => Origin::Egp,
                    WireOrigin::Incomplete => Origin::Incomplete,
                });
            }
            PathAttributeValue::AsPath(path) => {
                let path = from_wire(path);
                //= rfc7607#2: an AS_PATH that holds AS 0 is malformed
                if path.contains(0) {
                    return None;
                }
                self.as_path = Some(path);
            }
            PathAttributeValue::As4Path(path) => {
                self.as4_path = Some(from_wire(&WirePath::As4PathSegments(path.segments().into())));
            }
            PathAttributeValue::NextHop(next_hop) => self.next_hop = Some(next_hop.next_hop()),
            PathAttributeValue::MultiExitDiscriminator(med) => self.med = Some(med.metric()),
            PathAttributeValue::LocalPreference(preference) => self.local_pref = Some(preference.metric()),
            PathAttributeValue::AtomicAggregate(_) => self.atomic_aggregate = true,
            PathAttributeValue::Aggregator(aggregator) => {
                self.aggregator = Some(match aggregator {
                    Aggregator::As2Aggregator(a) => (u32::from(*a.asn()), a.origin()),
                    Aggregator::As4Aggregator(a) => (*a.asn(), a.origin()),
                });
            }
            PathAttributeValue::Communities(communities) => {
                self.communities = communities
                    .communities()
                    .iter()
                    .map(netgauze_bgp_pkt::community::Community::value)
                    .collect();
            }
            PathAttributeValue::Originator(originator) => self.originator_id = Some(originator.id()),
            PathAttributeValue::ClusterList(list) => {
                let list = list.cluster_list();
                self.cluster_list =
                    list.iter().map(netgauze_bgp_pkt::path_attribute::ClusterId::id).collect();
            }
            _ => return None,
        }
        Some(())
    }

    /// RFC 4760 §3, RFC 8950 §4.
    fn mp_reach(&mut self, flags: u8, value: &[u8]) -> Result<(), Damage> {
        //= rfc7606#7.11: an MP_REACH_NLRI whose prefixes can't be located resets the session
        let reset = || Damage::Reset(Notification::OPTIONAL_ATTRIBUTE);
        if flags & (OPTIONAL | TRANSITIVE) != OPTIONAL {
            return Err(reset());
        }
        let [high, low, safi, length, rest @ ..] = value else { return Err(reset()) };
        let (next_hop, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(reset)?;
        let [_reserved, nlri @ ..] = rest else { return Err(reset()) };
        //= rfc4760#7: families that were not agreed on are ignored
        let Some(family) = Family::from_wire(u16::from_be_bytes([*high, *low]), *safi) else { return Ok(()) };
        let nlri = prefixes(family, nlri).map_err(Damage::Reset)?;
        let Some(next_hop) = next_hop_address(next_hop) else { return Err(reset()) };
        let permitted = match (family, next_hop) {
            (Family::Ipv4, IpAddr::V6(_)) => self.dialect.extended_next_hop,
            (Family::Ipv6, IpAddr::V4(_)) => false,
            _ => true,
        };
        self.reach = Some((next_hop, nlri));
        if permitted { Ok(()) } else { Err(Damage::Withdraw) }
    }

    /// RFC 4760 §4.
    fn mp_unreach(&mut self, flags: u8, value: &[u8]) -> Result<(), Damage> {
        let reset = || Damage::Reset(Notification::OPTIONAL_ATTRIBUTE);
        if flags & (OPTIONAL | TRANSITIVE) != OPTIONAL {
            return Err(reset());
        }
        let [high, low, safi, nlri @ ..] = value else { return Err(reset()) };
        let family = Family::from_wire(u16::from_be_bytes([*high, *low]), *safi);
        let nlri = family.map_or(Ok(Vec::new()), |family| prefixes(family, nlri)).map_err(Damage::Reset)?;
        self.unreach = Some((family, nlri));
        Ok(())
    }

    fn unknown(&mut self, flags: u8, code: u8, value: &[u8]) -> Result<(), Damage> {
        if flags & OPTIONAL == 0 {
            //= rfc4271#6.3: an unrecognized well-known attribute
            return Err(Damage::Reset(Notification::UNRECOGNIZED_WELL_KNOWN.with(&[flags, code])));
        }
        let sound = match code {
            code::EXTENDED_COMMUNITIES => !value.is_empty() && value.len().is_multiple_of(8),
            code::LARGE_COMMUNITIES => !value.is_empty() && value.len().is_multiple_of(12),
            _ => true,
        };
        if !sound {
            return Err(Damage::Withdraw);
        }
        if flags & TRANSITIVE != 0 {
            //= rfc4271#5: unrecognized optional transitive attributes are passed along, marked partial
            let understood = matches!(code, code::EXTENDED_COMMUNITIES | code::LARGE_COMMUNITIES);
            let partial = flags & PARTIAL != 0 || !understood;
            self.carried.push(Carried { code, partial, value: value.into() });
        }
        Ok(())
    }

    /// Puts prefixes and attributes together.
    fn finish(mut self, nlri: Vec<IpNet>, update: &mut Update) {
        let reach = self.reach.take();
        let mut groups = Vec::new();
        if !nlri.is_empty() {
            groups.push((self.next_hop.map(IpAddr::V4), nlri));
        }
        if let Some((next_hop, prefixes)) = reach
            && !prefixes.is_empty()
        {
            groups.push((Some(next_hop), prefixes));
        }
        if groups.is_empty() {
            update.malformed = self.withdraw.or(self.discarded);
            return;
        }
        //= rfc7606#3: a missing well-known mandatory attribute: take the routes as withdrawn
        let missing = [("ORIGIN", self.origin.is_none()), ("AS_PATH", self.as_path.is_none())];
        if let Some((name, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            self.withdraw.get_or_insert_with(|| format!("{name} is missing"));
        }
        let path = self.path();
        for (next_hop, prefixes) in groups {
            let (Some(next_hop), Some(origin), None) = (next_hop, self.origin, &self.withdraw) else {
                self.withdraw.get_or_insert_with(|| "NEXT_HOP is missing".to_owned());
                update.withdrawn.extend(prefixes);
                continue;
            };
            let attributes = Attributes {
                origin,
                as_path: path.clone(),
                next_hop,
                med: self.med,
                local_pref: self.local_pref,
                atomic_aggregate: self.atomic_aggregate,
                aggregator: self.aggregator,
                communities: self.communities.clone(),
                originator_id: self.originator_id,
                cluster_list: self.cluster_list.clone(),
                carried: self.carried.clone(),
            };
            update.announced.push((Arc::new(attributes), prefixes));
        }
        update.malformed = self.withdraw.or(self.discarded);
    }

    /// The path, with the four-octet numbers that a two-octet speaker carried for us (RFC 6793 §4.2.3).
    fn path(&mut self) -> AsPath {
        let path = self.as_path.take().unwrap_or_default();
        let Some(four) = self.as4_path.take() else { return path };
        if self.aggregator.is_some_and(|(asn, _)| asn != AS_TRANS) || path.len() < four.len() {
            return path;
        }
        let mut missing = path.len() - four.len();
        let mut merged = AsPath::default();
        for segment in path.0 {
            let taken = match segment {
                Segment::Sequence(mut numbers) => {
                    numbers.truncate(missing);
                    Segment::Sequence(numbers)
                }
                set => set,
            };
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(AsPath(vec![taken.clone()]).len());
            merged.0.push(taken);
        }
        for segment in four.0 {
            match (merged.0.last_mut(), segment) {
                (Some(Segment::Sequence(before)), Segment::Sequence(after)) => before.extend(after),
                (_, segment) => merged.0.push(segment),
            }
        }
        merged
    }
}

/// An attribute, cut out.
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// Flags, code and length as well.
    whole: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The first attribute of the list, and the rest.
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (flags, code, header, length) = match bytes {
            [flags, code, high, low, ..] if flags & EXTENDED_LENGTH != 0 => {
                (*flags, *code, 4, usize::from(u16::from_be_bytes([*high, *low])))
            }
            [flags, code, length, ..] if flags & EXTENDED_LENGTH == 0 => {
                (*flags, *code, 3, usize::from(*length))
            }
            _ => return None,
        };
        let (whole, rest) = bytes.split_at_checked(header + length)?;
        Some((Self { flags, code, value: whole.get(header..)?, whole }, rest))
    }
}

/// RFC 4760 §3, RFC 2545 §3 (a link-local address may follow; it is of no use on a tunnel), RFC 8950 §4.
fn next_hop_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
        16 | 32 => Some(IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?))),
        _ => None,
    }
}

fn from_wire(path: &WirePath) -> AsPath {
    let segment = |kind, numbers: Vec<u32>| match kind {
        AsPathSegmentType::AsSequence => Segment::Sequence(numbers),
        AsPathSegmentType::AsSet => Segment::Set(numbers),
    };
    AsPath(match path {
        WirePath::As2PathSegments(segments) => segments
            .iter()
            .map(|s| segment(s.segment_type(), s.as_numbers().iter().map(|n| u32::from(*n)).collect()))
            .collect(),
        WirePath::As4PathSegments(segments) => {
            segments.iter().map(|s| segment(s.segment_type(), s.as_numbers().to_vec())).collect()
        }
    })
}
