//! The rules of choosing, for any protocol (RFC 7296 §2.7, §3.3).

use crate::codes::{ProtocolId, TransformType};
use crate::payload::{Proposal, Transform};

/// One of our proposals: transform types in the order in which they are sent.
pub(super) struct Template(pub(super) Vec<Wanted>);

/// What we want of one transform type.
pub(super) struct Wanted {
    pub(super) kind: TransformType,
    /// By preference.
    pub(super) transforms: Vec<Transform>,
    /// A proposal without this type will not do.
    pub(super) required: bool,
}

impl Wanted {
    pub(super) const fn required(kind: TransformType, transforms: Vec<Transform>) -> Self {
        Self { kind, transforms, required: true }
    }
}

/// What was chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice<S> {
    /// What it amounts to.
    pub suite: S,
    /// The SPI that the peer put into its proposal.
    pub spi: Vec<u8>,
    number: u8,
    protocol: ProtocolId,
    transforms: Vec<Transform>,
}

/// The peer chose what it was not offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer chose a proposal that it was not offered")]
pub struct Unasked;

impl<S> Choice<S> {
    /// The answer that tells the peer what we chose, with our SPI.
    #[must_use]
    pub fn answer(&self, spi: &[u8]) -> Proposal {
        Proposal {
            number: self.number,
            protocol: self.protocol,
            spi: spi.to_vec(),
            transforms: self.transforms.clone(),
        }
    }

    /// The peer's SPI of a child SA.
    #[must_use]
    pub fn esp_spi(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.spi.as_slice().try_into().ok()?))
    }

    /// The peer's SPI of an IKE SA that replaces another.
    #[must_use]
    pub fn ike_spi(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.spi.as_slice().try_into().ok()?))
    }
}

/// The chosen transform of a type.
pub(super) fn chosen(transforms: &[Transform], kind: TransformType) -> Option<&Transform> {
    transforms.iter().find(|t| t.kind == kind)
}

/// Our proposals on the wire.
pub(super) fn offer(templates: &[Template], protocol: ProtocolId, spi: &[u8]) -> Vec<Proposal> {
    (1..=u8::MAX)
        .zip(templates)
        .map(|(number, template)| Proposal {
            number,
            protocol,
            spi: spi.to_vec(),
            transforms: template.0.iter().flat_map(|wanted| wanted.transforms.clone()).collect(),
        })
        .collect()
}

/// Chooses by *our* preference among a peer's proposals.
pub(super) fn select<S>(
    templates: &[Template],
    protocol: ProtocolId,
    offered: &[Proposal],
    suite: fn(&[Transform]) -> Option<S>,
) -> Option<Choice<S>> {
    templates.iter().find_map(|template| {
        offered.iter().filter(|proposal| proposal.protocol == protocol).find_map(|proposal| {
            let transforms = choose(template, proposal)?;
            let Proposal { number, protocol, ref spi, .. } = *proposal;
            Some(Choice { suite: suite(&transforms)?, spi: spi.clone(), number, protocol, transforms })
        })
    })
}

/// Reads an answer to our proposals.
pub(super) fn accept<S>(
    templates: &[Template],
    protocol: ProtocolId,
    answer: &[Proposal],
    suite: fn(&[Transform]) -> Option<S>,
) -> Result<Choice<S>, Unasked> {
    //= rfc7296#3.3.6
    //# The initiator of an exchange MUST check that the accepted offer is consistent with one of its proposals, and if
    //# not MUST terminate the exchange.
    let [proposal] = answer else { return Err(Unasked) };
    let template = usize::from(proposal.number).checked_sub(1).and_then(|index| templates.get(index));
    let template = template.ok_or(Unasked)?;
    if proposal.protocol != protocol {
        return Err(Unasked);
    }
    let transforms = choose(template, proposal).ok_or(Unasked)?;
    // One of each type and nothing else.
    if transforms.len() != proposal.transforms.len() {
        return Err(Unasked);
    }
    let suite = suite(&transforms).ok_or(Unasked)?;
    Ok(Choice { suite, spi: proposal.spi.clone(), number: proposal.number, protocol, transforms })
}

/// One transform of each type that a proposal has, by our preference.
fn choose(template: &Template, proposal: &Proposal) -> Option<Vec<Transform>> {
    let mut chosen = Vec::with_capacity(template.0.len());
    for wanted in &template.0 {
        let mut offered = proposal.transforms.iter().filter(|t| t.kind == wanted.kind).peekable();
        if offered.peek().is_none() {
            if wanted.required {
                return None;
            }
            continue;
        }
        let offered: Vec<&Transform> = offered.collect();
        //= rfc7296#3.3.6
        //# Similarly, if the responder receives a transform that it does not understand, or one that contains a Transform
        //# Attribute it does not understand, it MUST consider this transform unacceptable
        // (A transform with more attributes than ours equals none of ours.)
        let best = wanted.transforms.iter().find(|t| offered.contains(t));
        let none = || offered.iter().copied().find(|t| !wanted.required && is_none(t));
        chosen.push(best.or_else(none)?.clone());
    }
    //= rfc7296#3.3.6
    //# If the responder receives a proposal that contains a Transform Type it does not understand, or a proposal that is
    //# missing a mandatory Transform Type, it MUST consider this proposal unacceptable
    // Unless the peer would do without that type, by the algorithm NONE.
    for transform in &proposal.transforms {
        let kind = transform.kind;
        if chosen.iter().any(|t| t.kind == kind) {
            continue;
        }
        chosen.push(proposal.transforms.iter().find(|t| t.kind == kind && is_none(t))?.clone());
    }
    Some(chosen)
}

/// NONE, of a type that has it (RFC 7296 §3.3.2; RFC 9370 §2.2.1 for additional key exchanges).
fn is_none(transform: &Transform) -> bool {
    let has_none = matches!(
        transform.kind,
        TransformType::INTEG
            | TransformType::KE
            | TransformType::ADDKE1
            | TransformType::ADDKE2
            | TransformType::ADDKE3
            | TransformType::ADDKE4
            | TransformType::ADDKE5
            | TransformType::ADDKE6
            | TransformType::ADDKE7
    );
    has_none && transform.id == 0 && transform.attributes.is_empty()
}
