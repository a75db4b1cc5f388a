//! What a station is told about itself and its servers.

use ipnet::IpNet;
use packet::Path;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// One NHRP station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our tunnel addresses: at most one of each IP version; one registration is kept per NHS and version.
    pub protocol_addresses: Vec<IpAddr>,
    /// Our NBMA address as we claim it: the advertised one when a 1:1 NAT is in front, else the bound one.
    pub nbma_address: IpAddr,
    /// UDP port on which we receive GRE in UDP; goes into our vendor extension. `None`: raw GRE only.
    pub udp_port: Option<u16>,
    /// Our identity as we assert it (vendor extension). Verified only where encryption is on.
    pub identity: String,
    /// How long others may use what we register or answer (whole seconds, 1..=65535). Registrations are refreshed
    /// after a third of it.
    pub holding_time: Duration,
    /// Cisco's plain-text authentication, at most 8 octets, sent and required in every message.
    pub authentication: Option<Vec<u8>>,
    /// Register as unique (U bit): another station's claim to our tunnel address is answered with code 14.
    pub unique: bool,
    /// MTU of the tunnel as announced in CIEs; 0 is "not said".
    pub mtu: u16,
    /// NHRP group carried to the hub in Cisco's vendor extension, shown there.
    pub group: Option<String>,
    /// Act as NHS: accept registrations, answer for registered stations, forward requests.
    pub serve: bool,
    /// Make and answer shortcuts (phases 2 and 3). In phase 1 resolution requests are refused as administratively
    /// prohibited and none is made.
    pub shortcuts: bool,
    /// Departures from our own habits that certain peers need.
    pub quirks: Quirks,
    /// Most registrations, cached answers and pending requests held; a peer beyond is refused with code 5.
    pub max_entries: usize,
}

/// Switches for peers that need something unusual. Each is off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quirks {
    /// Append 16 zero octets to Error Indications (older Cisco IOS logs spurious errors without them).
    pub pad_error_indications: bool,
    /// Use one fixed request ID for registration and purge, as some Cisco IOS versions expect.
    pub fixed_request_id: bool,
}

/// Which of our servers; chosen by the caller, stable over reconfiguration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NhsId(pub u32);

/// A next hop server to register with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NhsConfig {
    /// The caller's name for it.
    pub id: NhsId,
    /// Its tunnel address, when known; learnt from its first reply otherwise.
    pub protocol_address: Option<IpAddr>,
    /// Paths to try in turn until one answers (several when the encapsulation is not known). Empty until the
    /// server's name has been resolved.
    pub paths: Vec<Path>,
}

/// A peer that doesn't speak NHRP, mapped by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticEntry {
    /// Its tunnel address.
    pub protocol_address: IpAddr,
    /// Where it is.
    pub path: Path,
    /// What lies behind it, beyond its tunnel address.
    pub prefixes: Vec<IpNet>,
}
