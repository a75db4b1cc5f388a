//! Certificates and keys as OpenSSL makes them (openssl/make.sh), and every kind of AUTH payload.

use crate::common::*;
use crate::identity::{CertificateError, Certificates};
use ikev2::{AuthMethod, Authentication, Credentials as _, HashAlgorithm};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("openssl/", $name))
    };
}

fn load(chain: &[u8], key: &[u8]) -> Result<Certificates, CertificateError> {
    Certificates::new(chain, key, file!("root.crt"), b"")
}

fn rsa() -> Certificates {
    load(file!("rsa.crt"), file!("rsa.key")).unwrap()
}

#[test]
fn rsa_with_the_critical_extension_of_rfc_3779() {
    let identity = meet(&rsa(), &rsa(), NOW).unwrap();
    let nets = ["10.7.0.0/16", "10.9.0.0/23", "10.9.2.0/24"].map(|p| p.parse().unwrap());
    assert_eq!(certified(&identity).prefixes, Some(nets.to_vec()));
}

#[test]
fn every_format_of_keys_is_read() {
    assert!(load(file!("rsa.crt"), file!("rsa-pkcs1.key")).is_ok());
    let p384 = load(file!("p384.crt"), file!("p384-sec1.key")).unwrap();
    let identity = meet(&rsa(), &p384, NOW).unwrap();
    assert_eq!(certified(&identity).prefixes, Some(vec!["10.0.0.0/8".parse().unwrap()]), "inherited");
    let ed25519 = load(file!("ed25519.crt"), file!("ed25519.key")).unwrap();
    assert_eq!(meet(&rsa(), &ed25519, NOW).unwrap().name, "ed25519.example.com");
    refused(load(file!("rsa.crt"), file!("ed25519.key")), "tls.key");
    refused(load(file!("rsa.crt"), file!("p384-sec1.key")), "tls.key");
    refused(load(file!("ed25519.crt"), file!("rsa.key")), "tls.key");
}

#[test]
fn sha_1_is_not_believed() {
    let sha1 = load(file!("sha1.crt"), file!("ed25519.key")).unwrap();
    refused(meet(&rsa(), &sha1, NOW), "signed with SHA-1");
}

#[test]
fn more_than_the_root_has_is_refused() {
    let greedy = load(file!("greedy.crt"), file!("ed25519.key")).unwrap();
    refused(meet(&rsa(), &greedy, NOW), "it claims 11.0.0.0/8, and its issuer may only give out 10.0.0.0/8");
}

#[test]
fn a_hash_that_the_peer_does_not_know_is_not_used() {
    let sha512 = [HashAlgorithm::Sha512];
    let proof = rsa().sign(&sha512, b"x").unwrap();
    assert!(rsa().verify(NOW, &rsa().local_id(), &rsa().chain(), b"x", &proof).is_ok());
    let p384 = load(file!("p384.crt"), file!("p384-sec1.key")).unwrap();
    refused(p384.sign(&sha512, b"x"), "does not know SHA-384");
    let ed25519 = load(file!("ed25519.crt"), file!("ed25519.key")).unwrap();
    refused(ed25519.sign(&sha512, b"x"), "does not know Ed25519");
}

//= rfc4754#7
// r and s side by side, for peers that know no RFC 7427.
#[test]
fn the_older_methods_of_ecdsa() {
    let p384 = load(file!("p384.crt"), file!("p384-sec1.key")).unwrap();
    let proof = p384.sign(&[], b"x").unwrap();
    assert_eq!((proof.method, proof.data.len()), (AuthMethod::EcdsaP384, 96));
    assert!(rsa().verify(NOW, &p384.local_id(), &p384.chain(), b"x", &proof).is_ok());
    let (a, b) = {
        let pki = pki();
        (pki.node("a"), pki.node("b"))
    };
    let proof = b.sign(&[], b"x").unwrap();
    assert_eq!((proof.method, proof.data.len()), (AuthMethod::EcdsaP256, 64));
    assert!(a.verify(NOW, &b.local_id(), &b.chain(), b"x", &proof).is_ok());
    refused(rsa().sign(&[], b"x"), "does not know SHA-2");
}

fn by_rsa(padding: &'static dyn ring::signature::RsaEncoding, octets: &[u8]) -> Vec<u8> {
    let der = pem::parse(file!("rsa.key")).unwrap().into_contents();
    let key = RsaKeyPair::from_pkcs8(&der).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &ring::rand::SystemRandom::new(), octets, &mut signature).unwrap();
    signature
}

fn verify(method: AuthMethod, data: Vec<u8>) -> Result<claims::Identity, CertificateError> {
    rsa().verify(NOW, &rsa().local_id(), &rsa().chain(), b"x", &Authentication { method, data })
}

#[test]
fn rsa_of_method_1_is_believed_with_sha_256() {
    assert!(verify(AuthMethod::Rsa, by_rsa(&RSA_PKCS1_SHA256, b"x")).is_ok());
    refused(verify(AuthMethod::Rsa, by_rsa(&RSA_PKCS1_SHA256, b"y")), "the signature (RSA) is wrong");
}

#[test]
fn rsa_of_method_1_with_sha_1_is_refused_by_name() {
    // openssl dgst -sha1 -sign rsa.key: ring signs nothing with SHA-1.
    refused(verify(AuthMethod::Rsa, file!("x.sha1").to_vec()), "it signed with SHA-1");
}

#[test]
fn rsa_pkcs1_by_rfc_7427_is_believed() {
    let identifier =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
    let data = |length: u8| {
        let mut data = vec![length];
        data.extend(identifier);
        data.extend(by_rsa(&RSA_PKCS1_SHA256, b"x"));
        data
    };
    assert!(verify(AuthMethod::Signature, data(15)).is_ok());
    refused(verify(AuthMethod::Signature, data(14)), "another length than it says");
    refused(verify(AuthMethod::Signature, vec![]), "its AUTH payload is empty");
    refused(verify(AuthMethod::Signature, vec![5, 1, 2, 3]), "algorithm identifier");
    refused(verify(AuthMethod::EcdsaP256, vec![0; 64]), "does not go with a key of kind RSA");
}
