//! What happened, in numbers: every message that is dropped is counted by its reason.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters of an endpoint, since it was made.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Counters {
    /// Messages handled.
    pub received: u64,
    /// Messages sent, retransmissions included.
    pub sent: u64,
    /// Requests sent again, no answer having come.
    pub retransmitted: u64,
    /// Answers sent again, the request having come again.
    pub answered_again: u64,
    /// Sessions that were established.
    pub established: u64,
    /// Handshakes that came to nothing.
    pub failed: u64,
    /// Cookies that were asked for.
    pub cookies: u64,
    /// IKE SAs that were replaced.
    pub rekeyed_ike: u64,
    /// Child SAs that were replaced.
    pub rekeyed_child: u64,
    /// Messages dropped, by reason; the reasons are [`Drop`]'s names and those of [`crate::Malformed`].
    #[serde(skip)]
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(crate) fn drop(&mut self, reason: Drop) {
        self.drop_named(reason.name());
    }

    pub(crate) fn drop_named(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

/// Why a message was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drop {
    /// It belongs to no IKE SA that we have.
    UnknownSpi,
    /// It is not authentic.
    NotAuthentic,
    /// Its message ID is none that we wait for.
    MessageId,
    /// Its exchange has no place in the state of the session.
    State,
    /// It says that it was sent by us.
    Reflected,
    /// It lacks a payload, or has one that has no place there.
    Illegal,
    /// Strangers begin sessions faster than we allow.
    Rate,
    /// A cookie was asked for, or the one it has is wrong.
    Cookie,
    /// There are as many sessions, or half-open ones, as there may be.
    Full,
    /// An error in the clear, which proves nothing.
    Unprotected,
    /// A fragment that does not fit with the others.
    Fragment,
    /// It came by a path that the peer is not known to use.
    Address,
}

impl Drop {
    /// A name for metrics, never changed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownSpi => "unknown_spi",
            Self::NotAuthentic => "not_authentic",
            Self::MessageId => "message_id",
            Self::State => "state",
            Self::Reflected => "reflected",
            Self::Illegal => "illegal",
            Self::Rate => "rate",
            Self::Cookie => "cookie",
            Self::Full => "full",
            Self::Unprotected => "unprotected",
            Self::Fragment => "fragment",
            Self::Address => "address",
        }
    }
}
