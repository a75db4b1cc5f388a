//! Signature algorithms by their identifiers: RFC 7427 writes the same `AlgorithmIdentifier` into AUTH payloads that
//! X.509 writes into certificates, so one table serves both. The arithmetic is ring's.

use crate::refused;
use const_oid::ObjectIdentifier;
use der::asn1::{Any, Null};
use der::{Decode as _, Encode as _, Sequence};
use ikev2::{CertificateError, HashAlgorithm};
use ring::signature::{self as by_ring, UnparsedPublicKey, VerificationAlgorithm};
use std::fmt;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

const ECDSA_SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA_SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(crate) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(crate) const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// SHA-2, the only hashes there are here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// How something was signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    /// ECDSA, the signature as the DER of RFC 3279 §2.2.3.
    Ecdsa(Hash),
    /// ECDSA with r and s side by side (RFC 4754), of IKE's methods 9 and 10.
    EcdsaFixed(Hash),
    /// Ed25519 (RFC 8410, RFC 8420).
    Ed25519,
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// RSASSA-PSS with MGF1 of the same hash and a salt as long as it.
    RsaPss(Hash),
    /// RSASSA-PKCS1-v1_5 with SHA-1: never believed, only recognised so that the refusal can name it.
    RsaSha1,
}

/// What kind of key a public key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// `RSASSA-PSS-params` (RFC 4055 §3.1).
#[derive(Clone, Debug, Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt: Option<u32>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer: Option<u32>,
}

impl Scheme {
    /// By its identifier.
    pub(crate) fn from_identifier(identifier: &AlgorithmIdentifierOwned) -> Result<Self, CertificateError> {
        Ok(match identifier.oid {
            ECDSA_SHA256 => Self::Ecdsa(Hash::Sha256),
            ECDSA_SHA384 => Self::Ecdsa(Hash::Sha384),
            ECDSA_SHA512 => Self::Ecdsa(Hash::Sha512),
            ED25519 => Self::Ed25519,
            RSA_SHA256 => Self::RsaPkcs1(Hash::Sha256),
            RSA_SHA384 => Self::RsaPkcs1(Hash::Sha384),
            RSA_SHA512 => Self::RsaPkcs1(Hash::Sha512),
            RSA_PSS => Self::RsaPss(pss_hash(identifier.parameters.as_ref())?),
            ECDSA_SHA1 | RSA_SHA1 => {
                return Err(refused(
                    "signed with SHA-1, which is not believed any more: use SHA-256 or better",
                ));
            }
            other => return Err(refused(format!("signed by an algorithm that is not known here ({other})"))),
        })
    }

    /// Its identifier in DER, as RFC 7427 §3 wants it before the signature.
    pub(crate) fn identifier(self) -> Result<Vec<u8>, CertificateError> {
        let null = || Some(Any::from(Null));
        let (oid, parameters) = match self {
            Self::Ecdsa(hash) => (hash.pick([ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512]), None),
            Self::Ed25519 => (ED25519, None),
            Self::RsaPkcs1(hash) => (hash.pick([RSA_SHA256, RSA_SHA384, RSA_SHA512]), null()),
            Self::RsaPss(hash) => {
                let algorithm = AlgorithmIdentifierOwned { oid: hash.oid(), parameters: null() };
                let mask =
                    AlgorithmIdentifierOwned { oid: MGF1, parameters: Any::encode_from(&algorithm).ok() };
                let parameters = PssParameters {
                    hash: Some(algorithm),
                    mask: Some(mask),
                    salt: Some(hash.len()),
                    trailer: None,
                };
                (RSA_PSS, Any::encode_from(&parameters).ok())
            }
            Self::EcdsaFixed(_) | Self::RsaSha1 => {
                return Err(refused("this signature has no algorithm identifier"));
            }
        };
        AlgorithmIdentifierOwned { oid, parameters }
            .to_der()
            .map_err(|e| refused(format!("cannot write an algorithm identifier: {e}")))
    }

    /// Did the key of `spki` sign `message`?
    ///
    /// # Errors
    /// It did not, or the key is of another kind.
    pub(crate) fn verify(
        self,
        spki: &SubjectPublicKeyInfoOwned,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CertificateError> {
        let kind = KeyKind::of(spki)?;
        let algorithm = self.with(kind).ok_or_else(|| {
            refused(format!("{self} does not go with a key of kind {kind}, or is not supported with it"))
        })?;
        let key = spki
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| refused("its public key is not a whole number of octets"))?;
        UnparsedPublicKey::new(algorithm, key)
            .verify(message, signature)
            .map_err(|_| refused(format!("the signature ({self}) is wrong")))
    }

    fn with(self, kind: KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        use Hash::{Sha256, Sha384, Sha512};
        use KeyKind::{Ed25519, P256, P384, Rsa};
        Some(match (self, kind) {
            (Self::Ecdsa(Sha256), P256) => &by_ring::ECDSA_P256_SHA256_ASN1,
            (Self::Ecdsa(Sha384), P256) => &by_ring::ECDSA_P256_SHA384_ASN1,
            (Self::Ecdsa(Sha256), P384) => &by_ring::ECDSA_P384_SHA256_ASN1,
            (Self::Ecdsa(Sha384), P384) => &by_ring::ECDSA_P384_SHA384_ASN1,
            (Self::EcdsaFixed(Sha256), P256) => &by_ring::ECDSA_P256_SHA256_FIXED,
            (Self::EcdsaFixed(Sha384), P384) => &by_ring::ECDSA_P384_SHA384_FIXED,
            (Self::Ed25519, Ed25519) => &by_ring::ED25519,
            (Self::RsaPkcs1(Sha256), Rsa) => &by_ring::RSA_PKCS1_2048_8192_SHA256,
            (Self::RsaPkcs1(Sha384), Rsa) => &by_ring::RSA_PKCS1_2048_8192_SHA384,
            (Self::RsaPkcs1(Sha512), Rsa) => &by_ring::RSA_PKCS1_2048_8192_SHA512,
            (Self::RsaPss(Sha256), Rsa) => &by_ring::RSA_PSS_2048_8192_SHA256,
            (Self::RsaPss(Sha384), Rsa) => &by_ring::RSA_PSS_2048_8192_SHA384,
            (Self::RsaPss(Sha512), Rsa) => &by_ring::RSA_PSS_2048_8192_SHA512,
            (Self::RsaSha1, Rsa) => &by_ring::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            _ => return None,
        })
    }
}

/// RFC 4055 leaves hash, mask and salt open, and their defaults are SHA-1's; believed is only what
/// RFC 7427 Appendix A.4 lists.
fn pss_hash(parameters: Option<&Any>) -> Result<Hash, CertificateError> {
    let unreadable = || refused("signed by RSASSA-PSS with parameters that cannot be read");
    let parameters: PssParameters =
        parameters.ok_or_else(unreadable)?.decode_as().map_err(|_| unreadable())?;
    let sha1 = || refused("signed by RSASSA-PSS with SHA-1: use SHA-256 or better");
    let hash = Hash::by_oid(parameters.hash.ok_or_else(sha1)?.oid).ok_or_else(sha1)?;
    let mask = parameters.mask.ok_or_else(sha1)?;
    let of_mask: AlgorithmIdentifierOwned =
        mask.parameters.ok_or_else(unreadable)?.decode_as().map_err(|_| unreadable())?;
    let same = mask.oid == MGF1
        && Hash::by_oid(of_mask.oid) == Some(hash)
        && parameters.salt == Some(hash.len())
        && parameters.trailer.is_none_or(|t| t == 1);
    if same {
        Ok(hash)
    } else {
        Err(refused("signed by RSASSA-PSS with a mask or salt that does not go with its hash"))
    }
}

/// Reads the identifier that stands before a signature, and returns what follows it.
pub(crate) fn split_identifier(data: &[u8]) -> Result<(AlgorithmIdentifierOwned, &[u8]), CertificateError> {
    use der::Reader as _;
    let unreadable =
        |_| refused("its AUTH payload does not begin with an algorithm identifier (RFC 7427 §3)");
    let mut reader = der::SliceReader::new(data).map_err(unreadable)?;
    let identifier = reader.tlv_bytes().map_err(unreadable)?;
    let rest = data.get(identifier.len()..).unwrap_or_default();
    Ok((AlgorithmIdentifierOwned::from_der(identifier).map_err(unreadable)?, rest))
}

impl KeyKind {
    pub(crate) fn of(spki: &SubjectPublicKeyInfoOwned) -> Result<Self, CertificateError> {
        let curve =
            || spki.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        Ok(match spki.algorithm.oid {
            EC_KEY => match curve() {
                Some(P256) => Self::P256,
                Some(P384) => Self::P384,
                _ => return Err(refused("its key is on a curve other than P-256 and P-384")),
            },
            ED25519 => Self::Ed25519,
            RSA_KEY => Self::Rsa,
            other => return Err(refused(format!("its key is of a kind that is not known here ({other})"))),
        })
    }
}

impl Hash {
    fn pick<T: Copy>(self, [sha256, sha384, sha512]: [T; 3]) -> T {
        match self {
            Self::Sha256 => sha256,
            Self::Sha384 => sha384,
            Self::Sha512 => sha512,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        self.pick([SHA256, SHA384, SHA512])
    }

    fn by_oid(oid: ObjectIdentifier) -> Option<Self> {
        [Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|h| h.oid() == oid)
    }

    fn len(self) -> u32 {
        self.pick([32, 48, 64])
    }

    /// Its number in IKE.
    pub(crate) fn ike(self) -> HashAlgorithm {
        self.pick([HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512])
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, hash) = match self {
            Self::Ecdsa(hash) | Self::EcdsaFixed(hash) => ("ECDSA", hash),
            Self::RsaPkcs1(hash) => ("RSA PKCS#1", hash),
            Self::RsaPss(hash) => ("RSA-PSS", hash),
            Self::Ed25519 => return f.write_str("Ed25519"),
            Self::RsaSha1 => return f.write_str("RSA PKCS#1 with SHA-1"),
        };
        write!(f, "{name} with SHA-{}", hash.pick([256, 384, 512]))
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "ECDSA P-256",
            Self::P384 => "ECDSA P-384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        })
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    //= rfc7427#A
    // The identifiers of Appendix A, octet by octet.
    #[test]
    fn identifiers_are_those_of_rfc_7427() {
        for (scheme, octets) in [
            (Scheme::RsaPkcs1(Hash::Sha256), "300d 0609 2a86 4886 f70d 0101 0b05 00"),
            (Scheme::RsaPkcs1(Hash::Sha512), "300d 0609 2a86 4886 f70d 0101 0d05 00"),
            (Scheme::Ecdsa(Hash::Sha256), "300a 0608 2a86 48ce 3d04 0302"),
            (Scheme::Ecdsa(Hash::Sha384), "300a 0608 2a86 48ce 3d04 0303"),
            (Scheme::Ed25519, "3005 0603 2b65 70"),
            (
                Scheme::RsaPss(Hash::Sha256),
                "3041 0609 2a86 4886 f70d 0101 0a30 34a0 0f30 0d06 0960 8648 0165 0304 0201 0500 a11c 301a 0609
                 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0201 0500 a203 0201 20",
            ),
        ] {
            assert_eq!(scheme.identifier().unwrap(), hex(octets), "{scheme}");
            let (identifier, rest) = split_identifier(&scheme.identifier().unwrap()).map(|(i, r)| (i, r.len())).unwrap();
            assert_eq!((Scheme::from_identifier(&identifier).unwrap(), rest), (scheme, 0));
        }
    }

    //= rfc7427#A.4.1
    // "RSASSA-PSS with Empty Parameters" means SHA-1 with a salt of 20 octets.
    #[test]
    fn pss_with_its_defaults_is_sha_1_and_refused() {
        let octets = hex("300d 0609 2a86 4886 f70d 0101 0a30 00");
        let identifier = AlgorithmIdentifierOwned::from_der(&octets).unwrap();
        assert!(Scheme::from_identifier(&identifier).unwrap_err().0.contains("SHA-1"));
    }

    #[test]
    fn sha_1_is_refused_by_name() {
        for octets in ["300d 0609 2a86 4886 f70d 0101 0505 00", "3009 0607 2a86 48ce 3d04 01"] {
            let identifier = AlgorithmIdentifierOwned::from_der(&hex(octets)).unwrap();
            assert!(Scheme::from_identifier(&identifier).unwrap_err().0.contains("SHA-1"));
        }
    }
}
