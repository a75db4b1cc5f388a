//! Why a shortcut does not carry.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Why a shortcut does not carry, and was not tried again yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resting {
    /// It was not used.
    Idle,
    /// The answer ceased to hold and could not be renewed.
    Expired,
    /// The peer withdrew its answer.
    Purged,
    /// Somebody cleared it.
    Cleared,
    /// The hub that carries anyway is the egress.
    HubIsEgress,
    /// Nobody answered, or the answer was no.
    Unresolved(String),
    /// The answer claimed what the responder may not.
    Denied(String),
    /// No probe came back.
    Unproven(String),
    /// The path stopped answering.
    Lost(String),
    /// Its route would carry the tunnel's own outer packets.
    Recursive {
        /// The offending prefix.
        prefix: IpNet,
        /// The NBMA address it covers.
        nbma: IpAddr,
    },
    /// Another interface leads there now.
    Routed,
    /// A limit was reached.
    NoRoom,
}

impl fmt::Display for Resting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle: nothing was sent for a while"),
            Self::Expired => f.write_str("the answer expired and was not renewed"),
            Self::Purged => f.write_str("the peer withdrew it"),
            Self::Cleared => f.write_str("cleared on request"),
            Self::HubIsEgress => f.write_str("the hub is the egress: there is nothing shorter"),
            Self::Unresolved(why) => write!(f, "not resolved: {why}"),
            Self::Denied(why) => write!(f, "refused by claims: {why}"),
            Self::Unproven(why) => write!(f, "no direct path: {why}"),
            Self::Lost(why) => write!(f, "the direct path was lost: {why}"),
            Self::Recursive { prefix, nbma } => {
                write!(f, "a route to {prefix} would carry the tunnel's own packets to {nbma}")
            }
            Self::Routed => f.write_str("another interface leads there now"),
            Self::NoRoom => f.write_str("too many shortcuts"),
        }
    }
}
