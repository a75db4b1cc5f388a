//! Which payloads a message of an exchange may have, must have, and how often (RFC 7296 §1.2 to §1.4, appendix C).

use crate::codes::{ExchangeType, PayloadType};
use crate::payload::Payload;

/// Why a message is not what its exchange allows: its sender is to blame (INVALID_SYNTAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// An exchange that isn't known here.
    #[error("{0} is not known")]
    Exchange(ExchangeType),
    /// A payload that has no business there.
    #[error("{1} has no place in {0}")]
    Unexpected(ExchangeType, PayloadType),
    /// More of them than can be meant.
    #[error("too many {1} in {0}")]
    TooMany(ExchangeType, PayloadType),
    /// One that must be there isn't.
    #[error("{0} without {1}")]
    Missing(ExchangeType, PayloadType),
}

/// One payload type in one kind of message.
struct Rule {
    kind: PayloadType,
    /// At least so many, unless the message is a response that says what failed.
    least: usize,
    /// At most so many.
    most: usize,
}

const fn one(kind: PayloadType) -> Rule {
    Rule { kind, least: 1, most: 1 }
}

const fn optional(kind: PayloadType) -> Rule {
    Rule { kind, least: 0, most: 1 }
}

const fn any(kind: PayloadType) -> Rule {
    Rule { kind, least: 0, most: crate::payload::MAX_PAYLOADS }
}

/// Rules of a kind of message. N and V are legal everywhere, and so is what isn't known here (RFC 7296 §2.5).
///
/// | exchange | request | response |
/// |---|---|---|
/// | IKE_SA_INIT | SAi1 KEi Ni | SAr1 KEr Nr \[CERTREQ\], or an error, or a cookie |
/// | IKE_AUTH | IDi \[CERT+\] \[CERTREQ\] \[IDr\] AUTH SAi2 TSi TSr | IDr \[CERT+\] AUTH \[SAr2 TSi TSr\], or an error |
/// | CREATE_CHILD_SA | SA Ni \[KEi\] \[TSi TSr\] | SA Nr \[KEr\] \[TSi TSr\], or an error |
/// | INFORMATIONAL | \[D+\] | \[D+\] |
fn rules(exchange: ExchangeType, response: bool) -> Option<&'static [Rule]> {
    use PayloadType as P;
    const INIT_REQUEST: &[Rule] = &[one(P::SA), one(P::KE), one(P::NONCE)];
    const INIT_RESPONSE: &[Rule] = &[one(P::SA), one(P::KE), one(P::NONCE), any(P::CERTREQ)];
    const AUTH_REQUEST: &[Rule] = &[
        one(P::IDI),
        any(P::CERT),
        any(P::CERTREQ),
        optional(P::IDR),
        one(P::AUTH),
        any(P::CP),
        one(P::SA),
        one(P::TSI),
        one(P::TSR),
    ];
    // Without SA and selectors where the child failed and the IKE SA did not (RFC 7296 §1.2).
    const AUTH_RESPONSE: &[Rule] = &[
        one(P::IDR),
        any(P::CERT),
        one(P::AUTH),
        any(P::CP),
        optional(P::SA),
        optional(P::TSI),
        optional(P::TSR),
    ];
    const CHILD: &[Rule] =
        &[one(P::SA), one(P::NONCE), optional(P::KE), optional(P::TSI), optional(P::TSR), any(P::CP)];
    const INFORMATIONAL: &[Rule] = &[any(P::DELETE), any(P::CP)];
    match (exchange, response) {
        (ExchangeType::IKE_SA_INIT, false) => Some(INIT_REQUEST),
        (ExchangeType::IKE_SA_INIT, true) => Some(INIT_RESPONSE),
        (ExchangeType::IKE_AUTH, false) => Some(AUTH_REQUEST),
        (ExchangeType::IKE_AUTH, true) => Some(AUTH_RESPONSE),
        (ExchangeType::CREATE_CHILD_SA, _) => Some(CHILD),
        (ExchangeType::INFORMATIONAL, _) => Some(INFORMATIONAL),
        _ => None,
    }
}

/// Is this what the exchange allows? A response that carries a notification instead of its payloads (an error, or
/// COOKIE) may lack any of them.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(exchange: ExchangeType, response: bool, payloads: &[Payload]) -> Result<(), Illegal> {
    let rules = rules(exchange, response).ok_or(Illegal::Exchange(exchange))?;
    for payload in payloads {
        let kind = payload.kind();
        let ruled = rules.iter().any(|rule| rule.kind == kind);
        let everywhere = matches!(kind, PayloadType::NOTIFY | PayloadType::VENDOR)
            || matches!(payload, Payload::Unknown { kind, .. } if !is_known(*kind));
        if !ruled && !everywhere {
            return Err(Illegal::Unexpected(exchange, kind));
        }
    }
    let excused = response && payloads.iter().any(says_instead);
    for rule in rules {
        let count = payloads.iter().filter(|p| p.kind() == rule.kind).count();
        if count > rule.most {
            return Err(Illegal::TooMany(exchange, rule.kind));
        }
        if count < rule.least && !excused {
            return Err(Illegal::Missing(exchange, rule.kind));
        }
    }
    // Selectors come in pairs.
    let (initiator, responder) = (
        payloads.iter().any(|p| p.kind() == PayloadType::TSI),
        payloads.iter().any(|p| p.kind() == PayloadType::TSR),
    );
    match (initiator, responder) {
        (true, false) => Err(Illegal::Missing(exchange, PayloadType::TSR)),
        (false, true) => Err(Illegal::Missing(exchange, PayloadType::TSI)),
        _ => Ok(()),
    }
}

/// A notification that stands instead of the payloads of a response.
fn says_instead(payload: &Payload) -> bool {
    use crate::codes::NotifyType;
    matches!(payload, Payload::Notify(n) if n.kind.is_error() || n.kind == NotifyType::COOKIE)
}

/// One of RFC 7296 that has its own place.
const fn is_known(kind: PayloadType) -> bool {
    matches!(kind, PayloadType::CP | PayloadType::EAP)
}
