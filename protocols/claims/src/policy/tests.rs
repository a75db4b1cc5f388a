//! One decision a test.

use super::*;
use crate::{Certified, Identity, Proof};
use proptest::prelude::*;

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn class(identity: &str, addresses: &[&str], prefixes: &[&str]) -> Class {
    Class {
        identity: identity.into(),
        tunnel_addresses: addresses.iter().map(|s| net(s)).collect(),
        prefixes: prefixes.iter().map(|s| net(s)).collect(),
    }
}

fn branches() -> Policy {
    Policy::new(
        vec![net("10.200.0.0/16"), net("fd00:200::/64")],
        vec![
            class("*.branch.example.com", &["10.200.16.0/20"], &["10.0.0.0/8"]),
            class("a.branch.example.com", &["10.200.32.7/32"], &["192.168.7.0/24"]),
            class("*.hq.example.com", &[], &[]),
        ],
    )
}

const A: Option<&str> = Some("a.branch.example.com");
const B: Option<&str> = Some("b.branch.example.com");

#[test]
fn without_classes_anyone_may_have_an_address_of_the_tunnel_and_no_other() {
    let open = Policy::new(vec![net("10.200.0.0/16")], vec![]);
    assert_eq!(open.authorize_registration(None, net("10.200.1.1/32")), Ok(()));
    assert_eq!(
        open.authorize_registration(None, net("10.201.1.1/32")),
        Err(Denied::NotOfTheTunnel { address: net("10.201.1.1/32"), networks: vec![net("10.200.0.0/16")] })
    );
    assert_eq!(open.authorize_answer(None, ip("10.200.1.1"), net("172.16.0.0/12")), Ok(()));
    assert_eq!(open.sources(None, &[ip("10.200.1.1")]), None);
}

#[test]
fn a_tunnel_address_outside_of_the_class_is_denied_with_what_would_do() {
    let denied = branches().authorize_registration(B, net("10.200.32.7/32")).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "`b.branch.example.com` may not use tunnel address 10.200.32.7/32; its classes allow 10.200.16.0/20"
    );
}

#[test]
fn classes_add_up() {
    assert_eq!(branches().authorize_registration(A, net("10.200.32.7/32")), Ok(()));
    assert_eq!(branches().authorize_prefix(A, net("192.168.7.0/25")), Ok(()));
    assert!(branches().authorize_prefix(B, net("192.168.7.0/25")).is_err());
}

#[test]
fn a_stranger_is_not_admitted() {
    let denied = branches().authorize_registration(Some("x.example.org"), net("10.200.16.1/32"));
    assert_eq!(denied.unwrap_err().to_string(), "`x.example.org` matches no class of `admission`");
    assert_eq!(
        branches().authorize_registration(None, net("10.200.16.1/32")),
        Err(Denied::NotAdmitted { identity: None })
    );
    assert_eq!(branches().sources(None, &[ip("10.200.16.1")]), Some(vec![]));
}

#[test]
fn an_answer_wider_than_the_claim_is_denied() {
    let denied = branches().authorize_answer(B, ip("10.200.16.2"), net("8.0.0.0/5"));
    assert!(matches!(denied, Err(Denied::Prefix { prefix, .. }) if prefix == net("8.0.0.0/5")));
    assert_eq!(branches().authorize_answer(B, ip("10.200.16.2"), net("10.2.3.0/24")), Ok(()));
}

#[test]
fn nobody_answers_for_a_part_of_the_tunnel_network() {
    let (open, part) = (Policy::new(vec![net("10.200.0.0/16")], vec![]), net("10.200.16.0/24"));
    let denied = open.authorize_answer(None, ip("10.200.16.2"), part);
    assert_eq!(denied, Err(Denied::TunnelNetwork { prefix: part }));
    assert_eq!(open.authorize_answer(None, ip("10.200.16.2"), net("10.200.16.2/32")), Ok(()));
}

#[test]
fn a_class_without_prefixes_sends_from_its_tunnel_address_only() {
    let sources = branches().sources(Some("h.hq.example.com"), &[ip("10.200.0.1"), ip("fd00:200::1")]);
    assert_eq!(sources, Some(vec![net("10.200.0.1/32"), net("fd00:200::1/128"), net("fe80::/10")]));
}

#[test]
fn a_registered_prefix_must_be_claimed() {
    assert_eq!(branches().authorize_registration(B, net("10.2.0.0/16")), Ok(()));
    assert!(branches().authorize_registration(B, net("172.16.0.0/16")).is_err());
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 0u8..=32).prop_map(|(a, len)| {
        IpNet::new(IpAddr::V4(a.into()), len).map(|n| n.trunc()).unwrap_or_else(|_| net("0.0.0.0/0"))
    })
}

proptest! {
    #[test]
    fn what_is_inside_an_allowed_prefix_is_allowed(outer in any_net(), inner in any_net()) {
        let policy = Policy::new(vec![], vec![class("*", &[], &[&outer.to_string()])]);
        prop_assert_eq!(policy.authorize_prefix(None, inner).is_ok(), outer.contains(&inner));
    }

    #[test]
    fn a_further_class_never_takes_away(prefix in any_net(), one in any_net(), two in any_net()) {
        let first = class("*", &[], &[&one.to_string()]);
        let small = Policy::new(vec![], vec![first.clone()]);
        let large = Policy::new(vec![], vec![first, class("*.x", &[], &[&two.to_string()])]);
        if small.authorize_prefix(Some("a.x"), prefix).is_ok() {
            prop_assert!(large.authorize_prefix(Some("a.x"), prefix).is_ok());
        }
    }
}

fn certified(name: &str, addresses: &[&str], prefixes: Option<&[&str]>) -> Identity {
    let certified = Certified {
        tunnel_addresses: addresses.iter().map(|s| ip(s)).collect(),
        prefixes: prefixes.map(|list| list.iter().map(|s| net(s)).collect()),
        ..Certified::default()
    };
    Identity { name: name.into(), proof: Proof::Certificate(certified) }
}

fn open() -> Policy {
    Policy::new(vec![net("10.200.0.0/16")], vec![])
}

#[test]
fn a_certificate_limits_its_bearer_also_where_nobody_wrote_a_class() {
    let node = certified("a.branch.example.com", &["10.200.16.1"], Some(&["10.1.0.0/16"]));
    assert_eq!(open().authorize_registration(&node, net("10.200.16.1/32")), Ok(()));
    assert_eq!(open().authorize_answer(&node, ip("10.200.16.1"), net("10.1.2.0/24")), Ok(()));
    assert_eq!(
        open().authorize_prefix(&node, net("10.2.0.0/16")).unwrap_err().to_string(),
        "`a.branch.example.com` may not claim 10.2.0.0/16; its certificate allows 10.1.0.0/16: \
         issue one that names it, by a CA that may"
    );
}

#[test]
fn a_stolen_certificate_is_no_good_for_anothers_tunnel_address_or_prefix() {
    let stolen = certified("b.branch.example.com", &["10.200.16.2"], Some(&["10.2.0.0/16"]));
    let (address, prefix) = (net("10.200.16.1/32"), net("10.1.0.0/16"));
    assert!(matches!(
        branches().authorize_registration(&stolen, address),
        Err(Denied::CertifiedAddress { address: claimed, .. }) if claimed == address
    ));
    assert!(matches!(
        branches().authorize_answer(&stolen, ip("10.200.16.1"), prefix),
        Err(Denied::CertifiedAddress { .. })
    ));
    assert!(matches!(
        branches().authorize_answer(&stolen, ip("10.200.16.2"), prefix),
        Err(Denied::CertifiedPrefix { .. })
    ));
    let sources = branches().sources(&stolen, &[ip("10.200.16.1"), ip("10.200.16.2")]);
    assert_eq!(sources, Some(vec![net("10.2.0.0/16"), net("10.200.16.2/32"), net("fe80::/10")]));
}

#[test]
fn a_certificate_does_not_widen_what_its_class_allows() {
    let node = certified("b.branch.example.com", &["10.200.16.2"], Some(&["10.2.0.0/16", "172.16.0.0/12"]));
    assert!(matches!(branches().authorize_prefix(&node, net("172.16.0.0/16")), Err(Denied::Prefix { .. })));
    assert_eq!(branches().prefixes(&node), Ok(Some(vec![net("10.2.0.0/16")])));
    let wide = certified("b.branch.example.com", &[], Some(&["0.0.0.0/0"]));
    assert_eq!(branches().prefixes(&wide), Ok(Some(vec![net("10.0.0.0/8")])));
}

#[test]
fn a_certified_stranger_is_not_admitted() {
    let stranger = certified("x.example.org", &["10.200.16.1"], Some(&["10.1.0.0/16"]));
    assert_eq!(
        branches().authorize_registration(&stranger, net("10.200.16.1/32")),
        Err(Denied::NotAdmitted { identity: Some("x.example.org".into()) })
    );
}

#[test]
fn a_foreign_router_is_believed_where_a_class_names_it() {
    let cisco = certified("a.branch.example.com", &[], None);
    assert_eq!(branches().authorize_registration(&cisco, net("10.200.16.9/32")), Ok(()));
    assert_eq!(branches().authorize_prefix(&cisco, net("10.9.0.0/16")), Ok(()));
    assert!(branches().authorize_prefix(&cisco, net("172.16.0.0/16")).is_err());
}

#[test]
fn a_foreign_router_is_believed_elsewhere_only_through_a_hub() {
    let (cisco, prefix) = (certified("cisco.example.org", &[], None), net("10.9.0.0/16"));
    assert_eq!(
        open().authorize_answer(&cisco, ip("10.200.16.9"), prefix),
        Err(Denied::NoVoucher { identity: Some("cisco.example.org".into()), prefix })
    );
    assert_eq!(open().authorize_answer(Claimant::Vouched(&cisco), ip("10.200.16.9"), prefix), Ok(()));
    assert_eq!(
        open().sources(&cisco, &[ip("10.200.16.9")]),
        Some(vec![net("10.200.16.9/32"), net("fe80::/10")])
    );
}

#[test]
fn a_foreign_router_s_underlay_address_is_no_tunnel_address() {
    let router = certified("cisco.example.org", &["192.0.2.1"], None);
    assert_eq!(open().authorize_registration(&router, net("10.200.16.9/32")), Ok(()));
    let ours = certified("a.example.org", &["192.0.2.1"], Some(&[]));
    assert!(open().authorize_registration(&ours, net("10.200.16.9/32")).is_err());
}

#[test]
fn no_hub_vouches_for_more_than_the_certificate_says() {
    let node = certified("a.branch.example.com", &["10.200.16.1"], Some(&["10.1.0.0/16"]));
    assert!(matches!(
        open().authorize_prefix(Claimant::Vouched(&node), net("10.2.0.0/16")),
        Err(Denied::CertifiedPrefix { .. })
    ));
}

#[test]
fn a_certificate_of_no_prefixes_is_not_one_that_says_nothing() {
    let node = certified("h.hq.example.com", &["10.200.16.1"], Some(&[]));
    assert!(open().authorize_prefix(Claimant::Vouched(&node), net("10.2.0.0/16")).is_err());
}

#[test]
fn a_peer_by_shared_key_is_limited_by_admission_alone() {
    let psk = Identity { name: "b.branch.example.com".into(), proof: Proof::SharedKey };
    assert_eq!(branches().authorize_prefix(&psk, net("10.2.0.0/16")), Ok(()));
    assert!(branches().authorize_prefix(&psk, net("192.168.7.0/24")).is_err());
    assert_eq!(open().sources(&psk, &[ip("10.200.16.1")]), None);
}

proptest! {
    #[test]
    fn what_may_be_sent_from_is_what_may_be_claimed(class_net in any_net(), own in any_net(), prefix in any_net()) {
        let policy = Policy::new(vec![], vec![class("*", &[], &[&class_net.to_string()])]);
        let node = certified("a", &[], Some(&[&own.to_string()]));
        let listed = policy.prefixes(&node).unwrap().unwrap().iter().any(|p| p.contains(&prefix));
        prop_assert_eq!(policy.authorize_prefix(&node, prefix).is_ok(), listed);
    }
}
