//! Any message survives encoding and decoding, and no bytes make a decoder panic.
#![allow(missing_docs)]

use dmvpn_nhrp::extension::{Extension, ExtensionType};
use dmvpn_nhrp::packet::{
    Body, Cie, CieCode, ErrorCode, Exchange, ExchangeType, Family, Flags, Packet, Protocol,
};
use dmvpn_nhrp::vendor::{self, Station};
use packet::Path;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;

fn cie() -> impl Strategy<Value = Cie> {
    let numbers = (any::<u8>(), any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>());
    (numbers, option::of(any::<IpAddr>()), option::of(any::<IpAddr>())).prop_map(|(n, nbma, protocol)| {
        let (code, prefix_length, mtu, holding_time, preference) = n;
        Cie { code: CieCode(code), prefix_length, mtu, holding_time, nbma, protocol, preference }
    })
}

fn exchange_type() -> impl Strategy<Value = ExchangeType> {
    prop_oneof![
        Just(ExchangeType::ResolutionRequest),
        Just(ExchangeType::ResolutionReply),
        Just(ExchangeType::RegistrationRequest),
        Just(ExchangeType::RegistrationReply),
        Just(ExchangeType::PurgeRequest),
        Just(ExchangeType::PurgeReply),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let exchange =
        (exchange_type(), any::<u16>(), any::<u32>(), vec(cie(), 0..4)).prop_map(|(kind, f, id, entries)| {
            Body::Exchange(Exchange { kind, flags: Flags(f), request_id: id, entries })
        });
    let error = (any::<u16>(), any::<u16>(), vec(any::<u8>(), 0..80))
        .prop_map(|(code, offset, offender)| Body::Error { code: ErrorCode(code), offset, offender });
    let indication = (any::<u16>(), vec(any::<u8>(), 0..80))
        .prop_map(|(code, trigger)| Body::Indication { code, trigger });
    prop_oneof![exchange, error, indication]
}

fn extension() -> impl Strategy<Value = Extension> {
    (1u16..0x4000, any::<bool>(), vec(any::<u8>(), 0..60)).prop_map(|(kind, compulsory, value)| Extension {
        kind: ExtensionType(kind),
        compulsory,
        value,
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let head = (any::<bool>(), any::<bool>(), any::<u8>());
    let addresses = (option::of(any::<IpAddr>()), any::<IpAddr>(), any::<IpAddr>());
    (head, addresses, body(), vec(extension(), 0..5)).prop_map(|(head, addresses, body, extensions)| Packet {
        family: if head.0 { Family::V4 } else { Family::V6 },
        protocol: if head.1 { Protocol::V4 } else { Protocol::V6 },
        hop_count: head.2,
        source_nbma: addresses.0,
        source: addresses.1,
        destination: addresses.2,
        body,
        extensions,
    })
}

fn path() -> impl Strategy<Value = Path> {
    (any::<IpAddr>(), option::of(1..=u16::MAX)).prop_map(|(remote, port)| match port {
        Some(port) => Path::udp(remote, port),
        None => Path::gre(remote),
    })
}

fn station() -> impl Strategy<Value = Station> {
    let names = (option::of("[a-z0-9.-]{1,60}"), option::of(any::<u64>()), any::<u32>());
    let places = (option::of(any::<IpAddr>()), option::of(1..=u16::MAX), option::of(path()));
    (any::<IpAddr>(), names, places).prop_map(|(address, names, places)| Station {
        address,
        identity: names.0,
        token: names.1,
        private: places.0,
        udp_port: places.1,
        observed: places.2,
        capabilities: names.2,
    })
}

proptest! {
    #[test]
    fn a_message_survives(packet in packet()) {
        let bytes = packet.encode(0).unwrap();
        prop_assert_eq!(Packet::decode(&bytes).unwrap(), packet);
    }

    #[test]
    fn a_station_survives(station in station()) {
        prop_assert_eq!(Station::from_extension(&station.to_extension()), Some(station));
    }

    #[test]
    fn a_group_survives(group in "[ -~]{1,60}", packet in packet()) {
        let packet = Packet { extensions: vec![vendor::group_extension(&group)], ..packet };
        prop_assert_eq!(vendor::group(&packet), Some(group));
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Packet::decode(&bytes);
        let extension = Extension { kind: ExtensionType::VENDOR, compulsory: false, value: bytes };
        let _ = Station::from_extension(&extension);
        let _ = extension.entries();
    }

    /// Damage with a right checksum gets deeper than garbage.
    #[test]
    fn damage_never_panics(packet in packet(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = packet.encode(0).unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes[12..14].fill(0);
        let words = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0)));
        let sum: u64 = words.sum();
        let sum = (sum % 0xffff) as u16;
        bytes[12..14].copy_from_slice(&(!sum).to_be_bytes());
        if let Ok(decoded) = Packet::decode(&bytes) {
            let again = decoded.encode(0).unwrap();
            prop_assert_eq!(Packet::decode(&again).unwrap(), decoded);
        }
    }
}
