//! What a tunnel is like at one moment: plain data that the API, the metrics and `diagnose` are made from.

use super::Handshakes;
use crate::config::{TunnelConfig, Underlay};
use crate::kernel::link::Link;
use crate::routing::Origin;
use dataplane::messages::{PeerCounters, SaCounters};
use dmvpn::CacheEntry;
use dmvpn::view::{HubView, PeerView, ShortcutView};
use ipnet::IpNet;
use packet::{Instant, PeerId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

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
    /// IKE sessions.
    pub sessions: Vec<ikev2::SessionView>,
    /// What IKE has done; `None`: the tunnel is not encrypted.
    pub ike: Option<ikev2::Counters>,
    /// Messages that were held back, and not sent after all.
    pub gate: dmvpn::GateDrops,
    /// What each SA has done: by whether we send by it, and its SPI.
    pub sas: BTreeMap<(bool, u32), SaCounters>,
    /// Sessions that failed or ended lately.
    pub handshakes: Handshakes,
    /// Where keys are exported to, if they are.
    pub key_folder: Option<PathBuf>,
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

/// A tunnel with a pre-shared key that has just started.
#[cfg(test)]
pub(crate) fn for_tests() -> Snapshot {
    let text = "apiVersion: v1
kind: Secret
metadata: {name: psk}
stringData: {psk: thirty-two octets of random text}
---
apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnSpoke
metadata: {name: site}
spec:
  tunnel: {network: 10.200.0.0/16, addresses: 10.200.16.1/32}
  security: {authentication: {preSharedKey: {secret: psk}}}
  hubs: [{address: 198.51.100.1}]
";
    let manifests = crds::manifest::read_text("site.yaml", text).unwrap();
    let spec = plan::standalone(&manifests, &plan::NodeFacts::named("a-1")).unwrap();
    let config = TunnelConfig::parse(&spec.tunnels[0], &manifests.secrets, 1).unwrap();
    let now = Instant::ZERO + std::time::Duration::from_secs(3600);
    Snapshot {
        now,
        config,
        underlay: Some(Underlay { address: "192.0.2.1".parse().unwrap(), mtu: 1500 }),
        datapath: true,
        link: None,
        peers: Vec::new(),
        hubs: Vec::new(),
        shortcuts: Vec::new(),
        cache: Vec::new(),
        nhrp: Default::default(),
        sessions: Vec::new(),
        ike: None,
        gate: Default::default(),
        sas: BTreeMap::new(),
        handshakes: Handshakes::default(),
        key_folder: None,
        totals: BTreeMap::new(),
        counters: BTreeMap::new(),
        conflicts: BTreeMap::new(),
        unresolved: BTreeMap::new(),
        routes: Vec::new(),
        bgp: Vec::new(),
        recursive: BTreeSet::new(),
        failures: Vec::new(),
        state_since: now,
        up: true,
    }
}
