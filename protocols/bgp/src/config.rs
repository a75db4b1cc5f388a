//! What a speaker is told at start.

use crate::family::{Families, Family};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// What this node is in the DMVPN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Accepts neighbours and passes routes on.
    Hub,
    /// Announces its own prefixes, and nothing that it learnt.
    Spoke,
}

/// DMVPN phase, as far as routes are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Everything by the hub: it names itself as the next hop.
    One,
    /// The hub passes the spoke's next hop on; spokes resolve it.
    Two,
    /// The hub names itself; shortcuts come from NHRP redirects.
    Three,
}

/// Which ASNs a neighbour may have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RemoteAs {
    /// Any; our own makes it an internal neighbour.
    Any,
    /// Any but our own.
    External,
    /// Our own.
    Internal,
    /// One of these.
    Only(Vec<RangeInclusive<u32>>),
}

impl RemoteAs {
    pub(crate) fn permits(&self, own: u32, remote: u32) -> bool {
        match self {
            Self::Any => true,
            Self::External => remote != own,
            Self::Internal => remote == own,
            Self::Only(ranges) => ranges.iter().any(|r| r.contains(&remote)),
        }
    }
}

/// A speaker. [`Config::new`] fills in what has a good default.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Our autonomous system number.
    pub asn: u32,
    /// BGP Identifier (RFC 6286: unique within the AS, not zero).
    pub router_id: Ipv4Addr,
    /// Hub or spoke.
    pub role: Role,
    /// DMVPN phase.
    pub phase: Phase,
    /// The tunnel networks: next hops must lie in them, and routes to them are refused.
    pub networks: Vec<IpNet>,
    /// Our own tunnel addresses, at most one per IP version.
    pub local_addresses: Vec<IpAddr>,
    /// (Hub) neighbours that nobody configured are accepted from these ranges.
    pub listen_ranges: Vec<IpNet>,
    /// Which ASNs neighbours may have.
    pub remote_as: RemoteAs,
    /// Prefixes we announce as our own.
    pub announce: Vec<IpNet>,
    /// (Hub) summaries. In phases 1 and 3 a spoke gets the summary instead of what it covers, in phase 2 along with it.
    pub summaries: Vec<IpNet>,
    /// Hold time we propose (RFC 4271 §4.2); a third of what is agreed is the keepalive interval. The default of 30 s is
    /// calm, since a hub that is gone is noticed by the tunnel's own probes within a second.
    pub hold_time: Duration,
    /// The longest wait between two attempts to connect; the first comes after a second.
    pub connect_retry: Duration,
    /// How long changes are collected before they are sent (RFC 4271 §9.2.1.1).
    pub advertisement_interval: Duration,
    /// Graceful restart (RFC 4724).
    pub graceful: Graceful,
    /// We were restarted and the kernel still holds the routes of the speaker before us.
    pub restart: Option<Restart>,
    /// Bounds of what neighbours can make us hold.
    pub limits: Limits,
    /// What is never believed, whatever the claims say.
    pub import: ImportRules,
    /// Use up to this many equally good next hops at once.
    pub max_paths: usize,
}

/// Graceful restart (RFC 4724).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Graceful {
    /// How long neighbours shall keep our routes while we restart; at most 4095 s. Zero: the capability is not sent.
    pub restart_time: Duration,
    /// The longest time we keep a neighbour's routes while it restarts, however long it asks for.
    pub max_restart_time: Duration,
    /// How long stale routes may wait for the End-of-RIB after the session is back.
    pub stale_time: Duration,
}

/// We are the restarting speaker (RFC 4724 §4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restart {
    /// Neighbours whose End-of-RIB we wait for: a spoke's hubs; for a hub, the next hops found in the kernel.
    pub expected: Vec<IpAddr>,
    /// Wait no longer than this (Selection_Deferral_Timer).
    pub deferral: Duration,
}

/// Bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Neighbours that nobody configured.
    pub dynamic_neighbours: usize,
    /// Prefixes from one of them; more ends the session (RFC 4486, subcode 1).
    pub prefixes_dynamic: usize,
    /// Prefixes from a configured neighbour.
    pub prefixes_configured: usize,
}

/// What is never believed, whatever the claims say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImportRules {
    /// Believe a default route.
    pub default_route: bool,
    /// The longest IPv4 prefix believed. The default believes host routes: the claims are what keeps a peer from
    /// announcing a part of somebody else's prefix.
    pub max_length_v4: u8,
    /// The longest IPv6 prefix believed.
    pub max_length_v6: u8,
    /// Believe paths that hold our own ASN. Harmless on a spoke, which passes nothing on, and needed when spokes share
    /// an ASN and the hub does not replace it.
    pub own_as: bool,
}

/// A configuration that can't work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// ASN 0 is reserved (RFC 7607), as are 23456 (RFC 6793) and 4294967295 (RFC 7300).
    #[error("{0} is not an ASN that a speaker may have")]
    Asn(u32),
    /// The router ID must not be zero.
    #[error("the router ID is 0.0.0.0")]
    RouterId,
    /// Without a tunnel address there is no next hop to announce.
    #[error("no tunnel address")]
    NoAddress,
    /// Neither zero (no keepalives) nor at least three seconds (RFC 4271 §4.2), or above what 16 bits can say.
    #[error("hold time of {0:?}; it is 0 or 3 to 65535 whole seconds")]
    HoldTime(Duration),
}

impl Config {
    /// A configuration with the defaults.
    #[must_use]
    pub fn new(asn: u32, router_id: Ipv4Addr, role: Role, phase: Phase) -> Self {
        Self {
            asn,
            router_id,
            role,
            phase,
            networks: Vec::new(),
            local_addresses: Vec::new(),
            listen_ranges: Vec::new(),
            remote_as: RemoteAs::Any,
            announce: Vec::new(),
            summaries: Vec::new(),
            hold_time: Duration::from_secs(30),
            connect_retry: Duration::from_secs(15),
            advertisement_interval: Duration::from_millis(100),
            graceful: Graceful::default(),
            restart: None,
            limits: Limits::default(),
            import: ImportRules { own_as: role == Role::Spoke, ..ImportRules::default() },
            max_paths: 1,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if matches!(self.asn, 0 | AS_TRANS | u32::MAX) {
            return Err(ConfigError::Asn(self.asn));
        }
        if self.router_id.is_unspecified() {
            return Err(ConfigError::RouterId);
        }
        if self.local_addresses.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        let seconds = self.hold_time.as_secs();
        if self.hold_time.subsec_nanos() != 0 || matches!(seconds, 1 | 2) || seconds > u64::from(u16::MAX) {
            return Err(ConfigError::HoldTime(self.hold_time));
        }
        Ok(())
    }

    /// Our tunnel address of that family.
    pub(crate) fn local_address(&self, family: Family) -> Option<IpAddr> {
        self.local_addresses.iter().copied().find(|a| Family::of_address(*a) == family)
    }

    /// What we offer. IPv4 prefixes can have IPv6 next hops (RFC 8950), so an IPv6 tunnel carries both.
    pub(crate) fn families(&self) -> Families {
        let v6 = self.local_address(Family::Ipv6).is_some();
        let mut families = Families::NONE;
        families.set(Family::Ipv4, v6 || self.local_address(Family::Ipv4).is_some());
        families.set(Family::Ipv6, v6);
        families
    }
}

/// Stands for a four-octet ASN where only two fit (RFC 6793).
pub(crate) const AS_TRANS: u32 = 23456;

impl Default for Graceful {
    fn default() -> Self {
        Self {
            restart_time: Duration::from_secs(120),
            max_restart_time: Duration::from_secs(300),
            stale_time: Duration::from_secs(360),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { dynamic_neighbours: 8192, prefixes_dynamic: 1000, prefixes_configured: 100_000 }
    }
}

impl Default for ImportRules {
    fn default() -> Self {
        Self { default_route: false, max_length_v4: 32, max_length_v6: 128, own_as: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Config {
        let mut config = Config::new(65_000, Ipv4Addr::new(10, 0, 0, 1), Role::Hub, Phase::Three);
        config.local_addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))];
        config
    }

    #[test]
    fn what_cannot_work_is_said_at_start() {
        assert_eq!(good().check(), Ok(()));
        assert_eq!(Config { asn: 0, ..good() }.check(), Err(ConfigError::Asn(0)));
        assert_eq!(Config { asn: AS_TRANS, ..good() }.check(), Err(ConfigError::Asn(AS_TRANS)));
        assert_eq!(Config { router_id: Ipv4Addr::UNSPECIFIED, ..good() }.check(), Err(ConfigError::RouterId));
        assert_eq!(Config { local_addresses: vec![], ..good() }.check(), Err(ConfigError::NoAddress));
        let two = Duration::from_secs(2);
        assert_eq!(Config { hold_time: two, ..good() }.check(), Err(ConfigError::HoldTime(two)));
    }

    #[test]
    fn remote_as_classes() {
        assert!(RemoteAs::External.permits(1, 2) && !RemoteAs::External.permits(1, 1));
        assert!(RemoteAs::Internal.permits(1, 1) && !RemoteAs::Internal.permits(1, 2));
        assert!(RemoteAs::Only(vec![5..=7]).permits(1, 6) && !RemoteAs::Only(vec![5..=7]).permits(1, 8));
    }
}
