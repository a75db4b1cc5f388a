//! Certificate requests (PKCS#10, RFC 2986): made where the key is born, judged where the CA is.

use super::{Claims, unmade};
use crate::blocks::{self, Blocks};
use crate::certificate::{ip, signed_part};
use crate::refused;
use crate::signature::Scheme;
use const_oid::AssociatedOid as _;
use der::{Decode as _, Encode as _};
use ikev2::CertificateError;
use rcgen::KeyPair;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};
use zeroize::Zeroizing;

/// Octets of the longest request that is read.
const MAX_OCTETS: usize = 16 * 1024;

/// A request whose signature is good: whoever made it has the key. What it asks for is still only asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it asks for.
    pub claims: Claims,
    /// Public key info in DER.
    pub(super) key: Vec<u8>,
}

impl Request {
    /// A new key and a request for it, both in PEM.
    ///
    /// # Errors
    /// The name is no DNS name.
    pub fn make(claims: &Claims) -> Result<(String, Zeroizing<String>), CertificateError> {
        let key = KeyPair::generate().map_err(unmade)?;
        Ok((Self::renew(claims, &key)?, Zeroizing::new(key.serialize_pem())))
    }

    /// A request for a key that exists (PKCS#8 in PEM), in PEM.
    ///
    /// # Errors
    /// The key cannot be read, or the name is no DNS name.
    pub fn for_key(claims: &Claims, key: &str) -> Result<String, CertificateError> {
        Self::renew(claims, &KeyPair::from_pem(key).map_err(unmade)?)
    }

    fn renew(claims: &Claims, key: &KeyPair) -> Result<String, CertificateError> {
        claims.params()?.serialize_request(key).and_then(|request| request.pem()).map_err(unmade)
    }

    /// Reads a request in PEM, and checks that its maker has the key.
    ///
    /// # Errors
    /// It cannot be read, is not signed by its key, or asks for what is not understood.
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        let labels = &["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
        let blocks = crate::certificates::pem_blocks(text, "the request", labels)?;
        let der = blocks.first().ok_or_else(|| refused("the file holds no certificate request"))?;
        Self::from_der(der)
    }

    /// The same in DER.
    ///
    /// # Errors
    /// As for [`Self::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = |e: der::Error| refused(format!("the certificate request cannot be read ({e})"));
        if der.len() > MAX_OCTETS {
            return Err(refused(format!("a request of {} octets; at most {MAX_OCTETS} are read", der.len())));
        }
        let request = CertReq::from_der(der).map_err(unreadable)?;
        let signed = der.get(signed_part(der).map_err(unreadable)?).unwrap_or_default();
        Scheme::from_identifier(&request.algorithm)?
            .verify(&request.info.public_key, signed, request.signature.as_bytes().unwrap_or_default())
            .map_err(|e| refused(format!("the request is not signed by its own key: {}", e.0)))?;
        let mut claims = Claims::default();
        for attribute in request.info.attributes.iter().filter(|a| a.oid == ExtensionReq::OID) {
            for value in attribute.values.iter() {
                let extensions =
                    ExtensionReq::from_der(&value.to_der().map_err(unreadable)?).map_err(unreadable)?;
                for extension in extensions.0 {
                    let content = extension.extn_value.as_bytes();
                    match extension.extn_id {
                        SubjectAltName::OID => read_names(content, &mut claims)?,
                        blocks::OURS | blocks::RFC3779 => {
                            claims.prefixes = Blocks::from_der(content)?.prefixes()?;
                        }
                        _ => {} // The CA decides on everything else.
                    }
                }
            }
        }
        if claims.name.is_empty() {
            return Err(refused("the request asks for no DNS name (subject alternative name)"));
        }
        Ok(Self { claims, key: request.info.public_key.to_der().map_err(unreadable)? })
    }
}

fn read_names(content: &[u8], claims: &mut Claims) -> Result<(), CertificateError> {
    let names = SubjectAltName::from_der(content)
        .map_err(|e| refused(format!("the request's names cannot be read ({e})")))?;
    for name in names.0 {
        match name {
            GeneralName::DnsName(dns) if claims.name.is_empty() => claims.name = dns.to_string(),
            GeneralName::IpAddress(octets) => claims.tunnel_addresses.extend(ip(octets.as_bytes())),
            _ => {
                return Err(refused(
                    "the request asks for more names than one DNS name and tunnel addresses",
                ));
            }
        }
    }
    Ok(())
}
