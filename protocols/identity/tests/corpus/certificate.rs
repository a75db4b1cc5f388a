//! Any octets as what a peer sends to prove who it is. Shared by the fuzz target and the replay of its corpus.
//!
//! Raw octets end at the first signature. So that what is behind it is reached too, the octets are also made the
//! extensions of a certificate that is properly signed by a confined CA: whatever they say, nobody gets beyond what that
//! CA may give.

use dmvpn_identity::pki::{Authority, Claims, Confines, Request, Validity, describe};
use dmvpn_identity::{Certificates, Revocation};
use ikev2::{AuthMethod, Authentication, Credentials as _, Identification};
use ipnet::IpNet;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, SanType};
use std::sync::LazyLock;
use time::OffsetDateTime;

const NOW: u64 = 1_800_000_000;
const VALID: Validity = Validity { not_before: NOW - 1000, not_after: NOW + 1000 };
const HASHES: [ikev2::HashAlgorithm; 1] = [ikev2::HashAlgorithm::Sha256];
const TUNNEL: &str = "10.200.0.0/24";
const PREFIXES: [&str; 2] = ["10.1.0.0/16", "fd00:1::/32"];

/// Extensions whose content the octets are.
const EXTENSIONS: [&[u64]; 12] = [
    &[2, 5, 29, 17],
    &[2, 5, 29, 30],
    &[2, 5, 29, 19],
    &[2, 5, 29, 15],
    &[2, 5, 29, 37],
    &[2, 5, 29, 14],
    &[2, 5, 29, 35],
    &[2, 5, 29, 32],
    &[1, 3, 6, 1, 5, 5, 7, 1, 7],
    &[1, 2, 840, 113_556, 1, 8000, 2554, 25127, 50721, 57673, 18924, 39515, 11_033_297, 6_229_340],
    &[2, 5, 29, 31],
    &[1, 2, 3],
];

struct World {
    ca: Issuer<'static, KeyPair>,
    ca_chain: Vec<Vec<u8>>,
    judge: Certificates,
    key: KeyPair,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = Authority::root("Root", VALID).unwrap();
    let confines = Confines {
        domains: vec!["hq.example.com".to_owned()],
        tunnel_addresses: vec![TUNNEL.parse().unwrap()],
        prefixes: PREFIXES.map(|p| p.parse().unwrap()).to_vec(),
    };
    let ca = root.intermediate("HQ", &confines, VALID).unwrap();
    let claims = Claims { name: "judge.hq.example.com".to_owned(), ..Claims::default() };
    let made = ca.node(&claims, VALID).unwrap();
    let list = ca.revocation_list(&[], 1, VALID).unwrap();
    let judge = Certificates::new(
        made.chain.as_bytes(),
        made.key.as_bytes(),
        root.chain_pem().as_bytes(),
        list.as_bytes(),
    )
    .unwrap()
    .with_revocation(Revocation::WherePresent);
    let key = KeyPair::from_pem(ca.key_pem()).unwrap();
    World {
        ca: Issuer::from_ca_cert_pem(&ca.chain_pem(), key).unwrap(),
        ca_chain: pem::parse_many(ca.chain_pem()).unwrap().into_iter().map(pem::Pem::into_contents).collect(),
        judge,
        key: KeyPair::generate().unwrap(),
    }
});

/// Nothing panics, and who is believed is confined. Is somebody?
pub fn check(bytes: &[u8]) -> bool {
    for label in ["CERTIFICATE", "X509 CRL", "CERTIFICATE REQUEST"] {
        let _ = describe(pem::encode(&pem::Pem::new(label, bytes)).as_bytes());
    }
    let _ = describe(bytes);
    let _ = Request::from_der(bytes);
    raw(bytes);
    signed(bytes)
}

/// The octets as a chain (the first octet says where it is cut) and as an AUTH payload.
fn raw(bytes: &[u8]) {
    let world = &*WORLD;
    let Some((cut, rest)) = bytes.split_first() else { return };
    let (first, second) = rest.split_at(rest.len() * usize::from(*cut) / 256);
    let id = Identification::Dn(second.to_vec());
    let mut chain = vec![first.to_vec(), second.to_vec()];
    chain.extend(world.ca_chain.iter().cloned());
    let methods = [AuthMethod::Rsa, AuthMethod::EcdsaP256, AuthMethod::EcdsaP384, AuthMethod::Signature];
    for method in methods {
        let authentication = Authentication { method, data: rest.to_vec() };
        assert!(world.judge.verify(NOW, &id, &chain, b"x", &authentication).is_err());
        assert!(
            world
                .judge
                .verify(NOW, &world.judge.local_id(), &world.judge.chain(), b"x", &authentication)
                .is_err()
        );
    }
}

/// The octets as extensions: each begins with its kind, and its length.
fn signed(mut bytes: &[u8]) -> bool {
    let world = &*WORLD;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "fuzz");
    params.not_before = OffsetDateTime::from_unix_timestamp(VALID.not_before as i64).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(VALID.not_after as i64).unwrap();
    let mut has_names = false;
    while let [kind, length, rest @ ..] = bytes {
        let (content, more) = rest.split_at(rest.len().min(usize::from(*length)));
        let which = usize::from(*kind & 0x7f) % EXTENSIONS.len();
        let mut extension = CustomExtension::from_oid_content(EXTENSIONS[which], content.to_vec());
        extension.set_criticality(kind & 0x80 != 0);
        has_names |= which == 0;
        params.custom_extensions.push(extension);
        bytes = more;
    }
    if !has_names {
        params.subject_alt_names = vec![SanType::DnsName("a.hq.example.com".try_into().unwrap())];
    }
    let believed = is_believed(&params);
    // The same as a further CA's, which must not be: the confined one makes nodes only.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let Ok(middle) = params.signed_by(&world.key, &world.ca) else { return believed };
    let issuer = Issuer::new(params.clone(), KeyPair::from_pem(&world.key.serialize_pem()).unwrap());
    let leaf = CertificateParams::new(vec!["a.hq.example.com".to_owned()]).unwrap();
    let Ok(leaf) = leaf.signed_by(&world.key, &issuer) else { return believed };
    let chain: Vec<Vec<u8>> = [leaf.der().to_vec(), middle.der().to_vec()]
        .into_iter()
        .chain(world.ca_chain.iter().cloned())
        .collect();
    let id = Identification::Fqdn("a.hq.example.com".to_owned());
    let proof = Authentication { method: AuthMethod::Signature, data: Vec::new() };
    assert!(world.judge.verify(NOW, &id, &chain, b"x", &proof).is_err());
    believed
}

fn is_believed(params: &CertificateParams) -> bool {
    let world = &*WORLD;
    let Ok(made) = params.signed_by(&world.key, &world.ca) else { return false };
    let mut chain = vec![made.der().to_vec()];
    chain.extend(world.ca_chain.iter().cloned());
    let text: String =
        chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()))).collect();
    let key = world.key.serialize_pem();
    // Its own credentials may refuse the certificate already; then no peer ever sees it.
    let Ok(prover) = Certificates::new(text.as_bytes(), key.as_bytes(), some_roots().as_bytes(), b"") else {
        return false;
    };
    let proof = prover.sign(&HASHES, b"x").unwrap();
    let Ok(identity) = world.judge.verify(NOW, &prover.local_id(), &chain, b"x", &proof) else {
        return false;
    };
    let certified = identity.certified().expect("by certificate");
    let tunnel: IpNet = TUNNEL.parse().unwrap();
    let prefixes: Vec<IpNet> = PREFIXES.iter().map(|p| p.parse().unwrap()).collect();
    assert!(certified.tunnel_addresses.iter().all(|a| tunnel.contains(a)), "{identity:?}");
    let claimed = certified.prefixes.as_ref().expect("its CA is confined");
    assert!(claimed.iter().all(|c| prefixes.iter().any(|p| p.contains(c))), "{identity:?}");
    assert_eq!(world.judge.still_holds(NOW, &identity), Ok(()));
    true
}

/// Some CA, since credentials need one.
fn some_roots() -> String {
    WORLD.ca_chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()))).collect()
}
