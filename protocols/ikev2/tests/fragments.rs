//! Fragments in any order, twice, in other sizes, and too many (RFC 7383).
#![allow(missing_docs)]

use dmvpn_ikev2::codes::{ExchangeType, PayloadType};
use dmvpn_ikev2::crypto::Fragment;
use dmvpn_ikev2::fragment::{FragmentError, Reassembly};
use dmvpn_ikev2::payload::Payload;
use dmvpn_ikev2::{Header, Malformed, Message};

fn header(message_id: u32) -> Header {
    Header {
        initiator_spi: 1,
        responder_spi: 2,
        exchange: ExchangeType::IKE_AUTH,
        initiator: true,
        response: false,
        message_id,
    }
}

fn message(message_id: u32) -> Message {
    Message { header: header(message_id), payloads: vec![Payload::Vendor(vec![7; 100])] }
}

/// The message, cut into so many.
fn cut(message_id: u32, total: u16) -> Vec<Fragment> {
    let chain = message(message_id).encode().unwrap().split_off(28);
    let size = chain.len().div_ceil(usize::from(total));
    (1..=total)
        .zip(chain.chunks(size))
        .map(|(number, data)| Fragment {
            header: header(message_id),
            first: if number == 1 { PayloadType::VENDOR } else { PayloadType::NONE },
            number,
            total,
            data: data.to_vec(),
        })
        .collect()
}

#[test]
fn the_message_is_whole_once_all_are_there_in_any_order() {
    let mut reassembly = Reassembly::default();
    let mut fragments = cut(1, 4);
    fragments.rotate_left(2);
    let last = fragments.pop().unwrap();
    for fragment in fragments {
        assert_eq!(reassembly.add(fragment), Ok(None));
    }
    assert_eq!(reassembly.add(last), Ok(Some(message(1))));
}

#[test]
fn one_fragment_can_be_the_whole_message() {
    assert_eq!(Reassembly::default().add(cut(1, 1).remove(0)), Ok(Some(message(1))));
}

#[test]
fn a_fragment_that_comes_twice_is_dropped() {
    let mut reassembly = Reassembly::default();
    let fragments = cut(1, 2);
    assert_eq!(reassembly.add(fragments[0].clone()), Ok(None));
    assert_eq!(reassembly.add(fragments[0].clone()), Err(FragmentError::Duplicate));
    assert_eq!(reassembly.add(fragments[1].clone()), Ok(Some(message(1))));
}

/// //= rfc7383#2.6
#[test]
fn a_set_of_more_and_smaller_fragments_replaces_the_one_before() {
    let mut reassembly = Reassembly::default();
    assert_eq!(reassembly.add(cut(1, 2).remove(0)), Ok(None));
    let mut smaller = cut(1, 3);
    let last = smaller.pop().unwrap();
    for fragment in smaller {
        assert_eq!(reassembly.add(fragment), Ok(None));
    }
    assert_eq!(reassembly.add(cut(1, 2).remove(1)), Err(FragmentError::Stale));
    assert_eq!(reassembly.add(last), Ok(Some(message(1))));
}

#[test]
fn another_message_replaces_the_one_before() {
    let mut reassembly = Reassembly::default();
    assert_eq!(reassembly.add(cut(1, 2).remove(0)), Ok(None));
    assert_eq!(reassembly.add(cut(2, 2).remove(0)), Ok(None));
    assert_eq!(reassembly.add(cut(2, 2).remove(1)), Ok(Some(message(2))));
}

#[test]
fn too_many_fragments_or_octets_are_not_kept() {
    let mut reassembly = Reassembly::default();
    let fragment = |number, total, octets| Fragment {
        header: header(1),
        first: PayloadType::NONE,
        number,
        total,
        data: vec![0; octets],
    };
    assert_eq!(reassembly.add(fragment(1, 65, 1)), Err(FragmentError::TooLong));
    assert_eq!(reassembly.add(fragment(1, 64, 30_000)), Ok(None));
    assert_eq!(reassembly.add(fragment(2, 64, 30_000)), Err(FragmentError::TooLong));
}

#[test]
fn a_whole_message_that_is_malformed_is_the_peer_s_fault() {
    let mut fragment = cut(1, 1).remove(0);
    fragment.data.push(0);
    assert_eq!(Reassembly::default().add(fragment), Err(FragmentError::Inner(Malformed::Trailing)));
}
