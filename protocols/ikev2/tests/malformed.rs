//! Malformed messages and such as break the rules of their exchange: each is refused for the right reason.
#![allow(missing_docs)]

use dmvpn_ikev2::codes::{ExchangeType, NotifyType, PayloadType};
use dmvpn_ikev2::payload::{Delete, Notify, Payload, Proposal};
use dmvpn_ikev2::rules::{self, Illegal};
use dmvpn_ikev2::{Header, Malformed, Message};

/// A message with one payload, whose body is this.
fn with(kind: u8, body: &[u8]) -> Vec<u8> {
    chain(kind, &[(0, 0, body)])
}

/// A message whose payloads are (next type, flags, body).
fn chain(first: u8, payloads: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = [&[1; 16], &[first, 0x20, 34, 8][..], &[0; 8]].concat();
    for (next, flags, body) in payloads {
        let length = u16::try_from(4 + body.len()).unwrap().to_be_bytes();
        bytes.extend([&[*next, *flags], &length[..], *body].concat());
    }
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    bytes[24..28].copy_from_slice(&length);
    bytes
}

fn refused(bytes: &[u8]) -> Malformed {
    Message::decode(bytes).unwrap_err()
}

#[test]
fn a_header_that_lies_about_the_length() {
    let good = with(43, &[]);
    assert!(Message::decode(&good).is_ok());
    assert_eq!(refused(&[&good[..], &[0]].concat()), Malformed::Length);
    assert_eq!(refused(&good[..31]), Malformed::Length);
    assert_eq!(refused(&good[..27]), Malformed::Truncated);
}

/// //= rfc7296#2.5
/// The minor version number indicates new capabilities, and MUST be ignored by a node with a smaller minor version number
#[test]
fn another_major_version_is_refused_and_another_minor_one_is_not() {
    let mut bytes = with(43, &[]);
    bytes[17] = 0x2f;
    assert!(Message::decode(&bytes).is_ok());
    for version in [0x10, 0x30] {
        bytes[17] = version;
        assert_eq!(Header::decode(&bytes), Err(Malformed::Version));
    }
}

/// //= rfc7296#2.5
/// If the critical flag is set and the payload type is unrecognized, the message MUST be rejected
#[test]
fn an_unknown_payload_is_refused_only_if_it_is_critical() {
    let unknown = chain(200, &[(0, 0, &[1, 2, 3])]);
    let payload = Payload::Unknown { kind: PayloadType(200), data: vec![1, 2, 3] };
    assert_eq!(Message::decode(&unknown).unwrap().payloads, [payload]);
    let critical = chain(200, &[(0, 0x80, &[1, 2, 3])]);
    assert_eq!(refused(&critical), Malformed::Critical(PayloadType(200)));
    // A payload that is known may be critical, and reserved bits may be set.
    assert!(Message::decode(&chain(43, &[(0, 0xff, &[])])).is_ok());
}

#[test]
fn a_chain_that_ends_too_early_or_too_late() {
    assert_eq!(refused(&chain(43, &[(43, 0, &[])])), Malformed::Truncated);
    assert_eq!(refused(&chain(43, &[(0, 0, &[]), (0, 0, &[])])), Malformed::Trailing);
    let mut short = with(43, &[1, 2]);
    short[31] = 3;
    assert_eq!(refused(&short), Malformed::PayloadLength);
    let mut long = with(43, &[1, 2]);
    long[31] = 7;
    assert_eq!(refused(&long), Malformed::Truncated);
}

#[test]
fn a_chain_without_end_is_cut() {
    let many: Vec<(u8, u8, &[u8])> = vec![(43, 0, &[]); 101];
    assert_eq!(refused(&chain(43, &many)), Malformed::TooManyPayloads);
}

/// //= rfc7296#3.14
/// The Encrypted payload, if present in a message, MUST be the last payload in the message.
#[test]
fn an_encrypted_payload_that_is_not_the_last() {
    assert_eq!(refused(&chain(46, &[(43, 0, &[7; 40]), (0, 0, &[])])), Malformed::EncryptedNotLast);
    assert!(Message::decode(&chain(43, &[(46, 0, &[]), (33, 0, &[7; 40])])).is_ok());
}

/// //= rfc7383#2.5
/// This field MUST be less than or equal to the next field (Total Fragments).  This field MUST NOT be zero.
#[test]
fn a_fragment_with_an_impossible_number() {
    for (number, total, good) in [(1, 1, true), (2, 3, true), (0, 1, false), (3, 2, false), (0, 0, false)] {
        let bytes = with(53, &[0, number, 0, total, 9, 9]);
        assert_eq!(Message::decode(&bytes).is_ok(), good);
        if !good {
            assert_eq!(refused(&bytes), Malformed::FragmentNumber);
        }
    }
}

/// //= rfc7296#3.9
/// The size of the Nonce Data MUST be between 16 and 256 octets, inclusive.
#[test]
fn a_nonce_of_a_wrong_size() {
    for (size, good) in [(15, false), (16, true), (256, true), (257, false)] {
        assert_eq!(Message::decode(&with(40, &vec![1; size])).is_ok(), good, "{size}");
    }
    assert_eq!(refused(&with(40, &[1; 15])), Malformed::NonceSize);
}

/// One proposal with one transform, ENCR AES-GCM-16 with 128 bits.
const PROPOSAL: [u8; 20] = [0, 0, 0, 20, 1, 1, 0, 1, 0, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 0, 128];

fn damaged(at: usize, octet: u8) -> Vec<u8> {
    let mut proposal = PROPOSAL;
    proposal[at] = octet;
    with(33, &proposal)
}

#[test]
fn a_proposal_that_contradicts_itself() {
    assert!(Message::decode(&with(33, &PROPOSAL)).is_ok());
    assert_eq!(refused(&damaged(0, 1)), Malformed::ProposalOrder);
    assert_eq!(refused(&damaged(0, 2)), Malformed::Truncated);
    assert_eq!(refused(&damaged(3, 3)), Malformed::PayloadLength);
    assert_eq!(refused(&damaged(4, 0)), Malformed::ProposalOrder);
    assert_eq!(refused(&damaged(6, 4)), Malformed::SpiSize);
    assert_eq!(refused(&damaged(7, 2)), Malformed::TransformCount);
    assert_eq!(refused(&damaged(7, 0)), Malformed::Trailing);
    assert_eq!(refused(&damaged(8, 3)), Malformed::TransformCount);
    assert_eq!(refused(&damaged(11, 13)), Malformed::Truncated);
    assert_eq!(refused(&damaged(16, 0)), Malformed::KeyLength);
    assert_eq!(refused(&with(33, &[])), Malformed::Truncated);
    let two = [&[2][..], &PROPOSAL[1..], &PROPOSAL].concat();
    assert!(Message::decode(&with(33, &two)).is_ok());
    assert_eq!(refused(&with(33, &[PROPOSAL, PROPOSAL].concat())), Malformed::Trailing);
}

#[test]
fn proposals_without_end_are_cut() {
    let more = [&[2][..], &PROPOSAL[1..]].concat();
    assert_eq!(refused(&with(33, &more.repeat(65))), Malformed::TooManyProposals);
}

/// //= rfc7296#3.11
/// It MUST be zero for IKE (SPI is in message header) or four for AH and ESP.
#[test]
fn a_delete_with_an_spi_of_a_wrong_size() {
    let decoded = |body| Message::decode(&with(42, body)).map(|m| m.payloads);
    assert_eq!(decoded(&[1, 0, 0, 0]), Ok(vec![Payload::Delete(Delete::Ike)]));
    assert_eq!(decoded(&[3, 4, 0, 1, 0, 0, 1, 0]), Ok(vec![Payload::Delete(Delete::Esp(vec![256]))]));
    assert_eq!(decoded(&[3, 8, 0, 0]), Err(Malformed::SpiSize));
    assert_eq!(decoded(&[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::SpiSize));
    assert_eq!(decoded(&[3, 4, 0, 2, 0, 0, 1, 0]), Err(Malformed::Truncated));
    assert_eq!(decoded(&[3, 4, 0xff, 0xff]), Err(Malformed::Truncated));
}

#[test]
fn a_selector_that_is_upside_down_or_of_a_wrong_length() {
    let range = |first: u8, last: u8| {
        let selector = [7, 47, 0, 16, 0, 0, 0xff, 0xff, 10, 0, 0, first, 10, 0, 0, last];
        with(44, &[&[1, 0, 0, 0][..], &selector].concat())
    };
    assert!(Message::decode(&range(1, 1)).is_ok());
    assert_eq!(refused(&range(2, 1)), Malformed::Selector);
    assert_eq!(refused(&with(44, &[1, 0, 0, 0, 7, 47, 0, 3])), Malformed::Selector);
    assert_eq!(refused(&with(44, &[1, 0, 0, 0, 7, 47, 0, 4])), Malformed::Truncated);
    assert_eq!(refused(&with(44, &[2, 0, 0, 0, 200, 0, 0, 4])), Malformed::Truncated);
}

fn nonce() -> Payload {
    Payload::Nonce(vec![1; 16])
}

fn proposals() -> Payload {
    Payload::SecurityAssociation(vec![Proposal {
        number: 1,
        protocol: dmvpn_ikev2::codes::ProtocolId::ESP,
        spi: vec![0; 4],
        transforms: vec![],
    }])
}

const CHILD: ExchangeType = ExchangeType::CREATE_CHILD_SA;

#[test]
fn a_message_without_what_its_exchange_needs() {
    let missing = |payloads: &[Payload]| rules::check(CHILD, false, payloads);
    assert_eq!(missing(&[proposals(), nonce()]), Ok(()));
    assert_eq!(missing(&[proposals()]), Err(Illegal::Missing(CHILD, PayloadType::NONCE)));
    assert_eq!(missing(&[nonce()]), Err(Illegal::Missing(CHILD, PayloadType::SA)));
    let half = [proposals(), nonce(), Payload::SelectorsInitiator(vec![])];
    assert_eq!(missing(&half), Err(Illegal::Missing(CHILD, PayloadType::TSR)));
}

#[test]
fn a_message_with_too_much() {
    let twice = [proposals(), nonce(), nonce()];
    assert_eq!(rules::check(CHILD, false, &twice), Err(Illegal::TooMany(CHILD, PayloadType::NONCE)));
    let stray = [proposals(), nonce(), Payload::Delete(Delete::Ike)];
    assert_eq!(rules::check(CHILD, true, &stray), Err(Illegal::Unexpected(CHILD, PayloadType::DELETE)));
    let unknown = [proposals(), nonce(), Payload::Unknown { kind: PayloadType(99), data: vec![] }];
    assert_eq!(rules::check(CHILD, true, &unknown), Ok(()));
    let eap = [proposals(), nonce(), Payload::Unknown { kind: PayloadType::EAP, data: vec![] }];
    assert_eq!(rules::check(CHILD, true, &eap), Err(Illegal::Unexpected(CHILD, PayloadType::EAP)));
}

#[test]
fn an_error_excuses_a_response_and_not_a_request() {
    let error = [Payload::Notify(Notify::empty(NotifyType::NO_PROPOSAL_CHOSEN))];
    assert_eq!(rules::check(CHILD, true, &error), Ok(()));
    assert_eq!(rules::check(CHILD, false, &error), Err(Illegal::Missing(CHILD, PayloadType::SA)));
    let status = [Payload::Notify(Notify::empty(NotifyType::ADDITIONAL_TS_POSSIBLE))];
    assert_eq!(rules::check(CHILD, true, &status), Err(Illegal::Missing(CHILD, PayloadType::SA)));
    let cookie = [Payload::Notify(Notify::new(NotifyType::COOKIE, vec![1; 32]))];
    assert_eq!(rules::check(ExchangeType::IKE_SA_INIT, true, &cookie), Ok(()));
}

#[test]
fn an_exchange_that_is_not_known() {
    let exchange = ExchangeType::IKE_INTERMEDIATE;
    assert_eq!(rules::check(exchange, false, &[]), Err(Illegal::Exchange(exchange)));
    assert_eq!(rules::check(ExchangeType::INFORMATIONAL, false, &[]), Ok(()));
}
