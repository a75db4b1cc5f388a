//! When a certificate is asked for. Pure.

use super::keys::{Held, same};
use identity::pki::Claims;

/// When, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Now.
    Now(String),
    /// At this second since 1970, unless something changes before.
    At(u64),
}

/// When to ask for a certificate that says `wanted`, and was not got before `issued_after`, while `held` is in use. `now`:
/// seconds since 1970.
pub(super) fn due(held: Option<&Held>, wanted: &Claims, issued_after: Option<u64>, now: u64) -> Due {
    let Some(Held { asked, validity: (from, until), obtained, refused }) = held else {
        return Due::Now("there is none yet".to_owned());
    };
    if !same(asked, wanted) {
        return Due::Now("this node is told to be or to announce something else".to_owned());
    }
    let life = until.saturating_sub(*from);
    let at = from + life / 3 * 2 - spread(wanted, life / 12);
    if at <= now {
        return Due::Now("two thirds of its life are over".to_owned());
    }
    if let Some(why) = refused {
        return Due::Now(format!("peers will not believe it any more: {why}"));
    }
    match issued_after.filter(|after| obtained < after) {
        Some(after) if after <= now => Due::Now("a newer one is wanted (issuedAfter)".to_owned()),
        Some(after) => Due::At(at.min(after)),
        None => Due::At(at),
    }
}

/// Nodes that were made together do not all ask together: a number below `most` that a name always has.
fn spread(claims: &Claims, most: u64) -> u64 {
    let step = |sum: u64, octet: u8| sum.wrapping_mul(31).wrapping_add(u64::from(octet));
    claims.name.bytes().fold(7, step) % most.max(1)
}

#[cfg(test)]
mod tests {
    use super::super::keys::tests::claims;
    use super::*;

    fn held(refused: Option<&str>) -> Held {
        let asked = claims(&["10.1.0.0/24"]);
        Held { asked, validity: (0, 1200), obtained: 10, refused: refused.map(str::to_owned) }
    }

    fn is_now(due: &Due) -> bool {
        matches!(due, Due::Now(_))
    }

    #[test]
    fn it_is_renewed_when_two_thirds_of_its_life_are_over_and_not_much_before() {
        let wanted = claims(&["10.1.0.0/24"]);
        let Due::At(at) = due(Some(&held(None)), &wanted, None, 600) else {
            panic!("it is half its life old")
        };
        assert!((701..=800).contains(&at), "{at}");
        assert!(is_now(&due(Some(&held(None)), &wanted, None, 801)));
    }

    #[test]
    fn a_node_that_announces_more_asks_at_once() {
        assert!(is_now(&due(Some(&held(None)), &claims(&["10.2.0.0/24"]), None, 600)));
        assert!(is_now(&due(None, &claims(&[]), None, 600)));
    }

    #[test]
    fn a_certificate_that_the_roots_do_not_cover_any_more_is_replaced() {
        let wanted = claims(&["10.1.0.0/24"]);
        assert!(is_now(&due(Some(&held(Some("revoked"))), &wanted, None, 600)));
    }

    #[test]
    fn one_that_was_got_before_a_time_is_replaced_then_and_a_newer_one_is_not() {
        let wanted = claims(&["10.1.0.0/24"]);
        assert!(is_now(&due(Some(&held(None)), &wanted, Some(600), 600)));
        assert_eq!(due(Some(&held(None)), &wanted, Some(650), 600), Due::At(650));
        let calm = due(Some(&held(None)), &wanted, None, 600);
        assert_eq!(due(Some(&held(None)), &wanted, Some(10), 600), calm);
    }
}
