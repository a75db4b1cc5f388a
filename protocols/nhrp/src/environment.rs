//! What a station asks the world while it handles a message: routes, and what a peer may claim.

use ipnet::IpNet;
use packet::Path;
use std::net::IpAddr;

/// Where a packet goes, as the routing table says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this node itself.
    Local,
    /// Out by another interface than the tunnel: we are the egress for `prefix`, the widest that covers the
    /// destination and has no more specific route inside it (RFC 2332 §6.3).
    OffOverlay {
        /// What may be answered.
        prefix: IpNet,
    },
    /// Over the tunnel to `next_hop` (a tunnel address); equal to the destination when that is on the tunnel.
    Overlay {
        /// Tunnel address of the next hop.
        next_hop: IpAddr,
        /// The route's prefix.
        prefix: IpNet,
    },
    /// Nowhere.
    Unreachable,
}

/// A registration as it arrived, before it is believed.
#[derive(Clone, Debug)]
pub struct RegistrationClaim<'a> {
    /// The tunnel address (or prefix) that the peer wants to be reached by.
    pub prefix: IpNet,
    /// The NBMA address it claims.
    pub nbma_claimed: IpAddr,
    /// The path the message came by.
    pub path: Path,
    /// Its identity: proven where the path is protected; otherwise what it asserts, when it is one of ours.
    pub identity: Option<&'a str>,
}

/// A resolution reply as it arrived (for us, or passing through a server), before it is believed.
#[derive(Clone, Debug)]
pub struct AnswerClaim<'a> {
    /// The prefix the responder answers for.
    pub prefix: IpNet,
    /// The responder's tunnel address.
    pub responder: IpAddr,
    /// The path the message came by.
    pub path: Path,
    /// The responder's identity: proven where the answer came straight from it over a protected path, otherwise what it
    /// asserts.
    pub identity: Option<&'a str>,
}

/// Why a claim was not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Answers to what a station must know while it handles a message. Pure look-ups: no side effects.
pub trait Environment {
    /// Where a packet to `destination` would go now, leaving our own shortcuts out of account.
    fn route(&self, destination: IpAddr) -> Route;

    /// Who has proven to be at the end of this path. `None`: nobody has to, in a tunnel in clear. What a station asserts
    /// of itself counts only where nothing is proven.
    fn proven(&self, path: Path) -> Option<&str> {
        let _ = path;
        None
    }

    /// May this be registered? A refusal is answered with code 4 (administratively prohibited).
    fn authorize_registration(&self, claim: &RegistrationClaim<'_>) -> Result<(), Refusal>;

    /// May this be answered? A refused answer is dropped, and not forwarded.
    fn authorize_answer(&self, claim: &AnswerClaim<'_>) -> Result<(), Refusal>;
}
