//! A path: where on the underlay a peer is, and how packets to it are wrapped.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// How an overlay packet is wrapped for the underlay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Encapsulation {
    /// GRE directly over IP, protocol 47 (RFC 2784): what foreign routers speak.
    Gre,
    /// GRE in UDP (RFC 8086), to this port of the peer: what our nodes speak, and what passes a NAT.
    Udp {
        /// The peer's port as seen from here, after any NAT.
        port: u16,
    },
}

/// One way to reach a peer on the underlay. Two paths are the same if they are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    /// The peer's NBMA address as seen from here, after any NAT.
    pub remote: IpAddr,
    /// How packets are wrapped.
    pub encapsulation: Encapsulation,
}

impl Path {
    /// GRE in UDP to `remote` and `port`.
    #[must_use]
    pub const fn udp(remote: IpAddr, port: u16) -> Self {
        Self { remote, encapsulation: Encapsulation::Udp { port } }
    }

    /// GRE directly over IP to `remote`.
    #[must_use]
    pub const fn gre(remote: IpAddr) -> Self {
        Self { remote, encapsulation: Encapsulation::Gre }
    }

    /// The UDP port, where there is one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self.encapsulation {
            Encapsulation::Udp { port } => Some(port),
            Encapsulation::Gre => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.encapsulation, self.remote) {
            (Encapsulation::Gre, a) => write!(f, "{a} (gre)"),
            (Encapsulation::Udp { port }, a) => write!(f, "{}", std::net::SocketAddr::new(a, port)),
        }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
