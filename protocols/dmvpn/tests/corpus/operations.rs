//! Sequences of operations on four tunnels that exchange messages: two hubs and two spokes. Shared by the fuzz target
//! and the replay of its corpus.
//!
//! Whatever happens, what was told to datapath and kernel adds up: nothing is removed that is not there, nothing leads
//! to a row that is gone, no path leads to two peers, time goes on, and nothing grows without bound.

use arbitrary::{Arbitrary, Unstructured};
use dmvpn::{
    Action, Activity, Clear, Config, HubConfig, Input, NhrpConfig, NhsId, Phase, Quirks, RouteTarget,
    Standing, StaticPeer, Tunnel,
};
use ipnet::IpNet;
use packet::probe::{Kind, Probe};
use packet::{Instant, Path, PeerId};
use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A sequence is cut off here.
const MOST_OPERATIONS: usize = 200;
/// Messages under way beyond this are lost, as on a wire.
const MOST_QUEUED: usize = 100;
const STATIONS: usize = 4;
const NHRP: u16 = 0x2001;

#[derive(Clone, Debug)]
pub struct Operations {
    phase: u8,
    admission: bool,
    operations: Vec<Operation>,
}

/// As many operations as there are bytes for; the derived one would toss a coin after each.
impl<'a> Arbitrary<'a> for Operations {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let (phase, admission) = (u.arbitrary()?, u.arbitrary()?);
        let mut operations = Vec::new();
        while !u.is_empty() && operations.len() < MOST_OPERATIONS {
            operations.push(u.arbitrary()?);
        }
        Ok(Self { phase, admission, operations })
    }
}

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    /// Time passes: a little, or minutes.
    Wait {
        root: u8,
    },
    /// The oldest message under way arrives.
    Deliver,
    /// All of them arrive, and what they lead to.
    DeliverAll,
    Lose,
    /// The oldest message arrives by another path.
    Stray {
        path: u8,
    },
    Garbage {
        to: u8,
        path: u8,
        nhrp: bool,
        bytes: Vec<u8>,
    },
    /// A probe that nobody sent.
    Forge {
        to: u8,
        path: u8,
        reply: bool,
        source: u8,
        token: u64,
        opaque: u8,
    },
    NextHopWanted {
        at: u8,
        address: u8,
    },
    /// A packet from one peer to another; at a hub.
    Hairpin {
        at: u8,
        from: u8,
        to: u8,
        source: u8,
        destination: u8,
    },
    Active {
        at: u8,
        peer: u8,
        sent: bool,
        received: bool,
    },
    Route {
        at: u8,
        prefix: u8,
        target: u8,
    },
    HubPaths {
        at: u8,
        hub: u8,
        paths: [u8; 2],
    },
    /// A station moves, and is told, or not.
    Move {
        at: u8,
        address: u8,
        told: bool,
    },
    Reconfigure {
        at: u8,
        change: u8,
    },
    Clear {
        at: u8,
        what: u8,
    },
    /// Control starts again from its checkpoint.
    Restart {
        at: u8,
    },
    /// The whole station starts anew.
    Reboot {
        at: u8,
    },
    Shutdown {
        at: u8,
    },
}

struct Station {
    tunnel: Tunnel,
    config: Config,
    address: IpAddr,
    applied: Standing,
}

struct Message {
    from: Path,
    to: Path,
    protocol: u16,
    payload: Vec<u8>,
}

struct World {
    now: Instant,
    stations: Vec<Station>,
    wire: VecDeque<Message>,
    seed: u8,
}

/// Plays a sequence; panics when something does not add up.
pub fn run(operations: Operations) {
    let phase = [Phase::One, Phase::Two, Phase::Three, Phase::Three][usize::from(operations.phase % 4)];
    let mut world = World::new(phase, operations.admission);
    for operation in operations.operations {
        world.play(operation);
        world.check();
    }
}

fn tunnel_address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 200, 0, n % 6 + 1).into()
}

fn underlay(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n % 6 + 1).into()
}

fn path(n: u8) -> Path {
    if n & 0x40 == 0 { Path::udp(underlay(n), 4754 + u16::from(n >> 7)) } else { Path::gre(underlay(n)) }
}

fn prefix(n: u8) -> IpNet {
    let (address, len) = match n % 8 {
        0 => ([10, 1, 0, 0], 24),
        1 => ([10, 2, 0, 0], 24),
        2 => ([10, 2, 0, 128], 25),
        3 => ([10, 0, 0, 0], 8),
        4 => ([192, 0, 2, 0], 24),
        5 => ([0, 0, 0, 0], 0),
        6 => ([10, 200, 0, n / 8 % 6 + 1], 32),
        _ => ([10, 2, 0, n], 32),
    };
    IpNet::new(address.into(), len).unwrap().trunc()
}

fn config(at: usize, phase: Phase, admission: bool) -> Config {
    let hub = |n: u8| HubConfig {
        id: NhsId(n.into()),
        name: format!("hub{n}"),
        tunnel_address: (n == 1).then(|| tunnel_address(n)),
        priority: n.into(),
        paths: vec![Path::udp(underlay(n), 4754)],
        identity: None,
    };
    let class = |prefix: &str| claims::Class {
        identity: "*".into(),
        tunnel_addresses: vec![],
        prefixes: vec![prefix.parse().unwrap()],
    };
    Config {
        identity: format!("station{at}"),
        networks: vec!["10.200.0.0/24".parse().unwrap()],
        addresses: vec![tunnel_address(at as u8)],
        phase,
        hub: at < 2,
        nbma_address: underlay(at as u8),
        udp_port: 4754,
        hubs: if at < 2 { vec![] } else { vec![hub(0), hub(1)] },
        static_peers: vec![],
        nhrp: NhrpConfig {
            holding_time: Duration::from_secs(30),
            authentication: None,
            unique: true,
            group: None,
            quirks: Quirks::default(),
        },
        admission: if admission { vec![class("10.0.0.0/9")] } else { vec![] },
        behind: (at == 3).then(|| vec![prefix(1), prefix(3)]),
        mtu: 1400,
        idle_timeout: Duration::from_secs(10),
        security: None,
    }
}

impl World {
    fn new(phase: Phase, admission: bool) -> Self {
        let now = Instant::ZERO + Duration::from_secs(100);
        let stations = (0..STATIONS)
            .map(|at| {
                let config = config(at, phase, admission);
                let tunnel = Tunnel::new(config.clone(), [at as u8; 32], now, 1).unwrap();
                Station { tunnel, address: config.nbma_address, config, applied: Standing::default() }
            })
            .collect();
        let mut world = Self { now, stations, wire: VecDeque::new(), seed: 10 };
        (0..STATIONS).for_each(|at| world.drain(at));
        world.routes();
        // Most of what is interesting comes after the registrations.
        world.pass(Duration::from_millis(100));
        for _ in 0..20 {
            (0..MOST_QUEUED).for_each(|_| world.deliver());
            world.pass(Duration::from_millis(20));
        }
        world
    }

    fn routes(&mut self) {
        for at in 0..STATIONS {
            for (lan, holder) in [(0, 2), (1, 3)] {
                let target = match at {
                    at if at == holder => RouteTarget::OffOverlay,
                    at if at < 2 => RouteTarget::Overlay(Some(tunnel_address(holder as u8))),
                    _ => RouteTarget::Overlay(Some(tunnel_address(0))),
                };
                self.input(at, Input::Route { prefix: prefix(lan), target: Some(target) });
            }
        }
    }

    fn play(&mut self, operation: Operation) {
        let station = |n: u8| usize::from(n) % STATIONS;
        let row = |world: &Self, at: usize, n: u8| -> PeerId {
            let rows = &world.stations[at].applied.peers;
            let known = rows.keys().nth(usize::from(n) % rows.len().max(1)).copied();
            known.filter(|_| n < 0xf0).unwrap_or_else(|| PeerId { index: n.into(), generation: n })
        };
        match operation {
            Operation::Wait { root } => self.pass(Duration::from_millis(u64::from(root).pow(2) * 5)),
            Operation::Deliver => self.deliver(),
            Operation::DeliverAll => (0..MOST_QUEUED).for_each(|_| self.deliver()),
            Operation::Lose => drop(self.wire.pop_front()),
            Operation::Stray { path: by } => {
                if let Some(mut message) = self.wire.pop_front() {
                    message.from = path(by);
                    self.wire.push_front(message);
                    self.deliver();
                }
            }
            Operation::Garbage { to, path: by, nhrp, bytes } => {
                let path = path(by);
                let input = match nhrp {
                    true => Input::Nhrp { path, payload: bytes },
                    false => Input::Echo { path, packet: bytes },
                };
                self.input(station(to), input);
            }
            Operation::Forge { to, path: by, reply, source, token, opaque } => {
                let to = station(to);
                let kind = if reply { Kind::Reply } else { Kind::Request };
                let (source, destination) = (tunnel_address(source), tunnel_address(to as u8));
                let probe = Probe { kind, source, destination, token, opaque: opaque.into() };
                self.input(to, Input::Echo { path: path(by), packet: probe.to_vec() });
            }
            Operation::NextHopWanted { at, address } => {
                self.input(station(at), Input::NextHopWanted { address: tunnel_address(address) });
            }
            Operation::Hairpin { at, from, to, source, destination } => {
                let at = station(at);
                let (from, to) = (row(self, at, from), row(self, at, to));
                let mut head = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
                for n in [source, destination] {
                    head.extend([10, n % 3 + 1, 0, n]);
                }
                self.input(at, Input::Hairpin { from, to, head });
            }
            Operation::Active { at, peer, sent, received } => {
                let at = station(at);
                let activity =
                    Activity { peer: row(self, at, peer), sent: sent.into(), received: received.into() };
                self.input(at, Input::Activity(vec![activity]));
            }
            Operation::Route { at, prefix: n, target } => {
                let target = match target % 6 {
                    0 => None,
                    1 => Some(RouteTarget::Local),
                    2 => Some(RouteTarget::OffOverlay),
                    3 => Some(RouteTarget::Overlay(None)),
                    4 => Some(RouteTarget::Overlay(Some(tunnel_address(target / 6)))),
                    _ => Some(RouteTarget::Nowhere),
                };
                self.input(station(at), Input::Route { prefix: prefix(n), target });
            }
            Operation::HubPaths { at, hub, paths } => {
                let input = Input::HubPaths { hub: NhsId((hub % 2).into()), paths: paths.map(path).to_vec() };
                self.input(station(at), input);
            }
            Operation::Move { at, address, told } => {
                let (at, address) = (station(at), underlay(address));
                self.stations[at].address = address;
                if told {
                    self.stations[at].config.nbma_address = address;
                    self.input(at, Input::UnderlayAddress(address));
                }
            }
            Operation::Reconfigure { at, change } => self.reconfigure(station(at), change),
            Operation::Clear { at, what } => {
                let what = match what % 3 {
                    0 => Clear::Shortcuts,
                    1 => Clear::Shortcut(tunnel_address(what / 3)),
                    _ => Clear::Registrations,
                };
                let now = self.now;
                self.stations[station(at)].tunnel.clear(now, what);
                self.drain(station(at));
            }
            Operation::Restart { at } => self.restart(station(at)),
            Operation::Reboot { at } => self.reboot(station(at)),
            Operation::Shutdown { at } => {
                let now = self.now;
                self.stations[station(at)].tunnel.shutdown(now);
                self.drain(station(at));
            }
        }
    }

    fn reconfigure(&mut self, at: usize, change: u8) {
        let mut config = self.stations[at].config.clone();
        let n = change / 6;
        match change % 6 {
            0 => config.phase = [Phase::One, Phase::Two, Phase::Three][usize::from(n % 3)],
            1 => drop(config.hubs.pop()),
            2 => config.nhrp.holding_time = Duration::from_secs(u64::from(n) + 1),
            3 => config.static_peers.clear(),
            4 => {
                config.static_peers = vec![StaticPeer {
                    tunnel_address: tunnel_address(n),
                    path: path(n),
                    prefixes: vec![prefix(n), prefix(n.wrapping_add(1))],
                }];
            }
            _ => config.idle_timeout = Duration::from_secs(n.into()),
        }
        let now = self.now;
        self.stations[at].tunnel.reconfigure(now, config.clone());
        self.stations[at].config = config;
        self.drain(at);
    }

    fn restart(&mut self, at: usize) {
        let (now, seed) = (self.now, self.next_seed());
        let station = &mut self.stations[at];
        let checkpoint = station.tunnel.checkpoint(now);
        station.tunnel = Tunnel::restore(station.config.clone(), &checkpoint, seed, now).unwrap();
        self.drain(at);
    }

    fn reboot(&mut self, at: usize) {
        let (now, seed) = (self.now, self.next_seed());
        let station = &mut self.stations[at];
        station.tunnel = Tunnel::new(station.config.clone(), seed, now, u32::from(seed[0]) << 20).unwrap();
        station.applied = Standing::default();
        self.drain(at);
    }

    fn next_seed(&mut self) -> [u8; 32] {
        self.seed = self.seed.wrapping_add(1);
        [self.seed; 32]
    }

    fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        self.stations[at].tunnel.handle_input(now, input);
        self.drain(at);
    }

    /// Time passes, timers fire; messages stay where they are.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            let due =
                (0..STATIONS).filter_map(|at| Some((self.stations[at].tunnel.poll_timeout()?, at))).min();
            let Some((when, at)) = due.filter(|(when, _)| *when <= end) else {
                self.now = end;
                return;
            };
            let before = self.now;
            self.now = self.now.max(when);
            let now = self.now;
            self.stations[at].tunnel.handle_timeout(now);
            self.drain(at);
            let next = self.stations[at].tunnel.poll_timeout();
            assert!(next.is_none_or(|next| next > before || now > before), "time stands still at {now:?}");
        }
        panic!("too busy: {:?} not reached", end);
    }

    fn deliver(&mut self) {
        let Some(Message { from, to, protocol, payload }) = self.wire.pop_front() else { return };
        let Some(at) = self.stations.iter().position(|s| s.address == to.remote) else { return };
        if protocol == NHRP {
            return self.input(at, Input::Nhrp { path: from, payload });
        }
        let station = &self.stations[at];
        let Some(probe) = Probe::parse(&payload) else { return };
        let known = station.applied.peers.values().any(|row| row.receive.contains(&from));
        if probe.kind == Kind::Request && known && station.config.addresses.contains(&probe.destination) {
            let own = Path { remote: station.address, ..from };
            let payload = probe.reply().to_vec();
            return self.wire.push_back(Message { from: own, to: from, protocol, payload });
        }
        self.input(at, Input::Echo { path: from, packet: payload });
    }

    fn drain(&mut self, at: usize) {
        let station = &mut self.stations[at];
        while let Some(action) = station.tunnel.poll_action() {
            let applied = &mut station.applied;
            match action {
                Action::SetPeer(id, entry) => drop(applied.peers.insert(id, entry)),
                Action::RemovePeer(id) => assert!(applied.peers.remove(&id).is_some(), "{id:?} is not there"),
                Action::SetByHub(hub) => applied.by_hub = hub,
                Action::SetMulticast(peers) => applied.multicast = peers,
                Action::SetNeighbour { address, peer } => drop(applied.neighbours.insert(address, peer)),
                Action::RemoveNeighbour { address } => {
                    assert!(applied.neighbours.remove(&address).is_some(), "{address} is not there");
                }
                Action::AddRoute { prefix, via } => drop(applied.routes.insert(prefix, via)),
                Action::RemoveRoute { prefix, via } => assert_eq!(applied.routes.remove(&prefix), Some(via)),
                Action::TransmitIke(_)
                | Action::AddInboundSa { .. }
                | Action::RemoveInboundSa { .. }
                | Action::SetOutboundSa { .. }
                | Action::RemoveOutboundSa { .. } => unreachable!("these tunnels are in clear"),
                Action::Transmit { path: to, protocol, payload } => {
                    let from = Path { remote: station.address, ..to };
                    if self.wire.len() < MOST_QUEUED {
                        self.wire.push_back(Message { from, to, protocol, payload });
                    }
                }
            }
        }
        while station.tunnel.poll_event().is_some() {}
    }

    fn check(&self) {
        for station in &self.stations {
            let applied = &station.applied;
            assert_eq!(station.tunnel.standing(), applied);
            assert!(applied.peers.len() < 100, "{}", applied.peers.len());
            let mut paths = HashSet::new();
            for row in applied.peers.values() {
                assert!(row.receive.len() <= 6 && row.addresses.len() <= 4);
                assert!(row.send.is_none_or(|send| row.receive.contains(&send)));
                assert!(row.receive.iter().all(|path| paths.insert(*path)), "a path leads to two peers");
            }
            for (address, peer) in &applied.neighbours {
                assert!(
                    peer.is_none_or(|peer| applied.peers.contains_key(&peer)),
                    "{address} leads to no row"
                );
            }
            for (prefix, via) in &applied.routes {
                let next_hop = applied.neighbours.get(via);
                assert!(next_hop.is_some(), "{prefix} by {via}, which is no neighbour");
            }
            assert!(applied.by_hub.is_none_or(|hub| applied.peers.contains_key(&hub)));
            // What people may ask never panics either.
            let tunnel = &station.tunnel;
            let _ = (tunnel.peers(), tunnel.hubs(), tunnel.shortcuts(), tunnel.cache());
            for n in 0..8 {
                let _ = tunnel.explain_path(self.now, prefix(n).addr()).to_string();
            }
        }
    }
}
