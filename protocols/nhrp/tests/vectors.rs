//! What foreign routers send decodes, and encodes again to the same bytes.
#![allow(missing_docs)]

#[path = "data/captures.rs"]
mod captures;

use captures::{CAPTURES, messages};
use dmvpn_nhrp::extension::ExtensionType;
use dmvpn_nhrp::packet::{Body, CieCode, Flags, MessageType, Packet, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Computed from the layouts, not captured: a registration request.
const COMPUTED: &str = "
    00 01 08 00 00 00 00 00 00 01 00 5c c9 97 00 34 01 03 04 00 04 04 80 02 00 00 00 01 c6 33 64 0b
    0a 00 00 01 0a 00 00 fe 00 ff 00 00 05 78 1c 20 00 00 00 00 80 04 00 00 80 05 00 00 80 03 00 00
    00 09 00 14 00 20 00 00 05 78 00 00 04 00 04 00 c6 33 64 01 0a 00 00 fe 80 00 00 00";

/// The same with authentication, 107 octets: the checksum of an odd length.
const COMPUTED_ODD: &str = "
    00 01 08 00 00 00 00 00 00 01 00 6b 5b a9 00 34 01 03 04 00 04 04 80 02 00 00 00 01 c6 33 64 0b
    0a 00 00 01 0a 00 00 fe 00 ff 00 00 05 78 1c 20 00 00 00 00 80 04 00 00 80 05 00 00 80 03 00 00
    00 09 00 14 00 20 00 00 05 78 00 00 04 00 04 00 c6 33 64 01 0a 00 00 fe 80 07 00 0b 00 00 00 01
    73 65 63 72 65 74 31 80 00 00 00";

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

#[test]
fn every_message_of_the_captures_encodes_to_the_same_bytes() {
    let mut counts = BTreeMap::new();
    for (name, capture) in CAPTURES {
        let messages = messages(capture);
        assert!(!messages.is_empty(), "{name}");
        for bytes in messages {
            let packet = Packet::decode(&bytes).unwrap_or_else(|e| panic!("{name}: {e}: {bytes:02x?}"));
            assert_eq!(packet.encode(0).unwrap(), bytes, "{name}: {packet:#?}");
            *counts.entry(packet.message_type()).or_insert(0) += 1;
        }
    }
    let wanted = [
        (MessageType::ResolutionRequest, 8),
        (MessageType::ResolutionReply, 8),
        (MessageType::RegistrationRequest, 20),
        (MessageType::RegistrationReply, 14),
        (MessageType::TrafficIndication, 4),
    ];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn the_computed_messages_encode_to_the_same_bytes() {
    for text in [COMPUTED, COMPUTED_ODD] {
        let bytes = hex(text);
        assert_eq!(Packet::decode(&bytes).unwrap().encode(0).unwrap(), bytes);
    }
}

#[test]
fn a_registration_request_means_what_it_says() {
    let packet = Packet::decode(&hex(COMPUTED_ODD)).unwrap();
    assert_eq!((packet.protocol, packet.hop_count), (Protocol::V4, 1));
    assert_eq!(packet.source, "10.0.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(packet.destination, "10.0.0.254".parse::<IpAddr>().unwrap());
    assert_eq!(packet.source_nbma, Some("198.51.100.11".parse().unwrap()));
    let Body::Exchange(request) = &packet.body else { panic!() };
    assert!(request.flags.contains(Flags::UNIQUE.or(Flags::NAT)));
    assert_eq!(request.request_id, 1);
    let [entry] = &request.entries[..] else { panic!() };
    assert_eq!((entry.code, entry.prefix_length, entry.mtu), (CieCode::SUCCESS, 255, 1400));
    assert_eq!((entry.holding_time, entry.nbma, entry.protocol), (7200, None, None));
    let kinds: Vec<u16> = packet.extensions.iter().map(|e| e.kind.0).collect();
    assert_eq!(kinds, [4, 5, 3, 9, 7]);
    assert!(packet.extension(ExtensionType::AUTHENTICATION).unwrap().authenticates(b"secret1"));
    let nat = packet.extension(ExtensionType::NAT).unwrap().entries();
    assert_eq!(nat[0].nbma, Some("198.51.100.1".parse().unwrap()));
}

#[test]
fn a_traffic_indication_quotes_its_trigger() {
    let all = messages(CAPTURES[0].1);
    let decoded = all.iter().map(|m| Packet::decode(m).unwrap());
    let indication =
        decoded.into_iter().find(|p| p.message_type() == MessageType::TrafficIndication).unwrap();
    let Body::Indication { trigger, .. } = &indication.body else { panic!() };
    assert_eq!(trigger[12..16], [192, 168, 12, 1]);
    assert_eq!(indication.destination, "192.168.12.1".parse::<IpAddr>().unwrap());
}
