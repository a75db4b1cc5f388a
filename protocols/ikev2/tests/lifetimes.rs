//! SAs are replaced before they are used up, again and again.

mod pair;

use dmvpn_ikev2::config::{Config, Lifetimes};
use pair::{A, B, Pair, config};
use std::time::Duration;

fn with(ike: u64, child: u64) -> Pair {
    let lifetimes = Lifetimes {
        ike: Duration::from_secs(ike),
        child: Duration::from_secs(child),
        ..Lifetimes::default()
    };
    let with = |side| Config { lifetimes, ..config(side) };
    Pair::with(1, with(A), with(B))
}

#[test]
fn a_day_of_rekeying_loses_nothing_and_leaves_nothing_behind() {
    let mut pair = with(4 * 3600, 3600);
    pair.connect(A);
    pair.run_secs(24 * 3600);
    pair.run_secs(100);
    pair.assert_settled(1);
    assert!((24..=30).contains(&pair.a.rekeyed(false)), "{}", pair.a.rekeyed(false));
    assert!((6..=9).contains(&pair.a.rekeyed(true)), "{}", pair.a.rekeyed(true));
    assert_eq!((pair.a.ups(), pair.b.ups()), (1, 1));
    assert!(pair.a.inbound.len() <= 2 && pair.b.inbound.len() <= 2);
}

/// Lifetimes that are about as long: children are replaced while IKE SAs are, over and over.
#[test]
fn rekeying_of_ike_and_of_children_meet_without_harm() {
    let mut pair = with(60, 60);
    pair.connect(A);
    pair.run_secs(3600);
    pair.call(A, |endpoint, now| endpoint.set_config(now, config(A)).unwrap());
    pair.call(B, |endpoint, now| endpoint.set_config(now, config(B)).unwrap());
    pair.run_secs(150);
    pair.assert_settled(1);
    assert!(pair.a.rekeyed(false) >= 55 && pair.a.rekeyed(true) >= 55);
}

#[test]
fn an_sa_that_nears_its_limits_is_replaced_when_asked() {
    let mut pair = with(4 * 3600, 3600);
    pair.connect(A);
    pair.run_secs(2);
    for _ in 0..20 {
        let spi = pair.a.outbound.values().next().unwrap().0;
        pair.call(A, |endpoint, now| endpoint.rekey_child(now, spi));
        pair.call(B, |endpoint, now| endpoint.rekey_child(now, spi));
        pair.run_secs(1);
        assert_ne!(pair.a.outbound.values().next().unwrap().0, spi);
    }
    pair.run_secs(60);
    pair.assert_settled(1);
    assert_eq!(pair.a.rekeyed(false), 20);
}

/// Both ends reach the limit at the same moment (RFC 7296 §2.8.1): `CREATE_CHILD_SA --> <-- CREATE_CHILD_SA`.
//= rfc7296#2.8.1
//# If redundant SAs are created though such a collision, the SA created with the lowest of the four nonces used in the two
//# exchanges SHOULD be closed by the endpoint that created it.
#[test]
fn both_replace_a_child_at_the_same_moment() {
    let mut pair = with(4 * 3600, 3600);
    pair.connect(A);
    pair.run_secs(2);
    for _ in 0..50 {
        let (a, b) = (pair.a.outbound.values().next().unwrap().0, pair.b.outbound.values().next().unwrap().0);
        pair.call(A, |endpoint, now| endpoint.rekey_child(now, a));
        pair.call(B, |endpoint, now| endpoint.rekey_child(now, b));
        pair.run_secs(1);
    }
    pair.run_secs(60);
    pair.assert_settled(1);
}

/// `CREATE_CHILD_SA { SA(IKE) } --> <-- CREATE_CHILD_SA { SA(IKE) }`
//= rfc7296#2.8.2
//# ... the new IKE SA containing the lowest nonce SHOULD be deleted by the node that created it
#[test]
fn both_replace_the_ike_sa_at_the_same_moment() {
    let mut pair = with(4 * 3600, 3600);
    pair.connect(A);
    pair.run_secs(2);
    for _ in 0..50 {
        let (a, b) = (pair.path(A), pair.path(B));
        pair.call(A, |endpoint, now| endpoint.rekey_ike(now, a));
        pair.call(B, |endpoint, now| endpoint.rekey_ike(now, b));
        pair.run_secs(1);
    }
    pair.run_secs(60);
    pair.assert_settled(1);
    assert!(pair.a.rekeyed(true) >= 50);
}

/// `CREATE_CHILD_SA { N(REKEY_SA) } --> <-- INFORMATIONAL { D(IKE) }`
#[test]
fn replacing_crossed_with_leaving_ends_in_peace() {
    for child in [true, false] {
        let mut pair = with(4 * 3600, 3600);
        pair.connect(A);
        pair.run_secs(2);
        pair.end(A).wanted = false;
        let (a, b, spi) = (pair.path(A), pair.path(B), pair.a.outbound.values().next().unwrap().0);
        if child {
            pair.call(A, |endpoint, now| endpoint.rekey_child(now, spi));
        } else {
            pair.call(A, |endpoint, now| endpoint.rekey_ike(now, a));
        }
        pair.call(B, |endpoint, now| endpoint.disconnect(now, b));
        pair.run_secs(60);
        for end in [&pair.a, &pair.b] {
            assert_eq!(end.endpoint.sessions().count(), 0, "{child} {:?}", end.side);
            assert!(end.inbound.is_empty() && end.outbound.is_empty() && end.up.is_empty());
        }
        assert_eq!(pair.esp_lost, 0);
    }
}
