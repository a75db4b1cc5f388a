//! Proposals by name, for people: also such as don't exist here.

use crate::codes::{EncryptionId, EsnId, GroupId, IntegrityId, PrfId, TransformType};
use crate::payload::{Attribute, Proposal, Transform};

/// What is said of a peer's proposals, at most, in octets: what a peer sends does not grow our logs.
const MAX_LEN: usize = 400;

/// The names of proposals, by their order.
#[must_use]
pub fn describe(proposals: &[Proposal]) -> String {
    let mut out = String::new();
    for (index, proposal) in proposals.iter().enumerate() {
        let name = name(&proposal.transforms);
        if out.len() + name.len() > MAX_LEN {
            return format!(
                "{out}{}{} more",
                if out.is_empty() { "" } else { " and " },
                proposals.len() - index
            );
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(&name);
    }
    if out.is_empty() { "nothing".to_owned() } else { out }
}

/// The name of a set of transforms.
pub(super) fn name(transforms: &[Transform]) -> String {
    let of = |kind| transforms.iter().filter(move |t| t.kind == kind);
    let mut tokens: Vec<String> = of(TransformType::ENCR).map(encryption).collect();
    tokens.extend(
        of(TransformType::INTEG).filter(|t| t.id != 0).map(|t| named(IntegrityId(t.id).name(), "integ", t)),
    );
    if !prf_is_implied(transforms) {
        tokens.extend(of(TransformType::PRF).map(|t| named(PrfId(t.id).name(), "prf", t)));
    }
    tokens.extend(of(TransformType::KE).map(|t| named(GroupId(t.id).name(), "group", t)));
    tokens.extend(of(TransformType::ESN).filter(|t| t.id == EsnId::ESN.0).map(|_| "esn".to_owned()));
    tokens.extend(transforms.iter().filter(|t| t.kind.0 > TransformType::ESN.0).map(|t| {
        match GroupId(t.id).name() {
            Some(name) => format!("{}_{name}", t.kind).to_ascii_lowercase(),
            None => format!("{}_{}", t.kind, t.id).to_ascii_lowercase(),
        }
    }));
    tokens.join("-")
}

/// strongSwan leaves the PRF out where it is the integrity algorithm's.
fn prf_is_implied(transforms: &[Transform]) -> bool {
    let ids = |kind| -> Vec<u16> { transforms.iter().filter(|t| t.kind == kind).map(|t| t.id).collect() };
    let implied: Option<Vec<u16>> = ids(TransformType::INTEG)
        .into_iter()
        .map(|integrity| match IntegrityId(integrity) {
            IntegrityId::HMAC_SHA1_96 => Some(PrfId::HMAC_SHA1.0),
            IntegrityId::HMAC_MD5_96 => Some(PrfId::HMAC_MD5.0),
            IntegrityId::HMAC_SHA2_256_128 => Some(PrfId::HMAC_SHA2_256.0),
            IntegrityId::HMAC_SHA2_384_192 => Some(PrfId::HMAC_SHA2_384.0),
            IntegrityId::HMAC_SHA2_512_256 => Some(PrfId::HMAC_SHA2_512.0),
            _ => None,
        })
        .collect();
    implied.is_some_and(|implied| implied == ids(TransformType::PRF))
}

fn encryption(transform: &Transform) -> String {
    let bits = transform.attributes.iter().find_map(|a| match a {
        Attribute::KeyLength(bits) => Some(*bits),
        _ => None,
    });
    match (EncryptionId(transform.id).name(), bits) {
        // aesgcm16 with 128 bits is aes128gcm16.
        (Some(name), Some(bits)) if name.starts_with("aes") => {
            format!("aes{bits}{}", name.trim_start_matches("aes"))
        }
        (Some(name), Some(bits)) => format!("{name}{bits}"),
        (name, _) => named(name, "encr", transform),
    }
}

fn named(name: Option<&str>, kind: &str, transform: &Transform) -> String {
    name.map_or_else(|| format!("{kind}{}", transform.id), str::to_owned)
}
