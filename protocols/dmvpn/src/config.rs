//! What the engine of one tunnel is told.

use ipnet::IpNet;
use nhrp::{NhsId, Quirks};
use packet::Path;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// DMVPN phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// All traffic goes by the hub; no shortcut is made or answered.
    One,
    /// Routing preserves the next hop; spokes resolve that next hop when it is first used.
    Two,
    /// The hub redirects; spokes resolve the destination and install a shortcut route.
    Three,
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of this node as peers see it; a DNS name. Unverified while `mode: None`.
    pub identity: String,
    /// All tunnel addresses of this DMVPN; one network per IP version.
    pub networks: Vec<IpNet>,
    /// Our tunnel addresses, one per IP version.
    pub addresses: Vec<IpAddr>,
    /// DMVPN phase.
    pub phase: Phase,
    /// Are we a hub (NHS)? A hub with `hubs` of its own is a chained hub.
    pub hub: bool,
    /// Our NBMA address as peers should use it (advertised address behind a 1:1 NAT).
    pub nbma_address: IpAddr,
    /// UDP port we receive on.
    pub udp_port: u16,
    /// Hubs to register with.
    pub hubs: Vec<HubConfig>,
    /// Peers without NHRP.
    pub static_peers: Vec<StaticPeer>,
    /// NHRP parameters.
    pub nhrp: NhrpConfig,
    /// (Hub) who may claim what. Empty: anyone may claim addresses of `networks` and any prefix.
    pub admission: Vec<claims::Class>,
    /// What may be answered for as lying behind us. `None`: whatever the kernel reaches by other interfaces.
    pub behind: Option<Vec<IpNet>>,
    /// Tunnel MTU as announced.
    pub mtu: u16,
    /// A shortcut that carried nothing this long is given up.
    pub idle_timeout: Duration,
    /// IKE and ESP. `None`: everything is in clear, and nobody proves who they are.
    pub security: Option<Security>,
}

/// How a tunnel is protected.
#[derive(Clone, Debug, PartialEq)]
pub struct Security {
    /// IKE's settings.
    pub ike: ikev2::Config,
    /// Who we are, and whom we believe.
    pub credentials: Credentials,
}

/// Credentials, which are equal when they are the same.
#[derive(Clone)]
pub struct Credentials(pub Arc<dyn ikev2::Credentials>);

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.0.local_id())
    }
}

/// NHRP parameters of a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct NhrpConfig {
    /// Holding time.
    pub holding_time: Duration,
    /// Cisco plain-text authentication.
    pub authentication: Option<Vec<u8>>,
    /// Register as unique.
    pub unique: bool,
    /// NHRP group.
    pub group: Option<String>,
    /// Switches for peculiar peers.
    pub quirks: Quirks,
}

/// A hub to register with. Its name is resolved by the caller, which tells the engine by [`crate::Input::HubPaths`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Stable name of this entry.
    pub id: NhsId,
    /// As written by the user, for messages.
    pub name: String,
    /// Its tunnel address, when configured.
    pub tunnel_address: Option<IpAddr>,
    /// Lower is better.
    pub priority: u32,
    /// Paths, when they need no resolving (address literals).
    pub paths: Vec<Path>,
    /// Which identity it must assert (pattern); checked when encryption is on.
    pub identity: Option<String>,
}

/// A peer without NHRP: a plain GRE end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPeer {
    /// Its tunnel address.
    pub tunnel_address: IpAddr,
    /// Where it is.
    pub path: Path,
    /// What lies behind it; routes to it are installed.
    pub prefixes: Vec<IpNet>,
}
