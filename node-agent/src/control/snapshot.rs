//! What a tunnel is like at one moment: plain data that the API, the metrics and `diagnose` are made from.

use crate::config::{TunnelConfig, Underlay};
use crate::kernel::link::Link;
use crate::routing::Origin;
use dataplane::messages::PeerCounters;
use dmvpn::CacheEntry;
use dmvpn::view::{HubView, PeerView, ShortcutView};
use ipnet::IpNet;
use packet::{Instant, PeerId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A tunnel at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The moment.
    pub now: Instant,
    /// How it is configured.
    pub config: TunnelConfig,
    /// Where it is on the underlay.
    pub underlay: Option<Underlay>,
    /// Is the datapath there?
    pub datapath: bool,
    /// The interface, once set up.
    pub link: Option<Link>,
    /// Its peers.
    pub peers: Vec<PeerView>,
    /// Its hubs.
    pub hubs: Vec<HubView>,
    /// Its shortcuts.
    pub shortcuts: Vec<ShortcutView>,
    /// The NHRP cache.
    pub cache: Vec<CacheEntry>,
    /// NHRP messages and drops.
    pub nhrp: dmvpn::NhrpCounters,
    /// Counters of the datapath, by name.
    pub totals: BTreeMap<String, u64>,
    /// Counters of the datapath, by peer.
    pub counters: BTreeMap<PeerId, PeerCounters>,
    /// Hubs that say another node holds our address, and which.
    pub conflicts: BTreeMap<String, IpAddr>,
    /// Names of hubs that don't resolve, and why.
    pub unresolved: BTreeMap<String, String>,
    /// Routes that were asked for: where from, prefix, next hop, why not installed.
    pub routes: Vec<(Origin, IpNet, IpAddr, Option<String>)>,
    /// BGP's neighbours.
    pub bgp: Vec<rpc::agent::BgpNeighbour>,
    /// Kernel routes of others that would carry the tunnel's own packets.
    pub recursive: BTreeSet<(IpNet, IpAddr)>,
    /// What the kernel or the datapath refused lately.
    pub failures: Vec<String>,
    /// Since when the tunnel is in its state (up or not).
    pub state_since: Instant,
    /// Is it up?
    pub up: bool,
}
