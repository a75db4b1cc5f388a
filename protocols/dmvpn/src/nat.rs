//! What is known of the NAT in front of us, and what that means for a direct path.

use crate::hub::Hubs;
use packet::Path;
use std::fmt;
use std::net::IpAddr;

/// Our own NAT, as hubs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnNat {
    /// No hub has told where it sees us.
    Unknown,
    /// There is none.
    Absent,
    /// There is one, and it keeps our port.
    PortKept(Path),
    /// There is one, and it changes our port; by what rule can't be told from one hub.
    PortChanged(Path),
    /// Different hubs see different ports: each destination gets a mapping of its own.
    PerDestination(Path),
}

impl OwnNat {
    /// From what the hubs have told. `address` and `port` are ours.
    pub(crate) fn of(hubs: &Hubs, address: IpAddr, port: u16) -> Self {
        let mut seen = hubs.iter().filter_map(|h| h.observed).filter(|p| p.port().is_some());
        let Some(first) = seen.next() else { return Self::Unknown };
        let same_address = |p: &Path| p.remote == first.remote;
        if seen.any(|p| same_address(&p) && p != first) {
            Self::PerDestination(first)
        } else if first == Path::udp(address, port) {
            Self::Absent
        } else if first.port() == Some(port) {
            Self::PortKept(first)
        } else {
            Self::PortChanged(first)
        }
    }

    /// The address by which the world sees us, if that isn't our own.
    pub(crate) const fn public(self) -> Option<IpAddr> {
        match self {
            Self::Unknown | Self::Absent => None,
            Self::PortKept(p) | Self::PortChanged(p) | Self::PerDestination(p) => Some(p.remote),
        }
    }
}

impl fmt::Display for OwnNat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("whether this node is behind a NAT is not known"),
            Self::Absent => f.write_str("this node is not behind a NAT"),
            Self::PortKept(p) => write!(f, "this node is behind a NAT that keeps its port ({p})"),
            Self::PortChanged(p) => write!(f, "this node is behind a NAT that changes its port ({p})"),
            Self::PerDestination(p) => {
                write!(
                    f,
                    "this node is behind a NAT that maps each destination differently, symmetric ({p}, ...)"
                )
            }
        }
    }
}

/// The NAT in front of a peer, as its hub told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerNat {
    pub(crate) natted: bool,
    /// Where the hub sees it.
    pub(crate) observed: Option<Path>,
    /// Its port as it knows it itself, when it told one.
    pub(crate) private: Option<Path>,
}

impl fmt::Display for PeerNat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.natted, self.observed, self.private) {
            (false, ..) => f.write_str("the peer is not behind a NAT"),
            (true, Some(o), Some(p)) if o.port() == p.port() && o.remote != p.remote => {
                write!(f, "the peer is behind a NAT that keeps its port ({o})")
            }
            (true, Some(o), Some(p)) if o.remote != p.remote => {
                write!(f, "the peer is behind a NAT that changes its port ({o})")
            }
            (true, Some(o), _) => write!(f, "the peer is behind a NAT ({o})"),
            (true, None, _) => f.write_str("the peer is behind a NAT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_nat_is_told_by_its_two_ports() {
        let path = |s: &str, port| Some(Path::udp(s.parse().unwrap(), port));
        let nat = |observed, private| PeerNat { natted: true, observed, private }.to_string();
        assert!(nat(path("203.0.113.9", 4754), path("10.0.0.9", 4754)).contains("keeps its port"));
        assert!(nat(path("203.0.113.9", 40001), path("10.0.0.9", 4754)).contains("changes its port"));
        assert_eq!(nat(None, None), "the peer is behind a NAT");
    }
}
