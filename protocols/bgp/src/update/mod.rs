//! The UPDATE message (RFC 4271 §4.3, RFC 4760), and what becomes of a damaged one (RFC 7606).
//!
//! ```text
//! +-----------------------------------------------------+
//! |   Withdrawn Routes Length (2 octets)                |
//! |   Withdrawn Routes (variable)                       |
//! |   Total Path Attribute Length (2 octets)            |
//! |   Path Attributes (variable)                        |
//! |   Network Layer Reachability Information (variable) |
//! +-----------------------------------------------------+
//! ```

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(crate) use decode::decode;
pub(crate) use encode::{announce, end_of_rib, withdraw};

use crate::attributes::Attributes;
use crate::family::Family;
use ipnet::IpNet;
use std::sync::Arc;

/// Attribute type codes that are treated apart; the library knows the others.
mod code {
    pub(super) const ORIGIN: u8 = 1;
    pub(super) const LOCAL_PREF: u8 = 5;
    pub(super) const ATOMIC_AGGREGATE: u8 = 6;
    pub(super) const AGGREGATOR: u8 = 7;
    pub(super) const ORIGINATOR_ID: u8 = 9;
    pub(super) const CLUSTER_LIST: u8 = 10;
    pub(super) const MP_REACH: u8 = 14;
    pub(super) const MP_UNREACH: u8 = 15;
    pub(super) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(super) const AS4_PATH: u8 = 17;
    pub(super) const AS4_AGGREGATOR: u8 = 18;
    pub(super) const LARGE_COMMUNITIES: u8 = 32;
}

/// What both sides agreed on, as far as it changes what an UPDATE looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dialect {
    /// ASNs have four octets (RFC 6793).
    pub(crate) asn4: bool,
    /// The peer is in our AS.
    pub(crate) internal: bool,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub(crate) extended_next_hop: bool,
}

/// An UPDATE as it is meant.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Update {
    /// Prefixes that are no longer reachable, by their own statement or because what was said of them is damaged.
    pub(crate) withdrawn: Vec<IpNet>,
    /// Prefixes and their attributes; IPv4 in its classic place and by MP_REACH_NLRI are two groups.
    pub(crate) announced: Vec<(Arc<Attributes>, Vec<IpNet>)>,
    /// The peer's table of this family was sent whole (RFC 4724 §2).
    pub(crate) end_of_rib: Option<Family>,
    /// What was damaged, for people.
    pub(crate) malformed: Option<String>,
}
