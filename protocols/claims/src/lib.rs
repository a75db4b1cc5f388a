//! What an identity may do: which tunnel addresses it may register, which prefixes it may answer, announce and send
//! from. Pure and small, so that one reader can be sure of it.
//!
//! A [`Policy`] is made of admission classes. A peer belongs to every class whose pattern matches its identity, and
//! may do what any of them allows: the order of classes means nothing, so that adding one never takes away.
//!
//! A peer that has proven itself by a certificate may do what *both* its classes and its certificate allow, wherever it
//! goes: hubs and spokes hold it to the same claims. A certificate that says nothing of prefixes is a foreign router's;
//! what it claims is believed where a class names it, or where a hub vouches for it ([`Claimant::Vouched`]).
#![forbid(unsafe_code)]

mod claimant;
mod identity;
mod pattern;
mod policy;

pub use claimant::Claimant;
pub use identity::{Certified, Chain, Identity, Proof};
pub use pattern::{is_pattern, matches};
pub use policy::{Denied, Policy};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A class of peers and the most that any of them may claim (`spec.admission[]`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Pattern over identities: `*.branch.example.com` matches one more label, `*` alone matches anyone.
    pub identity: String,
    /// Tunnel addresses its members may register. Empty: any of the tunnel's networks.
    pub tunnel_addresses: Vec<IpNet>,
    /// Prefixes its members may answer, announce and send from.
    pub prefixes: Vec<IpNet>,
}
