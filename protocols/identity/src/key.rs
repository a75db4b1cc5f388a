//! Our private key: reads what OpenSSL, cert-manager and our own `dmvpnctl pki` write, and signs for IKE.

use crate::refused;
use crate::signature::{Hash, KeyKind, Scheme};
use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use der::{Decode as _, Reader as _, Sequence, SliceReader};
use ikev2::{AuthMethod, Authentication, CertificateError, HashAlgorithm};
use ring::rand::SystemRandom;
use ring::signature::{
    self as by_ring, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use zeroize::Zeroizing;

/// A private key that can sign.
///
/// Signing needs fresh randomness for ECDSA's nonce and RSA-PSS's salt, and ring takes it from the system alone: the one
/// place of the protocol crates that does.
#[derive(Debug)]
pub(crate) enum PrivateKey {
    /// The key twice: IKE's older methods want r and s side by side, and ring binds a key to a format.
    Ecdsa {
        kind: KeyKind,
        asn1: Box<EcdsaKeyPair>,
        fixed: Box<EcdsaKeyPair>,
    },
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// `ECPrivateKey` (RFC 5915 §3): what `EC PRIVATE KEY` holds.
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a OctetStringRef,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    parameters: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<BitStringRef<'a>>,
}

impl PrivateKey {
    /// From PEM: `PRIVATE KEY` (PKCS#8), `EC PRIVATE KEY` (RFC 5915) or `RSA PRIVATE KEY` (PKCS#1). `public` is the key
    /// of our certificate, which it must go with.
    pub(crate) fn from_pem(
        text: &[u8],
        public: &SubjectPublicKeyInfoOwned,
    ) -> Result<Self, CertificateError> {
        let blocks =
            pem::parse_many(text).map_err(|e| refused(format!("the private key is not PEM: {e}")))?;
        let mut encrypted = false;
        for block in blocks {
            let label = block.tag().to_owned();
            encrypted |= label.starts_with("ENCRYPTED") || block.headers().get("Proc-Type").is_some();
            let der = Zeroizing::new(block.into_contents());
            let read = match label.as_str() {
                "PRIVATE KEY" => Self::from_pkcs8(&der, public)?,
                "EC PRIVATE KEY" => Self::from_sec1(&der, KeyKind::of(public)?, public)?,
                "RSA PRIVATE KEY" => Self::Rsa(Box::new(RsaKeyPair::from_der(&der).map_err(unusable)?)),
                _ => continue, // `EC PARAMETERS` and certificates may stand beside it.
            };
            if read.public() != public.subject_public_key.as_bytes().unwrap_or_default() {
                return Err(refused(
                    "the private key does not belong to the certificate: compare tls.key and tls.crt",
                ));
            }
            return Ok(read);
        }
        Err(refused(if encrypted {
            "the private key is encrypted: store it decrypted, in a Secret or a file that only the agent may read"
        } else {
            "there is no private key: write it as PEM (`PRIVATE KEY`)"
        }))
    }

    fn from_pkcs8(der: &[u8], public: &SubjectPublicKeyInfoOwned) -> Result<Self, CertificateError> {
        match KeyKind::of(public)? {
            kind @ (KeyKind::P256 | KeyKind::P384) => Self::from_sec1(ec_part(der)?, kind, public),
            KeyKind::Ed25519 => {
                Ok(Self::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(unusable)?))
            }
            KeyKind::Rsa => Ok(Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(der).map_err(unusable)?))),
        }
    }

    /// The public half is the certificate's: ring checks that they go together, and not every writer includes it.
    fn from_sec1(
        der: &[u8],
        kind: KeyKind,
        public: &SubjectPublicKeyInfoOwned,
    ) -> Result<Self, CertificateError> {
        let read = EcPrivateKey::from_der(der)
            .map_err(|e| refused(format!("the private key cannot be read ({e})")))?;
        let (asn1, fixed) = match kind {
            KeyKind::P256 => {
                (&by_ring::ECDSA_P256_SHA256_ASN1_SIGNING, &by_ring::ECDSA_P256_SHA256_FIXED_SIGNING)
            }
            KeyKind::P384 => {
                (&by_ring::ECDSA_P384_SHA384_ASN1_SIGNING, &by_ring::ECDSA_P384_SHA384_FIXED_SIGNING)
            }
            KeyKind::Ed25519 | KeyKind::Rsa => {
                return Err(refused(format!(
                    "the private key does not belong to the certificate, whose key is {kind}: compare tls.key and tls.crt"
                )));
            }
        };
        let make = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_and_public_key(
                algorithm,
                read.private_key.as_bytes(),
                public.subject_public_key.as_bytes().unwrap_or_default(),
                &SystemRandom::new(),
            )
            .map(Box::new)
            .map_err(unusable)
        };
        Ok(Self::Ecdsa { kind, asn1: make(asn1)?, fixed: make(fixed)? })
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Ecdsa { asn1, .. } => asn1.public_key().as_ref(),
            Self::Ed25519(key) => key.public_key().as_ref(),
            Self::Rsa(key) => key.public_key().as_ref(),
        }
    }

    /// Signs by an algorithm that the peer knows; see [`ikev2::Credentials::sign`].
    pub(crate) fn sign(
        &self,
        peer_hashes: &[HashAlgorithm],
        octets: &[u8],
    ) -> Result<Authentication, CertificateError> {
        let method = match self {
            //= rfc7427#4
            // "... if none of the listed algorithms is supported, the old methods are used"
            Self::Ecdsa { kind, fixed, .. } if peer_hashes.is_empty() => {
                let data = fixed.sign(&SystemRandom::new(), octets).map_err(|_| failed())?.as_ref().to_vec();
                let method =
                    if *kind == KeyKind::P256 { AuthMethod::EcdsaP256 } else { AuthMethod::EcdsaP384 };
                return Ok(Authentication { method, data });
            }
            _ => AuthMethod::Signature,
        };
        let scheme = self.scheme(peer_hashes)?;
        let mut data = scheme.identifier()?;
        //= rfc7427#3
        // the authentication data is a length octet, the identifier, and the signature
        let length = u8::try_from(data.len()).map_err(|_| failed())?;
        data.insert(0, length);
        data.extend(self.signature(scheme, octets)?);
        Ok(Authentication { method, data })
    }

    fn scheme(&self, peer_hashes: &[HashAlgorithm]) -> Result<Scheme, CertificateError> {
        let known = |hash: &Hash| peer_hashes.contains(&hash.ike());
        let (wanted, scheme) = match self {
            Self::Ecdsa { kind: KeyKind::P384, .. } => {
                ("SHA-384", Some(Hash::Sha384).filter(known).map(Scheme::Ecdsa))
            }
            Self::Ecdsa { .. } => ("SHA-256", Some(Hash::Sha256).filter(known).map(Scheme::Ecdsa)),
            Self::Ed25519(_) => (
                "Ed25519 (RFC 8420)",
                peer_hashes.contains(&HashAlgorithm::Identity).then_some(Scheme::Ed25519),
            ),
            Self::Rsa(_) => (
                "SHA-2",
                [Hash::Sha256, Hash::Sha384, Hash::Sha512].into_iter().find(known).map(Scheme::RsaPss),
            ),
        };
        scheme.ok_or_else(|| {
            refused(format!(
                "the peer does not know {wanted} for signatures (RFC 7427), which this node's key needs: \
                 use an ECDSA P-256 key, which every peer knows"
            ))
        })
    }

    fn signature(&self, scheme: Scheme, octets: &[u8]) -> Result<Vec<u8>, CertificateError> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa { asn1, .. } => {
                asn1.sign(&random, octets).map(|s| s.as_ref().to_vec()).map_err(|_| failed())
            }
            Self::Ed25519(key) => Ok(key.sign(octets).as_ref().to_vec()),
            Self::Rsa(key) => {
                let padding: &dyn by_ring::RsaEncoding = match scheme {
                    Scheme::RsaPss(Hash::Sha384) => &by_ring::RSA_PSS_SHA384,
                    Scheme::RsaPss(Hash::Sha512) => &by_ring::RSA_PSS_SHA512,
                    _ => &by_ring::RSA_PSS_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, octets, &mut signature).map_err(|_| failed())?;
                Ok(signature)
            }
        }
    }
}

/// The `ECPrivateKey` inside a PKCS#8 key (RFC 5958 §2).
fn ec_part(der: &[u8]) -> Result<&[u8], CertificateError> {
    let mut reader = SliceReader::new(der).map_err(|_| unreadable())?;
    reader
        .sequence(|r| {
            u8::decode(r)?;
            AnyRef::decode(r)?;
            let key = <&OctetStringRef>::decode(r)?.as_bytes();
            r.drain(r.remaining_len())?;
            Ok::<_, der::Error>(key)
        })
        .map_err(|_| unreadable())
}

fn unreadable() -> CertificateError {
    refused(
        "the private key is not PKCS#8 for the kind of key in the certificate: compare tls.key and tls.crt",
    )
}

fn unusable(error: ring::error::KeyRejected) -> CertificateError {
    refused(format!("the private key is refused ({error}): compare tls.key and tls.crt"))
}

fn failed() -> CertificateError {
    refused("signing failed")
}
