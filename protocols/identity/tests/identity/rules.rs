//! Rules of RFC 5280, RFC 4945 and RFC 3779 that our own CA would not break: certificates made by hand.

use crate::common::*;
use crate::identity::pki::{Claims, describe};
use crate::identity::{CertificateError, Certificates};
use ikev2::{Credentials as _, Identification};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use time::OffsetDateTime;

const RFC3779: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 7];
const OURS: [u64; 13] = [1, 2, 840, 113_556, 1, 8000, 2554, 25127, 50721, 57673, 18924, 39515, 11_033_297];

/// A certificate's parameters, valid now.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::from_unix_timestamp(VALID.not_before as i64).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(VALID.not_after as i64).unwrap();
    params
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

fn ca(name: &str) -> CertificateParams {
    with(params(name), |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
}

fn node(name: &str) -> CertificateParams {
    with(params(name), |p| p.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())])
}

/// IPv4 blocks by hand: prefixes of whole octets.
fn v4(prefixes: &[&[u8]]) -> Vec<u8> {
    let mut list = Vec::new();
    for prefix in prefixes {
        list.extend([0x03, prefix.len() as u8 + 1, 0]);
        list.extend_from_slice(prefix);
    }
    let mut family = vec![0x04, 0x02, 0x00, 0x01, 0x30, list.len() as u8];
    family.extend(list);
    let mut all = vec![0x30, family.len() as u8 + 2, 0x30, family.len() as u8];
    all.extend(family);
    all
}

fn blocks(oid: &[u64], critical: bool, prefixes: &[&[u8]]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, v4(prefixes));
    extension.set_criticality(critical);
    extension
}

fn ours() -> Vec<u64> {
    OURS.into_iter().chain([6_229_340]).collect()
}

/// What somebody who trusts the first of `path` thinks of the last.
fn judge(path: Vec<CertificateParams>) -> Result<claims::Identity, CertificateError> {
    let mut issuer: Option<Issuer<'static, KeyPair>> = None;
    let (mut pems, mut last) = (Vec::new(), String::new());
    for params in path {
        let key = KeyPair::generate().unwrap();
        last = key.serialize_pem();
        let made = match &issuer {
            None => params.self_signed(&key),
            Some(issuer) => params.signed_by(&key, issuer),
        };
        pems.push(made.unwrap().pem());
        issuer = Some(Issuer::new(params, key));
    }
    let root = pems.remove(0);
    pems.reverse();
    let credentials = Certificates::new(pems.concat().as_bytes(), last.as_bytes(), root.as_bytes(), b"")?;
    meet(&credentials, &credentials, NOW)
}

#[test]
fn a_plain_certificate_of_a_plain_ca_is_a_foreign_router_s() {
    let identity = judge(vec![ca("R"), node("x.example.com")]).unwrap();
    assert_eq!((identity.name.as_str(), &certified(&identity).prefixes), ("x.example.com", &None));
    assert!(certified(&identity).tunnel_addresses.is_empty());
}

//= rfc5280#6.1.4
// "verify that the basicConstraints extension is present and that cA is set to TRUE"
#[test]
fn a_node_does_not_issue_certificates() {
    refused(
        judge(vec![ca("R"), node("evil.example.com"), node("x.example.com")]),
        "it is no CA's certificate",
    );
}

#[test]
fn a_ca_does_not_authenticate() {
    let mut both = ca("x.example.com");
    both.subject_alt_names = node("x.example.com").subject_alt_names;
    refused(judge(vec![ca("R"), both]), "it is a CA's certificate");
}

//= rfc5280#4.2.1.9
// "pathLenConstraint ... gives the maximum number of non-self-issued intermediate certificates that may follow"
#[test]
fn a_path_is_no_longer_than_its_ca_allows() {
    let limited = |n| with(ca("R"), |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(n)));
    let path = |root| vec![root, ca("A"), ca("B"), node("x.example.com")];
    assert!(judge(path(limited(2))).is_ok());
    refused(judge(path(limited(1))), "more CAs follow it (2) than its path length allows");
}

#[test]
fn keys_do_only_what_their_usage_says() {
    let usage = |params: CertificateParams, usage| with(params, |p| p.key_usages = vec![usage]);
    refused(
        judge(vec![usage(ca("R"), KeyUsagePurpose::CrlSign), node("x.example.com")]),
        "its key must not sign certificates",
    );
    refused(
        judge(vec![ca("R"), usage(node("x.example.com"), KeyUsagePurpose::KeyEncipherment)]),
        "its key must not sign (key usage)",
    );
    assert!(judge(vec![ca("R"), usage(node("x.example.com"), KeyUsagePurpose::DigitalSignature)]).is_ok());
}

#[test]
fn a_certificate_for_tls_is_good_and_one_for_mail_is_not() {
    let purposes = |list: &[ExtendedKeyUsagePurpose]| {
        with(node("x.example.com"), |p| p.extended_key_usages = list.to_vec())
    };
    use ExtendedKeyUsagePurpose::{Any, EmailProtection, ServerAuth};
    refused(judge(vec![ca("R"), purposes(&[EmailProtection])]), "limited to other purposes");
    assert!(judge(vec![ca("R"), purposes(&[EmailProtection, ServerAuth])]).is_ok());
    assert!(judge(vec![ca("R"), purposes(&[Any])]).is_ok());
}

//= rfc5280#4.2
// "MUST reject the certificate if it encounters a critical extension it does not recognize"
#[test]
fn what_is_critical_and_not_understood_is_refused() {
    let mut strange = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    let with = |extension: &CustomExtension| {
        let mut params = node("x.example.com");
        params.custom_extensions = vec![extension.clone()];
        params
    };
    assert!(judge(vec![ca("R"), with(&strange)]).is_ok());
    strange.set_criticality(true);
    refused(judge(vec![ca("R"), with(&strange)]), "critical extension 1.2.3.4, which is not known here");
}

#[test]
fn an_extension_stands_once() {
    let mut twice = node("x.example.com");
    twice.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]); 2];
    refused(judge(vec![ca("R"), twice]), "it has extension 1.2.3.4 twice");
}

#[test]
fn a_claim_goes_no_further_than_its_intermediate_s() {
    let mut a = ca("A");
    a.custom_extensions = vec![blocks(&ours(), false, &[&[10, 1]])];
    let claiming = |prefix: &[u8]| {
        let mut params = node("x.example.com");
        params.custom_extensions = vec![blocks(&ours(), false, &[prefix])];
        params
    };
    let identity = judge(vec![ca("R"), a.clone(), claiming(&[10, 1, 7])]).unwrap();
    assert_eq!(certified(&identity).prefixes, Some(vec!["10.1.7.0/24".parse().unwrap()]));
    refused(
        judge(vec![ca("R"), a.clone(), claiming(&[10])]),
        "certificate of `CN=x.example.com`: it claims 10.0.0.0/8, and its issuer may only give out 10.1.0.0/16",
    );
    // An unlimited CA in between does not set its nodes free.
    refused(judge(vec![ca("R"), a.clone(), ca("B"), claiming(&[11])]), "may only give out 10.1.0.0/16");
    // Whoever is given nothing by somebody who may give has nothing.
    let identity = judge(vec![ca("R"), a, node("x.example.com")]).unwrap();
    assert_eq!(certified(&identity).prefixes, Some(vec![]));
}

#[test]
fn both_extensions_for_blocks_mean_the_same() {
    let with = |extensions: &[CustomExtension]| {
        let mut params = node("x.example.com");
        params.custom_extensions = extensions.to_vec();
        judge(vec![ca("R"), params])
    };
    let (own, standard) = (blocks(&ours(), false, &[&[10]]), blocks(&RFC3779, true, &[&[10]]));
    for extensions in [vec![own.clone()], vec![standard.clone()], vec![own.clone(), standard]] {
        let identity = with(&extensions).unwrap();
        assert_eq!(certified(&identity).prefixes, Some(vec!["10.0.0.0/8".parse().unwrap()]));
    }
    refused(with(&[own, blocks(&RFC3779, true, &[&[11]])]), "in two extensions, and they differ");
}

#[test]
fn names_stay_within_their_ca_s() {
    let confined = |permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>| {
        let constraints = NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded };
        with(ca("A"), |p| p.name_constraints = Some(constraints))
    };
    let dns = |name: &str| GeneralSubtree::DnsName(name.into());
    let only = || confined(vec![dns("example.com")], vec![]);
    assert!(judge(vec![ca("R"), only(), node("x.example.com")]).is_ok());
    refused(
        judge(vec![ca("R"), only(), node("x.example.org")]),
        "may not issue for x.example.org, only for example.com",
    );
    refused(judge(vec![ca("R"), only(), ca("B"), node("x.example.org")]), "only for example.com");
    let never = || confined(vec![], vec![dns("secret.example.com")]);
    assert!(judge(vec![ca("R"), never(), node("x.example.com")]).is_ok());
    refused(judge(vec![ca("R"), never(), node("x.secret.example.com")]), "must not issue for");
}

#[test]
fn a_distinguished_name_is_a_name_too() {
    let mut foreign = params("router");
    foreign.subject_alt_names = Vec::new();
    let identity = judge(vec![ca("R"), foreign]).unwrap();
    assert_eq!(identity.name, "CN=router");
    let mut by_address = params("router");
    by_address.subject_alt_names = vec![SanType::IpAddress("192.0.2.1".parse().unwrap())];
    let key = KeyPair::generate().unwrap();
    let root_key = KeyPair::generate().unwrap();
    let root = ca("R").self_signed(&root_key).unwrap().pem();
    let made = by_address.signed_by(&key, &Issuer::new(ca("R"), root_key)).unwrap().pem();
    let credentials =
        Certificates::new(made.as_bytes(), key.serialize_pem().as_bytes(), root.as_bytes(), b"").unwrap();
    let id = Identification::Address("192.0.2.1".parse().unwrap());
    let proof = credentials.sign(&HASHES, b"x").unwrap();
    let identity = credentials.verify(NOW, &id, &credentials.chain(), b"x", &proof).unwrap();
    assert_eq!(identity.name, "192.0.2.1");
    assert!(certified(&identity).tunnel_addresses.is_empty(), "where it is, and not in the tunnel");
    assert_eq!(credentials.still_holds(NOW, &identity), Ok(()));
}

#[test]
fn a_wildcard_is_nobody_s_identity() {
    // Its own node would call itself by its distinguished name.
    assert_eq!(judge(vec![ca("R"), node("*.example.com")]).unwrap().name, "CN=*.example.com");
    let pki = pki();
    let wild = pki.ca.node(&Claims { name: "*.hq.example.com".into(), ..claims("x") }, VALID);
    refused(wild.map(|made| made.chain), "is no DNS name");
}

#[test]
fn a_bit_flipped_anywhere_is_never_believed() {
    let pki = pki();
    let (a, b) = (pki.node("a"), pki.node("b"));
    let proof = b.sign(&HASHES, b"x").unwrap();
    let chain = b.chain();
    for at in (0..chain[0].len()).step_by(3) {
        let mut flipped = chain.clone();
        flipped[0][at] ^= 1 << (at % 8);
        assert!(a.verify(NOW, &b.local_id(), &flipped, b"x", &proof).is_err(), "octet {at}");
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE", flipped[0].clone()));
        let _ = describe(pem.as_bytes());
    }
}
