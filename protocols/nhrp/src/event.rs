//! What a station puts out: messages to send, and what it learnt.

use crate::NhsId;
use ipnet::IpNet;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// An NHRP message to send, as the payload of GRE protocol 0x2001.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub path: Path,
    /// The whole message, checksum filled in.
    pub payload: Vec<u8>,
}

/// A resolution under way; unique while the station lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResolutionId(pub u32);

/// What is known of another station from its messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its tunnel address.
    pub protocol_address: IpAddr,
    /// The NBMA address it claims for itself.
    pub nbma_claimed: IpAddr,
    /// Ways to try, best first: where a server saw it, where it says it is. Never empty.
    pub candidates: Vec<Path>,
    /// Is it behind a NAT, as far as is known?
    pub natted: bool,
    /// The identity it asserts (our vendor extension); `None` for a foreign router.
    pub identity: Option<String>,
    /// Its number for probes (see [`crate::Node::token`]). `None`: foreign.
    pub token: Option<u64>,
    /// Its NHRP group, when it sent one.
    pub group: Option<String>,
    /// MTU it announced; 0 is "not said".
    pub mtu: u16,
}

/// Why a resolution came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResolutionFailure {
    /// No answer after all retransmissions.
    Timeout,
    /// Answered with a negative code (RFC 2332 §5.2.0.1: 4, 5, 12, 13).
    Refused(u8),
    /// An Error Indication came back, with its code.
    Error(u16),
    /// There is no way to send the request.
    NoRoute,
    /// The answer claimed what the responder may not.
    Denied(String),
}

/// What a station learnt. Delivered in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server accepted our registration (first time, or again after it had not).
    NhsUp {
        /// Which.
        nhs: NhsId,
        /// Its tunnel address.
        protocol_address: IpAddr,
        /// The path that worked.
        path: Path,
        /// What the server says of itself.
        info: PeerInfo,
        /// Where the server sees us, when it told (NAT extension or ours); differs from our claim behind a NAT.
        observed: Option<Path>,
    },
    /// A server does not answer, never did, or refuses us. Said once for each reason.
    NhsDown {
        /// Which.
        nhs: NhsId,
        /// In a person's words.
        reason: String,
        /// It merely does not answer; otherwise it said so itself.
        silent: bool,
    },
    /// What a server that we aren't registered with seems to want. Nobody vouches for it, and nothing follows from
    /// it: it is for people.
    NhsSuspected {
        /// Which.
        nhs: NhsId,
        /// In a person's words.
        reason: String,
    },
    /// A server refused our registration (code of the CIE); e.g. 14, unique address already registered.
    RegistrationRefused {
        /// Which.
        nhs: NhsId,
        /// Tunnel address concerned.
        protocol_address: IpAddr,
        /// CIE code.
        code: u8,
    },
    /// (As a server) a station registered, refreshed, or moved to another path.
    Registered {
        /// Who, with the path it is reached by as the only candidate.
        info: PeerInfo,
        /// What it registered beyond its tunnel address (a prefix shorter than a host), usually nothing.
        prefix: IpNet,
        /// Until when.
        expires: Instant,
        /// The path before, when it moved.
        moved_from: Option<Path>,
        /// Was it unknown before?
        new: bool,
    },
    /// (As a server) a registration ended.
    Unregistered {
        /// Which tunnel address.
        protocol_address: IpAddr,
        /// In a person's words: expired, purged, replaced.
        reason: &'static str,
    },
    /// (As a server) a registration was refused: claims, unique conflict (14), no room (5), authentication.
    RegistrationDenied {
        /// Which tunnel address was wanted.
        protocol_address: IpAddr,
        /// By whom.
        path: Path,
        /// CIE code answered; 0: none was.
        code: u8,
        /// In a person's words.
        reason: String,
    },
    /// A resolution was answered.
    Resolved {
        /// Which.
        id: ResolutionId,
        /// What was asked for.
        destination: IpAddr,
        /// What the answer covers.
        prefix: IpNet,
        /// Who is the egress.
        peer: PeerInfo,
        /// How long the answer holds.
        holding_time: Duration,
    },
    /// A resolution came to nothing.
    ResolutionFailed {
        /// Which.
        id: ResolutionId,
        /// What was asked for.
        destination: IpAddr,
        /// Why.
        reason: ResolutionFailure,
    },
    /// Somebody resolved something behind us and was answered: start our side of the path (hole punching).
    Asked {
        /// Who asked.
        peer: PeerInfo,
        /// What we answered.
        prefix: IpNet,
        /// How long our answer holds.
        holding_time: Duration,
    },
    /// A peer withdrew what it had answered or registered: leave any shortcut inside `prefix` at once. `by` is the
    /// tunnel address of the station whose information is withdrawn.
    Purged {
        /// What.
        prefix: IpNet,
        /// Whose.
        by: IpAddr,
    },
    /// A hub said that a direct path to `destination` exists (Traffic Indication).
    Indicated {
        /// Source of the packet that triggered it.
        source: IpAddr,
        /// Its destination.
        destination: IpAddr,
        /// The path the indication came by.
        path: Path,
    },
    /// An Error Indication about something we sent that no pending request explains.
    PeerError {
        /// Error code.
        code: u16,
        /// Who said so.
        from: IpAddr,
    },
}
