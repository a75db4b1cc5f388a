//! One certificate, with the extensions that are known here read, and of the rest only what is critical noted.

use crate::blocks::{self, Blocks};
use crate::names::Constraints;
use crate::{refused, text};
use const_oid::{AssociatedOid, ObjectIdentifier};
use der::{Decode, Encode as _, Header, Reader as _, SliceReader};
use ikev2::CertificateError;
use ring::digest;
use std::net::IpAddr;
use x509_cert::certificate::{CertificateInner, Rfc5280};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, CertificatePolicies, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// Octets of the longest certificate that is read.
pub(crate) const MAX_OCTETS: usize = 16 * 1024;

/// A certificate that could be read. Nothing of it is believed yet.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// As it came.
    pub(crate) der: Vec<u8>,
    /// What was signed: where it ends in `der`.
    signed: std::ops::Range<usize>,
    /// By which algorithm.
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    pub(crate) signature: Vec<u8>,
    pub(crate) subject: Name,
    pub(crate) issuer: Name,
    pub(crate) key: SubjectPublicKeyInfoOwned,
    /// Big-endian, without leading zeros.
    pub(crate) serial: Vec<u8>,
    /// First and last second of validity.
    pub(crate) validity: (u64, u64),
    /// It may issue; with how many CAs between itself and an end entity.
    pub(crate) ca: Option<PathLength>,
    pub(crate) key_usage: Option<KeyUsage>,
    /// Subject key identifier.
    pub(crate) key_id: Option<Vec<u8>>,
    pub(crate) purposes: Option<Vec<ObjectIdentifier>>,
    /// Subject alternative names.
    pub(crate) names: Vec<GeneralName>,
    pub(crate) constraints: Option<Constraints>,
    pub(crate) blocks: Option<Blocks>,
    /// The first critical extension that is not known here.
    pub(crate) unknown_critical: Option<ObjectIdentifier>,
}

/// CAs that may follow a CA: bounded, or not.
pub(crate) type PathLength = Option<u8>;

impl Certificate {
    pub(crate) fn from_der(octets: &[u8]) -> Result<Self, CertificateError> {
        if octets.len() > MAX_OCTETS {
            return Err(refused(format!(
                "a certificate of {} octets; at most {MAX_OCTETS} are read",
                octets.len()
            )));
        }
        let unreadable = |e: der::Error| refused(format!("a certificate cannot be read ({e})"));
        let read = CertificateInner::<Rfc5280>::from_der(octets).map_err(unreadable)?;
        let tbs = read.tbs_certificate();
        let mut certificate = Self {
            der: octets.to_vec(),
            signed: signed_part(octets).map_err(unreadable)?,
            algorithm: read.signature_algorithm().clone(),
            signature: read.signature().as_bytes().map(<[u8]>::to_vec).unwrap_or_default(),
            subject: tbs.subject().clone(),
            issuer: tbs.issuer().clone(),
            key: tbs.subject_public_key_info().clone(),
            serial: serial(tbs.serial_number().as_bytes()),
            validity: (
                tbs.validity().not_before.to_unix_duration().as_secs(),
                tbs.validity().not_after.to_unix_duration().as_secs(),
            ),
            ca: None,
            key_usage: None,
            key_id: None,
            purposes: None,
            names: Vec::new(),
            constraints: None,
            blocks: None,
            unknown_critical: None,
        };
        let extensions = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        certificate.read_extensions(extensions).map_err(|e| certificate.blame(&e))?;
        //= rfc5280#4.1.1.2
        // "This field MUST contain the same algorithm identifier as the signature field in the sequence tbsCertificate"
        if tbs.signature() != read.signature_algorithm() {
            return Err(certificate.blame(&refused("it names two different signature algorithms")));
        }
        Ok(certificate)
    }

    /// The octets its issuer has signed.
    pub(crate) fn signed(&self) -> &[u8] {
        self.der.get(self.signed.clone()).unwrap_or_default()
    }

    /// The subject, for people.
    pub(crate) fn shown(&self) -> String {
        let subject = text::name(&self.subject);
        match self.dns_names().next() {
            Some(dns) if !subject.contains(dns) => format!("{subject} ({})", text::printable(dns)),
            _ => subject,
        }
    }

    /// An error that says of which certificate it speaks.
    pub(crate) fn blame(&self, error: &CertificateError) -> CertificateError {
        refused(format!("certificate of `{}`: {}", self.shown(), error.0))
    }

    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        sha256(&[&self.der])
    }

    pub(crate) fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            GeneralName::DnsName(dns) => Some(dns.as_str()),
            _ => None,
        })
    }

    pub(crate) fn emails(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            GeneralName::Rfc822Name(email) => Some(email.as_str()),
            _ => None,
        })
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.names.iter().filter_map(|name| match name {
            GeneralName::IpAddress(octets) => ip(octets.as_bytes()),
            _ => None,
        })
    }

    /// Signed by the key it bears, to all appearance.
    pub(crate) fn self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    fn read_extensions(&mut self, extensions: &[Extension]) -> Result<(), CertificateError> {
        let mut seen = Vec::with_capacity(extensions.len());
        let mut blocks = Vec::new();
        for extension in extensions {
            //= rfc5280#4.2
            // "A certificate MUST NOT include more than one instance of a particular extension."
            if seen.contains(&extension.extn_id) {
                return Err(refused(format!("it has extension {} twice", extension.extn_id)));
            }
            seen.push(extension.extn_id);
            match extension.extn_id {
                BasicConstraints::OID => {
                    let constraints: BasicConstraints = read(extension, "basic constraints")?;
                    self.ca = constraints.ca.then_some(constraints.path_len_constraint);
                }
                KeyUsage::OID => self.key_usage = Some(read(extension, "key usage")?),
                SubjectKeyIdentifier::OID => {
                    let id: SubjectKeyIdentifier = read(extension, "subject key identifier")?;
                    self.key_id = Some(id.0.as_bytes().to_vec());
                }
                ExtendedKeyUsage::OID => {
                    self.purposes = Some(read::<ExtendedKeyUsage>(extension, "extended key usage")?.0);
                }
                SubjectAltName::OID => {
                    self.names = read::<SubjectAltName>(extension, "subject alternative names")?.0;
                }
                NameConstraints::OID => {
                    let constraints: NameConstraints = read(extension, "name constraints")?;
                    self.constraints = Some(Constraints::new(constraints)?);
                }
                blocks::OURS | blocks::RFC3779 => {
                    blocks.push(Blocks::from_der(extension.extn_value.as_bytes())?)
                }
                // We demand no policy, so that any set of policies is as good as none.
                CertificatePolicies::OID => {}
                //= rfc5280#4.2
                // "A certificate-using system MUST reject the certificate if it encounters a critical extension it
                // does not recognize"
                unknown if extension.critical => {
                    self.unknown_critical.get_or_insert(unknown);
                }
                _ => {}
            }
        }
        if blocks.iter().skip(1).any(|other| Some(other) != blocks.first()) {
            return Err(refused("it has address blocks in two extensions, and they differ"));
        }
        self.blocks = blocks.pop();
        Ok(())
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().unwrap_or_default()
}

/// SHA-1 of a public key's info: how a CERTREQ names an authority (RFC 7296 §3.7). A name, not a protection.
pub(crate) fn authority(key: &SubjectPublicKeyInfoOwned) -> Option<[u8; 20]> {
    let der = key.to_der().ok()?;
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &der).as_ref().try_into().ok()
}

/// Where in `SEQUENCE { tbs, algorithm, signature }` the first element lies.
pub(crate) fn signed_part(octets: &[u8]) -> der::Result<std::ops::Range<usize>> {
    let body = usize::try_from(Header::peek(&SliceReader::new(octets)?)?.length())?;
    let start = octets.len().saturating_sub(body);
    let tbs = SliceReader::new(octets.get(start..).unwrap_or_default())?.tlv_bytes()?;
    Ok(start..start + tbs.len())
}

/// A serial number without the leading zeros that its encoding may have.
pub(crate) fn serial(octets: &[u8]) -> Vec<u8> {
    octets.iter().copied().skip_while(|octet| *octet == 0).collect()
}

fn read<'a, T>(extension: &'a Extension, what: &str) -> Result<T, CertificateError>
where
    T: Decode<'a, Error = der::Error> + AssociatedOid,
{
    T::from_der(extension.extn_value.as_bytes())
        .map_err(|e| refused(format!("its {what} cannot be read ({e})")))
}

pub(crate) fn ip(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}
