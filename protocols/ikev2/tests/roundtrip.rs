//! Any message survives encoding and decoding, and no bytes make a decoder panic.
#![allow(missing_docs)]

use dmvpn_ikev2::codes::{
    AuthType, CertificateEncoding, ExchangeType, GroupId, IdType, NotifyType, PayloadType, ProtocolId,
    SelectorType, TransformType,
};
use dmvpn_ikev2::payload::{
    AddressRange, Attribute, AuthPayload, Certificate, CertificateRequest, Delete, IdPayload, KeyExchange,
    Notify, Payload, Proposal, TrafficSelector, Transform,
};
use dmvpn_ikev2::{Header, Message};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

fn header() -> impl Strategy<Value = Header> {
    (any::<(u64, u64)>(), any::<u8>(), any::<(bool, bool)>(), any::<u32>()).prop_map(
        |((initiator_spi, responder_spi), exchange, (initiator, response), message_id)| Header {
            initiator_spi,
            responder_spi,
            exchange: ExchangeType(exchange),
            initiator,
            response,
            message_id,
        },
    )
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let unknown = |kind: u16| if kind == 14 { 15 } else { kind };
    prop_oneof![
        any::<u16>().prop_map(Attribute::KeyLength),
        (0u16..0x8000, any::<u16>())
            .prop_map(move |(kind, value)| Attribute::UnknownShort { kind: unknown(kind), value }),
        (0u16..0x8000, octets(20))
            .prop_map(move |(kind, value)| Attribute::UnknownLong { kind: unknown(kind), value }),
    ]
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), vec(attribute(), 0..3)).prop_map(|(kind, id, attributes)| Transform {
        kind: TransformType(kind),
        id,
        attributes,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let spi = prop_oneof![
        Just((ProtocolId::IKE, Vec::new())),
        any::<[u8; 8]>().prop_map(|spi| (ProtocolId::IKE, spi.to_vec())),
        any::<[u8; 4]>().prop_map(|spi| (ProtocolId::ESP, spi.to_vec())),
        octets(9).prop_map(|spi| (ProtocolId(77), spi)),
    ];
    (1..=u8::MAX, spi, vec(transform(), 0..6)).prop_map(|(number, (protocol, spi), transforms)| Proposal {
        number,
        protocol,
        spi,
        transforms,
    })
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let range = |(protocol, ports, a, b): (u8, (u16, u16), IpAddr, IpAddr)| {
        let addresses = if a.is_ipv4() == b.is_ipv4() { (a.min(b), a.max(b)) } else { (a, a) };
        AddressRange { protocol, ports, addresses }.into()
    };
    prop_oneof![
        (any::<u8>(), any::<(u16, u16)>(), any::<IpAddr>(), any::<IpAddr>()).prop_map(range),
        (9..=u8::MAX, any::<u8>(), octets(20)).prop_map(|(kind, protocol, data)| TrafficSelector::Unknown {
            kind: SelectorType(kind),
            protocol,
            data
        }),
    ]
}

fn id() -> impl Strategy<Value = IdPayload> {
    (any::<u8>(), any::<[u8; 3]>(), octets(40)).prop_map(|(kind, reserved, data)| IdPayload {
        kind: IdType(kind),
        reserved,
        data,
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    prop_oneof![
        Just(Delete::Ike),
        vec(any::<u32>(), 0..9).prop_map(Delete::Esp),
        (0u8..9, vec(any::<[u8; 9]>(), 0..5)).prop_map(|(spi_size, spis)| Delete::Other {
            protocol: ProtocolId::AH,
            spi_size,
            count: u16::try_from(spis.len()).unwrap(),
            spis: spis.iter().flat_map(|spi| spi[..usize::from(spi_size)].to_vec()).collect(),
        }),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    let data = || octets(60);
    prop_oneof![
        vec(proposal(), 1..5).prop_map(Payload::SecurityAssociation),
        (any::<u16>(), data())
            .prop_map(|(group, data)| Payload::KeyExchange(KeyExchange { group: GroupId(group), data })),
        id().prop_map(Payload::IdInitiator),
        id().prop_map(Payload::IdResponder),
        (any::<u8>(), data()).prop_map(|(encoding, data)| {
            Payload::Certificate(Certificate { encoding: CertificateEncoding(encoding), data })
        }),
        (any::<u8>(), data()).prop_map(|(encoding, authorities)| {
            let encoding = CertificateEncoding(encoding);
            Payload::CertificateRequest(CertificateRequest { encoding, authorities })
        }),
        (any::<u8>(), data()).prop_map(|(method, data)| {
            Payload::Authentication(AuthPayload { method: AuthType(method), data })
        }),
        vec(any::<u8>(), 16..257).prop_map(Payload::Nonce),
        (any::<u8>(), octets(9), any::<u16>(), data()).prop_map(|(protocol, spi, kind, data)| {
            Payload::Notify(Notify { protocol: ProtocolId(protocol), spi, kind: NotifyType(kind), data })
        }),
        delete().prop_map(Payload::Delete),
        data().prop_map(Payload::Vendor),
        vec(selector(), 0..5).prop_map(Payload::SelectorsInitiator),
        vec(selector(), 0..5).prop_map(Payload::SelectorsResponder),
        (54..=u8::MAX, data()).prop_map(|(kind, data)| Payload::Unknown { kind: PayloadType(kind), data }),
    ]
}

proptest! {
    #[test]
    fn any_message(header in header(), payloads in vec(payload(), 0..8)) {
        let message = Message { header, payloads };
        let bytes = message.encode().unwrap();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
        for length in 0..bytes.len() {
            prop_assert!(Message::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn any_damage(header in header(), payloads in vec(payload(), 0..5), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut bytes = Message { header, payloads }.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = octet;
        if let Ok(message) = Message::decode(&bytes) {
            let again = message.encode().unwrap();
            prop_assert_eq!(Message::decode(&again), Ok(message));
        }
    }
}
