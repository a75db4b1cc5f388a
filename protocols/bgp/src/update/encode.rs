//! Writing UPDATEs.

use super::Dialect;
use crate::attributes::{AsPath, Attributes, Origin, Segment};
use crate::config::AS_TRANS;
use crate::family::Family;
use crate::message::{self, Kind};
use ipnet::IpNet;
use netgauze_bgp_pkt::community::Community;
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{
    Aggregator, As2Aggregator, As2PathSegment, As4Aggregator, As4Path, As4PathSegment, AsPath as WirePath,
    AsPathSegmentType, AtomicAggregate, ClusterId, ClusterList, Communities, LocalPreference, MpReach,
    MpUnreach, MultiExitDiscriminator, NextHop, Origin as WireOrigin, Originator, PathAttribute,
    PathAttributeValue, UnknownAttribute,
};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_parse_utils::WritablePdu;
use std::net::IpAddr;

/// What stands around attributes and prefixes, at most: header, two lengths, an MP attribute's head and next hop.
const OVERHEAD: usize = message::HEADER + 4 + 4 + 4 + 16 + 1;
/// The longest prefix on the wire.
const LONGEST: usize = 17;

/// UPDATEs that announce `prefixes`, all of one family. Empty when the attributes are too long for any message.
pub(crate) fn announce(attributes: &Attributes, prefixes: &[IpNet], dialect: Dialect) -> Vec<Vec<u8>> {
    let common = path_attributes(attributes, dialect);
    let length: usize = common.iter().map(WritablePdu::len).sum();
    // NEXT_HOP takes seven octets.
    let Some(room) = message::MAX.checked_sub(OVERHEAD + 7 + length).filter(|room| *room >= LONGEST) else {
        return Vec::new();
    };
    let message = |chunk: Prefixes| {
        let mut all = common.clone();
        let nlri = match (attributes.next_hop, chunk.v6.is_empty()) {
            (IpAddr::V4(next_hop), true) => {
                let at = all.iter().take_while(|a| comes_before_next_hop(a)).count();
                all.splice(at..at, attribute(PathAttributeValue::NextHop(NextHop::new(next_hop))));
                chunk.v4
            }
            (next_hop @ IpAddr::V6(_), true) => {
                let reach = MpReach::Ipv4Unicast { next_hop, next_hop_local: None, nlri: chunk.v4.into() };
                //= rfc7606#5.1: MP_REACH_NLRI or MP_UNREACH_NLRI is the very first attribute
                all.splice(0..0, attribute(PathAttributeValue::MpReach(reach)));
                Vec::new()
            }
            (IpAddr::V6(next_hop_global), false) => {
                let reach =
                    MpReach::Ipv6Unicast { next_hop_global, next_hop_local: None, nlri: chunk.v6.into() };
                all.splice(0..0, attribute(PathAttributeValue::MpReach(reach)));
                Vec::new()
            }
            (IpAddr::V4(_), false) => return None,
        };
        write(&BgpUpdateMessage::new([], all, nlri))
    };
    chunks(prefixes, room).filter_map(|chunk| message(Prefixes::of(chunk))).collect()
}

/// UPDATEs that withdraw `prefixes`, all of one family.
pub(crate) fn withdraw(prefixes: &[IpNet]) -> Vec<Vec<u8>> {
    let message = |chunk: Prefixes| {
        if chunk.v6.is_empty() {
            return write(&BgpUpdateMessage::new(chunk.v4, [], []));
        }
        let unreach = MpUnreach::Ipv6Unicast { nlri: chunk.v6.into() };
        let attributes: Vec<_> = attribute(PathAttributeValue::MpUnreach(unreach)).into_iter().collect();
        write(&BgpUpdateMessage::new([], attributes, []))
    };
    chunks(prefixes, message::MAX - OVERHEAD).filter_map(|chunk| message(Prefixes::of(chunk))).collect()
}

/// RFC 4724 §2.
pub(crate) fn end_of_rib(family: Family) -> Option<Vec<u8>> {
    let attributes: Vec<_> = match family {
        Family::Ipv4 => Vec::new(),
        Family::Ipv6 => {
            let unreach = MpUnreach::Ipv6Unicast { nlri: Box::new([]) };
            attribute(PathAttributeValue::MpUnreach(unreach)).into_iter().collect()
        }
    };
    write(&BgpUpdateMessage::new([], attributes, []))
}

/// Writing into memory does not fail; a message that did is not sent.
fn write(update: &BgpUpdateMessage) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(update.len());
    update.write(&mut body).ok()?;
    (body.len() <= message::MAX - message::HEADER).then(|| message::wrap(Kind::Update, &body))
}

/// Prefixes as the library wants them.
#[derive(Default)]
struct Prefixes {
    v4: Vec<Ipv4UnicastAddress>,
    v6: Vec<Ipv6UnicastAddress>,
}

impl Prefixes {
    /// What is not unicast is left out; policy let nothing of that kind in.
    fn of(prefixes: &[IpNet]) -> Self {
        let mut all = Self::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => {
                    all.v4.extend(Ipv4Unicast::from_net(*net).map(Ipv4UnicastAddress::new_no_path_id));
                }
                IpNet::V6(net) => {
                    all.v6.extend(Ipv6Unicast::from_net(*net).map(|net| Ipv6UnicastAddress::new(None, net)));
                }
            }
        }
        all
    }
}

/// Cuts prefixes into pieces of at most `room` octets on the wire.
fn chunks(mut prefixes: &[IpNet], room: usize) -> impl Iterator<Item = &[IpNet]> {
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = prefixes
            .iter()
            .take_while(|prefix| {
                used += 1 + usize::from(prefix.prefix_len().div_ceil(8));
                used <= room
            })
            .count();
        let (chunk, rest) = prefixes.split_at_checked(fits)?;
        prefixes = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Attributes in the order of their codes, as RFC 4271 §5 wants it; ORIGIN and AS_PATH come before NEXT_HOP.
const fn comes_before_next_hop(attribute: &PathAttribute) -> bool {
    matches!(attribute.value(), PathAttributeValue::Origin(_) | PathAttributeValue::AsPath(_))
}

/// Everything but next hop and prefixes, in the order of the codes.
fn path_attributes(attributes: &Attributes, dialect: Dialect) -> Vec<PathAttribute> {
    let Attributes {
        origin,
        as_path,
        next_hop: _,
        med,
        local_pref,
        atomic_aggregate,
        aggregator,
        communities,
        originator_id,
        cluster_list,
        carried,
    } = attributes;
    let mut values = vec![
        PathAttributeValue::Origin(match origin {
            Origin::Igp => WireOrigin::IGP,
            Origin::Egp => WireOrigin::EGP,
            Origin::Incomplete => WireOrigin::Incomplete,
        }),
        PathAttributeValue::AsPath(path_to_wire(as_path, dialect.asn4)),
    ];
    values
        .extend(med.map(|med| PathAttributeValue::MultiExitDiscriminator(MultiExitDiscriminator::new(med))));
    values.extend(local_pref.map(|lp| PathAttributeValue::LocalPreference(LocalPreference::new(lp))));
    if *atomic_aggregate {
        values.push(PathAttributeValue::AtomicAggregate(AtomicAggregate));
    }
    values.extend(aggregator.map(|(asn, address)| {
        PathAttributeValue::Aggregator(if dialect.asn4 {
            Aggregator::As4Aggregator(As4Aggregator::new(asn, address))
        } else {
            Aggregator::As2Aggregator(As2Aggregator::new(short(asn), address))
        })
    }));
    if !communities.is_empty() {
        let communities: Vec<_> = communities.iter().map(|c| Community::new(*c)).collect();
        values.push(PathAttributeValue::Communities(Communities::new(communities)));
    }
    values.extend(originator_id.map(|id| PathAttributeValue::Originator(Originator::new(id))));
    if !cluster_list.is_empty() {
        let list: Vec<_> = cluster_list.iter().map(|id| ClusterId::new(*id)).collect();
        values.push(PathAttributeValue::ClusterList(ClusterList::new(list)));
    }
    //= rfc6793#4.2.2: AS4_PATH goes to a speaker of two-octet ASNs, where the path holds longer ones
    if !dialect.asn4 && as_path.iter().any(|asn| asn > u32::from(u16::MAX)) {
        values.push(PathAttributeValue::As4Path(As4Path::new(segments(as_path))));
    }
    let mut all: Vec<_> = values.into_iter().filter_map(attribute).collect();
    all.extend(carried.iter().filter_map(|c| {
        let value = PathAttributeValue::UnknownAttribute(UnknownAttribute::new(c.code, c.value.clone()));
        PathAttribute::from(true, true, c.partial, c.value.len() > 255, value).ok()
    }));
    all
}

/// An attribute with the flags that its type has. The library checks them; ours are right, so nothing is lost.
fn attribute(value: PathAttributeValue) -> Option<PathAttribute> {
    let optional = value.can_be_optional().unwrap_or(true);
    let transitive = value.can_be_transitive().unwrap_or(true);
    let extended = match &value {
        PathAttributeValue::MpReach(_) | PathAttributeValue::MpUnreach(_) => true,
        PathAttributeValue::AsPath(WirePath::As4PathSegments(s)) => {
            s.iter().map(WritablePdu::len).sum::<usize>() > 255
        }
        PathAttributeValue::AsPath(WirePath::As2PathSegments(s)) => {
            s.iter().map(WritablePdu::len).sum::<usize>() > 255
        }
        PathAttributeValue::As4Path(path) => {
            path.segments().iter().map(WritablePdu::len).sum::<usize>() > 255
        }
        PathAttributeValue::Communities(c) => c.communities().len() * 4 > 255,
        PathAttributeValue::ClusterList(c) => c.cluster_list().len() * 4 > 255,
        _ => false,
    };
    PathAttribute::from(optional, transitive, false, extended, value).ok()
}

fn path_to_wire(path: &AsPath, asn4: bool) -> WirePath {
    if asn4 {
        return WirePath::as4_path_segments(segments(path));
    }
    WirePath::as2_path_segments(
        path.0
            .iter()
            .map(|segment| {
                let (kind, numbers) = parts(segment);
                As2PathSegment::new(kind, numbers.iter().map(|n| short(*n)).collect::<Vec<_>>())
            })
            .collect::<Vec<_>>(),
    )
}

fn segments(path: &AsPath) -> Vec<As4PathSegment> {
    path.0
        .iter()
        .map(|segment| {
            let (kind, numbers) = parts(segment);
            As4PathSegment::new(kind, numbers.to_vec())
        })
        .collect()
}

fn parts(segment: &Segment) -> (AsPathSegmentType, &[u32]) {
    match segment {
        Segment::Sequence(numbers) => (AsPathSegmentType::AsSequence, numbers),
        Segment::Set(numbers) => (AsPathSegmentType::AsSet, numbers),
    }
}

fn short(asn: u32) -> u16 {
    u16::try_from(asn).unwrap_or(AS_TRANS as u16)
}
