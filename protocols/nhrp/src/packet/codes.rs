//! Numbers on the wire. Newtypes, so that what we don't know survives being forwarded and shown.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `ar$op.type`: what a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum MessageType {
    /// "Where is the way out to this address?"
    ResolutionRequest = 1,
    /// The answer.
    ResolutionReply = 2,
    /// "I am here."
    RegistrationRequest = 3,
    /// The answer.
    RegistrationReply = 4,
    /// "Forget this."
    PurgeRequest = 5,
    /// The answer.
    PurgeReply = 6,
    /// "What you sent was wrong."
    ErrorIndication = 7,
    /// "There is a shorter way" (Cisco's, draft-detienne-dmvpn-01).
    TrafficIndication = 8,
}

impl MessageType {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::ResolutionRequest,
        Self::ResolutionReply,
        Self::RegistrationRequest,
        Self::RegistrationReply,
        Self::PurgeRequest,
        Self::PurgeReply,
        Self::ErrorIndication,
        Self::TrafficIndication,
    ];

    /// The type with this number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u8 == number)
    }

    /// A name for metrics, never changed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResolutionRequest => "resolution_request",
            Self::ResolutionReply => "resolution_reply",
            Self::RegistrationRequest => "registration_request",
            Self::RegistrationReply => "registration_reply",
            Self::PurgeRequest => "purge_request",
            Self::PurgeReply => "purge_reply",
            Self::ErrorIndication => "error_indication",
            Self::TrafficIndication => "traffic_indication",
        }
    }

    /// Does it travel from destination to source?
    #[must_use]
    pub const fn is_reply(self) -> bool {
        matches!(self, Self::ResolutionReply | Self::RegistrationReply | Self::PurgeReply)
    }
}

/// Flags of the mandatory part; what a bit means depends on the message type (RFC 2332 §5.2.1 to §5.2.5).
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags(pub u16);

impl Flags {
    /// Resolution, Q: the source is a router.
    pub const ROUTER: Self = Self(0x8000);
    /// Resolution, A: an authoritative answer is wanted, or given.
    pub const AUTHORITATIVE: Self = Self(0x4000);
    /// Resolution, D: the association of destination and next hop is stable.
    pub const DESTINATION_STABLE: Self = Self(0x2000);
    /// Resolution, U: only a unique answer will do.
    pub const UNIQUE_ANSWER: Self = Self(0x1000);
    /// Resolution, S: the association of source and its addresses is stable.
    pub const SOURCE_STABLE: Self = Self(0x0800);
    /// Registration, U: register as unique.
    pub const UNIQUE: Self = Self(0x8000);
    /// Purge, N: no reply is wanted.
    pub const NO_REPLY: Self = Self(0x8000);
    /// All: the sender understands Cisco's NAT extension.
    pub const NAT: Self = Self(0x0002);

    /// Are all these set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those set in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those set in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// Code of a client information entry (RFC 2332 §5.2.0.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct CieCode(pub u8);

impl CieCode {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// Administratively prohibited.
    pub const PROHIBITED: Self = Self(4);
    /// Insufficient resources.
    pub const NO_RESOURCES: Self = Self(5);
    /// What FRR and OpenNHRP send for [`Self::NO_BINDING`].
    pub const NO_BINDING_FRR: Self = Self(11);
    /// No binding of the protocol address exists.
    pub const NO_BINDING: Self = Self(12);
    /// A binding exists, but is not unique.
    pub const NOT_UNIQUE: Self = Self(13);
    /// The address is registered, uniquely, by somebody else.
    pub const ALREADY_REGISTERED: Self = Self(14);

    /// The code RFC 2332 gives to what was meant.
    #[must_use]
    pub const fn normalised(self) -> Self {
        match self {
            Self::NO_BINDING_FRR => Self::NO_BINDING,
            code => code,
        }
    }
}

/// Code of an Error Indication (RFC 2332 §5.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// A compulsory extension is not known.
    pub const UNRECOGNISED_EXTENSION: Self = Self(1);
    /// What FRR and OpenNHRP send for [`Self::LOOP`].
    pub const LOOP_FRR: Self = Self(2);
    /// The message has been here before.
    pub const LOOP: Self = Self(3);
    /// No way to the protocol address.
    pub const UNREACHABLE: Self = Self(6);
    /// Anything wrong that has no code of its own.
    pub const PROTOCOL_ERROR: Self = Self(7);
    /// Too large to be forwarded.
    pub const SIZE_EXCEEDED: Self = Self(8);
    /// An extension is malformed.
    pub const INVALID_EXTENSION: Self = Self(9);
    /// A Resolution Reply that nobody asked for.
    pub const INVALID_REPLY: Self = Self(10);
    /// Authentication is wrong.
    pub const AUTHENTICATION: Self = Self(11);
    /// What rockhopper sends for [`Self::HOP_COUNT`].
    pub const HOP_COUNT_ROCKHOPPER: Self = Self(12);
    /// Hop count ran out.
    pub const HOP_COUNT: Self = Self(15);
    /// VPN mismatch (RFC 2735).
    pub const VPN_MISMATCH: Self = Self(16);
    /// VPN unsupported (RFC 2735).
    pub const VPN_UNSUPPORTED: Self = Self(17);

    /// The code RFC 2332 gives to what was meant.
    #[must_use]
    pub const fn normalised(self) -> Self {
        match self {
            Self::LOOP_FRR => Self::LOOP,
            Self::HOP_COUNT_ROCKHOPPER => Self::HOP_COUNT,
            code => code,
        }
    }

    /// In a person's words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self.normalised() {
            Self::UNRECOGNISED_EXTENSION => "unrecognised extension",
            Self::LOOP => "loop detected",
            Self::UNREACHABLE => "protocol address unreachable",
            Self::PROTOCOL_ERROR => "protocol error",
            Self::SIZE_EXCEEDED => "message too large",
            Self::INVALID_EXTENSION => "invalid extension",
            Self::INVALID_REPLY => "invalid resolution reply",
            Self::AUTHENTICATION => "authentication failure",
            Self::HOP_COUNT => "hop count exceeded",
            Self::VPN_MISMATCH => "VPN mismatch",
            Self::VPN_UNSUPPORTED => "VPN unsupported",
            _ => "unknown error",
        }
    }
}

/// `ar$afn`: which family NBMA addresses are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u16)]
pub enum Family {
    /// IPv4.
    V4 = 1,
    /// IPv6.
    V6 = 2,
}

/// `ar$pro.type`: which protocol addresses are resolved, as an Ethertype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum Protocol {
    /// IPv4.
    V4 = 0x0800,
    /// IPv6.
    V6 = 0x86dd,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Protocol {
    /// The protocol of an address.
    #[must_use]
    pub const fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Length of a host prefix.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}
