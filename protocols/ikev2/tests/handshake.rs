//! Sessions come to be, or it is said why not.

mod pair;

use claims::{Certified, Identity, Proof};
use dmvpn_ikev2::config::{Config, Limits};
use dmvpn_ikev2::{
    AuthMethod, Authentication, CertificateError, Credentials, Event, Failure, HashAlgorithm, Identification,
};
use packet::Path;
use pair::{A, B, Net, Pair, SharedKey, Side, config, shared_key_identity};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

#[test]
fn two_of_ours_are_up_after_two_round_trips() {
    let mut pair = Pair::new(1);
    pair.connect(A);
    pair.run(Duration::from_millis(45));
    assert!(pair.a.endpoint.is_up(pair.path(A)));
    pair.run_secs(1);
    pair.assert_settled(1);
    assert_eq!(pair.a.endpoint.identity(pair.path(A)), Some(&shared_key_identity(B)));
    assert_eq!(pair.b.endpoint.identity(pair.path(B)), Some(&shared_key_identity(A)));
    assert_eq!((pair.a.ups(), pair.b.ups()), (1, 1));
}

#[test]
fn both_are_up_over_a_bad_network() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed);
        pair.net = Net::BAD;
        pair.connect(A);
        pair.run_secs(60);
        pair.assert_settled(1);
    }
}

#[test]
fn both_begin_at_the_same_moment_and_one_session_stays() {
    for seed in 0..200 {
        let mut pair = Pair::new(seed);
        pair.net = if seed.is_multiple_of(2) { Net::GOOD } else { Net::BAD };
        pair.connect(A);
        pair.connect(B);
        pair.run_secs(25);
        pair.net = Net::GOOD;
        pair.run_secs(60);
        pair.assert_settled(1);
        assert!(pair.a.downs().is_empty() && pair.b.downs().is_empty());
    }
}

#[test]
fn each_worker_has_a_child_sa_whose_spi_bears_its_number() {
    let with = |side, workers, lanes| Config { workers, lanes, ..config(side) };
    let mut pair = Pair::with(2, with(A, 4, 4), with(B, 3, 8));
    pair.connect(A);
    pair.run_secs(2);
    pair.assert_settled(3);
    for end in [&pair.a, &pair.b] {
        for child in end.endpoint.sessions().flat_map(|s| s.children) {
            assert_eq!(child.inbound & 3, u32::from(child.lane));
        }
    }
}

/// `SAi1 KEi(x25519) --> <-- N(INVALID_KE_PAYLOAD, ecp256) / SAi1 KEi(ecp256) -->`
#[test]
fn the_wrong_first_group_costs_a_round_trip() {
    let named = |side, name: &str| Config { ike: vec![name.to_owned()], ..config(side) };
    let a = named(A, "aes128gcm16-prfsha256-x25519-ecp256");
    let mut pair = Pair::with(3, a, named(B, "aes128gcm16-prfsha256-ecp256"));
    pair.connect(A);
    pair.run_secs(2);
    pair.assert_settled(1);
    assert!(pair.a.endpoint.sessions().all(|s| s.ike.as_deref().is_some_and(|name| name.contains("ecp256"))));
}

#[test]
fn each_suite_and_group_comes_up_and_is_replaced() {
    let ike = [
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16-prfsha384-ecp384",
        "chacha20poly1305-prfsha256-ecp256",
        "aes128-sha256-modp2048",
    ];
    for (index, name) in ike.into_iter().enumerate() {
        let esp = ["aes128gcm16", "aes256gcm16", "chacha20poly1305-noesn", "aes128-sha256"][index];
        let with = |side| Config { ike: vec![name.to_owned()], esp: vec![esp.to_owned()], ..config(side) };
        let mut pair = Pair::with(4, with(A), with(B));
        pair.connect(A);
        pair.run_secs(2);
        let (path, spi) = (pair.path(A), pair.a.outbound.values().next().unwrap().0);
        pair.call(A, |endpoint, now| endpoint.rekey_child(now, spi));
        pair.run_secs(2);
        pair.call(A, |endpoint, now| endpoint.rekey_ike(now, path));
        pair.run_secs(60);
        pair.assert_settled(1);
        assert_eq!((pair.a.rekeyed(true), pair.a.rekeyed(false)), (1, 1), "{name}");
    }
}

#[test]
fn nothing_in_common_is_said_with_both_offers() {
    let named = |side, name: &str| Config { ike: vec![name.to_owned()], ..config(side) };
    let mut pair =
        Pair::with(5, named(A, "aes128gcm16-prfsha256-x25519"), named(B, "aes256gcm16-prfsha384-x25519"));
    pair.connect(A);
    pair.end(A).wanted = false;
    pair.run_secs(5);
    let theirs = "aes128gcm16-prfsha256-x25519".to_owned();
    let ours = "aes256gcm16-prfsha384-x25519".to_owned();
    assert_eq!(
        pair.b.failures()[0],
        &Failure::NoProposal { what: "IKE".to_owned(), ours, theirs: theirs.clone() }
    );
    let unknown = Failure::NoProposal { what: "IKE".to_owned(), ours: theirs, theirs: "unknown".to_owned() };
    assert_eq!(pair.a.failures(), [&unknown]);
    assert_eq!(pair.a.endpoint.sessions().count(), 0);
}

#[test]
fn no_common_esp_proposal_leaves_no_session_behind() {
    let named = |side, name: &str| Config { esp: vec![name.to_owned()], ..config(side) };
    let mut pair = Pair::with(5, named(A, "aes128gcm16"), named(B, "chacha20poly1305"));
    pair.connect(A);
    pair.end(A).wanted = false;
    pair.run_secs(40);
    assert!(matches!(pair.a.failures()[..], [Failure::NoProposal { .. }]), "{:?}", pair.a.failures());
    assert!(matches!(pair.b.failures()[..], [Failure::NoProposal { .. }]), "{:?}", pair.b.failures());
    assert_eq!(pair.a.endpoint.sessions().count() + pair.b.endpoint.sessions().count(), 0);
}

#[test]
fn a_wrong_key_is_refused_and_both_are_told_in_their_words() {
    let wrong = SharedKey { key: b"another".to_vec(), ..SharedKey::new(A) };
    let mut pair = Pair::full(6, (config(A), Arc::new(wrong)), (config(B), Arc::new(SharedKey::new(B))));
    pair.connect(A);
    pair.end(A).wanted = false;
    pair.run_secs(40);
    assert_eq!(pair.a.failures(), [&Failure::Refused]);
    let why = "the pre-shared key of `a.example.com` is not ours".to_owned();
    assert_eq!(pair.b.failures(), [&Failure::Authentication(why)]);
    assert_eq!(pair.a.endpoint.sessions().count() + pair.b.endpoint.sessions().count(), 0);
    assert_eq!(pair.a.ups() + pair.b.ups(), 0);
}

#[test]
fn a_peer_that_is_somebody_else_is_left_again() {
    let mut pair = Pair::new(7);
    let path = pair.path(A);
    pair.call(A, |endpoint, now| endpoint.connect(now, path, Some("*.hub.example.com".to_owned())));
    pair.run_secs(60);
    let wrong = Failure::Identity { expected: "*.hub.example.com".to_owned(), found: B.name().to_owned() };
    assert_eq!(pair.a.failures(), [&wrong]);
    assert_eq!(pair.a.ups(), 0);
    assert_eq!(pair.a.endpoint.sessions().count() + pair.b.endpoint.sessions().count(), 0);
}

#[test]
fn nobody_is_there_is_said_soon() {
    let mut pair = Pair::new(8);
    pair.cut = true;
    pair.connect(A);
    pair.end(A).wanted = false;
    pair.run(Duration::from_millis(7_600));
    assert_eq!(pair.a.failures(), [&Failure::Timeout]);
    assert_eq!(pair.a.endpoint.sessions().count(), 0);
    assert_eq!(pair.a.endpoint.poll_timeout(), None);
}

#[test]
fn esp_is_bare_where_the_path_says_so() {
    let plain = |side| Config { force_encapsulation: false, ..config(side) };
    let mut pair = Pair::with(9, plain(A), plain(B));
    let path = Path::gre(B.ip());
    pair.call(A, |endpoint, now| endpoint.connect(now, path, None));
    pair.run_secs(2);
    assert!(pair.a.endpoint.is_up(path));
    assert!(pair.b.endpoint.is_up(Path::gre(A.ip())));
    assert_eq!(pair.esp_lost, 0);
}

#[test]
fn a_nat_in_front_of_a_bare_path_is_named() {
    let mut pair = Pair::with(10, Config { force_encapsulation: false, ..config(A) }, config(B));
    let path = Path::gre(B.ip());
    pair.call(A, |endpoint, now| endpoint.connect(now, path, None));
    pair.run_secs(3);
    assert!(matches!(pair.a.failures()[..], [Failure::Protocol(_)]), "{:?}", pair.a.failures());
}

#[test]
fn behind_a_nat_the_hub_sees_the_outer_port_and_the_spoke_keeps_the_mapping() {
    let mut pair = Pair::new(11);
    pair.nat = Some(40_001);
    pair.connect(A);
    pair.run_secs(65);
    pair.assert_settled(1);
    assert_eq!(pair.b.endpoint.sessions().next().unwrap().nat, (true, false));
    assert!(pair.a.endpoint.sessions().next().unwrap().nat.1);
}

#[test]
fn strangers_pay_with_a_cookie_when_many_have_begun() {
    let limits = Limits { cookie_from: 0, ..Limits::default() };
    let mut pair = Pair::with(12, config(A), Config { limits, ..config(B) });
    pair.connect(A);
    pair.run_secs(2);
    pair.assert_settled(1);
    assert_eq!(pair.b.endpoint.counters().cookies, 1);
}

#[test]
fn strangers_that_only_begin_are_bounded_and_forgotten() {
    let limits = Limits { cookie_from: 20, half_open: 20, sessions: 100 };
    let mut pair = Pair::with(13, config(A), Config { limits, ..config(B) });
    let now = pair.now;
    for port in 0..100 {
        let path = Path::udp(B.ip(), 4500);
        let mut stranger =
            dmvpn_ikev2::Endpoint::new(config(A), Arc::new(SharedKey::new(A)), [port; 32], now).unwrap();
        stranger.connect(now, path, None);
        let Some(transmit) = stranger.poll_transmit() else { panic!("it begins") };
        let dmvpn_ikev2::TransmitKind::Message(message) = transmit.kind else { panic!("by a message") };
        let from = dmvpn_ikev2::Address {
            remote: std::net::SocketAddr::new(A.ip(), 1000 + u16::from(port)),
            local: dmvpn_ikev2::LocalPort::NatTraversal,
        };
        pair.call(B, |endpoint, now| endpoint.handle_packet(now, from, &message));
    }
    assert_eq!(pair.b.endpoint.sessions().count(), 20);
    assert_eq!(pair.b.endpoint.counters().dropped["full"], 80);
    pair.run_secs(31);
    assert_eq!(pair.b.endpoint.sessions().count(), 0);
    assert!(pair.b.failures().is_empty(), "strangers don't fill logs");
    pair.connect(A);
    pair.run_secs(2);
    pair.assert_settled(1);
}

#[test]
fn nobody_is_called_by_a_pattern() {
    for (name, initiator) in [("*", true), ("*.branch.example.com", true), ("*", false)] {
        let (a, b) = (SharedKey::new(A), SharedKey::new(B));
        let called = |key, this: bool| if this { SharedKey { name: name.to_owned(), ..key } } else { key };
        let mut pair = Pair::full(
            21,
            (config(A), Arc::new(called(a, initiator))),
            (config(B), Arc::new(called(b, !initiator))),
        );
        pair.connect(A);
        pair.end(A).wanted = false;
        pair.run_secs(1);
        let failures = pair.a.failures();
        let refused = match &failures[..] {
            [Failure::Refused] => initiator,
            [Failure::Authentication(why)] => !initiator && why.contains("no name of one peer"),
            _ => false,
        };
        assert!(refused, "{name}: {failures:?}");
        assert!(!pair.a.endpoint.is_up(Path::udp(B.ip(), 4500)));
    }
}

/// Certificates: what is signed is a tag over the octets, what is judged is that tag; three long certificates.
struct Certificates(Side);

impl Credentials for Certificates {
    fn local_id(&self) -> Identification {
        Identification::Fqdn(self.0.name().to_owned())
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        vec![vec![1; 1500], vec![2; 1500], vec![3; 1500]]
    }

    fn authorities(&self) -> Vec<[u8; 20]> {
        vec![[7; 20]; 3]
    }

    fn sign(&self, hashes: &[HashAlgorithm], octets: &[u8]) -> Result<Authentication, CertificateError> {
        assert!(hashes.contains(&HashAlgorithm::Sha256), "it says what it verifies");
        Ok(Authentication { method: AuthMethod::Signature, data: octets.to_vec() })
    }

    fn shared_key(&self, _: &Identification) -> Option<Zeroizing<Vec<u8>>> {
        None
    }

    fn verify(
        &self,
        unix_now: u64,
        claimed: &Identification,
        chain: &[Vec<u8>],
        octets: &[u8],
        authentication: &Authentication,
    ) -> Result<Identity, CertificateError> {
        if octets != authentication.data || chain.len() != 3 {
            return Err(CertificateError("forged".to_owned()));
        }
        let certified = Certified { not_after: unix_now + 100, ..Certified::default() };
        Ok(Identity { name: claimed.to_string(), proof: Proof::Certificate(certified) })
    }

    fn still_holds(&self, unix_now: u64, identity: &Identity) -> Result<(), CertificateError> {
        match identity.certified() {
            Some(certified) if certified.not_after < unix_now => Err(CertificateError("expired".to_owned())),
            _ => Ok(()),
        }
    }
}

#[test]
fn long_chains_come_through_in_fragments_over_a_bad_network() {
    for seed in 0..50 {
        let mut pair =
            Pair::full(seed, (config(A), Arc::new(Certificates(A))), (config(B), Arc::new(Certificates(B))));
        pair.net = Net::BAD;
        pair.connect(A);
        pair.run_secs(90);
        pair.net = Net::GOOD;
        pair.run_secs(90);
        pair.assert_settled(1);
        assert!(pair.longest <= 1280 - 20 - 8 - 4, "{}", pair.longest);
    }
}

#[test]
fn a_certificate_that_runs_out_ends_its_session() {
    let mut pair =
        Pair::full(14, (config(A), Arc::new(Certificates(A))), (config(B), Arc::new(Certificates(B))));
    pair.call(A, |endpoint, now| endpoint.set_wall_clock(now, 1_000));
    pair.call(B, |endpoint, now| endpoint.set_wall_clock(now, 1_000));
    pair.connect(A);
    pair.end(A).wanted = false;
    pair.run_secs(2);
    pair.assert_settled(1);
    pair.call(B, |endpoint, now| endpoint.set_wall_clock(now, 1_101));
    assert_eq!(pair.b.downs(), [&Failure::Credentials("expired".to_owned())]);
    assert!(pair.b.inbound.is_empty());
}

#[test]
fn keys_are_told_only_when_that_is_wanted() {
    let keys = |pair: &Pair| pair.a.events.iter().filter(|e| matches!(e, Event::IkeKeys { .. })).count();
    let mut quiet = Pair::new(15);
    quiet.connect(A);
    quiet.run_secs(2);
    assert_eq!(keys(&quiet), 0);
    let mut loud = Pair::with(15, Config { export_keys: true, ..config(A) }, config(B));
    loud.connect(A);
    loud.run_secs(2);
    assert_eq!(keys(&loud), 1);
}
