//! What ends a session: the NOTIFICATION message (RFC 4271 §4.5, §6).

use serde::{Deserialize, Serialize};
use std::fmt;

/// Error code of a NOTIFICATION.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Code(pub u8);

impl Code {
    /// The header of a message is wrong (RFC 4271 §6.1).
    pub const HEADER: Self = Self(1);
    /// An OPEN is wrong or not acceptable (§6.2).
    pub const OPEN: Self = Self(2);
    /// An UPDATE is wrong (§6.3).
    pub const UPDATE: Self = Self(3);
    /// Nothing was heard for the hold time (§6.5).
    pub const HOLD_TIMER: Self = Self(4);
    /// A message that the state does not allow (§6.6; subcodes RFC 6608).
    pub const FSM: Self = Self(5);
    /// The end of a session without an error (§6.7; subcodes RFC 4486).
    pub const CEASE: Self = Self(6);
}

/// Subcode of a NOTIFICATION; what it means depends on the code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subcode(pub u8);

/// A NOTIFICATION. Codes that we don't know survive.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notification {
    /// Error code.
    pub code: Code,
    /// Subcode.
    pub subcode: Subcode,
    /// Data; what it holds depends on code and subcode.
    pub data: Vec<u8>,
}

macro_rules! notifications {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $subcode:literal;)*) => {
        impl Notification {
            $($(#[$doc])* pub const $name: Self = Self::bare(Code::$code, $subcode);)*
        }
    };
}

notifications! {
    /// The marker is not all ones.
    NOT_SYNCHRONIZED = HEADER, 1;
    /// A length that no message of this type has.
    BAD_LENGTH = HEADER, 2;
    /// An unknown message type.
    BAD_TYPE = HEADER, 3;
    /// An OPEN that can't be read.
    OPEN_MALFORMED = OPEN, 0;
    /// Another version than 4; the data names ours.
    BAD_VERSION = OPEN, 1;
    /// An ASN we don't accept.
    BAD_PEER_AS = OPEN, 2;
    /// A BGP Identifier that is zero, or our own inside one AS (RFC 6286).
    BAD_IDENTIFIER = OPEN, 3;
    /// An optional parameter that is not capabilities.
    UNSUPPORTED_PARAMETER = OPEN, 4;
    /// A hold time of one or two seconds.
    UNACCEPTABLE_HOLD_TIME = OPEN, 6;
    /// No family in common (RFC 5492).
    UNSUPPORTED_CAPABILITY = OPEN, 7;
    /// Lengths inside an UPDATE contradict each other.
    MALFORMED_ATTRIBUTE_LIST = UPDATE, 1;
    /// A well-known attribute that we don't know.
    UNRECOGNIZED_WELL_KNOWN = UPDATE, 2;
    /// MP_REACH_NLRI or MP_UNREACH_NLRI can't be read.
    OPTIONAL_ATTRIBUTE = UPDATE, 9;
    /// A prefix can't be read.
    INVALID_NETWORK = UPDATE, 10;
    /// Nothing was heard for the hold time.
    HOLD_TIMER_EXPIRED = HOLD_TIMER, 0;
    /// Something else than OPEN while we wait for it.
    UNEXPECTED_IN_OPEN_SENT = FSM, 1;
    /// Something else than KEEPALIVE while we wait for it.
    UNEXPECTED_IN_OPEN_CONFIRM = FSM, 2;
    /// An OPEN in an established session.
    UNEXPECTED_IN_ESTABLISHED = FSM, 3;
    /// More prefixes than allowed.
    MAXIMUM_PREFIXES = CEASE, 1;
    /// This speaker shuts down (message: RFC 9003).
    SHUTDOWN = CEASE, 2;
    /// The neighbour was removed from the configuration.
    DECONFIGURED = CEASE, 3;
    /// A person or a changed configuration wants the session anew.
    RESET = CEASE, 4;
    /// Not accepted.
    REJECTED = CEASE, 5;
    /// Another connection to the same peer is kept (§6.8).
    COLLISION = CEASE, 7;
    /// No room.
    OUT_OF_RESOURCES = CEASE, 8;
}

impl Notification {
    const fn bare(code: Code, subcode: u8) -> Self {
        Self { code, subcode: Subcode(subcode), data: Vec::new() }
    }

    pub(crate) fn with(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    /// The same error, whatever its data?
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.code == other.code && self.subcode == other.subcode
    }

    fn name(&self) -> Option<&'static str> {
        Some(match (self.code.0, self.subcode.0) {
            (1, 1) => "connection not synchronized",
            (1, 2) => "bad message length",
            (1, 3) => "bad message type",
            (1, _) => "message header error",
            (2, 1) => "unsupported version",
            (2, 2) => "bad peer AS",
            (2, 3) => "bad BGP identifier",
            (2, 4) => "unsupported optional parameter",
            (2, 6) => "unacceptable hold time",
            (2, 7) => "unsupported capability",
            (2, 11) => "role mismatch",
            (2, _) => "OPEN message error",
            (3, 1) => "malformed attribute list",
            (3, 2) => "unrecognized well-known attribute",
            (3, 9) => "optional attribute error",
            (3, 10) => "invalid network field",
            (3, _) => "UPDATE message error",
            (4, _) => "hold timer expired",
            (5, _) => "finite state machine error",
            (6, 1) => "maximum number of prefixes reached",
            (6, 2) => "administrative shutdown",
            (6, 3) => "peer de-configured",
            (6, 4) => "administrative reset",
            (6, 5) => "connection rejected",
            (6, 6) => "other configuration change",
            (6, 7) => "connection collision resolution",
            (6, 8) => "out of resources",
            (6, 9) => "hard reset",
            (6, 10) => "BFD down",
            (6, _) => "cease",
            (7, _) => "ROUTE-REFRESH message error",
            (8, _) => "send hold timer expired",
            _ => return None,
        })
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NOTIFICATION {}/{}", self.code.0, self.subcode.0)?;
        self.name().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if self.data.is_empty() { Ok(()) } else { write!(f, " {:02x?}", self.data) }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Subcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_can_read_it() {
        assert_eq!(Notification::BAD_PEER_AS.to_string(), "NOTIFICATION 2/2 (bad peer AS)");
        assert_eq!(Notification::bare(Code(99), 1).to_string(), "NOTIFICATION 99/1");
    }
}
