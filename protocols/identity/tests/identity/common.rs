//! A small PKI: `Example root`, the confined CA `HQ`, and nodes below it.

use crate::identity::pki::{Authority, Claims, Confines, Validity};
use crate::identity::{CertificateError, Certificates};
use claims::{Certified, Identity};
use ikev2::{Credentials as _, HashAlgorithm, Identification};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const DAY: u64 = 86_400;
pub(crate) const VALID: Validity = Validity { not_before: NOW - DAY, not_after: NOW + 30 * DAY };
pub(crate) const HASHES: [HashAlgorithm; 4] =
    [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512, HashAlgorithm::Identity];

pub(crate) struct Pki {
    pub(crate) root: Authority,
    pub(crate) ca: Authority,
}

pub(crate) fn pki() -> Pki {
    let root = Authority::root("Example root", VALID).unwrap();
    let ca = root.intermediate("HQ", &hq(), VALID).unwrap();
    Pki { root, ca }
}

pub(crate) fn hq() -> Confines {
    Confines {
        domains: vec!["hq.example.com".into()],
        tunnel_addresses: vec!["10.200.0.0/24".parse().unwrap()],
        prefixes: vec!["10.1.0.0/16".parse().unwrap()],
    }
}

pub(crate) fn claims(name: &str) -> Claims {
    Claims {
        name: format!("{name}.hq.example.com"),
        tunnel_addresses: vec!["10.200.0.7".parse().unwrap()],
        prefixes: vec!["10.1.7.0/24".parse().unwrap()],
    }
}

impl Pki {
    pub(crate) fn node(&self, name: &str) -> Certificates {
        self.node_with(name, "")
    }

    pub(crate) fn node_with(&self, name: &str, crls: &str) -> Certificates {
        self.node_valid(name, crls, VALID)
    }

    pub(crate) fn node_valid(&self, name: &str, crls: &str, validity: Validity) -> Certificates {
        let made = self.ca.node(&claims(name), validity).unwrap();
        let root = self.root.chain_pem();
        Certificates::new(made.chain.as_bytes(), made.key.as_bytes(), root.as_bytes(), crls.as_bytes())
            .unwrap()
    }
}

/// `prover` signs, `judge` judges it.
pub(crate) fn meet(
    judge: &Certificates,
    prover: &Certificates,
    now: u64,
) -> Result<Identity, CertificateError> {
    let octets = b"what both have exchanged";
    let proof = prover.sign(&HASHES, octets).unwrap();
    judge.verify(now, &prover.local_id(), &prover.chain(), octets, &proof)
}

pub(crate) fn fqdn(name: &str) -> Identification {
    Identification::Fqdn(name.to_owned())
}

pub(crate) fn certified(identity: &Identity) -> &Certified {
    identity.certified().unwrap()
}

/// Is refused, with these words in the reason.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, CertificateError>, words: &str) {
    let error = result.unwrap_err().0;
    assert!(error.contains(words), "{error}");
}
