//! What a speaker puts out: commands to the driver, routes for the kernel, news for people.

use crate::error::Notification;
use crate::policy::Refusal;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A TCP connection; numbers are not used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// What the driver shall do with connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Connect, from our tunnel address of the same IP version; answer by [`crate::Speaker::handle_connected`] or
    /// [`crate::Speaker::handle_closed`].
    Connect {
        /// How to call the connection.
        connection: ConnectionId,
        /// Where to.
        remote: IpAddr,
    },
    /// Send, and tell by [`crate::Speaker::handle_sent`] when it left. No more than a window of
    /// octets is handed out untold, so the driver's buffer is bounded.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// Whole messages.
        bytes: Vec<u8>,
    },
    /// Send what is buffered, then close. The connection is not known any more; nothing needs to be told.
    Close {
        /// Which connection.
        connection: ConnectionId,
    },
}

/// What the kernel shall hold for a prefix. The latest counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouteChange {
    /// Destination.
    pub prefix: IpNet,
    /// Next hops, tunnel addresses; several are equally good. Empty: the route goes.
    pub next_hops: Vec<IpAddr>,
}

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum DownReason {
    /// The connection broke or was closed without a word.
    #[error("connection closed")]
    Closed,
    /// The peer came back on another connection.
    #[error("replaced by a new connection of the peer")]
    Replaced,
    /// We ended it, telling the peer this.
    #[error("sent {0}")]
    Sent(Notification),
    /// The peer ended it, telling us this.
    #[error("received {0}")]
    Received(Notification),
    /// The peer reads nothing (RFC 9687).
    #[error("send hold timer expired")]
    SendHoldExpired,
}

/// What a speaker learnt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A session is established.
    Up {
        /// With whom.
        neighbour: IpAddr,
        /// Its ASN.
        asn: u32,
    },
    /// An established session ended.
    Down {
        /// With whom.
        neighbour: IpAddr,
        /// Why.
        reason: DownReason,
        /// Are its routes kept until it is back (graceful restart)?
        stale: bool,
    },
    /// A session could not be established.
    Failed {
        /// With whom.
        neighbour: IpAddr,
        /// Why.
        reason: DownReason,
    },
    /// A route was not believed. Told for the first few of a session only; all are counted. Routes that come back to
    /// where they began are not worth telling.
    Refused {
        /// Who announced it.
        neighbour: IpAddr,
        /// What.
        prefix: IpNet,
        /// Why.
        reason: Refusal,
    },
    /// An UPDATE was damaged, and handled as RFC 7606 says. Told for the first few of a session only.
    Malformed {
        /// Who sent it.
        neighbour: IpAddr,
        /// What was wrong.
        detail: String,
    },
    /// Stale routes were forgotten.
    StaleRemoved {
        /// Whose.
        neighbour: IpAddr,
        /// How many.
        routes: usize,
    },
    /// After a restart: everything that neighbours still announce was told; other routes that the kernel holds of the
    /// speaker before us can go.
    Settled,
}
