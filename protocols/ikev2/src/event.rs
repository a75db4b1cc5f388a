//! Where messages go, and what the endpoint tells its driver.

use crate::Identification;
use claims::Identity;
use esp::Keys;
use packet::{Instant, Path};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Which of our ports an IKE message uses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum LocalPort {
    /// 500: IKE alone.
    Ike,
    /// 4500: shared with ESP in UDP; the datapath writes and removes the non-ESP marker (RFC 3948 §2.2).
    NatTraversal,
}

/// Both ends of an IKE message on the underlay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Address {
    /// The peer, as seen from here.
    pub remote: SocketAddr,
    /// Our port.
    pub local: LocalPort,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Between whom.
    pub address: Address,
    /// What.
    pub kind: TransmitKind,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransmitKind {
    /// An IKE message, without the non-ESP marker.
    Message(Vec<u8>),
    /// A NAT keepalive: one octet, 0xff (RFC 3948 §2.3).
    Keepalive,
}

/// What became of a path. Drain events before datagrams: a peer may send as soon as it has our message, so what it
/// sends must be expected first.
///
/// A path of an encrypted tunnel says how ESP is wrapped: `Encapsulation::Udp` is ESP in UDP to that port (RFC 3948),
/// `Encapsulation::Gre` is bare ESP (IP protocol 50).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer at the end of this path is authenticated, and SAs are installed in both directions. Said again when the
    /// path is authenticated again, by the same peer or by another.
    Up {
        /// Which path.
        path: Path,
        /// Who is at the end of it.
        identity: Identity,
        /// Did we begin?
        initiator: bool,
    },
    /// Nobody is at the end of this path any more; its SAs are removed by events of their own.
    Down {
        /// Which path.
        path: Path,
        /// Why.
        reason: Failure,
    },
    /// A handshake came to nothing; the path was not up.
    Failed {
        /// Which path, or where the stranger was.
        path: Path,
        /// Did we begin?
        initiator: bool,
        /// Why.
        reason: Failure,
    },
    /// Receive by this SA, from now on.
    AddInbound {
        /// Packets opened with it count as come by this path.
        path: Path,
        /// Its secrets; the owner is in the SPI.
        keys: Keys,
    },
    /// Send by this SA from now on, instead of the one before it on the same path and lane.
    SetOutbound {
        /// Packets that leave by this path use it.
        path: Path,
        /// The worker that owns it.
        lane: u16,
        /// Its secrets.
        keys: Keys,
    },
    /// No longer receive by this SA.
    RemoveInbound {
        /// Ours.
        spi: u32,
    },
    /// No longer send by this SA. (Not said of one that [`Self::SetOutbound`] replaced.)
    RemoveOutbound {
        /// Which path.
        path: Path,
        /// The peer's.
        spi: u32,
    },
    /// An SA was replaced.
    Rekeyed {
        /// Which path.
        path: Path,
        /// The IKE SA itself, or a child?
        ike: bool,
    },
    /// Secrets of an IKE SA, told only when `Config::export_keys` is set: for Wireshark's `ikev2_decryption_table`.
    IkeKeys {
        /// One line of the table.
        line: String,
    },
}

/// Why a handshake failed, or a path went down: what a person can act upon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// No answer after all retransmissions.
    #[error("no answer")]
    Timeout,
    /// Nothing in common.
    #[error("no common {what} proposal: we offer {ours}; the peer offers {theirs}")]
    NoProposal {
        /// `IKE` or `ESP`.
        what: String,
        /// By name, by preference.
        ours: String,
        /// By name; `unknown` where the peer only said no.
        theirs: String,
    },
    /// The peer did not prove who it is.
    #[error("the peer could not be authenticated: {0}")]
    Authentication(String),
    /// The peer does not believe us (AUTHENTICATION_FAILED), and says no more.
    #[error(
        "the peer refused our authentication: compare the keys, the trust roots and both identities; its log says why"
    )]
    Refused,
    /// The peer is not who we expected.
    #[error("the peer is `{found}`, expected `{expected}`")]
    Identity {
        /// Pattern wanted.
        expected: String,
        /// Who it is.
        found: String,
    },
    /// The selectors don't meet.
    #[error("the peer does not accept GRE between the two addresses in transport mode")]
    Selectors,
    /// The peer sent an error notification.
    #[error("the peer answered {0}")]
    Notify(String),
    /// The peer sent what the protocol does not allow.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The peer left, in good order.
    #[error("the peer closed the session")]
    Deleted,
    /// The peer started anew.
    #[error("the peer restarted")]
    Restarted,
    /// The peer stopped answering.
    #[error("the peer stopped answering")]
    Dead,
    /// Its certificate was revoked or ran out.
    #[error("the peer's credentials no longer hold: {0}")]
    Credentials(String),
    /// We closed it.
    #[error("closed by us")]
    Closed,
    /// Too many.
    #[error("too many sessions ({0})")]
    Full(usize),
}

/// A session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its path.
    pub path: Path,
    /// Who is there, once authenticated.
    pub identity: Option<Identity>,
    /// What it calls itself.
    pub remote_id: Option<Identification>,
    /// Did we begin?
    pub initiator: bool,
    /// SPIs of the IKE SA: the initiator's, the responder's.
    pub spis: (u64, u64),
    /// What it is doing, in a word (`ExpectAuth`, `Established`).
    pub state: &'static str,
    /// IKE proposal by name.
    pub ike: Option<String>,
    /// When it was established, and when its IKE SA was last rekeyed.
    pub established: Option<Instant>,
    /// When the IKE SA was last rekeyed.
    pub rekeyed: Option<Instant>,
    /// The peer is behind a NAT; we are behind a NAT.
    pub nat: (bool, bool),
    /// Its child SAs.
    pub children: Vec<ChildView>,
}

/// A child SA, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// SPI of what we receive.
    pub inbound: u32,
    /// SPI of what we send.
    pub outbound: u32,
    /// The cipher.
    pub suite: esp::Suite,
    /// 64-bit sequence numbers?
    pub esn: bool,
    /// The worker that owns it.
    pub lane: u16,
    /// Since when.
    pub installed: Instant,
    /// When it is to be rekeyed.
    pub rekey_at: Instant,
}
