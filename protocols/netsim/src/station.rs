//! A station: an engine, and the datapath and kernel it drives.

use crate::datapath::Datapath;
use crate::kernel::Kernel;
use crate::sa::Sas;
use dmvpn::{Action, Config, Event, RouteTarget, Standing, Tunnel};
use ipnet::IpNet;
use packet::peer::{BY_HUB_MAC, Mac};
use packet::{Instant, PeerId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;

/// A station's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationId(pub(crate) usize);

impl fmt::Debug for StationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "station {}", self.0)
    }
}

/// What control has ordered and nobody has done yet.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Do(Action),
    Keep(Vec<u8>),
}

/// One node.
pub(crate) struct Station {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) lans: Vec<IpNet>,
    /// Whom it registers with.
    pub(crate) hubs: Vec<StationId>,
    /// The engine; `None` while control is not running.
    pub(crate) tunnel: Option<Tunnel>,
    /// Which control process this is: what was ordered by an earlier one is void.
    pub(crate) epoch: u32,
    pub(crate) datapath: Datapath,
    pub(crate) kernel: Kernel,
    /// In the order they are to be done, one at a time.
    pub(crate) steps: VecDeque<Step>,
    pub(crate) stepping: bool,
    /// The moment the engine will be woken at.
    pub(crate) timer: Option<Instant>,
    /// Is a report of activity due?
    pub(crate) reporting: bool,
    pub(crate) powered: bool,
    pub(crate) booted: bool,
    pub(crate) request_id: u32,
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) multicast_received: u64,
}

impl Station {
    pub(crate) fn new(name: &str, config: Config, lans: Vec<IpNet>, hubs: Vec<StationId>) -> Self {
        let datapath = datapath(&config);
        Self {
            name: name.to_owned(),
            config,
            lans,
            hubs,
            tunnel: None,
            epoch: 0,
            datapath,
            kernel: Kernel::default(),
            steps: VecDeque::new(),
            stepping: false,
            timer: None,
            reporting: false,
            powered: false,
            booted: false,
            request_id: 1,
            events: Vec::new(),
            multicast_received: 0,
        }
    }

    /// The power goes: what is in memory is lost, what is configured stays.
    pub(crate) fn lose_power(&mut self) {
        self.stop_control();
        self.powered = false;
        self.datapath = datapath(&self.config);
        let routes = self.kernel.routes();
        self.kernel = Kernel::default();
        for (prefix, target) in routes {
            self.kernel.set_route(prefix, Some(target));
        }
    }

    /// The control process ends at once.
    pub(crate) fn stop_control(&mut self) {
        if let Some(tunnel) = self.tunnel.take() {
            // A crashed process skips what it may have used.
            self.request_id = tunnel.request_id().wrapping_add(100);
        }
        self.epoch += 1;
        self.steps.clear();
        self.stepping = false;
        self.timer = None;
    }

    /// Carries out a step that is neither a transmission nor anything else the network sees.
    pub(crate) fn carry_out(&mut self, step: Step) {
        match step {
            Step::Keep(checkpoint) => self.datapath.checkpoint = Some(checkpoint),
            Step::Do(Action::SetPeer(id, entry)) => self.datapath.set_peer(id, entry),
            Step::Do(Action::RemovePeer(id)) => self.datapath.remove_peer(id),
            Step::Do(Action::SetByHub(peer)) => self.datapath.set_by_hub(peer),
            Step::Do(Action::SetMulticast(peers)) => self.datapath.set_multicast(peers),
            Step::Do(Action::SetNeighbour { address, peer }) => self.kernel.set_neighbour(address, peer),
            Step::Do(Action::RemoveNeighbour { address }) => self.kernel.remove_neighbour(address),
            Step::Do(Action::AddRoute { prefix, via }) => self.kernel.add_shortcut(prefix, via),
            Step::Do(Action::RemoveRoute { prefix, via }) => self.kernel.remove_shortcut(prefix, via),
            Step::Do(Action::AddInboundSa { path, keys }) => self.sas().add_inbound(path, &keys),
            Step::Do(Action::RemoveInboundSa { spi }) => self.sas().remove_inbound(spi),
            Step::Do(Action::SetOutboundSa { path, keys, soft, .. }) => {
                self.sas().set_outbound(path, &keys, soft);
            }
            Step::Do(Action::RemoveOutboundSa { path, spi }) => self.sas().remove_outbound(path, spi),
            // These are packets.
            Step::Do(Action::Transmit { .. } | Action::TransmitIke(_)) => {}
        }
    }

    fn sas(&mut self) -> &mut Sas {
        self.datapath.sas.get_or_insert_default()
    }

    /// What a restarted control process orders first: everything that differs from what should stand, new things
    /// before old ones go.
    pub(crate) fn reconcile(&self, standing: &Standing) -> Vec<Action> {
        let mut actions = Vec::new();
        let peers = self.datapath.peers();
        for (id, entry) in standing.peers.iter().filter(|(id, e)| peers.get(id) != Some(e)) {
            actions.push(Action::SetPeer(*id, entry.clone()));
        }
        if standing.by_hub != self.datapath.by_hub() {
            actions.push(Action::SetByHub(standing.by_hub));
        }
        if standing.multicast != self.datapath.multicast() {
            actions.push(Action::SetMulticast(standing.multicast.clone()));
        }
        let present = self.kernel.permanent();
        let wanted: BTreeMap<IpAddr, (Option<PeerId>, Mac)> = standing
            .neighbours
            .iter()
            .map(|(address, peer)| (*address, (*peer, peer.map_or(BY_HUB_MAC, PeerId::mac))))
            .collect();
        for (address, (peer, mac)) in &wanted {
            if present.get(address) != Some(mac) {
                actions.push(Action::SetNeighbour { address: *address, peer: *peer });
            }
        }
        let routes = self.kernel.shortcuts();
        for (prefix, via) in standing.routes.iter().filter(|(p, via)| routes.get(p) != Some(via)) {
            actions.push(Action::AddRoute { prefix: *prefix, via: *via });
        }
        for (prefix, via) in routes.iter().filter(|(p, _)| !standing.routes.contains_key(p)) {
            actions.push(Action::RemoveRoute { prefix: *prefix, via: *via });
        }
        for address in present.keys().filter(|a| !wanted.contains_key(a)) {
            actions.push(Action::RemoveNeighbour { address: *address });
        }
        for id in peers.keys().filter(|id| !standing.peers.contains_key(id)) {
            actions.push(Action::RemovePeer(*id));
        }
        actions
    }

    /// The first host of its LAN, of the IP version wanted.
    pub(crate) fn host(&self, v4: bool) -> Option<IpAddr> {
        let lan = self.lans.iter().find(|n| n.addr().is_ipv4() == v4)?;
        match lan.network() {
            IpAddr::V4(a) => Some(IpAddr::V4((u32::from(a) + 9).into())),
            IpAddr::V6(a) => Some(IpAddr::V6((u128::from(a) + 9).into())),
        }
    }

    /// The routes that a node has by itself.
    pub(crate) fn own_routes(&self) -> Vec<(IpNet, RouteTarget)> {
        // What is behind any station never leaves by the default route, whoever is down (`protectedPrefixes`).
        let (four, six) = crate::plan::everything();
        let mut routes = vec![
            (default_v4(), RouteTarget::OffOverlay),
            (four, RouteTarget::Nowhere),
            (six, RouteTarget::Nowhere),
        ];
        routes.extend(self.config.networks.iter().map(|n| (*n, RouteTarget::Overlay(None))));
        routes.extend(self.config.addresses.iter().map(|a| (IpNet::from(*a), RouteTarget::Local)));
        routes.extend(self.lans.iter().map(|n| (*n, RouteTarget::OffOverlay)));
        routes
    }
}

/// An empty datapath.
pub(crate) fn datapath(config: &Config) -> Datapath {
    let mut datapath = Datapath::new(config.addresses.iter().copied(), indicates(config));
    datapath.sas = config.security.is_some().then(Sas::default);
    datapath
}

fn indicates(config: &Config) -> bool {
    config.hub && config.phase == dmvpn::Phase::Three
}

fn default_v4() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::default())
}
