//! Sessions come to be.

mod pair;

use pair::{A, B, Net, Pair, shared_key_identity};

#[test]
fn two_of_ours_are_up_after_two_round_trips() {
    let mut pair = Pair::new(1);
    pair.connect(A);
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
        pair.run_secs(40);
        pair.assert_settled(1);
    }
}
