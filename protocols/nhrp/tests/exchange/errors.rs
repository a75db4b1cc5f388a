//! Error Indications, and what a station drops.

use crate::world::*;
use dmvpn_nhrp::extension::ExtensionType;
use dmvpn_nhrp::packet::{Body, ErrorCode, MessageType, Packet};
use dmvpn_nhrp::{Config, Error, Event, Quirks, ResolutionFailure};
use packet::Path;

fn registration(world: &World) -> Packet {
    world.sent(MessageType::RegistrationRequest)[0].packet()
}

fn spoke_path() -> Path {
    Path::udp(ip("198.51.100.11"), PORT)
}

fn refresh_checksum(bytes: &mut [u8]) {
    bytes[12..14].fill(0);
    let sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    bytes[12..14].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

//= rfc2332#5.2.7
#[test]
fn there_is_never_an_error_about_an_error() {
    let mut world = World::usual(1);
    let mut request = registration(&world);
    request.destination = ip("10.0.0.99");
    world.inject(HUB, spoke_path(), &request.encode(0).unwrap()).unwrap_err();
    world.settle();
    let mut error = world.sent(MessageType::ErrorIndication)[0].packet();
    (error.source, error.destination) = (ip("10.0.0.1"), ip("10.0.0.88"));
    world.inject(HUB, spoke_path(), &error.encode(0).unwrap()).unwrap_err();
    // Nor when its extensions are unreadable.
    let mut bytes = error.encode(0).unwrap();
    let at = bytes.len() as u16 + 10;
    bytes[14..16].copy_from_slice(&at.to_be_bytes());
    refresh_checksum(&mut bytes);
    assert_eq!(world.inject(HUB, spoke_path(), &bytes), Err(Error::ExtensionOffset));
    world.settle();
    assert_eq!(world.sent(MessageType::ErrorIndication).len(), 1);
}

#[test]
fn errors_are_sent_with_hop_count_255_and_quote_the_offender() {
    let mut world = World::usual(1);
    let mut request = registration(&world);
    request.destination = ip("10.0.0.99");
    let bytes = request.encode(0).unwrap();
    world.inject(HUB, spoke_path(), &bytes).unwrap_err();
    world.settle();
    let error = world.sent(MessageType::ErrorIndication)[0].packet();
    assert_eq!(error.hop_count, 255);
    assert_eq!((error.source, error.destination), (ip(HUB_ADDRESS), ip("10.0.0.1")));
    let Body::Error { offender, .. } = &error.body else { panic!() };
    assert_eq!(offender[..], bytes[..offender.len()]);
    assert!(error.extensions.is_empty());
}

#[test]
fn old_routers_want_sixteen_zero_octets_behind_an_error() {
    let mut world = World::new();
    let quirks = Quirks { pad_error_indications: true, ..Quirks::default() };
    world.add(Config { quirks, ..hub_config(HUB_ADDRESS, "198.51.100.1") }, hub_path());
    world.add_spoke(1);
    world.settle();
    let mut request = registration(&world);
    request.destination = ip("10.0.0.99");
    world.inject(HUB, spoke_path(), &request.encode(0).unwrap()).unwrap_err();
    world.settle();
    let error = &world.sent(MessageType::ErrorIndication)[0].bytes;
    assert!(error.ends_with(&[0; 16]));
    let size = u16::from_be_bytes([error[10], error[11]]);
    assert_eq!(usize::from(size), error.len(), "they are counted");
}

#[test]
fn errors_to_one_peer_are_few() {
    let mut world = World::usual(1);
    let mut request = registration(&world);
    request.destination = ip("10.0.0.99");
    for _ in 0..100 {
        world.inject(HUB, spoke_path(), &request.encode(0).unwrap()).unwrap_err();
    }
    world.settle();
    assert_eq!(world.sent(MessageType::ErrorIndication).len(), 8);
}

#[test]
fn a_malformed_extension_is_reported_as_error_9() {
    let mut world = World::usual(1);
    let mut bytes = registration(&world).encode(0).unwrap();
    let at = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    bytes[at + 2] = 0xff; // its length
    refresh_checksum(&mut bytes);
    assert_eq!(world.inject(HUB, spoke_path(), &bytes), Err(Error::Extension));
    world.settle();
    let error = world.sent(MessageType::ErrorIndication)[0].packet();
    assert!(matches!(error.body, Body::Error { code: ErrorCode::INVALID_EXTENSION, .. }));
}

#[test]
fn a_malformed_entry_is_reported_as_error_7() {
    let mut world = World::usual(1);
    let mut bytes = registration(&world).encode(0).unwrap();
    bytes[40 + 8] = 5; // length of the entry's NBMA address
    refresh_checksum(&mut bytes);
    assert_eq!(world.inject(HUB, spoke_path(), &bytes), Err(Error::ClientInformation));
    world.settle();
    let error = world.sent(MessageType::ErrorIndication)[0].packet();
    assert!(matches!(error.body, Body::Error { code: ErrorCode::PROTOCOL_ERROR, .. }));
}

#[test]
fn a_wrong_checksum_is_dropped_in_silence() {
    let mut world = World::usual(1);
    let mut bytes = registration(&world).encode(0).unwrap();
    bytes[30] ^= 1;
    assert_eq!(world.inject(HUB, spoke_path(), &bytes), Err(Error::Checksum));
    world.settle();
    assert!(world.sent(MessageType::ErrorIndication).is_empty());
    assert_eq!(world.node(HUB).counters().dropped[&Error::Checksum], 1);
}

#[test]
fn each_kind_of_bad_bytes_has_a_reason_of_its_own() {
    let mut world = World::usual(1);
    let good = registration(&world).encode(0).unwrap();
    let mut expect = |at: usize, value: u8, reason| {
        let mut bytes = good.clone();
        bytes[at] = value;
        refresh_checksum(&mut bytes);
        assert_eq!(world.inject(HUB, spoke_path(), &bytes), Err(reason), "octet {at}");
    };
    expect(1, 9, Error::AddressFamily);
    expect(3, 9, Error::ProtocolType);
    expect(11, 19, Error::PacketSize);
    expect(10, 9, Error::Truncated);
    expect(15, 19, Error::ExtensionOffset);
    expect(16, 2, Error::Version);
    expect(17, 9, Error::MessageType);
    expect(18, 0x44, Error::AddressType);
    expect(18, 0x05, Error::AddressLength);
    expect(20, 0x00, Error::MissingAddress);
    expect(20, 0xff, Error::AddressLength);
    assert_eq!(world.inject(HUB, spoke_path(), &[]), Err(Error::Truncated));
}

#[test]
fn our_own_message_coming_back_is_dropped() {
    let mut world = World::usual(2);
    world.resolve(1, "192.168.2.9");
    world.settle();
    let request = world.sent(MessageType::ResolutionRequest)[0].bytes.clone();
    assert_eq!(world.inject(1, hub_path(), &request), Err(Error::OwnMessage));
}

#[test]
fn a_flood_from_one_peer_is_cut_off_and_others_are_served() {
    let mut world = World::usual(2);
    let request = registration(&world).encode(0).unwrap();
    let flood = (0..200).filter(|_| world.inject(HUB, spoke_path(), &request).is_ok()).count();
    assert_eq!(flood, 128, "the burst");
    let other = world.sent(MessageType::RegistrationRequest)[1].bytes.clone();
    assert_eq!(world.inject(HUB, Path::udp(ip("198.51.100.12"), PORT), &other), Ok(()));
    world.now += seconds(3);
    assert_eq!(world.inject(HUB, spoke_path(), &request), Ok(()));
}

#[test]
fn an_error_about_something_else_is_told() {
    let mut world = World::usual(1);
    world.events(1);
    let packet = Packet {
        body: Body::Error { code: ErrorCode::SIZE_EXCEEDED, offset: 0, offender: vec![1, 2, 3] },
        source: ip(HUB_ADDRESS),
        destination: ip("10.0.0.1"),
        hop_count: 0, // as FRR sends it
        extensions: vec![],
        ..registration(&world)
    };
    world.inject(1, hub_path(), &packet.encode(0).unwrap()).unwrap();
    assert_eq!(world.events(1), [Event::PeerError { code: 8, from: ip(HUB_ADDRESS) }]);
}

#[test]
fn the_code_frr_uses_for_a_loop_is_understood() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.events(1);
    let request = &world.sent(MessageType::ResolutionRequest)[0];
    // FRR quotes only the header and the addresses.
    let packet = Packet {
        body: Body::Error { code: ErrorCode(2), offset: 0, offender: request.bytes[..40].to_vec() },
        source: ip(HUB_ADDRESS),
        destination: ip("10.0.0.1"),
        extensions: vec![],
        ..request.packet()
    };
    world.inject(1, hub_path(), &packet.encode(0).unwrap()).unwrap();
    let events = world.events(1);
    assert!(
        matches!(events[..], [Event::ResolutionFailed { reason: ResolutionFailure::Error(3), .. }]),
        "{events:?}"
    );
}

#[test]
fn a_strangers_error_does_not_end_a_resolution() {
    let mut world = World::usual(2);
    world.lose.push(MessageType::ResolutionRequest);
    world.resolve(1, "192.168.2.9");
    world.settle();
    world.events(1);
    let request = &world.sent(MessageType::ResolutionRequest)[0];
    let packet = Packet {
        body: Body::Error { code: ErrorCode(6), offset: 0, offender: request.bytes.clone() },
        source: ip(HUB_ADDRESS),
        destination: ip("10.0.0.1"),
        extensions: vec![],
        ..request.packet()
    };
    let stranger = Path::udp(ip("203.0.113.66"), PORT);
    world.inject(1, stranger, &packet.encode(0).unwrap()).unwrap();
    assert_eq!(world.events(1), []);
    assert_eq!(world.node(1).resolutions().count(), 1);
}

#[test]
fn messages_are_counted_by_type_and_direction() {
    let mut world = World::usual(1);
    let counters = world.node(HUB).counters();
    assert_eq!(counters.received[&MessageType::RegistrationRequest], 1);
    assert_eq!(counters.sent[&MessageType::RegistrationReply], 1);
    let now = world.now;
    world.node(HUB).clear(now, dmvpn_nhrp::Clear::Counters);
    assert!(world.node(HUB).counters().received.is_empty());
}

#[test]
fn trailing_bytes_do_not_matter() {
    let mut world = World::usual(1);
    let mut bytes = registration(&world).encode(0).unwrap();
    bytes.extend([1, 2, 3]);
    assert_eq!(world.inject(HUB, spoke_path(), &bytes), Ok(()));
}

#[test]
fn a_list_of_extensions_without_its_end_is_accepted() {
    let world = World::usual(1);
    let packet = registration(&world);
    let mut bytes = packet.encode(0).unwrap();
    bytes.truncate(bytes.len() - 4);
    let size = bytes.len() as u16;
    bytes[10..12].copy_from_slice(&size.to_be_bytes());
    refresh_checksum(&mut bytes);
    assert_eq!(Packet::decode(&bytes).unwrap(), packet);
}

#[test]
fn device_capabilities_under_the_number_of_the_nat_extension_are_left_alone() {
    let mut world = World::usual(1);
    let mut request = registration(&world);
    request.extension_mut(ExtensionType::NAT).unwrap().value = vec![0, 0, 0, 1, 0, 0, 0, 0]; // RFC 2735
    world.inject(HUB, spoke_path(), &request.encode(0).unwrap()).unwrap();
    world.settle();
    let reply = world.sent(MessageType::RegistrationReply)[1].packet();
    assert_eq!(reply.extension(ExtensionType::NAT).unwrap().value, [0, 0, 0, 1, 0, 0, 0, 0]);
}
