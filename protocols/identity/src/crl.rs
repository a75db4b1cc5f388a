//! Revocation lists (RFC 5280 §5): full lists by the CA itself. Delta lists, indirect ones and those of a part of the
//! certificates are refused when they are read, so that nobody believes to be protected by one.

use crate::certificate::{serial, sha256, signed_part};
use crate::signature::Scheme;
use crate::{refused, text};
use const_oid::AssociatedOid as _;
use der::Decode as _;
use ikev2::CertificateError;
use std::collections::BTreeMap;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::CrlReason;
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// Octets of the longest list that is read.
const MAX_OCTETS: usize = 16 * 1024 * 1024;

/// A list that could be read; its signature is checked against whoever has issued a certificate.
#[derive(Debug)]
pub(crate) struct Crl {
    pub(crate) issuer: Name,
    pub(crate) this_update: u64,
    /// `None`: it never becomes stale.
    pub(crate) next_update: Option<u64>,
    /// By serial number: when, and why.
    revoked: BTreeMap<Vec<u8>, (u64, Option<CrlReason>)>,
    /// SHA-256 of the whole list, which may be long.
    pub(crate) fingerprint: [u8; 32],
    der: Vec<u8>,
    signed: std::ops::Range<usize>,
    algorithm: AlgorithmIdentifierOwned,
    signature: Vec<u8>,
}

impl Crl {
    pub(crate) fn from_der(octets: &[u8]) -> Result<Self, CertificateError> {
        if octets.len() > MAX_OCTETS {
            return Err(refused(format!(
                "a revocation list of {} octets; at most {MAX_OCTETS} are read",
                octets.len()
            )));
        }
        let unreadable = |e: der::Error| refused(format!("a revocation list cannot be read ({e})"));
        let read = CertificateList::<Rfc5280>::from_der(octets).map_err(unreadable)?;
        let list = read.tbs_cert_list;
        let blame =
            |text: &str| refused(format!("revocation list of `{}`: {text}", text::name(&list.issuer)));
        if list.signature != read.signature_algorithm {
            return Err(blame("it names two different signature algorithms"));
        }
        //= rfc5280#5.2
        // "If a CRL contains a critical extension that the application cannot process, then the application MUST NOT
        // use that CRL to determine the status of certificates."
        if let Some(unknown) = list.crl_extensions.iter().flatten().find(|e| e.critical) {
            return Err(blame(&format!(
                "it has the critical extension {}: only full lists for all of a CA's certificates are understood",
                unknown.extn_id
            )));
        }
        let mut revoked = BTreeMap::new();
        for entry in list.revoked_certificates.iter().flatten() {
            let extensions = entry.crl_entry_extensions.as_deref().unwrap_or_default();
            if extensions.iter().any(|e| e.critical && e.extn_id != CrlReason::OID) {
                return Err(blame("an entry has a critical extension that is not known here"));
            }
            let reason = extensions.iter().find(|e| e.extn_id == CrlReason::OID);
            let reason = reason.and_then(|e| CrlReason::from_der(e.extn_value.as_bytes()).ok());
            let date = entry.revocation_date.to_unix_duration().as_secs();
            revoked.insert(serial(entry.serial_number.as_bytes()), (date, reason));
        }
        Ok(Self {
            signed: signed_part(octets).map_err(unreadable)?,
            this_update: list.this_update.to_unix_duration().as_secs(),
            next_update: list.next_update.map(|t| t.to_unix_duration().as_secs()),
            issuer: list.issuer,
            revoked,
            fingerprint: sha256(&[octets]),
            der: octets.to_vec(),
            algorithm: read.signature_algorithm,
            signature: read.signature.as_bytes().map(<[u8]>::to_vec).unwrap_or_default(),
        })
    }

    /// Was it signed by this key?
    pub(crate) fn signed_by(&self, key: &SubjectPublicKeyInfoOwned) -> Result<(), CertificateError> {
        let signed = self.der.get(self.signed.clone()).unwrap_or_default();
        Scheme::from_identifier(&self.algorithm)?.verify(key, signed, &self.signature)
    }

    /// Is the certificate with this serial number revoked? The text says when and why.
    pub(crate) fn revocation(&self, serial: &[u8]) -> Option<String> {
        let (date, reason) = self.revoked.get(serial)?;
        let reason = reason.map(|r| format!(" ({r:?})")).unwrap_or_default();
        Some(format!("revoked by `{}` at {}{reason}", text::name(&self.issuer), text::time(*date)))
    }

    /// Serial numbers, with when and why.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], String)> {
        self.revoked.iter().map(|(serial, (date, reason))| {
            let reason = reason.map(|r| format!(" ({r:?})")).unwrap_or_default();
            (serial.as_slice(), format!("{}{reason}", text::time(*date)))
        })
    }

    pub(crate) fn is_current(&self, unix_now: u64) -> bool {
        self.next_update.is_none_or(|next| unix_now <= next)
    }
}
