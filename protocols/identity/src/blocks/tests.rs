//! Address blocks: RFC 3779's own examples, and containment by property.

use super::*;
use proptest::prelude::*;

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn blocks(prefixes: &[&str]) -> Blocks {
    Blocks::from_prefixes(&prefixes.iter().map(|p| net(p)).collect::<Vec<_>>())
}

fn inherit() -> Blocks {
    Blocks { v4: Family::Inherit, v6: Family::default() }
}

//= rfc3779#2.1.1
// 10.5.0.4 is encoded as 03 05 00 0a 05 00 04; 10.5.0/23 as 03 04 01 0a 05 00.
#[test]
fn prefixes_are_encoded_as_in_rfc_3779() {
    let encoded = blocks(&["10.5.0.4/32"]).to_der().unwrap();
    assert!(encoded.ends_with(&[0x03, 0x05, 0x00, 0x0a, 0x05, 0x00, 0x04]));
    let encoded = blocks(&["10.5.0.0/23"]).to_der().unwrap();
    assert!(encoded.ends_with(&[0x03, 0x04, 0x01, 0x0a, 0x05, 0x00]));
}

//= rfc3779#2.1.2
// 10.5.0.0-10.5.3.255 minus nothing is a prefix; 129.64.0.0-129.67.255.255 is 81.40/14; a range proper trims its ends.
#[test]
fn a_range_is_trimmed_and_read_back() {
    let range = (number("10.2.48.0".parse().unwrap()), number("10.2.64.255".parse().unwrap()));
    let wanted = Blocks { v4: Family::Ranges(vec![range]), v6: Family::default() };
    let encoded = wanted.to_der().unwrap();
    // RFC 3779 Appendix B: min 10.2.48.0 = 03 04 04 0a 02 30, max 10.2.64.255 = 03 04 00 0a 02 40.
    assert!(
        encoded
            .ends_with(&[0x30, 0x0c, 0x03, 0x04, 0x04, 0x0a, 0x02, 0x30, 0x03, 0x04, 0x00, 0x0a, 0x02, 0x40])
    );
    assert_eq!(Blocks::from_der(&encoded).unwrap(), wanted);
    assert_eq!(wanted.prefixes().unwrap(), vec![net("10.2.48.0/20"), net("10.2.64.0/24")]);
}

#[test]
fn the_whole_of_a_family_is_one_prefix() {
    for all in ["0.0.0.0/0", "::/0"] {
        let encoded = blocks(&[all]).to_der().unwrap();
        assert_eq!(Blocks::from_der(&encoded).unwrap().prefixes().unwrap(), vec![net(all)]);
    }
}

#[test]
fn no_blocks_are_not_any_blocks() {
    let none = Blocks::from_der(&blocks(&[]).to_der().unwrap()).unwrap();
    assert_eq!(none.prefixes().unwrap(), vec![]);
    let refusal = blocks(&["10.0.0.0/8"]).below(Some(&none)).unwrap_err();
    assert_eq!(refusal.0, "it claims 10.0.0.0/8, and its issuer may only give out nothing of that family");
}

#[test]
fn what_the_issuer_does_not_have_cannot_be_given() {
    let issuer = blocks(&["10.1.0.0/16", "fd00:1::/32"]);
    assert!(blocks(&["10.1.2.0/24"]).below(Some(&issuer)).is_ok());
    assert!(blocks(&["10.0.0.0/8"]).below(Some(&issuer)).is_err());
    assert!(blocks(&["10.1.2.0/24", "fd00:2::/32"]).below(Some(&issuer)).is_err());
}

#[test]
fn two_halves_contain_what_spans_them() {
    let issuer = blocks(&["10.0.0.0/9", "10.128.0.0/9"]);
    assert!(blocks(&["10.0.0.0/8"]).below(Some(&issuer)).is_ok());
}

#[test]
fn inheritance_needs_somebody_to_inherit_from() {
    let issuer = blocks(&["10.1.0.0/16"]);
    assert_eq!(inherit().below(Some(&issuer)).unwrap().prefixes().unwrap(), vec![net("10.1.0.0/16")]);
    assert!(inherit().below(None).is_err());
    let read = Blocks::from_der(&inherit().to_der().unwrap()).unwrap();
    assert_eq!(read, inherit());
}

#[test]
fn malformed_blocks_are_refused() {
    let v4 = |list: &[u8]| {
        let mut family = vec![0x04, 0x02, 0x00, 0x01, 0x30, list.len() as u8];
        family.extend_from_slice(list);
        let mut der = vec![0x30, family.len() as u8 + 2, 0x30, family.len() as u8];
        der.extend(family);
        der
    };
    assert!(Blocks::from_der(&v4(&[0x03, 0x02, 0x00, 0x0a])).is_ok());
    assert!(Blocks::from_der(&v4(&[0x03, 0x06, 0x00, 1, 2, 3, 4, 5])).is_err(), "40 bits");
    let backwards = [0x30, 0x08, 0x03, 0x02, 0x00, 0x0b, 0x03, 0x02, 0x00, 0x0a];
    assert!(Blocks::from_der(&v4(&backwards)).is_err());
    let unknown = [0x30, 0x08, 0x30, 0x06, 0x04, 0x02, 0x00, 0x19, 0x05, 0x00];
    assert!(Blocks::from_der(&unknown).is_err());
}

#[test]
fn a_range_that_comes_apart_into_too_much_is_refused() {
    let ranges = (0..20u128).map(|i| (i << 100 | 1, ((i + 1) << 100) - 2)).collect();
    let ragged = Blocks { v4: Family::default(), v6: Family::Ranges(ranges) };
    assert!(ragged.prefixes().is_err());
}

fn any_prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    let one = prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(a, len)| IpNet::new(IpAddr::V4(a.into()), len).unwrap().trunc()),
        (any::<u128>(), 0u8..=128)
            .prop_map(|(a, len)| IpNet::new(IpAddr::V6(a.into()), len).unwrap().trunc()),
    ];
    proptest::collection::vec(one, 0..8)
}

proptest! {
    #[test]
    fn blocks_survive_their_encoding(prefixes in any_prefixes()) {
        let wanted = Blocks::from_prefixes(&prefixes);
        prop_assert_eq!(Blocks::from_der(&wanted.to_der().unwrap()).unwrap(), wanted);
    }

    #[test]
    fn prefixes_are_exactly_the_blocks(prefixes in any_prefixes()) {
        let wanted = Blocks::from_prefixes(&prefixes);
        prop_assert_eq!(Blocks::from_prefixes(&wanted.prefixes().unwrap()), wanted);
    }

    #[test]
    fn a_part_is_contained_and_what_pokes_out_is_not(prefixes in any_prefixes(), other in any_prefixes()) {
        let issuer = Blocks::from_prefixes(&prefixes);
        let fits = other.iter().all(|o| IpNet::aggregate(&prefixes).iter().any(|p| p.contains(o)));
        prop_assert_eq!(Blocks::from_prefixes(&other).below(Some(&issuer)).is_ok(), fits);
    }

    #[test]
    fn containment_is_transitive(a in any_prefixes(), b in any_prefixes(), c in any_prefixes()) {
        let (a, b, c) = (Blocks::from_prefixes(&a), Blocks::from_prefixes(&b), Blocks::from_prefixes(&c));
        if c.below(Some(&b)).is_ok() && b.below(Some(&a)).is_ok() {
            prop_assert!(c.below(Some(&a)).is_ok());
        }
    }

    #[test]
    fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Blocks::from_der(&octets).map(|b| b.prefixes());
    }
}
