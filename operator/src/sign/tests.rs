//! Who gets a certificate, and who is told why not.

use super::*;
use identity::pki::{Confines, Described, describe};
use k8s_openapi::ByteString;
use kube::api::ObjectMeta;
use serde_json::json;
use std::collections::BTreeMap;

const AGENT: &str = "system:serviceaccount:kube-dmvpn:dmvpn-agent";
const NOW: u64 = 1_800_000_000;

fn claimed() -> Claims {
    Claims {
        name: "a-1.branch.example.com".into(),
        tunnel_addresses: vec!["10.200.16.1".parse().unwrap()],
        prefixes: vec!["10.1.1.0/24".parse().unwrap()],
    }
}

fn csr(claims: &Claims) -> CertificateSigningRequest {
    let (request, _key) = Request::make(claims).unwrap();
    let about = [(NODE, "a-1"), (TUNNEL, "branch-a")];
    CertificateSigningRequest {
        metadata: ObjectMeta {
            annotations: Some(about.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: SIGNER.into(),
            username: Some(AGENT.into()),
            extra: Some(BTreeMap::from([(TOKEN_NODE.to_owned(), vec!["a-1".to_owned()])])),
            usages: Some(vec!["digital signature".into(), "client auth".into()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

fn dmvpn_node(issued_by: &str) -> DmvpnNode {
    let spec = json!({"tunnels": [{
        "name": "branch-a", "role": "Spoke", "interface": "dmvpn0", "networks": ["10.200.0.0/16"],
        "addresses": ["10.200.16.1"], "identity": "a-1.branch.example.com", "phase": 3, "ttl": 64,
        "underlay": {"port": 4500}, "nhrp": {}, "announce": ["10.1.0.0/16"],
        "security": {"authentication": {"certificates": {"issuedBy": issued_by, "caSecret": "ca", "trust": "roots"}}},
    }]});
    DmvpnNode::new("a-1", serde_json::from_value(spec).unwrap())
}

fn reason(csr: &CertificateSigningRequest, node: Option<&DmvpnNode>) -> &'static str {
    match judge(csr, AGENT, node, NOW) {
        Verdict::Refuse(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

fn refused(change: impl FnOnce(&mut CertificateSigningRequest)) -> &'static str {
    let mut csr = csr(&claimed());
    change(&mut csr);
    reason(&csr, Some(&dmvpn_node("Operator")))
}

fn authority(confines: &Confines, not_after: u64) -> Authority {
    let root = Validity { not_before: NOW - 86_400, not_after: NOW + 365 * 86_400 };
    let root = Authority::root("root", root).unwrap();
    root.intermediate("branch", confines, Validity { not_before: NOW - 86_400, not_after }).unwrap()
}

fn confines() -> Confines {
    Confines {
        domains: vec!["branch.example.com".into()],
        tunnel_addresses: vec!["10.200.16.0/24".parse().unwrap()],
        prefixes: vec!["10.1.0.0/16".parse().unwrap()],
    }
}

fn signed(authority: &Authority, csr: &CertificateSigningRequest) -> Result<String, Refusal> {
    match judge(csr, AGENT, Some(&dmvpn_node("Operator")), NOW) {
        Verdict::Sign { ca_secret, request, validity } => {
            assert_eq!(ca_secret, "ca");
            sign(authority, &request, validity)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_agent_gets_a_certificate_for_what_its_node_was_told_to_be() {
    let chain = signed(&authority(&confines(), NOW + 300 * DAY), &csr(&claimed())).unwrap();
    let described = describe(chain.as_bytes()).unwrap();
    let [Described::Certificate(own), Described::Certificate(ca)] = described.as_slice() else {
        panic!("{described:?}")
    };
    assert_eq!(own.names, ["a-1.branch.example.com"]);
    assert_eq!(own.tunnel_addresses, ["10.200.16.1"]);
    assert_eq!(own.prefixes.as_deref(), Some(&["10.1.1.0/24".to_owned()][..]));
    assert_eq!(own.validity, (NOW - BACKDATED, NOW + DEFAULT_LIFETIME));
    assert!(!own.ca && ca.ca);
}

#[test]
fn the_lifetime_that_is_asked_for_is_kept_and_ends_with_the_cas() {
    let mut csr = csr(&claimed());
    csr.spec.expiration_seconds = Some(3600);
    let until = |authority: &Authority| {
        let chain = signed(authority, &csr).unwrap();
        match describe(chain.as_bytes()).unwrap().into_iter().next() {
            Some(Described::Certificate(own)) => own.validity.1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(until(&authority(&confines(), NOW + 300 * DAY)), NOW + 3600);
    assert_eq!(until(&authority(&confines(), NOW + 600)), NOW + 600);
}

#[test]
fn nobody_but_an_agent_gets_a_certificate() {
    let user = |name: &str| {
        let name = name.to_owned();
        refused(|csr| csr.spec.username = Some(name))
    };
    assert_eq!(user("system:serviceaccount:default:dmvpn-agent"), "WrongRequester");
    assert_eq!(user("system:node:a-1"), "WrongRequester");
    assert_eq!(refused(|csr| csr.spec.username = None), "WrongRequester");
}

#[test]
fn an_agent_gets_none_for_another_node() {
    let bound = |nodes: &[&str]| {
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        refused(|csr| csr.spec.extra = Some([(TOKEN_NODE.to_owned(), nodes)].into()))
    };
    assert_eq!(bound(&["b-1"]), "WrongNode");
    assert_eq!(bound(&["a-1", "b-1"]), "NodeUnproven");
    assert_eq!(bound(&[""]), "NodeUnproven");
    assert_eq!(refused(|csr| csr.spec.extra = None), "NodeUnproven");
    assert_eq!(refused(|csr| csr.metadata.annotations = None), "Malformed");
}

#[test]
fn nothing_is_claimed_that_the_node_was_not_told_to_be() {
    let asked = |change: fn(&mut Claims)| {
        let mut claims = claimed();
        change(&mut claims);
        reason(&csr(&claims), Some(&dmvpn_node("Operator")))
    };
    assert_eq!(asked(|c| c.name = "b-1.branch.example.com".into()), "WrongClaims");
    assert_eq!(asked(|c| c.tunnel_addresses = vec!["10.200.16.2".parse().unwrap()]), "WrongClaims");
    assert_eq!(asked(|c| c.prefixes = vec!["10.2.0.0/24".parse().unwrap()]), "WrongClaims");
    assert_eq!(asked(|c| c.prefixes = vec!["10.0.0.0/8".parse().unwrap()]), "WrongClaims");
}

#[test]
fn a_certificate_is_for_no_other_use_and_not_for_years() {
    assert_eq!(refused(|csr| csr.spec.usages = Some(vec!["cert sign".into()])), "WrongUsages");
    assert_eq!(refused(|csr| csr.spec.expiration_seconds = Some(365 * 86_400)), "LifetimeTooLong");
    assert_eq!(refused(|csr| csr.spec.expiration_seconds = Some(-5)), "LifetimeTooLong");
}

#[test]
fn what_is_no_request_is_malformed() {
    assert_eq!(refused(|csr| csr.spec.request = ByteString(b"nonsense".to_vec())), "Malformed");
}

#[test]
fn a_tunnel_that_is_not_there_or_has_another_issuer_gets_none() {
    assert_eq!(reason(&csr(&claimed()), None), "NoSuchTunnel");
    let other = |csr: &mut CertificateSigningRequest| {
        csr.metadata.annotations.as_mut().unwrap().insert(TUNNEL.into(), "other".into());
    };
    assert_eq!(refused(other), "NoSuchTunnel");
    assert_eq!(reason(&csr(&claimed()), Some(&dmvpn_node("CertManager"))), "NotIssuedHere");
}

#[test]
fn a_ca_that_is_confined_to_another_cluster_refuses_and_says_so() {
    let other = Confines { domains: vec!["hq.example.com".into()], ..confines() };
    let refusal = signed(&authority(&other, NOW + DAY), &csr(&claimed())).unwrap_err();
    assert_eq!(refusal.reason, "CARefuses");
    assert!(refusal.message.contains("hq.example.com"), "{refusal}");
    let other = Confines { prefixes: vec!["10.9.0.0/16".parse().unwrap()], ..confines() };
    let refusal = signed(&authority(&other, NOW + DAY), &csr(&claimed())).unwrap_err();
    assert_eq!(refusal.reason, "CARefuses");
}

#[test]
fn a_ca_that_has_run_out_is_not_used() {
    let refusal = signed(&authority(&confines(), NOW - 60), &csr(&claimed())).unwrap_err();
    assert_eq!(refusal.reason, "CAExpired");
}

#[test]
fn what_is_settled_or_anothers_is_left_alone() {
    let nothing = |change: &dyn Fn(&mut CertificateSigningRequest)| {
        let mut csr = csr(&claimed());
        change(&mut csr);
        matches!(judge(&csr, AGENT, Some(&dmvpn_node("Operator")), NOW), Verdict::Nothing)
    };
    assert!(nothing(&|csr| csr.spec.signer_name = "example.com/other".into()));
    for type_ in ["Denied", "Failed"] {
        let status = json!({"conditions": [{"type": type_, "status": "True"}]});
        assert!(nothing(&|csr| csr.status = serde_json::from_value(status.clone()).unwrap()));
    }
    let status = json!({"certificate": "YQ=="});
    assert!(nothing(&|csr| csr.status = serde_json::from_value(status.clone()).unwrap()));
}

#[test]
fn a_request_ahead_of_its_dmvpn_node_is_not_denied_for_good_at_once() {
    let early = |change: &dyn Fn(&mut CertificateSigningRequest), node: Option<&DmvpnNode>| {
        let mut csr = csr(&claimed());
        change(&mut csr);
        match judge(&csr, AGENT, node, NOW) {
            Verdict::Refuse(refusal) => refusal.may_be_early(),
            other => panic!("{other:?}"),
        }
    };
    assert!(early(&|_| (), None), "its DmvpnNode may be on the way");
    assert!(early(&|_| (), Some(&dmvpn_node("Secret"))));
    let stranger = |csr: &mut CertificateSigningRequest| csr.spec.username = Some("eve".into());
    assert!(!early(&stranger, Some(&dmvpn_node("Operator"))), "no news makes that good");
}
