//! Project Wycheproof's signatures, through the same identifiers and checks that certificates and AUTH payloads take: each
//! file for the scheme and kind of key it is about. "Acceptable" ones may go either way.

use super::*;
use wycheproof::TestResult;

/// Wrong ones that were believed, and good ones that were not, of a file.
macro_rules! wrong {
    ($module:ident, $file:ident, $scheme:expr) => {{
        let set = wycheproof::$module::TestSet::load(wycheproof::$module::TestName::$file).unwrap();
        let (mut wrong, mut count) = (Vec::new(), 0);
        for group in set.test_groups {
            let key = SubjectPublicKeyInfoOwned::from_der(&group.der).unwrap();
            for test in group.tests {
                count += 1;
                let believed = $scheme.verify(&key, &test.msg, &test.sig).is_ok();
                let expected = match test.result {
                    TestResult::Valid => true,
                    TestResult::Invalid => false,
                    TestResult::Acceptable => continue,
                };
                if believed != expected {
                    wrong.push((stringify!($file), test.tc_id, test.comment));
                }
            }
        }
        assert!(count > 20, "{} has only {count}", stringify!($file));
        wrong
    }};
}

#[test]
fn ecdsa() {
    let (sha256, sha384) = (Scheme::Ecdsa(Hash::Sha256), Scheme::Ecdsa(Hash::Sha384));
    assert_eq!(wrong!(ecdsa, EcdsaSecp256r1Sha256, sha256), vec![]);
    assert_eq!(wrong!(ecdsa, EcdsaSecp384r1Sha384, sha384), vec![]);
    assert_eq!(wrong!(ecdsa, EcdsaSecp384r1Sha256, sha256), vec![]);
}

#[test]
fn ecdsa_with_r_and_s_side_by_side() {
    assert_eq!(wrong!(ecdsa, EcdsaSecp256r1Sha256P1363, Scheme::EcdsaFixed(Hash::Sha256)), vec![]);
    assert_eq!(wrong!(ecdsa, EcdsaSecp384r1Sha384P1363, Scheme::EcdsaFixed(Hash::Sha384)), vec![]);
}

#[test]
fn ed25519() {
    assert_eq!(wrong!(eddsa, Ed25519, Scheme::Ed25519), vec![]);
}

#[test]
fn rsa_pkcs1() {
    assert_eq!(wrong!(rsa_pkcs1_verify, Rsa2048Sha256, Scheme::RsaPkcs1(Hash::Sha256)), vec![]);
    assert_eq!(wrong!(rsa_pkcs1_verify, Rsa3072Sha384, Scheme::RsaPkcs1(Hash::Sha384)), vec![]);
    assert_eq!(wrong!(rsa_pkcs1_verify, Rsa4096Sha512, Scheme::RsaPkcs1(Hash::Sha512)), vec![]);
}

#[test]
fn rsa_pss() {
    assert_eq!(wrong!(rsa_pss_verify, RsaPss2048Sha256Mgf1SaltLen32, Scheme::RsaPss(Hash::Sha256)), vec![]);
    assert_eq!(wrong!(rsa_pss_verify, RsaPss2048Sha384Mgf1SaltLen48, Scheme::RsaPss(Hash::Sha384)), vec![]);
    assert_eq!(wrong!(rsa_pss_verify, RsaPss4096Sha512Mgf1SaltLen64, Scheme::RsaPss(Hash::Sha512)), vec![]);
}

/// A key whose identifier carries PSS parameters is limited to them (RFC 4055 §1.2); such keys are not read at all.
#[test]
fn keys_for_pss_alone_are_refused() {
    let file = wycheproof::rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32WithParams;
    let set = wycheproof::rsa_pss_verify::TestSet::load(file).unwrap();
    let key = SubjectPublicKeyInfoOwned::from_der(&set.test_groups[0].der).unwrap();
    assert!(KeyKind::of(&key).unwrap_err().0.contains("1.2.840.113549.1.1.10"));
}
