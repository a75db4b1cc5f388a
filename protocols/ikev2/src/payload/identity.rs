//! IDi and IDr (RFC 7296 §3.5).

use crate::Identification;
use crate::codes::IdType;
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;
use std::net::IpAddr;

/// An identity as it travelled: what AUTH covers is these octets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdPayload {
    /// What kind.
    pub kind: IdType,
    /// Ignored, but covered by AUTH.
    pub reserved: [u8; 3],
    /// The identity.
    pub data: Vec<u8>,
}

/// An identity of a kind that does not exist here, or one that isn't what its kind says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("its identity is not a readable {0}")]
pub struct UnsupportedId(pub IdType);

impl IdPayload {
    /// The octets that AUTH covers: all behind the generic payload header (RFC 7296 §2.15, RestOfInitIDPayload).
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.data.len());
        out.push(self.kind.0);
        out.extend_from_slice(&self.reserved);
        out.extend_from_slice(&self.data);
        out
    }

    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { kind: IdType(body.u8()?), reserved: body.array()?, data: body.rest().to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.extend_from_slice(&self.octets());
        Ok(())
    }
}

impl From<&Identification> for IdPayload {
    fn from(id: &Identification) -> Self {
        let (kind, data) = match id {
            Identification::Address(IpAddr::V4(a)) => (IdType::IPV4_ADDR, a.octets().to_vec()),
            Identification::Address(IpAddr::V6(a)) => (IdType::IPV6_ADDR, a.octets().to_vec()),
            Identification::Fqdn(name) => (IdType::FQDN, name.clone().into_bytes()),
            Identification::Email(name) => (IdType::RFC822_ADDR, name.clone().into_bytes()),
            Identification::Dn(der) => (IdType::DER_ASN1_DN, der.clone()),
            Identification::KeyId(id) => (IdType::KEY_ID, id.clone()),
        };
        Self { kind, reserved: [0; 3], data }
    }
}

impl TryFrom<&IdPayload> for Identification {
    type Error = UnsupportedId;

    fn try_from(payload: &IdPayload) -> Result<Self, UnsupportedId> {
        let unreadable = UnsupportedId(payload.kind);
        // Printable ASCII only: what is shown to people and compared with patterns has no surprises in it.
        let text = || {
            let name = std::str::from_utf8(&payload.data).map_err(|_| unreadable)?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(unreadable);
            }
            Ok(name.to_owned())
        };
        match payload.kind {
            IdType::IPV4_ADDR => {
                let octets: [u8; 4] = payload.data.as_slice().try_into().map_err(|_| unreadable)?;
                Ok(Self::Address(octets.into()))
            }
            IdType::IPV6_ADDR => {
                let octets: [u8; 16] = payload.data.as_slice().try_into().map_err(|_| unreadable)?;
                Ok(Self::Address(octets.into()))
            }
            IdType::FQDN => text().map(Self::Fqdn),
            IdType::RFC822_ADDR => text().map(Self::Email),
            IdType::DER_ASN1_DN => Ok(Self::Dn(payload.data.clone())),
            IdType::KEY_ID => Ok(Self::KeyId(payload.data.clone())),
            _ => Err(unreadable),
        }
    }
}
