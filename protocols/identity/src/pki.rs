//! Makes certificates: roots, intermediates confined to what a cluster owns, nodes' certificates, revocation lists. For
//! `dmvpnctl pki`, the operator, and tests; nodes only read them.
//!
//! A key is born where it is used: [`Request::make`] on the node, [`Authority::sign`] where the CA is. Keys and serial
//! numbers are drawn from the system by ring.

mod describe;
mod request;

pub use describe::{CertificateFacts, Described, describe, serial_of};
pub use request::Request;

use crate::blocks::{self, Blocks};
use crate::certificate::Certificate;
use crate::names::Constraints;
pub use crate::text::time as date;
use crate::{refused, text};
use der::Encode as _;
use ikev2::CertificateError;
use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CidrSubnet, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::net::IpAddr;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// `id-kp-ipsecIKE` (RFC 4945 §5.1.3.12).
const IPSEC_IKE: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 17];

/// What a node is called, and what it may claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Its DNS name: its IKE identity, and what admission classes match.
    pub name: String,
    /// Its addresses in the tunnel (IP SANs).
    pub tunnel_addresses: Vec<IpAddr>,
    /// Prefixes behind it (address blocks). Empty: none.
    pub prefixes: Vec<IpNet>,
}

/// What an intermediate CA may issue for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confines {
    /// DNS domains of the names (`hq.example.com`: itself, and whatever is below).
    pub domains: Vec<String>,
    /// Networks of the tunnel addresses.
    pub tunnel_addresses: Vec<IpNet>,
    /// Prefixes that may be given to nodes. Empty: none.
    pub prefixes: Vec<IpNet>,
}

/// First and last second of validity, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: u64,
    /// Until.
    pub not_after: u64,
}

/// A certificate that is no longer to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// Since when, seconds since 1970.
    pub since: u64,
}

/// A chain and the key of its first certificate, in PEM: `tls.crt` and `tls.key`.
pub struct Made {
    /// Own certificate first, without the root.
    pub chain: String,
    /// PKCS#8.
    pub key: Zeroizing<String>,
}

/// A CA with its key.
pub struct Authority {
    /// Its own certificate first, then those above it that were given.
    chain: Vec<Certificate>,
    issuer: Issuer<'static, KeyPair>,
    key: Zeroizing<String>,
}

impl Authority {
    /// A new root, with an ECDSA P-256 key, as every IKE peer can verify.
    ///
    /// # Errors
    /// The name is empty or too long.
    pub fn root(name: &str, validity: Validity) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(unmade)?;
        let params = ca_params(name, validity, BasicConstraints::Unconstrained)?;
        let certificate = params.self_signed(&key).map_err(unmade)?;
        Self::new(vec![certificate.der().to_vec()], key)
    }

    /// From `tls.crt` (own certificate first) and `tls.key` (PKCS#8).
    ///
    /// # Errors
    /// What cannot be read, or is no CA's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = crate::certificates::pem_blocks(chain, "tls.crt", &["CERTIFICATE"])?;
        let key = std::str::from_utf8(key).map_err(|_| refused("tls.key is not PEM"))?;
        let key = KeyPair::from_pem(key).map_err(|e| {
            refused(format!(
                "tls.key: the CA's key cannot be used ({e}); it must be PKCS#8 \
                 (`openssl pkcs8 -topk8 -nocrypt -in OLD -out tls.key`)"
            ))
        })?;
        Self::new(chain, key)
    }

    fn new(chain: Vec<Vec<u8>>, key: KeyPair) -> Result<Self, CertificateError> {
        let chain: Vec<Certificate> =
            chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
        let own = chain.first().ok_or_else(|| refused("tls.crt holds no certificate"))?;
        if own.ca.is_none() {
            return Err(own.blame(&refused("it is no CA's certificate")));
        }
        if own.key.to_der().ok().as_deref() != Some(key.subject_public_key_info().as_slice()) {
            return Err(refused("tls.key does not belong to tls.crt"));
        }
        let text = Zeroizing::new(key.serialize_pem());
        let issuer = Issuer::from_ca_cert_der(&own.der.as_slice().into(), key).map_err(unmade)?;
        Ok(Self { chain, issuer, key: text })
    }

    /// Its chain in PEM, own certificate first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|c| certificate_pem(&c.der)).collect()
    }

    /// Its key in PEM.
    #[must_use]
    pub fn key_pem(&self) -> &Zeroizing<String> {
        &self.key
    }

    /// The last second in which certificates issued here are good: that of the first to run out of its chain.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.chain.iter().map(|c| c.validity.1).min().unwrap_or(u64::MAX)
    }

    /// A new CA below this one that may issue only within `confines`.
    ///
    /// # Errors
    /// They go beyond this CA's own.
    pub fn intermediate(
        &self,
        name: &str,
        confines: &Confines,
        validity: Validity,
    ) -> Result<Self, CertificateError> {
        let mut params = ca_params(name, self.clamped(validity), BasicConstraints::Constrained(0))?;
        let domains = confines.domains.iter().map(|d| GeneralSubtree::DnsName(d.clone()));
        let networks = confines.tunnel_addresses.iter();
        let networks = networks
            .map(|n| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(n.network(), n.prefix_len())));
        let permitted_subtrees: Vec<GeneralSubtree> = domains.chain(networks).collect();
        if !permitted_subtrees.is_empty() {
            params.name_constraints =
                Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        }
        params.custom_extensions = vec![block_extension(&confines.prefixes)?];
        let key = KeyPair::generate().map_err(unmade)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unmade)?.der().to_vec();
        self.check(&certificate)?;
        Self::new(self.below(certificate), key)
    }

    /// A node's certificate with a key made here; [`Request`] is for keys that never leave their node.
    ///
    /// # Errors
    /// The claims go beyond what this CA may issue for.
    pub fn node(&self, claims: &Claims, validity: Validity) -> Result<Made, CertificateError> {
        let key = KeyPair::generate().map_err(unmade)?;
        let chain = self.certify(&key, claims, validity)?;
        Ok(Made { chain, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Signs a request: for its key, and for `claims`, which the caller has compared with what the request asks for.
    /// Returns the chain in PEM.
    ///
    /// # Errors
    /// The claims go beyond what this CA may issue for.
    pub fn sign(
        &self,
        request: &Request,
        claims: &Claims,
        validity: Validity,
    ) -> Result<String, CertificateError> {
        let key = SubjectPublicKeyInfo::from_der(&request.key).map_err(unmade)?;
        self.certify(&key, claims, validity)
    }

    /// May a certificate with these claims be issued here?
    ///
    /// # Errors
    /// The claims go beyond what this CA may issue for.
    pub fn permits(&self, claims: &Claims) -> Result<(), CertificateError> {
        let own = self.chain.first().ok_or_else(|| refused("there is no CA"))?;
        let key = own.key.to_der().map_err(|_| refused("the CA's key cannot be written"))?;
        let key = SubjectPublicKeyInfo::from_der(&key).map_err(unmade)?;
        let validity = Validity { not_before: own.validity.0, not_after: own.validity.1 };
        // One for a key that is at hand, which goes nowhere.
        self.certify(&key, claims, validity).map(drop)
    }

    /// A list of all that this CA has revoked, in PEM. Numbers of later lists must be higher.
    ///
    /// # Errors
    /// This CA's key must not sign lists.
    pub fn revocation_list(
        &self,
        revoked: &[Revoked],
        number: u64,
        validity: Validity,
    ) -> Result<String, CertificateError> {
        let entry = |revoked: &Revoked| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&revoked.serial),
                revocation_time: time(revoked.since)?,
                reason_code: None, // RFC 5280 §5.3.1: absent rather than "unspecified".
                invalidity_date: None,
            })
        };
        let key_identifier_method = self
            .chain
            .first()
            .and_then(|own| own.key_id.clone())
            .map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified);
        CertificateRevocationListParams {
            this_update: time(validity.not_before)?,
            next_update: time(validity.not_after)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_, CertificateError>>()?,
            key_identifier_method,
        }
        .signed_by(&self.issuer)
        .and_then(|list| list.pem())
        .map_err(unmade)
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        claims: &Claims,
        validity: Validity,
    ) -> Result<String, CertificateError> {
        let mut params = claims.params()?;
        params.not_before = time(validity.not_before)?;
        params.not_after = time(self.clamped(validity).not_after)?;
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::Other(IPSEC_IKE.to_vec()),
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(key, &self.issuer).map_err(unmade)?.der().to_vec();
        self.check(&certificate)?;
        Ok(self.below(certificate).iter().map(|der| certificate_pem(der)).collect())
    }

    /// Would peers accept this from us? Better refused here, where somebody reads it.
    fn check(&self, certificate: &[u8]) -> Result<(), CertificateError> {
        let made = Certificate::from_der(certificate)?;
        let check = || {
            if made.ca.is_some() && self.chain.first().is_some_and(|own| own.ca == Some(Some(0))) {
                return Err(refused("its CA may issue for nodes only, and not make further CAs"));
            }
            self.chain
                .iter()
                .filter_map(|above| above.constraints.as_ref())
                .try_for_each(|constraints: &Constraints| constraints.allow(&made))?;
            let above = self.chain.iter().find_map(|above| above.blocks.as_ref());
            made.blocks.as_ref().map_or(Ok(()), |own| own.below(above).map(|_| ()))
        };
        check().map_err(|e| made.blame(&e))
    }

    /// No certificate outlives its issuer.
    fn clamped(&self, validity: Validity) -> Validity {
        Validity { not_after: validity.not_after.min(self.not_after()), ..validity }
    }

    /// The chain of a certificate issued here: peers have the root already.
    fn below(&self, certificate: Vec<u8>) -> Vec<Vec<u8>> {
        let above = self.chain.iter().filter(|c| !c.self_issued()).map(|c| c.der.clone());
        std::iter::once(certificate).chain(above).collect()
    }
}

impl Claims {
    fn params(&self) -> Result<CertificateParams, CertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&self.name)?;
        let no_name = || {
            refused(format!(
                "`{}` is no DNS name of a node: letters, digits, `-`, `_` and `.` make one",
                text::printable(&self.name)
            ))
        };
        if !self.name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
            return Err(no_name());
        }
        let dns = self.name.clone().try_into().map_err(|_| no_name())?;
        params.subject_alt_names = std::iter::once(SanType::DnsName(dns))
            .chain(self.tunnel_addresses.iter().map(|a| SanType::IpAddress(*a)))
            .collect();
        params.custom_extensions = vec![block_extension(&self.prefixes)?];
        Ok(params)
    }
}

fn ca_params(
    name: &str,
    validity: Validity,
    length: BasicConstraints,
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name)?;
    params.not_before = time(validity.not_before)?;
    params.not_after = time(validity.not_after)?;
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(length);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// RFC 5280 Appendix A.1: a common name has 1 to 64 characters. A longer DNS name stands in the SAN alone.
fn common_name(name: &str) -> Result<DistinguishedName, CertificateError> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(refused("a certificate needs a name, of printable characters"));
    }
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    Ok(dn)
}

fn block_extension(prefixes: &[IpNet]) -> Result<CustomExtension, CertificateError> {
    let oid: Vec<u64> = blocks::OURS.arcs().map(u64::from).collect();
    Ok(CustomExtension::from_oid_content(&oid, Blocks::from_prefixes(prefixes).to_der()?))
}

/// 127 random bits: nobody can predict it, and RFC 5280 §4.1.2.2 allows 20 octets.
fn serial() -> Result<SerialNumber, CertificateError> {
    let mut octets = [0u8; 16];
    SystemRandom::new().fill(&mut octets).map_err(|_| refused("the system gives no random numbers"))?;
    if let Some(first) = octets.first_mut() {
        *first = *first & 0x3f | 0x40; // Positive, and always of the same length.
    }
    Ok(SerialNumber::from_slice(&octets))
}

fn time(unix: u64) -> Result<OffsetDateTime, CertificateError> {
    i64::try_from(unix)
        .ok()
        .and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok())
        .ok_or_else(|| refused(format!("{unix} s after 1970 is no date")))
}

fn certificate_pem(der: &[u8]) -> String {
    pem::encode_config(
        &pem::Pem::new("CERTIFICATE", der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

fn unmade(error: rcgen::Error) -> CertificateError {
    refused(format!("cannot make a certificate: {error}"))
}

#[cfg(test)]
mod tests;
