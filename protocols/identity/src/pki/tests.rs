//! What is made here is what peers believe, and nothing else is made.

use super::*;
use crate::Certificates;
use claims::Proof;
use ikev2::Credentials as _;

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const YEAR: Validity = Validity { not_before: NOW - 60, not_after: NOW + 365 * 86_400 };

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn claims(name: &str, address: &str, prefix: &str) -> Claims {
    Claims {
        name: name.into(),
        tunnel_addresses: vec![address.parse().unwrap()],
        prefixes: vec![net(prefix)],
    }
}

fn hq() -> Confines {
    Confines {
        domains: vec!["hq.example.com".into()],
        tunnel_addresses: vec![net("10.200.0.0/24")],
        prefixes: vec![net("10.0.0.0/16"), net("fd00:1::/32")],
    }
}

fn root() -> Authority {
    Authority::root("Example root", YEAR).unwrap()
}

#[test]
fn a_node_of_a_confined_ca_is_who_it_says() {
    let root = root();
    let ca = root.intermediate("HQ", &hq(), YEAR).unwrap();
    let wanted = claims("a.hq.example.com", "10.200.0.7", "10.0.7.0/24");
    let made = ca.node(&wanted, YEAR).unwrap();
    let credentials =
        Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), root.chain_pem().as_bytes(), b"")
            .unwrap();
    assert_eq!(credentials.chain().len(), 2, "the root is not sent");
    let identity = credentials.own_identity(NOW).unwrap();
    assert_eq!(identity.name, wanted.name);
    let Proof::Certificate(certified) = identity.proof else { panic!("a certificate") };
    assert_eq!(certified.tunnel_addresses, wanted.tunnel_addresses);
    assert_eq!(certified.prefixes, Some(wanted.prefixes));
    assert_eq!(certified.not_after, YEAR.not_after);
}

#[test]
fn a_ca_issues_nothing_beyond_its_confines() {
    let ca = root().intermediate("HQ", &hq(), YEAR).unwrap();
    for (wanted, reason) in [
        (claims("a.branch.example.com", "10.200.0.7", "10.0.7.0/24"), "only for hq.example.com"),
        (claims("a.hq.example.com", "10.200.1.7", "10.0.7.0/24"), "only for 10.200.0.0/24"),
        (claims("a.hq.example.com", "fd00::7", "10.0.7.0/24"), "only for 10.200.0.0/24"),
        (claims("a.hq.example.com", "10.200.0.7", "10.1.0.0/24"), "its issuer may only give out 10.0.0.0/16"),
    ] {
        let error = ca.node(&wanted, YEAR).err().unwrap().0;
        assert!(error.contains(reason), "{error}");
        assert!(ca.permits(&wanted).unwrap_err().0.contains(reason), "said without issuing, too");
    }
    ca.permits(&claims("a.hq.example.com", "10.200.0.7", "10.0.7.0/24")).unwrap();
    assert!(ca.intermediate("further", &hq(), YEAR).is_err());
}

#[test]
fn a_request_keeps_the_key_on_its_node() {
    let (root, wanted) = (root(), claims("a.hq.example.com", "10.200.0.7", "10.0.7.0/24"));
    let ca = root.intermediate("HQ", &hq(), YEAR).unwrap();
    let (request, key) = Request::make(&wanted).unwrap();
    let request = Request::from_pem(request.as_bytes()).unwrap();
    assert_eq!(request.claims, wanted);
    let chain = ca.sign(&request, &request.claims, YEAR).unwrap();
    let credentials =
        Certificates::new(chain.as_bytes(), key.as_bytes(), root.chain_pem().as_bytes(), b"").unwrap();
    assert_eq!(credentials.own_identity(NOW).unwrap().name, wanted.name);
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let (request, _) = Request::make(&claims("a.example.com", "10.200.0.7", "10.0.7.0/24")).unwrap();
    let mut der = pem::parse(request).unwrap().into_contents();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(Request::from_der(&der).unwrap_err().0.contains("not signed by its own key"));
}

#[test]
fn no_certificate_outlives_its_issuer() {
    let short = Validity { not_after: NOW + 1000, ..YEAR };
    let root = Authority::root("short", short).unwrap();
    let made = root.node(&claims("a.example.com", "10.200.0.7", "10.0.7.0/24"), YEAR).unwrap();
    let credentials =
        Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), root.chain_pem().as_bytes(), b"")
            .unwrap();
    assert_eq!(credentials.not_after(), short.not_after);
}

#[test]
fn an_authority_survives_its_files() {
    let ca = root().intermediate("HQ", &hq(), YEAR).unwrap();
    let again = Authority::from_pem(ca.chain_pem().as_bytes(), ca.key_pem().as_bytes()).unwrap();
    assert!(again.node(&claims("a.hq.example.com", "10.200.0.7", "10.0.7.0/24"), YEAR).is_ok());
    let other = root();
    assert!(Authority::from_pem(ca.chain_pem().as_bytes(), other.key_pem().as_bytes()).is_err());
}

#[test]
fn everything_made_can_be_described() {
    let root = root();
    let ca = root.intermediate("HQ", &hq(), YEAR).unwrap();
    let wanted = claims("a.hq.example.com", "10.200.0.7", "10.0.7.0/24");
    let made = ca.node(&wanted, YEAR).unwrap();
    let crl = ca.revocation_list(&[Revoked { serial: vec![1, 2], since: NOW }], 1, YEAR).unwrap();
    let all = format!("{}{}{crl}{}", made.chain, *made.key, Request::make(&wanted).unwrap().0);
    let described = describe(all.as_bytes()).unwrap();
    assert!(matches!(
        described.as_slice(),
        [
            Described::Certificate(node),
            Described::Certificate(ca),
            Described::Key { .. },
            Described::RevocationList { .. },
            Described::Request { .. }
        ] if !node.ca && ca.ca && ca.permitted == ["hq.example.com", "10.200.0.0/24"]
    ));
}
