//! Cisco's plain-text authentication: hop by hop, in every message.

use crate::world::*;
use dmvpn_nhrp::extension::{Extension, ExtensionType};
use dmvpn_nhrp::packet::{Body, ErrorCode, MessageType};
use dmvpn_nhrp::{Config, Error, Event};
use packet::Path;

fn with(password: Option<&str>, config: Config) -> Config {
    Config { authentication: password.map(|p| p.as_bytes().to_vec()), ..config }
}

/// A hub with "secret1", a spoke with `password`.
fn world(password: Option<&str>) -> World {
    let mut world = World::new();
    world.add(with(Some("secret1"), hub_config(HUB_ADDRESS, "198.51.100.1")), hub_path());
    for n in [1, 2] {
        let nbma = format!("198.51.100.{}", 10 + n);
        let config = with(password, config(&format!("10.0.0.{n}"), &nbma));
        world.add_spoke_with(n, config, Path::udp(ip(&nbma), PORT));
    }
    world.settle();
    world
}

#[test]
fn every_message_carries_exactly_one() {
    let mut world = world(Some("secret1"));
    world.resolve(1, "192.168.2.9");
    world.settle();
    let now = world.now;
    world.node(HUB).indicate(now, Path::udp(ip("198.51.100.11"), PORT), &crate::indication::trigger());
    world.node(2).withdraw(now, net("192.168.2.0/24"));
    world.node(2).deregister(now);
    world.settle();
    for sent in &world.wire {
        let packet = sent.packet();
        let proofs: Vec<_> =
            packet.extensions.iter().filter(|e| e.kind == ExtensionType::AUTHENTICATION).collect();
        assert_eq!(proofs.len(), 1, "{packet:?}");
        assert!(proofs[0].compulsory);
        assert_eq!(proofs[0].value, b"\0\0\0\x01secret1");
    }
    assert!(world.stations.iter().all(|s| s.drops.is_empty()));
}

#[test]
fn a_wrong_password_is_refused_with_error_11_and_said() {
    let mut world = world(Some("secret2"));
    assert_eq!(world.stations[HUB].drops[0], Error::AuthenticationFailed);
    let error = world.sent(MessageType::ErrorIndication)[0].packet();
    assert!(matches!(error.body, Body::Error { code: ErrorCode::AUTHENTICATION, .. }));
    // The error has the wrong password for the spoke, so that it is no more than a hint there.
    assert_eq!(world.stations[1].drops, [Error::AuthenticationFailed]);
    let events = world.events(1);
    let [Event::NhsSuspected { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(reason, "authentication failed at the hub: it has another NHRP key, it seems");
    world.advance(seconds(300));
    assert_eq!(world.events(1), [], "once, and nothing follows");
}

#[test]
fn a_missing_password_is_refused_and_the_spoke_is_told_why() {
    let mut world = world(None);
    assert_eq!(world.stations[HUB].drops[0], Error::AuthenticationMissing);
    let events = world.events(1);
    let [Event::NhsDown { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(reason, "the server says: authentication failure");
    world.advance(seconds(10));
    assert_eq!(world.events(1), [], "once");
}

#[test]
fn a_failed_authentication_is_never_answered_when_it_was_an_error() {
    let mut world = world(Some("secret2"));
    let errors = world.sent(MessageType::ErrorIndication).len();
    world.settle();
    assert_eq!(world.sent(MessageType::ErrorIndication).len(), errors);
    assert!(errors <= 2, "one for each spoke");
}

#[test]
fn two_proofs_are_none() {
    let mut world = world(Some("secret1"));
    let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
    request.extensions.push(Extension::authentication(b"secret1"));
    let path = world.stations[1].visible;
    assert_eq!(world.inject(HUB, path, &request.encode(0).unwrap()), Err(Error::AuthenticationFailed));
}

#[test]
fn a_proof_of_another_kind_or_a_short_one_is_none() {
    let mut world = world(Some("secret1"));
    for value in [&b"\0\0\0\x02secret1"[..], b"\0\0\0", b"", b"\0\0\0\x01secret", b"\0\0\0\x01secret11"] {
        let mut request = world.sent(MessageType::RegistrationRequest)[0].packet();
        request.extension_mut(ExtensionType::AUTHENTICATION).unwrap().value = value.to_vec();
        let path = world.stations[1].visible;
        let result = world.inject(HUB, path, &request.encode(0).unwrap());
        assert_eq!(result, Err(Error::AuthenticationFailed), "{value:?}");
    }
}

#[test]
fn who_wants_no_password_takes_any() {
    let mut world = World::new();
    world.add_hub();
    let config = with(Some("secret1"), config("10.0.0.1", "198.51.100.11"));
    world.add_spoke_with(1, config, Path::udp(ip("198.51.100.11"), PORT));
    world.settle();
    assert!(world.stations[HUB].drops.is_empty());
    assert!(matches!(world.events(HUB)[0], Event::Registered { .. }));
    // But the hub's reply proves nothing to the spoke.
    assert_eq!(world.stations[1].drops, [Error::AuthenticationMissing]);
    let events = world.events(1);
    let [Event::NhsSuspected { reason, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(reason, "it answers without our NHRP authentication key, it seems");
}

#[test]
fn an_unauthenticated_error_about_nothing_we_asked_is_not_even_a_hint() {
    let mut world = world(Some("secret2"));
    let error = world.sent(MessageType::ErrorIndication)[0].bytes.clone();
    world.events(1);
    let elsewhere = Path::udp(ip("203.0.113.66"), PORT);
    assert_eq!(world.inject(1, elsewhere, &error), Err(Error::AuthenticationFailed));
    assert_eq!(world.events(1), []);
}
