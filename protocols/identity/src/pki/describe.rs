//! What is in a PEM file, for people (`dmvpnctl pki show`).

use super::Request;
use crate::certificate::Certificate;
use crate::certificates::all_pem_blocks;
use crate::crl::Crl;
use crate::signature::KeyKind;
use crate::text;
use ikev2::CertificateError;
use serde::Serialize;

/// One thing in a PEM file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Described {
    /// A certificate.
    Certificate(Box<CertificateFacts>),
    /// A revocation list.
    RevocationList {
        /// Who issued it.
        issuer: String,
        /// Serial numbers, hexadecimal, with when and why.
        revoked: Vec<(String, String)>,
        /// When it was made, and when the next is due.
        validity: (u64, Option<u64>),
    },
    /// A certificate request.
    Request {
        /// DNS name asked for.
        name: String,
        /// Tunnel addresses asked for.
        tunnel_addresses: Vec<String>,
        /// Prefixes asked for.
        prefixes: Vec<String>,
    },
    /// A private key; nothing of it is shown.
    Key {
        /// PEM label.
        label: String,
    },
    /// Something else.
    Other {
        /// PEM label.
        label: String,
    },
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// Distinguished name.
    pub subject: String,
    /// Distinguished name of who signed it.
    pub issuer: String,
    /// It issues others.
    pub ca: bool,
    /// DNS names.
    pub names: Vec<String>,
    /// Tunnel addresses (IP SANs).
    pub tunnel_addresses: Vec<String>,
    /// Prefixes it may claim, or a CA may give out. `None`: it says nothing of prefixes.
    pub prefixes: Option<Vec<String>>,
    /// (CA) names that it may issue for, and must not. Empty: anything.
    pub permitted: Vec<String>,
    /// (CA) names that it must not issue for.
    pub excluded: Vec<String>,
    /// Kind of its key.
    pub key: String,
    /// Serial number, hexadecimal: what a revocation list names.
    pub serial: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// First and last second of validity, seconds since 1970.
    pub validity: (u64, u64),
    /// A critical extension that is not known here, for which every peer refuses it.
    pub unknown_critical: Option<String>,
}

/// Describes everything in a PEM file.
///
/// # Errors
/// Something in it cannot be read.
pub fn describe(pem: &[u8]) -> Result<Vec<Described>, CertificateError> {
    all_pem_blocks(pem, "the file")?
        .into_iter()
        .map(|block| match block.tag() {
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => {
                Certificate::from_der(block.contents()).map(|c| certificate(&c))
            }
            "X509 CRL" => Crl::from_der(block.contents()).map(|crl| list(&crl)),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
                Request::from_der(block.contents()).map(|r| request(&r))
            }
            label if label.ends_with("PRIVATE KEY") => Ok(Described::Key { label: label.to_owned() }),
            label => Ok(Described::Other { label: text::printable(label) }),
        })
        .collect()
}

/// The serial number of a certificate in DER, as [`CertificateFacts::serial`] says it.
#[must_use]
pub fn serial_of(der: &[u8]) -> Option<String> {
    Certificate::from_der(der).ok().map(|c| text::hex(&c.serial))
}

fn certificate(c: &Certificate) -> Described {
    let (permitted, excluded) = c.constraints.as_ref().map(|c| c.shown()).unwrap_or_default();
    Described::Certificate(Box::new(CertificateFacts {
        subject: text::name(&c.subject),
        issuer: text::name(&c.issuer),
        ca: c.ca.is_some(),
        names: c.dns_names().map(text::printable).collect(),
        tunnel_addresses: c.addresses().map(|a| a.to_string()).collect(),
        prefixes: c.blocks.as_ref().map(|blocks| {
            blocks.prefixes().map_or_else(
                |_| vec!["what its issuer has".to_owned()],
                |prefixes| prefixes.iter().map(ToString::to_string).collect(),
            )
        }),
        permitted,
        excluded,
        key: KeyKind::of(&c.key).map_or_else(|e| e.0, |kind| kind.to_string()),
        serial: text::hex(&c.serial),
        fingerprint: text::hex(&c.fingerprint()),
        validity: c.validity,
        unknown_critical: c.unknown_critical.map(|oid| oid.to_string()),
    }))
}

fn list(crl: &Crl) -> Described {
    Described::RevocationList {
        issuer: text::name(&crl.issuer),
        revoked: crl.entries().map(|(serial, entry)| (text::hex(serial), entry)).collect(),
        validity: (crl.this_update, crl.next_update),
    }
}

fn request(r: &Request) -> Described {
    Described::Request {
        name: text::printable(&r.claims.name),
        tunnel_addresses: r.claims.tunnel_addresses.iter().map(ToString::to_string).collect(),
        prefixes: r.claims.prefixes.iter().map(ToString::to_string).collect(),
    }
}
