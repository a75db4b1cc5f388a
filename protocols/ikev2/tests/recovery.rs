//! What is lost is found again: peers that begin anew, control that begins anew, networks that come back.

mod pair;

use dmvpn_ikev2::{Endpoint, Event, Failure};
use packet::Path;
use pair::{A, B, Net, Pair, SharedKey, Side, config};
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;

fn up(seed: u64) -> Pair {
    let mut pair = Pair::new(seed);
    pair.connect(A);
    pair.run_secs(2);
    pair.assert_settled(1);
    pair
}

fn crash(pair: &mut Pair, side: Side) {
    pair.crash(side, config(side));
    pair.end(side).wanted = false;
}

#[test]
fn a_peer_that_stops_answering_is_down_after_its_silence_and_the_retransmissions() {
    let mut pair = up(1);
    pair.end(A).wanted = false;
    pair.cut = true;
    pair.run_secs(25);
    assert!(pair.a.endpoint.is_up(pair.path(A)));
    pair.run_secs(45);
    assert!(!pair.a.endpoint.is_up(pair.path(A)));
    assert_eq!(pair.a.downs(), [&Failure::Dead]);
    assert_eq!(pair.a.endpoint.sessions().count(), 0);
    assert!(pair.a.inbound.is_empty() && pair.a.outbound.is_empty());
}

#[test]
fn a_short_outage_is_survived() {
    let mut pair = up(2);
    pair.run_secs(20);
    pair.cut = true;
    pair.run_secs(20);
    pair.cut = false;
    pair.run_secs(60);
    pair.assert_settled(1);
    assert_eq!(pair.a.ups(), 1);
}

/// `ESP --> ` / `<-- N(INVALID_SPI)` in the clear / `IKE_SA_INIT -->`
#[test]
fn a_hub_that_was_killed_is_found_again_by_the_first_packet_that_it_cannot_read() {
    let mut pair = up(3);
    let path = pair.path(B);
    crash(&mut pair, B);
    let spi = pair.a.outbound.values().next().unwrap().0;
    pair.call(B, |endpoint, now| endpoint.unknown_spi(now, path, spi));
    pair.run(Duration::from_millis(500));
    assert!(pair.b.endpoint.is_up(path), "it takes a second");
    pair.esp_lost = 0;
    pair.run_secs(20);
    pair.assert_settled(1);
}

#[test]
fn a_forged_invalid_spi_costs_a_handshake_and_no_packet() {
    let mut pair = up(4);
    let path = pair.path(B);
    let spi = pair.a.outbound.values().next().unwrap().0;
    let mut forger = Endpoint::new(config(B), Arc::new(SharedKey::new(B)), [9; 32], pair.now).unwrap();
    forger.unknown_spi(pair.now, path, spi);
    for _ in 0..10 {
        forger.unknown_spi(pair.now, path, spi);
    }
    let from = dmvpn_ikev2::Address {
        remote: std::net::SocketAddr::new(B.ip(), 4500),
        local: dmvpn_ikev2::LocalPort::NatTraversal,
    };
    while let Some(transmit) = forger.poll_transmit() {
        let dmvpn_ikev2::TransmitKind::Message(message) = transmit.kind else { continue };
        pair.call(A, |endpoint, now| endpoint.handle_packet(now, from, &message));
    }
    pair.run_secs(30);
    pair.assert_settled(1);
    assert!(pair.a.downs().is_empty() && pair.b.downs().is_empty());
    assert_eq!(pair.a.endpoint.counters().established, 2, "one handshake more, and not eleven");
}

/// The first session of a process says INITIAL_CONTACT: what the peer had before goes at once.
#[test]
fn a_spoke_that_restarted_replaces_what_the_hub_has_of_it() {
    let mut pair = up(5);
    crash(&mut pair, A);
    pair.connect(A);
    pair.run(Duration::from_millis(500));
    // What the hub sent to the one that crashed is nobody's.
    pair.esp_lost = 0;
    pair.run_secs(20);
    pair.assert_settled(1);
}

#[test]
fn leaving_in_good_order_takes_both_down() {
    let mut pair = up(6);
    let path = pair.path(A);
    pair.end(A).wanted = false;
    pair.call(A, |endpoint, now| endpoint.disconnect(now, path));
    assert!(!pair.a.endpoint.is_up(path));
    pair.run_secs(10);
    assert_eq!((pair.a.downs(), pair.b.downs()), (vec![&Failure::Closed], vec![&Failure::Deleted]));
    for end in [&pair.a, &pair.b] {
        assert_eq!(end.endpoint.sessions().count(), 0);
        assert!(end.inbound.is_empty() && end.outbound.is_empty());
    }
    assert_eq!(pair.esp_lost, 0);
}

#[test]
fn leaving_while_the_peer_is_away_ends_soon() {
    let mut pair = up(7);
    let path = pair.path(A);
    pair.end(A).wanted = false;
    pair.cut = true;
    pair.call(A, |endpoint, now| endpoint.disconnect(now, path));
    pair.run_secs(10);
    assert_eq!(pair.a.endpoint.sessions().count(), 0);
    assert!(pair.a.inbound.is_empty());
}

#[test]
fn control_that_is_killed_again_and_again_loses_nothing() {
    for seed in 0..20 {
        let mut pair = up(100 + seed);
        pair.net = Net { lost: 5, ..Net::BAD };
        for round in 0..20 {
            let side = if round % 2 == 0 { A } else { B };
            let path = pair.path(side);
            match round % 3 {
                0 => pair.call(side, |endpoint, now| endpoint.rekey_ike(now, path)),
                _ => {
                    let spi = pair.end(side).outbound.values().next().unwrap().0;
                    pair.call(side, |endpoint, now| endpoint.rekey_child(now, spi));
                }
            }
            let wait = pair.rng.random_range(0..1500);
            pair.run(Duration::from_millis(wait));
            pair.restart_control(side.other(), config(side.other()));
            let wait = pair.rng.random_range(0..1500);
            pair.run(Duration::from_millis(wait));
        }
        pair.net = Net::GOOD;
        pair.run_secs(150);
        pair.assert_settled(1);
        assert!(pair.a.downs().is_empty() && pair.b.downs().is_empty(), "seed {seed}");
    }
}

/// An exchange that the dead process had, and had not written down, does not cost the session.
#[test]
fn a_checkpoint_that_is_one_exchange_old_is_good_enough() {
    for side in [A, B] {
        let mut pair = up(8);
        let checkpoint = serde_json::to_vec(&pair.end(side).endpoint.checkpoint()).unwrap();
        pair.run_secs(20);
        let before = pair.messages;
        pair.run_secs(15);
        assert!(pair.messages > before, "a liveness check");
        pair.restore(side, config(side), &checkpoint);
        pair.run_secs(120);
        pair.assert_settled(1);
        assert_eq!((pair.a.ups(), pair.b.ups()), (1, 1));
    }
}

/// A NAT gives the spoke another port; the first authentic packet from there is followed, and no SA is used twice.
#[test]
fn a_peer_whose_nat_gave_it_another_port_is_followed() {
    let mut pair = Pair::new(9);
    pair.nat = Some(40_001);
    pair.connect(A);
    pair.run_secs(2);
    pair.assert_settled(1);
    let old = pair.path(B);
    let spi = *pair.b.inbound.keys().next().unwrap();
    pair.nat = Some(40_002);
    let new = pair.path(B);
    pair.call(B, |endpoint, now| endpoint.moved(now, spi, new));
    pair.run_secs(30);
    pair.assert_settled(1);
    assert_ne!(old, new);
    assert!(!pair.b.endpoint.is_up(old));
    assert_eq!(pair.b.outbound.keys().map(|(path, _)| *path).collect::<Vec<Path>>(), [new]);
    assert_eq!(pair.b.endpoint.sessions().map(|s| s.path).collect::<Vec<_>>(), [new]);
}

#[test]
fn a_peer_that_is_behind_no_nat_is_not_followed() {
    let plain = |side| {
        let mut config = config(side);
        config.force_encapsulation = false;
        config
    };
    let mut pair = Pair::with(10, plain(A), plain(B));
    pair.connect(A);
    pair.run_secs(2);
    let spi = *pair.b.inbound.keys().next().unwrap();
    let elsewhere = Path::udp(A.ip(), 9);
    pair.call(B, |endpoint, now| endpoint.moved(now, spi, elsewhere));
    pair.run_secs(10);
    pair.assert_settled(1);
    assert!(!pair.b.events.iter().any(|e| matches!(e, Event::Up { path, .. } if *path == elsewhere)));
}

#[test]
fn who_is_no_longer_believed_is_gone_at_once() {
    let mut pair = up(11);
    pair.end(A).wanted = false;
    let revoked = SharedKey { revoked: vec![A.name().to_owned()], ..SharedKey::new(B) };
    pair.call(B, |endpoint, now| endpoint.set_credentials(now, Arc::new(revoked)));
    assert!(pair.b.inbound.is_empty() && pair.b.outbound.is_empty(), "nothing is received or sent any more");
    assert_eq!(pair.b.downs(), [&Failure::Credentials("revoked".to_owned())]);
    pair.run_secs(10);
    assert_eq!(pair.a.downs(), [&Failure::Deleted]);
}

#[test]
fn a_new_name_of_ours_replaces_sessions_without_losing_a_packet() {
    let mut pair = up(12);
    let other = SharedKey { name: "b2.example.com".to_owned(), ..SharedKey::new(B) };
    pair.call(B, |endpoint, now| endpoint.set_credentials(now, Arc::new(other)));
    pair.run_secs(20);
    pair.assert_settled(1);
    assert_eq!(pair.a.endpoint.identity(pair.path(A)).unwrap().name, "b2.example.com");
}
