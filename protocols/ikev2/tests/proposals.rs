//! Names of proposals, and who chooses what (RFC 7296 §2.7, §3.3).
#![allow(missing_docs)]

use dmvpn_ikev2::codes::{EncryptionId, GroupId, IntegrityId, ProtocolId, TransformType};
use dmvpn_ikev2::crypto::{Cipher, Group, IkeSuite, Prf};
use dmvpn_ikev2::payload::{Attribute, Proposal, Transform};
use dmvpn_ikev2::proposal::{EspProposals, EspSuite, IkeProposals, ProposalError, Stage, Unasked, describe};

fn ike(names: &[&str]) -> IkeProposals {
    IkeProposals::parse(names).unwrap()
}

fn esp(names: &[&str]) -> EspProposals {
    EspProposals::parse(names).unwrap()
}

const REKEY: Stage = Stage::Create(Group::X25519);

#[test]
fn names_are_read_and_written() {
    for name in [
        "aes256gcm16-prfsha384-x25519",
        "chacha20poly1305-prfsha256-ecp256",
        "aes128-sha256-modp2048",
        "aes128-sha256-prfsha384-x25519",
        "aes128-aes256-sha256-sha384-x25519-ecp256-ecp384-modp2048",
        "aes128gcm16-aes256gcm16-prfsha256-prfsha384-x25519",
    ] {
        assert_eq!(ike(&[name]).to_string(), name);
    }
    for name in ["aes128gcm16-esn", "aes256gcm16-x25519-esn", "aes128-sha256-esn"] {
        assert_eq!(esp(&[name]).to_string(), name);
    }
    assert_eq!(esp(&["aes128gcm16", "aes256-sha256-noesn"]).to_string(), "aes128gcm16-esn, aes256-sha256");
}

#[test]
fn names_that_strongswan_takes_for_the_same_are_the_same() {
    assert_eq!(ike(&["aes128gcm128-prfsha256-curve25519"]), ike(&["aes128gcm16-prfsha256-x25519"]));
    assert_eq!(ike(&["AES-SHA2_256-ECP256"]), ike(&["aes128-sha256-prfsha256-ecp256"]));
}

#[test]
fn broken_algorithms_are_refused_with_what_to_write_instead() {
    for (name, wrong) in [
        ("3des-sha1-modp1024", "3des"),
        ("des-md5-modp768", "des"),
        ("aes128-sha1-modp2048", "sha1"),
        ("aes128-md5-modp2048", "md5"),
        ("null-sha256", "null"),
        ("aes128gcm16-prfsha1-x25519", "prfsha1"),
        ("aes128-sha256-modp1024", "modp1024"),
    ] {
        let error = IkeProposals::parse(&[name]).unwrap_err();
        assert!(matches!(&error, ProposalError::Weak { algorithm, .. } if algorithm == wrong), "{error}");
        assert!(error.to_string().contains("write `"), "{error}");
    }
}

#[test]
fn what_is_not_here_is_not_called_weak() {
    for name in ["aes192-sha256-x25519", "aes256-sha512-x25519", "aes256-sha256-ecp521", "aes128ccm16-x25519"]
    {
        let error = IkeProposals::parse(&[name]).unwrap_err();
        assert!(matches!(error, ProposalError::Missing { .. }), "{error}");
    }
    let error = IkeProposals::parse(&["aes256gcm16-prfsha384-x25519!"]).unwrap_err();
    assert!(matches!(error, ProposalError::Unknown { .. }), "{error}");
}

#[test]
fn a_proposal_that_cannot_work_is_refused() {
    for name in ["aes256gcm16-x25519", "aes256gcm16-prfsha256", "prfsha256-x25519", "aes128-x25519"] {
        let error = IkeProposals::parse(&[name]).unwrap_err();
        assert!(matches!(error, ProposalError::Incomplete { .. }), "{name}: {error}");
    }
    for name in ["aes128gcm16-aes128-sha256-x25519", "aes128gcm16-sha256-x25519", "aes128-sha256-x25519-esn"]
    {
        let error = IkeProposals::parse(&[name]).unwrap_err();
        assert!(matches!(error, ProposalError::Contradiction { .. }), "{name}: {error}");
    }
    for name in ["aes128gcm16-prfsha256", "aes128-sha384"] {
        let error = EspProposals::parse(&[name]).unwrap_err();
        assert!(matches!(error, ProposalError::Contradiction { .. }), "{name}: {error}");
    }
    assert!(matches!(IkeProposals::parse::<&str>(&[]), Err(ProposalError::Nothing(_))));
}

#[test]
fn the_responder_chooses_by_its_own_preference() {
    let offered = ike(&["aes128gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-ecp384"]).offer(None);
    let choice =
        ike(&["aes256gcm16-prfsha384-ecp384", "aes128gcm16-prfsha256-x25519"]).select(&offered).unwrap();
    assert_eq!(choice.suite.to_string(), "aes256gcm16-prfsha384-ecp384");
    assert_eq!(choice.answer(&[]).number, 2);
}

#[test]
fn alternatives_within_a_proposal_are_chosen_one_of_each() {
    let offered = ike(&["aes128-aes256-sha256-sha384-x25519-modp2048"]).offer(None);
    let choice = ike(&["aes256-sha384-modp2048"]).select(&offered).unwrap();
    let suite = choice.suite;
    assert_eq!(suite.to_string(), "aes256-sha384-modp2048");
    let answer = choice.answer(&[]);
    assert_eq!(answer.transforms.len(), 4);
    assert_eq!(ike(&["aes128-aes256-sha256-sha384-x25519-modp2048"]).accept(&[answer]).unwrap().suite, suite);
}

#[test]
fn nothing_in_common_is_told_by_name() {
    let offered = ike(&["aes128-sha256-modp2048"]).offer(None);
    assert_eq!(ike(&["aes256gcm16-prfsha384-x25519"]).select(&offered), None);
    assert_eq!(describe(&offered), "aes128-sha256-modp2048");
}

#[test]
fn weak_offers_of_others_are_told_by_name() {
    let offered = vec![Proposal {
        number: 1,
        protocol: ProtocolId::IKE,
        spi: Vec::new(),
        transforms: vec![
            Transform::new(TransformType::ENCR, EncryptionId::TRIPLE_DES.0),
            Transform::new(TransformType::INTEG, IntegrityId::HMAC_SHA1_96.0),
            Transform::new(TransformType::PRF, 2),
            Transform::new(TransformType::KE, GroupId::MODP_1024.0),
            Transform::new(TransformType::ADDKE1, GroupId::ML_KEM_768.0),
        ],
    }];
    assert_eq!(describe(&offered), "3des-sha1-modp1024-addke1_mlkem768");
    assert_eq!(describe(&[]), "nothing");
}

#[test]
fn a_flood_of_proposals_does_not_grow_the_logs() {
    let offered = vec![ike(&["aes128-aes256-sha256-sha384-x25519-ecp256"]).offer(None).remove(0); 64];
    let said = describe(&offered);
    assert!(said.len() < 450 && said.ends_with(" more"), "{said}");
}

#[test]
fn an_answer_that_was_not_offered_is_refused() {
    let ours = ike(&["aes256gcm16-prfsha384-x25519"]);
    let good = ours.select(&ours.offer(None)).unwrap().answer(&[]);
    assert!(ours.accept(std::slice::from_ref(&good)).is_ok());

    let other_key = {
        let mut answer = good.clone();
        answer.transforms[0].attributes = vec![Attribute::KeyLength(128)];
        answer
    };
    let twice = {
        let mut answer = good.clone();
        answer.transforms.push(answer.transforms[1].clone());
        answer
    };
    let without_prf = {
        let mut answer = good.clone();
        answer.transforms.retain(|t| t.kind != TransformType::PRF);
        answer
    };
    let other_number = Proposal { number: 2, ..good.clone() };
    let other_protocol = Proposal { protocol: ProtocolId::ESP, ..good.clone() };
    for answer in [other_key, twice, without_prf, other_number, other_protocol] {
        assert_eq!(ours.accept(&[answer]), Err(Unasked));
    }
    assert_eq!(ours.accept(&[good.clone(), good]), Err(Unasked));
    assert_eq!(ours.accept(&[]), Err(Unasked));
}

/// //= rfc7296#3.3.6
#[test]
fn a_transform_with_an_unknown_attribute_is_not_chosen_but_its_neighbour_is() {
    let ours = ike(&["aes256gcm16-prfsha384-x25519"]);
    let mut offered = ours.offer(None);
    offered[0].transforms[0].attributes.push(Attribute::UnknownShort { kind: 99, value: 1 });
    assert_eq!(ours.select(&offered), None);
    offered[0].transforms.push(Transform::with_key_length(TransformType::ENCR, 20, 256));
    assert!(ours.select(&offered).is_some());
}

/// //= rfc7296#3.3.6
#[test]
fn a_proposal_with_an_unknown_transform_type_is_passed_over() {
    let ours = ike(&["aes256gcm16-prfsha384-x25519"]);
    let mut offered = [ours.offer(None), ours.offer(None)].concat();
    offered[0].transforms.push(Transform::new(TransformType(200), 1));
    offered[1].number = 2;
    assert_eq!(ours.select(&offered).unwrap().answer(&[]).number, 2);
}

#[test]
fn hybrid_key_exchange_is_declined_where_the_peer_lets_us() {
    let ours = ike(&["aes256gcm16-prfsha384-x25519"]);
    let mut offered = ours.offer(None);
    offered[0].transforms.push(Transform::new(TransformType::ADDKE1, GroupId::ML_KEM_768.0));
    assert_eq!(ours.select(&offered), None);
    offered[0].transforms.push(Transform::new(TransformType::ADDKE1, GroupId::NONE.0));
    let answer = ours.select(&offered).unwrap().answer(&[]);
    assert!(answer.transforms.contains(&Transform::new(TransformType::ADDKE1, 0)));
}

#[test]
fn integrity_none_beside_an_aead_cipher_is_accepted() {
    let ours = ike(&["aes256gcm16-prfsha384-x25519"]);
    let mut offered = ours.offer(None);
    offered[0].transforms.push(Transform::new(TransformType::INTEG, IntegrityId::NONE.0));
    let suite = ours.select(&offered).unwrap().suite;
    let expected = IkeSuite { cipher: Cipher::Aes256Gcm16, prf: Prf::HmacSha384, group: Group::X25519 };
    assert_eq!(suite, expected);
}

#[test]
fn esn_is_taken_where_offered_and_never_required() {
    let ours = esp(&["aes128gcm16"]);
    let esn =
        |theirs: &EspProposals| ours.select(&theirs.offer(1, Stage::Auth), Stage::Auth).unwrap().suite.esn;
    assert!(esn(&ours));
    assert!(!esn(&esp(&["aes128gcm16-noesn"])));
    let mut offered = ours.offer(1, Stage::Auth);
    offered[0].transforms.retain(|t| t.kind != TransformType::ESN);
    assert!(!ours.select(&offered, Stage::Auth).unwrap().suite.esn);
}

#[test]
fn groups_don_t_matter_in_ike_auth() {
    let ours = esp(&["aes128gcm16-x25519"]);
    assert!(ours.offer(1, Stage::Auth)[0].transforms.iter().all(|t| t.kind != TransformType::KE));
    let choice = ours.select(&esp(&["aes128gcm16-modp2048"]).offer(1, REKEY), Stage::Auth).unwrap();
    assert_eq!(choice.suite.group, None);
    assert!(choice.answer(&[0; 4]).transforms.iter().all(|t| t.kind != TransformType::KE));
}

#[test]
fn a_rekeying_has_a_key_exchange_of_its_own_unless_the_peer_has_none() {
    let ours = esp(&["aes128gcm16"]);
    let group = |theirs: &EspProposals| theirs.select(&ours.offer(1, REKEY), REKEY).map(|c| c.suite.group);
    assert_eq!(group(&ours), Some(Some(Group::X25519)));
    assert_eq!(group(&esp(&["aes128gcm16-x25519"])), Some(Some(Group::X25519)));
    assert_eq!(group(&esp(&["aes128gcm16-ecp384"])), None);
    // A peer that offers it only without, as strongSwan does where no group is configured.
    let without = ours.offer(1, Stage::Auth);
    assert_eq!(ours.select(&without, REKEY).unwrap().suite.group, None);
    assert_eq!(esp(&["aes128gcm16-x25519"]).select(&without, REKEY), None);
    // And one that takes our second choice.
    let answer = ours.select(&without, REKEY).unwrap().answer(&[0, 0, 1, 0]);
    let answer = Proposal { number: 2, ..answer };
    let accepted = ours.accept(&[answer], REKEY).unwrap();
    assert_eq!((accepted.suite.group, accepted.esp_spi()), (None, Some(256)));
}

#[test]
fn old_routers_get_cbc_only_where_it_is_configured() {
    let old = esp(&["aes128-sha256"]);
    assert_eq!(esp(&["aes128gcm16"]).select(&old.offer(1, Stage::Auth), Stage::Auth), None);
    let suite = old.select(&old.offer(1, Stage::Auth), Stage::Auth).unwrap().suite;
    assert_eq!(suite, EspSuite { suite: ::esp::Suite::Aes128CbcSha256, esn: true, group: None });
}
