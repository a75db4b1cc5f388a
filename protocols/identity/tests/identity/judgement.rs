//! Peers are judged by their certificates, now and again later.

use crate::common::*;
use crate::identity::pki::{Authority, Claims, Described, Revoked, Validity, describe};
use crate::identity::{Certificates, Revocation, SharedKey};
use ikev2::{AuthMethod, Authentication, Credentials as _, Identification};
use std::sync::Arc;

/// The serial number of a node's own certificate.
fn serial(node: &Certificates) -> Vec<u8> {
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE", node.chain()[0].clone()));
    let Described::Certificate(facts) = &describe(pem.as_bytes()).unwrap()[0] else {
        panic!("a certificate")
    };
    (0..facts.serial.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&facts.serial[i..i + 2], 16).unwrap())
        .collect()
}

fn crl(pki: &Pki, who: &[&Certificates]) -> String {
    let revoked: Vec<Revoked> = who.iter().map(|c| Revoked { serial: serial(c), since: NOW - 5 }).collect();
    pki.ca.revocation_list(&revoked, 1, VALID).unwrap()
}

#[test]
fn peers_of_one_root_believe_each_other() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let identity = meet(&a, &b, NOW).unwrap();
    assert_eq!(identity.name, "b.hq.example.com");
    assert_eq!(certified(&identity).prefixes, Some(claims("b").prefixes));
    assert_eq!(certified(&identity).tunnel_addresses, claims("b").tunnel_addresses);
    assert_eq!(a.still_holds(NOW, &identity), Ok(()));
}

#[test]
fn an_identity_outlives_a_checkpoint() {
    let pki = pki();
    let identity = meet(&pki.node("a"), &pki.node("b"), NOW).unwrap();
    let kept = serde_json::to_vec(&identity).unwrap();
    let restored = serde_json::from_slice(&kept).unwrap();
    assert_eq!(identity, restored);
    assert_eq!(pki.node("a").still_holds(NOW, &restored), Ok(()));
}

#[test]
fn a_stranger_is_refused_and_the_roots_are_named() {
    let (ours, theirs) = (pki(), Authority::root("Other root", VALID).unwrap());
    let made = theirs.node(&claims("b"), VALID).unwrap();
    let root = theirs.chain_pem();
    let stranger =
        Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), root.as_bytes(), b"").unwrap();
    refused(
        meet(&ours.node("a"), &stranger, NOW),
        "its issuer `CN=Other root` is not one of the roots trusted here (`CN=Example root`)",
    );
}

#[test]
fn a_root_of_the_same_name_with_another_key_is_no_root() {
    refused(meet(&pki().node("a"), &pki().node("b"), NOW), "the signature (ECDSA with SHA-256) is wrong");
}

#[test]
fn a_missing_intermediate_is_missed_by_name() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let proof = b.sign(&HASHES, b"x").unwrap();
    refused(
        a.verify(NOW, &b.local_id(), &b.chain()[..1], b"x", &proof),
        "its issuer `CN=HQ` is not one of the roots trusted here",
    );
}

#[test]
fn order_and_strangers_in_a_chain_do_not_matter() {
    let (pki, stranger) = (pki(), pki());
    let (a, b) = (pki.node("a"), pki.node("b"));
    let proof = b.sign(&HASHES, b"x").unwrap();
    let [own, ca] = b.chain().try_into().unwrap();
    let chain = [own, b"no certificate".to_vec(), stranger.node("c").chain()[1].clone(), ca];
    assert!(a.verify(NOW, &b.local_id(), &chain, b"x", &proof).is_ok());
}

#[test]
fn a_chain_without_end_is_not_read() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let proof = b.sign(&HASHES, b"x").unwrap();
    let many = vec![b.chain()[0].clone(); 9];
    refused(a.verify(NOW, &b.local_id(), &many, b"x", &proof), "at most 8 are read");
    refused(a.verify(NOW, &b.local_id(), &[], b"x", &proof), "sent no certificate");
    refused(a.verify(NOW, &b.local_id(), &[vec![0x30; 20_000]], b"x", &proof), "of 20000 octets");
}

#[test]
fn a_certificate_is_no_good_without_its_key() {
    let pki = pki();
    let (a, b, thief) = (pki.node("a"), pki.node("b"), pki.node("thief"));
    let proof = thief.sign(&HASHES, b"x").unwrap();
    refused(
        a.verify(NOW, &b.local_id(), &b.chain(), b"x", &proof),
        "the signature (ECDSA with SHA-256) is wrong",
    );
    let proof = b.sign(&HASHES, b"x").unwrap();
    refused(a.verify(NOW, &b.local_id(), &b.chain(), b"y", &proof), "is wrong");
}

#[test]
fn a_peer_is_called_as_its_certificate_says() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let proof = b.sign(&HASHES, b"x").unwrap();
    let as_ = |id: Identification| a.verify(NOW, &id, &b.chain(), b"x", &proof);
    refused(
        as_(fqdn("a.hq.example.com")),
        "calls itself `a.hq.example.com`, and its certificate is for b.hq.example.com",
    );
    assert_eq!(as_(fqdn("B.HQ.example.com.")).unwrap().name, "b.hq.example.com");
    // An address that is the name is no tunnel address; this one is a tunnel address, and stays the name of a node.
    assert_eq!(as_(Identification::Address("10.200.0.7".parse().unwrap())).unwrap().name, "b.hq.example.com");
    refused(as_(Identification::Address("10.200.0.8".parse().unwrap())), "calls itself");
    refused(as_(Identification::KeyId(b"b".to_vec())), "calls itself");
    refused(as_(Identification::Dn(vec![0x30, 0])), "calls itself");
}

#[test]
fn an_expired_certificate_is_refused_now_and_later() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let identity = meet(&a, &b, NOW).unwrap();
    let late = VALID.not_after + 1;
    assert_eq!(certified(&identity).not_after, VALID.not_after);
    refused(meet(&a, &b, late), "expired at ");
    refused(a.still_holds(late, &identity), "expired at ");
}

#[test]
fn a_certificate_of_tomorrow_blames_the_clock() {
    let pki = pki();
    let tomorrow = Validity { not_before: NOW + DAY, not_after: NOW + 2 * DAY };
    let b = pki.node_valid("b", "", tomorrow);
    refused(meet(&pki.node("a"), &b, NOW), "this node's clock says 2027-01-15T08:00:00Z: set it, or wait");
    refused(meet(&pki.node("a"), &pki.node("c"), 0), "this node's clock says 1970-01-01T00:00:00Z");
}

#[test]
fn a_revoked_certificate_is_refused_now_and_in_live_sessions() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let identity = meet(&a, &b, NOW).unwrap();
    let a = pki.node_with("a", &crl(&pki, &[&b]));
    refused(
        meet(&a, &b, NOW),
        "certificate of `CN=b.hq.example.com`: revoked by `CN=HQ` at 2027-01-15T07:59:55Z",
    );
    refused(a.still_holds(NOW, &identity), "revoked by `CN=HQ`");
    assert!(meet(&a, &pki.node("c"), NOW).is_ok());
}

#[test]
fn a_revoked_ca_takes_its_nodes_along() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE", b.chain()[1].clone()));
    let Described::Certificate(facts) = &describe(pem.as_bytes()).unwrap()[0] else {
        panic!("a certificate")
    };
    let serial: Vec<u8> =
        (0..32).step_by(2).map(|i| u8::from_str_radix(&facts.serial[i..i + 2], 16).unwrap()).collect();
    let list = pki.root.revocation_list(&[Revoked { serial, since: NOW }], 1, VALID).unwrap();
    let identity = meet(&a, &b, NOW).unwrap();
    let a = pki.node_with("a", &list);
    refused(a.still_holds(NOW, &identity), "certificate of `CN=HQ`: revoked by `CN=Example root`");
}

#[test]
fn a_list_of_somebody_else_revokes_nobody() {
    let (other, pki) = (pki(), pki());
    let b = pki.node("b");
    let forged = other.ca.revocation_list(&[Revoked { serial: serial(&b), since: NOW }], 1, VALID).unwrap();
    assert!(meet(&pki.node_with("a", &forged), &b, NOW).is_ok());
}

#[test]
fn a_stale_list_still_revokes_whom_it_names() {
    let pki = pki();
    let b = pki.node("b");
    let list = [Revoked { serial: serial(&b), since: NOW - DAY }];
    let stale = Validity { not_before: NOW - DAY, not_after: NOW - 1 };
    let a = pki.node_with("a", &pki.ca.revocation_list(&list, 1, stale).unwrap());
    refused(meet(&a, &b, NOW), "revoked by");
    assert!(meet(&a, &pki.node("c"), NOW).is_ok());
    refused(
        meet(&a.with_revocation(Revocation::Required), &pki.node("c"), NOW),
        "no current revocation list",
    );
}

#[test]
fn where_lists_are_required_every_ca_needs_one() {
    let pki = pki();
    let both = crl(&pki, &[]) + &pki.root.revocation_list(&[], 1, VALID).unwrap();
    let strict = |crls: &str| pki.node_with("a", crls).with_revocation(Revocation::Required);
    assert!(meet(&strict(&both), &pki.node("b"), NOW).is_ok());
    refused(
        meet(&strict(&crl(&pki, &[])), &pki.node("b"), NOW),
        "certificate of `CN=HQ`: there is no current revocation list of its issuer `CN=Example root`",
    );
}

#[test]
fn a_root_that_is_trusted_no_longer_ends_sessions() {
    let (old, new) = (pki(), Authority::root("New root", VALID).unwrap());
    let (a, b) = (old.node("a"), old.node("b"));
    let identity = meet(&a, &b, NOW).unwrap();
    let made = new.node(&claims("a"), VALID).unwrap();
    let with = |roots: &str| {
        Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), roots.as_bytes(), b"").unwrap()
    };
    let both = old.root.chain_pem() + &new.chain_pem();
    assert_eq!(with(&both).still_holds(NOW, &identity), Ok(()));
    refused(
        with(&new.chain_pem()).still_holds(NOW, &identity),
        "not one of the roots trusted here (`CN=New root`)",
    );
}

#[test]
fn a_shorter_way_to_another_root_changes_nothing() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let identity = meet(&a, &b, NOW).unwrap();
    let made = pki.ca.node(&claims("a"), VALID).unwrap();
    let ca = pki.ca.chain_pem();
    let a = Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), ca.as_bytes(), b"").unwrap();
    assert_eq!(a.still_holds(NOW, &identity), Ok(()));
}

#[test]
fn what_is_above_the_certificates_of_many_peers_is_kept_once() {
    let pki = pki();
    let hub = pki.node("hub");
    let [a, b] = ["a", "b"].map(|name| meet(&hub, &pki.node(name), NOW).unwrap());
    let chains = [&a, &b].map(|identity| identity.certified().unwrap().chain.certificates());
    let [[own_a, above_a], [own_b, above_b]] = chains else { panic!("a certificate and its CA: {chains:?}") };
    assert!(own_a != own_b && Arc::ptr_eq(above_a, above_b));
}

#[test]
fn keys_and_certificates_do_not_replace_each_other() {
    let pki = pki();
    let psk = SharedKey::new("b.hq.example.com", b"secret".to_vec()).unwrap();
    let (a, b) = (pki.node("a"), pki.node("b"));
    assert!(psk.still_holds(NOW, &meet(&a, &b, NOW).unwrap()).is_err());
    assert!(a.shared_key(&fqdn("b.hq.example.com")).is_none());
    let proof = Authentication { method: AuthMethod::SharedKey, data: vec![0; 32] };
    refused(a.verify(NOW, &psk.local_id(), &[], b"x", &proof), "configure the same method on both");
}

#[test]
fn what_does_not_go_together_is_said_at_the_start() {
    let pki = pki();
    let (one, two) = (pki.ca.node(&claims("a"), VALID).unwrap(), pki.ca.node(&claims("b"), VALID).unwrap());
    let root = pki.root.chain_pem();
    let new = |chain: &str, key: &str, roots: &str, crls: &str| {
        Certificates::new(chain.as_bytes(), key.as_bytes(), roots.as_bytes(), crls.as_bytes())
    };
    assert!(new(&one.chain, &one.key, &root, "\n").is_ok());
    refused(new(&one.chain, &two.key, &root, ""), "tls.key");
    refused(new("", &one.key, &root, ""), "tls.crt holds no certificate");
    refused(new(&one.chain, "", &root, ""), "there is no private key");
    refused(new(&one.chain, &one.key, "", ""), "ca.crt holds no certificate");
    refused(new(&one.chain, &one.key, &one.chain, ""), "is no CA's certificate");
    refused(new(&one.chain, &one.key, "garbage", ""), "ca.crt is not PEM");
    refused(new(&one.chain, &one.key, &root, "garbage"), "crl.pem is not PEM");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    refused(new(&one.chain, encrypted, &root, ""), "is encrypted");
}

#[test]
fn a_name_of_one_label_too_many_is_still_a_name() {
    let pki = pki();
    let deep = Claims { name: format!("{}.hq.example.com", ["x"; 40].join(".")), ..claims("x") };
    let made = pki.ca.node(&deep, VALID).unwrap();
    let root = pki.root.chain_pem();
    let node = Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), root.as_bytes(), b"").unwrap();
    assert_eq!(meet(&pki.node("a"), &node, NOW).unwrap().name, deep.name);
}
