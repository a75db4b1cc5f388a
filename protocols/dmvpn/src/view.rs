//! What people are shown: plain data, made on request from the engine's state.

use crate::resting::Resting;
use ipnet::IpNet;
use packet::{Instant, Path, PeerId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A peer, of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its row in the datapath; counters are kept by it.
    pub id: PeerId,
    /// Tunnel addresses.
    pub addresses: Vec<IpAddr>,
    /// The identity it asserts; `None`: a foreign router.
    pub identity: Option<String>,
    /// What it is to us.
    pub role: Role,
    /// How it is reached.
    pub state: PeerState,
    /// The path packets leave by; `None`: by the hub.
    pub path: Option<Path>,
    /// Every path packets are accepted from.
    pub candidates: Vec<Path>,
    /// The NBMA address it claims for itself.
    pub nbma_claimed: Option<IpAddr>,
    /// Is it behind a NAT?
    pub natted: bool,
    /// NHRP group.
    pub group: Option<String>,
    /// Round trip over the path that carries, when it was measured.
    pub rtt: Option<Duration>,
    /// Since when it is in this state.
    pub since: Instant,
    /// When its registration ends (on a hub).
    pub expires: Option<Instant>,
}

/// What a peer is to us; the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// We register with it.
    Hub,
    /// It registered with us.
    Registered,
    /// Mapped by hand.
    Static,
    /// Another spoke.
    Spoke,
}

/// How a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    /// Directly.
    Up,
    /// By the hub, while its candidates are probed.
    Probing,
    /// By the hub; it may still send to us.
    Listening,
    /// By the hub, because of this.
    Down(String),
}

/// A hub we register with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubView {
    /// As configured.
    pub name: String,
    /// Lower is better.
    pub priority: u32,
    /// Its tunnel addresses, once known.
    pub addresses: Vec<IpAddr>,
    /// Its row in the datapath.
    pub peer: Option<PeerId>,
    /// Did it accept our registration, and does it hold?
    pub registered: bool,
    /// Does its path answer (or, when it never answered a probe, can't that be told)?
    pub reachable: bool,
    /// Is it the one that carries what has no direct path?
    pub carries: bool,
    /// How it is reached.
    pub path: Option<Path>,
    /// Where it sees us.
    pub observed: Option<Path>,
    /// Round trip, when measured.
    pub rtt: Option<Duration>,
    /// Since when this is so.
    pub since: Instant,
    /// Why it is down.
    pub reason: Option<String>,
}

/// A shortcut, or one that is wanted: a prefix in phase 3, a next hop (host prefix, `via` itself) in phase 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortcutView {
    /// What it is for.
    pub prefix: IpNet,
    /// Next hop, once resolved.
    pub via: Option<IpAddr>,
    /// Identity of the egress.
    pub identity: Option<String>,
    /// The path that carries.
    pub path: Option<Path>,
    /// State.
    pub state: ShortcutState,
    /// Since when it is in this state.
    pub since: Instant,
    /// When the answer ceases to hold.
    pub expires: Option<Instant>,
    /// When it last carried something.
    pub used: Option<Instant>,
}

/// State of a shortcut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShortcutState {
    /// The question is under way.
    Resolving,
    /// The path is being proven; the hub carries.
    Forming,
    /// It carries.
    Up,
    /// Given up, and not tried again before `until`; the hub carries.
    Resting {
        /// Why.
        reason: Resting,
        /// Until when.
        until: Instant,
    },
}

/// Which way a packet goes now, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathView {
    /// What was asked about.
    pub destination: IpAddr,
    /// The route that decides: a shortcut's, or the kernel's.
    pub prefix: Option<IpNet>,
    /// Next hop (a tunnel address).
    pub next_hop: Option<IpAddr>,
    /// The way.
    pub way: Way,
}

/// Which way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// To this node itself.
    Local,
    /// By another interface.
    OffOverlay,
    /// Nowhere.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// Straight to the peer.
    Direct {
        /// Its row.
        peer: PeerId,
        /// Its identity.
        identity: Option<String>,
        /// How it is reached.
        path: Path,
        /// Is it behind a NAT?
        natted: bool,
        /// For how long.
        duration: Duration,
        /// Round trip.
        rtt: Option<Duration>,
        /// The hub that is ready to carry.
        fallback: Option<String>,
    },
    /// By a hub.
    ByHub {
        /// Which.
        hub: String,
        /// How the hub is reached.
        path: Path,
        /// Why not directly.
        reason: String,
    },
}

impl fmt::Display for PathView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(prefix) = self.prefix {
            write!(f, "  prefix {prefix}")?;
        }
        match &self.way {
            Way::Local => f.write_str("  this node"),
            Way::OffOverlay => f.write_str("  not by the tunnel: another interface leads there"),
            Way::Unreachable { reason } => write!(f, "  nowhere: {reason}"),
            Way::Direct { identity, path, natted, duration, rtt, fallback, .. } => {
                write!(f, "  via shortcut {}", identity.as_deref().unwrap_or("a foreign router"))?;
                match self.next_hop {
                    Some(next_hop) => write!(f, " ({next_hop}, {path}")?,
                    None => write!(f, " ({path}")?,
                }
                let nat = if *natted { ", behind NAT" } else { "" };
                write!(f, "{nat}), direct for {}", span(*duration))?;
                if let Some(rtt) = rtt {
                    write!(f, ", round trip {:.1} ms", rtt.as_secs_f64() * 1e3)?;
                }
                match fallback {
                    Some(hub) => write!(f, "; hub path ready as fallback: {hub}"),
                    None => f.write_str("; no hub is ready as fallback"),
                }
            }
            Way::ByHub { hub, path, reason } => write!(f, "  by hub {hub} ({path}): {reason}"),
        }
    }
}

/// A span of time by its two largest units, as people read it: `3m12s`.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}
