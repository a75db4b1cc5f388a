//! What becomes of good and of damaged UPDATEs.

use super::{Dialect, Update, announce, decode, end_of_rib, withdraw};
use crate::attributes::{AsPath, Attributes, Carried, Origin, Segment};
use crate::error::Notification;
use crate::family::Family;
use crate::message::{HEADER, MAX};
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const EXTERNAL: Dialect = Dialect { asn4: true, internal: false, extended_next_hop: true };
const INTERNAL: Dialect = Dialect { asn4: true, internal: true, extended_next_hop: true };
const SHORT: Dialect = Dialect { asn4: false, internal: true, extended_next_hop: false };

const ORIGIN: [u8; 4] = [0x40, 1, 1, 0];
const AS_PATH: [u8; 9] = [0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8];
const NEXT_HOP: [u8; 7] = [0x40, 3, 4, 10, 0, 0, 1];
const NLRI: [u8; 4] = [24, 192, 168, 7];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The body of an UPDATE.
fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    body
}

/// Decodes an UPDATE of the mandatory attributes, with `extra` after them, for one prefix.
fn with(extra: &[&[u8]], dialect: Dialect) -> Result<Update, Notification> {
    let mut attributes: Vec<&[u8]> = vec![&ORIGIN, &AS_PATH, &NEXT_HOP];
    attributes.extend(extra);
    decode(&body(&[], &attributes, &NLRI), dialect)
}

fn is_withdrawn(update: &Update) -> bool {
    update.announced.is_empty() && update.withdrawn == [net("192.168.7.0/24")] && update.malformed.is_some()
}

#[test]
fn a_good_one() {
    let update = with(&[], EXTERNAL).unwrap();
    let [(attributes, prefixes)] = &update.announced[..] else { panic!("{update:?}") };
    assert_eq!(prefixes, &[net("192.168.7.0/24")]);
    assert_eq!(attributes.next_hop, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(attributes.as_path, AsPath::sequence(&[65000]));
    assert_eq!(update.malformed, None);
}

#[test]
fn end_of_rib_is_recognised_by_family() {
    for family in Family::ALL {
        let message = end_of_rib(family).unwrap();
        let update = decode(&message[HEADER..], EXTERNAL).unwrap();
        assert_eq!(update, Update { end_of_rib: Some(family), ..Update::default() });
    }
}

//= rfc7606#3: a missing mandatory attribute takes the routes as withdrawn
#[test]
fn a_missing_mandatory_attribute_withdraws() {
    for missing in 0..3 {
        let mut attributes: Vec<&[u8]> = vec![&ORIGIN, &AS_PATH, &NEXT_HOP];
        attributes.remove(missing);
        assert!(is_withdrawn(&decode(&body(&[], &attributes, &NLRI), EXTERNAL).unwrap()));
    }
}

#[test]
fn damaged_attributes_withdraw_and_the_session_lives() {
    let damaged: [&[u8]; 9] = [
        &[0x40, 1, 1, 9],                // ORIGIN: undefined value
        &[0x40, 1, 2, 0, 0],             // ORIGIN: length
        &[0x80, 2, 0],                   // AS_PATH: flags
        &[0x40, 2, 6, 9, 1, 0, 0, 0, 1], // AS_PATH: segment type
        &[0x40, 2, 6, 2, 2, 0, 0, 0, 1], // AS_PATH: segment overruns
        &[0x40, 2, 2, 2, 0],             // AS_PATH: empty segment
        &[0x40, 2, 6, 2, 1, 0, 0, 0, 0], // AS_PATH: AS 0
        &[0x40, 3, 3, 10, 0, 0],         // NEXT_HOP: length
        &[0x80, 4, 3, 0, 0, 0],          // MULTI_EXIT_DISC: length
    ];
    for attribute in damaged {
        let mut attributes: Vec<&[u8]> = vec![attribute];
        for good in [&ORIGIN[..], &AS_PATH, &NEXT_HOP] {
            if good[1] != attribute[1] {
                attributes.push(good);
            }
        }
        let update = decode(&body(&[], &attributes, &NLRI), EXTERNAL).unwrap();
        assert!(is_withdrawn(&update), "{attribute:02x?}: {update:?}");
    }
    let communities: &[&[u8]] = &[&[0xc0, 8, 3, 1, 2, 3]];
    assert!(is_withdrawn(&with(communities, EXTERNAL).unwrap()));
    let extended: &[&[u8]] = &[&[0xc0, 16, 4, 1, 2, 3, 4]];
    assert!(is_withdrawn(&with(extended, EXTERNAL).unwrap()));
    let originator: &[&[u8]] = &[&[0x80, 9, 5, 1, 2, 3, 4, 5]];
    assert!(is_withdrawn(&with(originator, INTERNAL).unwrap()));
}

#[test]
fn some_damage_costs_only_the_attribute() {
    let discarded: [&[u8]; 3] = [
        &[0x40, 6, 1, 0],                 // ATOMIC_AGGREGATE: length
        &[0xc0, 7, 6, 0, 1, 10, 0, 0, 1], // AGGREGATOR: two-octet form
        &[0x40, 5, 4, 0, 0, 0, 1],        // LOCAL_PREF of another AS
    ];
    for attribute in discarded {
        let update = with(&[attribute], EXTERNAL).unwrap();
        let [(attributes, _)] = &update.announced[..] else { panic!("{attribute:02x?}: {update:?}") };
        assert!(!attributes.atomic_aggregate && attributes.aggregator.is_none());
        assert_eq!(attributes.local_pref, None);
        assert!(update.malformed.is_some());
    }
}

#[test]
fn an_attribute_that_overruns_the_list_withdraws() {
    assert!(is_withdrawn(&with(&[&[0x80, 4, 9, 0]], EXTERNAL).unwrap()));
}

#[test]
fn of_an_attribute_that_is_there_twice_the_first_counts() {
    let update = with(&[&[0x40, 3, 4, 10, 0, 0, 2]], EXTERNAL).unwrap();
    assert_eq!(update.announced[0].0.next_hop, IpAddr::from([10, 0, 0, 1]));
}

#[test]
fn what_makes_the_prefixes_uncertain_resets() {
    let reset = |body: &[u8]| decode(body, EXTERNAL).unwrap_err();
    assert_eq!(reset(&[0, 9, 0, 0]), Notification::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(reset(&[0, 0, 0, 9]), Notification::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(reset(&[0, 0]), Notification::MALFORMED_ATTRIBUTE_LIST);
    assert_eq!(reset(&body(&[33, 1, 2, 3, 4, 5], &[], &[])), Notification::INVALID_NETWORK);
    assert_eq!(reset(&body(&[], &[&ORIGIN], &[24, 1])), Notification::INVALID_NETWORK);
    let unknown = [0x40, 99, 0];
    assert_eq!(reset(&body(&[], &[&unknown], &[])), Notification::UNRECOGNIZED_WELL_KNOWN.with(&[0x40, 99]));
    let short_reach = [0x80, 14, 3, 0, 2, 1];
    assert_eq!(reset(&body(&[], &[&short_reach], &[])), Notification::OPTIONAL_ATTRIBUTE);
    let unreach = [0x80, 15, 3, 0, 2, 1];
    assert_eq!(reset(&body(&[], &[&unreach, &unreach], &[])), Notification::MALFORMED_ATTRIBUTE_LIST);
}

#[test]
fn families_that_nobody_offered_are_ignored() {
    let vpn = [0x80, 14, 5, 0, 1, 128, 0, 0];
    let update = with(&[&vpn], EXTERNAL).unwrap();
    assert_eq!(update.announced.len(), 1);
}

#[test]
fn unknown_transitive_attributes_travel_on_marked_partial() {
    let unknown = [0xc0, 99, 2, 7, 8];
    let not_transitive = [0x80, 98, 1, 1];
    let large = [0xc0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    let update = with(&[&unknown, &not_transitive, &large], EXTERNAL).unwrap();
    let (attributes, prefixes) = &update.announced[0];
    assert_eq!(attributes.carried[0], Carried { code: 99, partial: true, value: Box::new([7, 8]) });
    assert_eq!(attributes.carried.len(), 2);
    assert!(!attributes.carried[1].partial);
    let message = &announce(attributes, prefixes, EXTERNAL)[0];
    assert!(message.windows(5).any(|w| w == [0xe0, 99, 2, 7, 8]), "{message:02x?}");
}

//= rfc6793#4.2.3: an old speaker's AS_TRANS is replaced by what AS4_PATH says
#[test]
fn long_numbers_survive_a_speaker_of_short_ones() {
    let path = [0x40, 2, 8, 2, 3, 0xfd, 0xe8, 0x5b, 0xa0, 0x5b, 0xa0];
    let as4 = [0xc0, 17, 10, 2, 2, 0, 1, 0, 1, 0, 1, 0, 2];
    let update = decode(&body(&[], &[&ORIGIN, &path, &NEXT_HOP, &as4], &NLRI), SHORT).unwrap();
    assert_eq!(update.announced[0].0.as_path, AsPath::sequence(&[65000, 0x1_0001, 0x1_0002]));
}

#[test]
fn many_prefixes_take_several_messages() {
    let prefixes: Vec<IpNet> = (0..3000_u32)
        .map(|i| IpNet::new(Ipv4Addr::from(0x0a00_0000 + i * 256).into(), 24).unwrap())
        .collect();
    let attributes = Attributes::local(IpAddr::from([10, 0, 0, 1]));
    for messages in [announce(&attributes, &prefixes, EXTERNAL), withdraw(&prefixes)] {
        assert!(messages.len() > 2 && messages.iter().all(|m| m.len() <= MAX));
        let mut found = Vec::new();
        for message in &messages {
            let update = decode(&message[HEADER..], EXTERNAL).unwrap();
            found.extend(update.withdrawn);
            found.extend(update.announced.into_iter().flat_map(|(_, prefixes)| prefixes));
        }
        assert_eq!(found, prefixes);
    }
}

#[test]
fn attributes_that_fill_a_message_are_not_sent() {
    let mut attributes = Attributes::local(IpAddr::from([10, 0, 0, 1]));
    attributes.as_path = AsPath(vec![Segment::Sequence(vec![1; 255]); 4]);
    assert!(announce(&attributes, &[net("10.1.0.0/24")], EXTERNAL).is_empty());
}

prop_compose! {
    fn any_attributes()(
        origin in prop::sample::select(vec![Origin::Igp, Origin::Egp, Origin::Incomplete]),
        path in prop::collection::vec((any::<bool>(), prop::collection::vec(1..u32::MAX, 1..20)), 0..4),
        med in any::<Option<u32>>(),
        local_pref in any::<Option<u32>>(),
        atomic_aggregate in any::<bool>(),
        aggregator in any::<Option<(u32, u32)>>(),
        communities in prop::collection::vec(any::<u32>(), 0..100),
        originator in any::<Option<u32>>(),
        cluster_list in prop::collection::vec(any::<u32>(), 0..80),
        next_hop in any::<u32>(),
    ) -> Attributes {
        let segment = |(set, numbers)| if set { Segment::Set(numbers) } else { Segment::Sequence(numbers) };
        Attributes {
            origin,
            as_path: AsPath(path.into_iter().map(segment).collect()),
            next_hop: Ipv4Addr::from(next_hop).into(),
            med,
            local_pref,
            atomic_aggregate,
            aggregator: aggregator.map(|(asn, id)| (asn, id.into())),
            communities,
            originator_id: originator.map(Into::into),
            cluster_list: cluster_list.into_iter().map(Into::into).collect(),
            carried: Vec::new(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(attributes in any_attributes(), v6 in any::<bool>(), bits in any::<u64>()) {
        let mut attributes = attributes;
        let prefix = if v6 {
            attributes.next_hop = Ipv6Addr::from(u128::from(bits)).into();
            IpNet::new(Ipv6Addr::from(0x2001_u128 << 112 | u128::from(bits)).into(), (bits % 129) as u8)
        } else {
            IpNet::new(Ipv4Addr::from(0x0a00_0000 | (bits as u32 >> 8)).into(), (bits % 33) as u8)
        };
        let prefix = prefix.unwrap().trunc();
        for message in announce(&attributes, &[prefix], INTERNAL) {
            let update = decode(&message[HEADER..], INTERNAL).unwrap();
            prop_assert_eq!(update.announced.len(), 1);
            prop_assert_eq!(&*update.announced[0].0, &attributes);
            prop_assert_eq!(&update.announced[0].1, &[prefix]);
        }
    }

    #[test]
    fn short_numbers_keep_the_path(attributes in any_attributes()) {
        let mut attributes = attributes;
        // Sets and an aggregator of their own make the two paths differ in ways that RFC 6793 gives up on.
        attributes.as_path.0.retain(|s| matches!(s, Segment::Sequence(_)));
        attributes.aggregator = None;
        let expected: Vec<u32> = attributes.as_path.iter().collect();
        for message in announce(&attributes, &[net("10.1.0.0/24")], SHORT) {
            let update = decode(&message[HEADER..], SHORT).unwrap();
            prop_assert_eq!(update.announced[0].0.as_path.iter().collect::<Vec<_>>(), expected.clone());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), asn4 in any::<bool>()) {
        let _ = decode(&bytes, Dialect { asn4, internal: asn4, extended_next_hop: asn4 });
    }

    #[test]
    fn damaged_attributes_never_panic(code in 0..40_u8, flags in any::<u8>(), value in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut attribute = vec![flags & !0x10, code, u8::try_from(value.len()).unwrap()];
        attribute.extend(value);
        let _ = decode(&body(&[], &[&attribute, &ORIGIN, &AS_PATH, &NEXT_HOP], &NLRI), INTERNAL);
        let _ = decode(&body(&[], &[&attribute, &ORIGIN, &AS_PATH, &NEXT_HOP], &NLRI), SHORT);
    }
}
