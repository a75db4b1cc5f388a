//! A few engines, each with a model of its kernel and datapath, on a network of virtual time: enough to watch real
//! packets take their way while paths form and fail. (The `netsim` crate does this at scale.)
use dmvpn::{
    Action, Activity, Config, Event, HubConfig, Input, NhrpConfig, PeerEntry, Phase, RouteTarget,
    SourceCheck, Standing, Tunnel,
};
use ipnet::IpNet;
use nhrp::{NhsId, Quirks};
use packet::probe::{Kind, Probe};
use packet::{Instant, Path, PeerId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const S: Duration = Duration::from_secs(1);

/// The sites of [`three`].
pub(crate) const HUB: usize = 0;
pub(crate) const A: usize = 1;
pub(crate) const B: usize = 2;

pub(crate) const PORT: u16 = 4754;
const GRE_DATA: u16 = 0x0800;
const GRE_NHRP: u16 = 0x2001;

pub(crate) fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

pub(crate) fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

/// How a NAT maps and filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NatKind {
    /// Keeps ports; lets in whom was sent to.
    PortKeeping,
    /// Another port for each destination; lets in whom was sent to.
    Symmetric,
}

#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) external: IpAddr,
    pub(crate) kind: NatKind,
    /// Inside (address, port), and destination when symmetric -> outside port.
    mappings: Vec<(Path, Option<Path>, u16)>,
    permitted: HashSet<(u16, Path)>,
    next_port: u16,
}

impl Nat {
    pub(crate) fn new(external: &str, kind: NatKind) -> Self {
        Self { external: ip(external), kind, mappings: vec![], permitted: HashSet::new(), next_port: 40_000 }
    }

    fn outbound(&mut self, inside: Path, to: Path) -> Path {
        let key = (self.kind == NatKind::Symmetric).then_some(to);
        let known = self.mappings.iter().find(|(i, d, _)| *i == inside && *d == key).map(|m| m.2);
        let port = known.unwrap_or_else(|| {
            let kept = inside.port().unwrap();
            let taken = self.mappings.iter().any(|m| m.2 == kept);
            let port = if self.kind == NatKind::PortKeeping && !taken { kept } else { self.next_port };
            self.next_port += 1;
            self.mappings.push((inside, key, port));
            port
        });
        self.permitted.insert((port, to));
        Path::udp(self.external, port)
    }

    fn inbound(&self, port: u16, from: Path) -> Option<Path> {
        let allowed = self.permitted.contains(&(port, from));
        self.mappings.iter().find(|m| m.2 == port).filter(|_| allowed).map(|m| m.0)
    }
}

pub(crate) struct Site {
    pub(crate) tunnel: Tunnel,
    pub(crate) config: Config,
    pub(crate) address: IpAddr,
    pub(crate) nat: Option<usize>,
    /// Kernel routes without shortcuts.
    pub(crate) routes: Vec<(IpNet, RouteTarget)>,
    /// What the actions made of datapath and kernel.
    pub(crate) applied: Standing,
    pub(crate) actions: Vec<(Instant, Action)>,
    pub(crate) events: Vec<(Instant, Event)>,
    /// Inner packets that arrived for addresses here: (number, when).
    pub(crate) arrived: Vec<(u64, Instant)>,
    /// Inner packets dropped here, with the reason.
    pub(crate) dropped: Vec<(u64, String)>,
    /// Answers probes and forwards; false: as if its power were off.
    pub(crate) on: bool,
    /// A router without our software: raw GRE only, no vendor extension, pings answered by its kernel.
    pub(crate) foreign: bool,
    /// It answers no probe.
    pub(crate) mute: bool,
    activity: BTreeMap<PeerId, (u64, u64)>,
    asked: HashMap<IpAddr, Instant>,
    stale: HashSet<IpAddr>,
}

struct Wire {
    from: Path,
    to: Path,
    protocol: u16,
    payload: Vec<u8>,
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) sites: Vec<Site>,
    pub(crate) nats: Vec<Nat>,
    wire: BTreeMap<(Instant, u64), Wire>,
    sequence: u64,
    /// One way, between two underlay addresses; everything else takes the default.
    pub(crate) latency: HashMap<(IpAddr, IpAddr), Duration>,
    pub(crate) default_latency: Duration,
    /// Underlay addresses between which nothing passes.
    pub(crate) cut: HashSet<(IpAddr, IpAddr)>,
    next_activity: Instant,
    pub(crate) number: u64,
}

pub(crate) fn config(name: &str, tunnel: &str, nbma: &str, phase: Phase) -> Config {
    Config {
        identity: format!("{name}.example.com"),
        networks: vec![net("10.200.0.0/16")],
        addresses: vec![ip(tunnel)],
        phase,
        hub: false,
        nbma_address: ip(nbma),
        udp_port: PORT,
        hubs: vec![],
        static_peers: vec![],
        nhrp: NhrpConfig {
            holding_time: Duration::from_secs(600),
            authentication: None,
            unique: true,
            group: None,
            quirks: Quirks::default(),
        },
        admission: vec![],
        mtu: 1400,
        behind: None,
        idle_timeout: Duration::from_secs(120),
        security: None,
    }
}

pub(crate) fn hub_entry(id: u32, nbma: &str, priority: u32) -> HubConfig {
    HubConfig {
        id: NhsId(id),
        name: format!("hub{id}"),
        tunnel_address: None,
        priority,
        paths: vec![Path::udp(ip(nbma), PORT)],
        identity: None,
    }
}

impl Net {
    pub(crate) fn new() -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1000),
            sites: vec![],
            nats: vec![],
            wire: BTreeMap::new(),
            sequence: 0,
            latency: HashMap::new(),
            default_latency: 10 * MS,
            cut: HashSet::new(),
            next_activity: Instant::ZERO,
            number: 0,
        }
    }

    /// A router without our software.
    pub(crate) fn add_foreign(&mut self, mut config: Config, routes: &[(&str, RouteTarget)]) -> usize {
        for hub in &mut config.hubs {
            hub.paths = hub.paths.iter().map(|p| Path::gre(p.remote)).collect();
        }
        self.add_with(config, routes, None, true)
    }

    pub(crate) fn add(
        &mut self,
        config: Config,
        routes: &[(&str, RouteTarget)],
        nat: Option<usize>,
    ) -> usize {
        self.add_with(config, routes, nat, false)
    }

    fn add_with(
        &mut self,
        config: Config,
        routes: &[(&str, RouteTarget)],
        nat: Option<usize>,
        foreign: bool,
    ) -> usize {
        let seed = [self.sites.len() as u8 + 1; 32];
        let tunnel = Tunnel::new(config.clone(), seed, self.now, 1).unwrap();
        let address = config.nbma_address;
        let site = Site {
            tunnel,
            config,
            address,
            nat,
            routes: vec![],
            applied: Standing::default(),
            actions: vec![],
            events: vec![],
            arrived: vec![],
            dropped: vec![],
            on: true,
            foreign,
            mute: false,
            activity: BTreeMap::new(),
            asked: HashMap::new(),
            stale: HashSet::new(),
        };
        self.sites.push(site);
        let at = self.sites.len() - 1;
        let config = self.sites[at].config.clone();
        for network in &config.networks {
            self.route(at, &network.to_string(), Some(RouteTarget::Overlay(None)));
        }
        for address in &config.addresses {
            self.route(at, &IpNet::from(*address).to_string(), Some(RouteTarget::Local));
        }
        for (prefix, target) in routes {
            self.route(at, prefix, Some(*target));
        }
        self.drain(at);
        at
    }

    pub(crate) fn route(&mut self, at: usize, prefix: &str, target: Option<RouteTarget>) {
        let prefix = net(prefix);
        let site = &mut self.sites[at];
        site.routes.retain(|(p, _)| *p != prefix);
        site.routes.extend(target.map(|t| (prefix, t)));
        site.tunnel.handle_input(self.now, Input::Route { prefix, target });
        self.drain(at);
    }

    /// The control process of a site dies without a word, and another takes over from its checkpoint.
    pub(crate) fn restart_control(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let checkpoint = site.tunnel.checkpoint(self.now);
        site.tunnel = Tunnel::restore(site.config.clone(), &checkpoint, [99; 32], self.now).unwrap();
        for (prefix, target) in site.routes.clone() {
            site.tunnel.handle_input(self.now, Input::Route { prefix, target: Some(target) });
        }
        self.drain(at);
    }

    pub(crate) fn drain(&mut self, at: usize) {
        while let Some(action) = self.sites[at].tunnel.poll_action() {
            self.apply(at, action);
        }
        while let Some(event) = self.sites[at].tunnel.poll_event() {
            let now = self.now;
            self.sites[at].events.push((now, event));
        }
    }

    fn apply(&mut self, at: usize, action: Action) {
        let now = self.now;
        let site = &mut self.sites[at];
        let applied = &mut site.applied;
        match action.clone() {
            Action::SetPeer(id, entry) => drop(applied.peers.insert(id, entry)),
            Action::RemovePeer(id) => drop(applied.peers.remove(&id)),
            Action::SetByHub(hub) => applied.by_hub = hub,
            Action::SetMulticast(peers) => applied.multicast = peers,
            Action::SetNeighbour { address, peer } => drop(applied.neighbours.insert(address, peer)),
            Action::RemoveNeighbour { address } => {
                applied.neighbours.remove(&address);
                site.stale.insert(address);
            }
            Action::AddRoute { prefix, via } => drop(applied.routes.insert(prefix, via)),
            Action::RemoveRoute { prefix, via } => {
                assert_eq!(applied.routes.remove(&prefix), Some(via), "removes a route that is not there");
            }
            Action::TransmitIke(_)
            | Action::AddInboundSa { .. }
            | Action::RemoveInboundSa { .. }
            | Action::SetOutboundSa { .. }
            | Action::RemoveOutboundSa { .. } => unreachable!("these tunnels are in clear"),
            Action::Transmit { path, protocol, payload } => {
                if site.on {
                    self.transmit(at, path, protocol, payload);
                }
            }
        }
        if !matches!(action, Action::Transmit { .. }) {
            self.sites[at].actions.push((now, action));
        }
    }

    fn transmit(&mut self, at: usize, to: Path, protocol: u16, payload: Vec<u8>) {
        let site = &self.sites[at];
        let payload = if site.foreign && protocol == GRE_NHRP { without_vendor(&payload) } else { payload };
        let mut from = match to.port() {
            Some(_) => Path::udp(site.address, PORT),
            None => Path::gre(site.address),
        };
        // Neighbours behind one NAT reach each other's private addresses.
        let private =
            self.sites.iter().any(|s| s.nat.is_some() && s.nat == site.nat && s.address == to.remote);
        if let (Some(nat), false) = (site.nat, private) {
            from = self.nats[nat].outbound(from, to);
        }
        if self.cut.contains(&(site.address, to.remote)) || self.cut.contains(&(to.remote, site.address)) {
            return;
        }
        let latency = self
            .latency
            .get(&(site.address, to.remote))
            .or_else(|| self.latency.get(&(to.remote, site.address)));
        let at = self.now + latency.copied().unwrap_or(self.default_latency);
        self.sequence += 1;
        self.wire.insert((at, self.sequence), Wire { from, to, protocol, payload });
    }

    fn deliver(&mut self, wire: Wire) {
        let mut to = wire.to;
        if let Some(nat) = self.nats.iter().find(|n| n.external == to.remote) {
            let Some(inside) = to.port().and_then(|p| nat.inbound(p, wire.from)) else { return };
            to = inside;
        } else {
            let hidden = |s: &Site| s.nat.is_some() && s.address == to.remote;
            let sender_inside = self.sites.iter().any(|s| s.nat.is_some() && s.address == wire.from.remote);
            if self.sites.iter().any(hidden) && !sender_inside {
                return; // A private address is not routed in the world.
            }
        }
        let Some(at) =
            self.sites.iter().position(|s| s.address == to.remote && to.port().is_none_or(|p| p == PORT))
        else {
            return;
        };
        let site = &self.sites[at];
        if site.on && !(site.foreign && to.port().is_some()) {
            self.receive(at, wire.from, wire.protocol, wire.payload);
        }
    }

    /// The datapath's inbound side.
    fn receive(&mut self, at: usize, path: Path, protocol: u16, payload: Vec<u8>) {
        let now = self.now;
        if protocol == GRE_NHRP {
            let payload = if self.sites[at].foreign { without_vendor(&payload) } else { payload };
            self.sites[at].tunnel.handle_input(now, Input::Nhrp { path, payload });
            return self.drain(at);
        }
        let site = &mut self.sites[at];
        let peer = site.applied.peers.iter().find(|(_, row)| row.receive.contains(&path));
        let peer = peer.map(|(id, row)| (*id, row.clone()));
        let ours = |p: &Probe| site.config.addresses.contains(&p.destination);
        if let Some(probe) = Probe::parse(&payload).filter(ours) {
            if site.mute {
                return;
            }
            if probe.kind == Kind::Request && site.foreign {
                // Its kernel answers by whatever way it has.
                return self.forward(at, None, probe.source, probe.reply().to_vec(), 0);
            }
            if probe.kind == Kind::Request && peer.is_some() {
                return self.transmit(at, path, protocol, probe.reply().to_vec());
            }
            site.tunnel.handle_input(now, Input::Echo { path, packet: payload });
            return self.drain(at);
        }
        let (source, destination, body) = match payload[0] >> 4 {
            4 => (v4(&payload[12..16]), v4(&payload[16..20]), &payload[20..28]),
            _ => (v6(&payload[8..24]), v6(&payload[24..40]), &payload[40..48]),
        };
        let number = u64::from_be_bytes(body.try_into().unwrap());
        let Some((from, row)) = peer else {
            return site.dropped.push((number, format!("unknown peer {path}")));
        };
        site.activity.entry(from).or_default().1 += 1;
        if let SourceCheck::Only(sources) = &row.sources
            && !sources.iter().any(|n| n.contains(&source))
        {
            return site.dropped.push((number, format!("source {source}")));
        }
        self.forward(at, Some(from), destination, payload, number);
    }

    /// A host of the site sends a packet. Returns its number.
    pub(crate) fn send(&mut self, at: usize, source: &str, destination: &str) -> u64 {
        self.number += 1;
        let mut packet = match ip(source) {
            IpAddr::V4(_) => vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0],
            IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 8, 17, 64],
        };
        for address in [ip(source), ip(destination)] {
            match address {
                IpAddr::V4(a) => packet.extend(a.octets()),
                IpAddr::V6(a) => packet.extend(a.octets()),
            }
        }
        packet.extend(self.number.to_be_bytes());
        self.forward(at, None, ip(destination), packet, self.number);
        self.number
    }

    /// The kernel's and the datapath's outbound side.
    fn forward(
        &mut self,
        at: usize,
        from: Option<PeerId>,
        destination: IpAddr,
        packet: Vec<u8>,
        number: u64,
    ) {
        let now = self.now;
        let site = &mut self.sites[at];
        let shortcuts = site.applied.routes.iter().map(|(p, via)| (*p, RouteTarget::Overlay(Some(*via)), 1));
        let kernel = site.routes.iter().map(|(p, t)| (*p, *t, 0));
        let route = shortcuts
            .chain(kernel)
            .filter(|(p, ..)| p.contains(&destination))
            .max_by_key(|(p, _, rank)| (p.prefix_len(), *rank));
        let next_hop = match route {
            Some((_, RouteTarget::Local | RouteTarget::OffOverlay, _)) => {
                return site.arrived.push((number, now));
            }
            Some((_, RouteTarget::Overlay(next_hop), _)) => next_hop.unwrap_or(destination),
            Some((_, RouteTarget::Nowhere, _)) | None => {
                return site.dropped.push((number, format!("no route to {destination}")));
            }
        };
        let mut ask = false;
        let to = match site.applied.neighbours.get(&next_hop) {
            Some(peer) => *peer,
            None => {
                let last = site.asked.insert(next_hop, now);
                // A stale entry is asked about some seconds after its first use.
                let pause = if site.stale.contains(&next_hop) { 5000 * MS } else { 100 * MS };
                ask = last.is_none_or(|l| now.since(l) >= pause);
                if let (false, Some(last)) = (ask, last) {
                    site.asked.insert(next_hop, last);
                }
                None
            }
        };
        let direct = to.and_then(|id| Some((id, site.applied.peers.get(&id)?.send?)));
        let by_hub = || {
            let id = site.applied.by_hub?;
            Some((id, site.applied.peers.get(&id)?.send?))
        };
        match direct.or_else(by_hub) {
            None => site.dropped.push((number, format!("nobody carries to {next_hop}"))),
            Some((to, _)) if Some(to) == from => site.dropped.push((number, "split horizon".into())),
            Some((to, path)) => {
                site.activity.entry(to).or_default().0 += 1;
                let head = packet.clone();
                self.transmit(at, path, GRE_DATA, packet);
                if let Some(from) = from {
                    self.sites[at].tunnel.handle_input(now, Input::Hairpin { from, to, head });
                    self.drain(at);
                }
            }
        }
        if ask && from.is_none() {
            self.sites[at].tunnel.handle_input(now, Input::NextHopWanted { address: next_hop });
            self.drain(at);
        }
    }

    /// Runs until then.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timeout = self.sites.iter().filter_map(|s| s.tunnel.poll_timeout()).min();
            let wire = self.wire.keys().next().map(|(at, _)| *at);
            let next = [timeout, wire, Some(self.next_activity)].into_iter().flatten().min().unwrap();
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now) {
                let wire = entry.remove();
                self.deliver(wire);
                continue;
            }
            if self.next_activity <= self.now {
                self.next_activity = self.now + 100 * MS;
                for at in 0..self.sites.len() {
                    let moved: Vec<Activity> = std::mem::take(&mut self.sites[at].activity)
                        .into_iter()
                        .map(|(peer, (sent, received))| Activity { peer, sent, received })
                        .collect();
                    if !moved.is_empty() {
                        self.sites[at].tunnel.handle_input(self.now, Input::Activity(moved));
                        self.drain(at);
                    }
                }
                continue;
            }
            for at in 0..self.sites.len() {
                if self.sites[at].tunnel.poll_timeout().is_some_and(|t| t <= self.now) {
                    self.sites[at].tunnel.handle_timeout(self.now);
                    self.drain(at);
                    let next = self.sites[at].tunnel.poll_timeout();
                    assert!(next.is_none_or(|t| t > self.now), "site {at} is due again at once");
                }
            }
        }
        self.now = end;
        self.check();
    }

    /// A packet every `pace` from one site's host to another's, both ways, for that time. Returns their numbers.
    pub(crate) fn talk(
        &mut self,
        time: Duration,
        pace: Duration,
        a: (usize, &str),
        b: (usize, &str),
    ) -> Vec<u64> {
        let (end, mut numbers) = (self.now + time, vec![]);
        while self.now < end {
            numbers.push(self.send(a.0, a.1, b.1));
            numbers.push(self.send(b.0, b.1, a.1));
            self.run(pace);
        }
        numbers
    }

    /// What the actions have made is what the engine believes stands.
    fn check(&self) {
        for (at, site) in self.sites.iter().enumerate() {
            assert_eq!(site.tunnel.standing(), &site.applied, "site {at}");
            for (address, peer) in &site.applied.neighbours {
                if let Some(peer) = peer {
                    assert!(site.applied.peers.contains_key(peer), "site {at}: {address} leads to no row");
                }
            }
            let mut paths = HashSet::new();
            for row in site.applied.peers.values() {
                assert!(row.receive.len() <= 6);
                for path in &row.receive {
                    assert!(paths.insert(*path), "site {at}: {path} leads to two peers");
                }
            }
        }
    }

    /// Those of these packets that arrived nowhere, and those that arrived twice.
    pub(crate) fn lost_and_doubled(&self, numbers: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let mut seen: HashMap<u64, usize> = HashMap::new();
        for (number, _) in self.sites.iter().flat_map(|s| &s.arrived) {
            *seen.entry(*number).or_default() += 1;
        }
        let lost = numbers.iter().filter(|n| !seen.contains_key(n)).copied().collect();
        let doubled = numbers.iter().filter(|n| seen.get(n).is_some_and(|c| *c > 1)).copied().collect();
        (lost, doubled)
    }

    pub(crate) fn assert_no_loss(&self, numbers: &[u64]) {
        let (lost, doubled) = self.lost_and_doubled(numbers);
        let dropped: Vec<_> = self.sites.iter().map(|s| &s.dropped).collect();
        assert!(lost.is_empty(), "lost {lost:?}; dropped {dropped:?}");
        assert!(doubled.is_empty(), "doubled {doubled:?}");
    }

    pub(crate) fn explain(&self, at: usize, destination: &str) -> String {
        self.sites[at].tunnel.explain_path(self.now, ip(destination)).to_string()
    }

    pub(crate) fn is_direct(&self, at: usize, destination: &str) -> bool {
        matches!(
            self.sites[at].tunnel.explain_path(self.now, ip(destination)).way,
            dmvpn::view::Way::Direct { .. }
        )
    }

    pub(crate) fn events(&self, at: usize, which: impl Fn(&Event) -> bool) -> usize {
        self.sites[at].events.iter().filter(|(_, e)| which(e)).count()
    }

    pub(crate) fn row_of(&self, at: usize, address: &str) -> Option<&PeerEntry> {
        self.sites[at].applied.peers.values().find(|row| row.addresses.contains(&ip(address)))
    }
}

/// A message as a router sends it, or understands it, that knows nothing of our extension.
fn without_vendor(message: &[u8]) -> Vec<u8> {
    let mut packet = nhrp::packet::Packet::decode(message).unwrap();
    packet.extensions.retain(|e| e.kind != nhrp::extension::ExtensionType::VENDOR);
    packet.encode(0).unwrap()
}

fn v6(octets: &[u8]) -> IpAddr {
    let octets: [u8; 16] = octets.try_into().unwrap();
    octets.into()
}

fn v4(octets: &[u8]) -> IpAddr {
    let octets: [u8; 4] = octets.try_into().unwrap();
    octets.into()
}

/// A hub and two spokes, A and B, with a LAN each (10.1.0.0/24, 10.2.0.0/24); the hub announces 10.0.0.0/8, or, in
/// phase 2, each LAN with its spoke as next hop.
pub(crate) fn three(phase: Phase) -> Net {
    three_with(phase, |_, _| {})
}

pub(crate) fn three_with(phase: Phase, change: impl Fn(usize, &mut Config)) -> Net {
    let mut net = Net::new();
    build_three(&mut net, phase, change, [None, None]);
    net.run(2 * S);
    net
}

pub(crate) fn build_three(
    net: &mut Net,
    phase: Phase,
    change: impl Fn(usize, &mut Config),
    nats: [Option<usize>; 2],
) {
    let lan = RouteTarget::OffOverlay;
    let by = |a: &str| RouteTarget::Overlay(Some(ip(a)));
    let mut hub = config("hub", "10.200.0.1", "198.51.100.1", phase);
    hub.hub = true;
    change(HUB, &mut hub);
    net.add(hub, &[("10.1.0.0/24", by("10.200.16.1")), ("10.2.0.0/24", by("10.200.16.2"))], None);
    let spokes = [
        ("a", "10.200.16.1", "203.0.113.1", "10.1.0.0/24", "10.2.0.0/24", "10.200.16.2"),
        ("b", "10.200.16.2", "203.0.113.2", "10.2.0.0/24", "10.1.0.0/24", "10.200.16.1"),
    ];
    for (i, (name, tunnel, nbma, own, other, next_hop)) in spokes.into_iter().enumerate() {
        let nbma = if nats[i].is_some() { nbma.replace("203.0.113", "192.168.77") } else { nbma.to_owned() };
        let mut spoke = config(name, tunnel, &nbma, phase);
        spoke.hubs = vec![hub_entry(0, "198.51.100.1", 0)];
        change(A + i, &mut spoke);
        let address = spoke.nbma_address;
        let far = match phase {
            Phase::Two => (other, by(next_hop)),
            Phase::One | Phase::Three => ("10.0.0.0/8", by("10.200.0.1")),
        };
        net.add(spoke, &[(own, lan), far, ("0.0.0.0/0", lan)], nats[i]);
        net.latency.insert((address, ip("198.51.100.1")), 30 * MS);
    }
}
