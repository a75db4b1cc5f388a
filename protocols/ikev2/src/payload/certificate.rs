//! KE, CERT, CERTREQ and AUTH: a number and opaque data.

use crate::codes::{AuthType, CertificateEncoding, GroupId};
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;
use crate::{AuthMethod, Authentication};
use std::fmt;

/// KE payload (RFC 7296 §3.4): a public value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyExchange {
    /// Of which group.
    pub group: GroupId,
    /// The value, as the group's RFC encodes it.
    pub data: Vec<u8>,
}

impl KeyExchange {
    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let group = GroupId(body.u16()?);
        let _reserved = body.u16()?;
        Ok(Self { group, data: body.rest().to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.extend_from_slice(&self.group.0.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.data);
        Ok(())
    }
}

/// CERT payload (RFC 7296 §3.6): one certificate, or one certificate revocation list.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// How it is encoded.
    pub encoding: CertificateEncoding,
    /// As encoded.
    pub data: Vec<u8>,
}

impl Certificate {
    /// An X.509 certificate in DER.
    #[must_use]
    pub const fn x509(der: Vec<u8>) -> Self {
        Self { encoding: CertificateEncoding::X509_SIGNATURE, data: der }
    }

    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { encoding: CertificateEncoding(body.u8()?), data: body.rest().to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.push(self.encoding.0);
        out.extend_from_slice(&self.data);
        Ok(())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {} octets)", self.encoding, self.data.len())
    }
}

/// CERTREQ payload (RFC 7296 §3.7): what the sender trusts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateRequest {
    /// What kind of certificates.
    pub encoding: CertificateEncoding,
    /// For X.509 SHA-1 hashes of the authorities' public key infos, 20 octets each, one after the other.
    pub authorities: Vec<u8>,
}

impl CertificateRequest {
    /// For X.509 certificates that lead to one of these authorities (SHA-1 of their SubjectPublicKeyInfo).
    #[must_use]
    pub fn x509(authorities: &[[u8; 20]]) -> Self {
        Self { encoding: CertificateEncoding::X509_SIGNATURE, authorities: authorities.concat() }
    }

    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { encoding: CertificateEncoding(body.u8()?), authorities: body.rest().to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.push(self.encoding.0);
        out.extend_from_slice(&self.authorities);
        Ok(())
    }
}

/// AUTH payload (RFC 7296 §3.8): the proof of an identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthPayload {
    /// Of which kind.
    pub method: AuthType,
    /// The proof.
    pub data: Vec<u8>,
}

/// A method of authentication that does not exist here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it authenticates by {0}, which does not exist here")]
pub struct UnsupportedAuth(pub AuthType);

impl AuthPayload {
    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let method = AuthType(body.u8()?);
        let _reserved = body.take(3)?;
        Ok(Self { method, data: body.rest().to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.extend_from_slice(&[self.method.0, 0, 0, 0]);
        out.extend_from_slice(&self.data);
        Ok(())
    }
}

impl From<Authentication> for AuthPayload {
    fn from(authentication: Authentication) -> Self {
        let method = match authentication.method {
            AuthMethod::Rsa => AuthType::RSA_SIGNATURE,
            AuthMethod::SharedKey => AuthType::SHARED_KEY,
            AuthMethod::EcdsaP256 => AuthType::ECDSA_256,
            AuthMethod::EcdsaP384 => AuthType::ECDSA_384,
            AuthMethod::Signature => AuthType::DIGITAL_SIGNATURE,
        };
        Self { method, data: authentication.data }
    }
}

impl TryFrom<&AuthPayload> for Authentication {
    type Error = UnsupportedAuth;

    fn try_from(payload: &AuthPayload) -> Result<Self, UnsupportedAuth> {
        let method = match payload.method {
            AuthType::RSA_SIGNATURE => AuthMethod::Rsa,
            AuthType::SHARED_KEY => AuthMethod::SharedKey,
            AuthType::ECDSA_256 => AuthMethod::EcdsaP256,
            AuthType::ECDSA_384 => AuthMethod::EcdsaP384,
            AuthType::DIGITAL_SIGNATURE => AuthMethod::Signature,
            other => return Err(UnsupportedAuth(other)),
        };
        Ok(Self { method, data: payload.data.clone() })
    }
}
