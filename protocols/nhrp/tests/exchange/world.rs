//! A few stations and the wire between them, in memory and in virtual time.

use dmvpn_nhrp::packet::{Body, Exchange, MessageType, Packet};
use dmvpn_nhrp::{
    AnswerClaim, Config, Environment, Error, Event, NhsConfig, NhsId, Node, Quirks, Refusal,
    RegistrationClaim, Route, Transmit,
};
use ipnet::IpNet;
use packet::{Instant, Path};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

pub(crate) const PORT: u16 = 4754;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Where a route leads.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Off,
    OnLink,
    Via(IpAddr),
}

/// A routing table, and what may be claimed.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) table: Vec<(IpNet, Target)>,
    pub(crate) own: Vec<IpAddr>,
    pub(crate) deny_registrations: Option<String>,
    pub(crate) deny_answers: Option<String>,
    /// Who is at the end of which path, in a tunnel that is not in clear.
    pub(crate) proven: Vec<(Path, String)>,
    /// Claims that were asked about, as text.
    pub(crate) asked: RefCell<Vec<String>>,
}

impl Environment for Routes {
    fn route(&self, destination: IpAddr) -> Route {
        if self.own.contains(&destination) {
            return Route::Local;
        }
        let covering = self.table.iter().filter(|(p, _)| p.contains(&destination));
        match covering.max_by_key(|(p, _)| p.prefix_len()) {
            None => Route::Unreachable,
            Some((prefix, Target::Off)) => Route::OffOverlay { prefix: *prefix },
            Some((prefix, Target::OnLink)) => Route::Overlay { next_hop: destination, prefix: *prefix },
            Some((prefix, Target::Via(next_hop))) => Route::Overlay { next_hop: *next_hop, prefix: *prefix },
        }
    }

    fn proven(&self, path: Path) -> Option<&str> {
        self.proven.iter().find(|(p, _)| *p == path).map(|(_, name)| name.as_str())
    }

    fn authorize_registration(&self, claim: &RegistrationClaim<'_>) -> Result<(), Refusal> {
        self.asked.borrow_mut().push(format!("register {} {:?}", claim.prefix, claim.identity));
        self.deny_registrations.clone().map_or(Ok(()), |why| Err(Refusal(why)))
    }

    fn authorize_answer(&self, claim: &AnswerClaim<'_>) -> Result<(), Refusal> {
        self.asked.borrow_mut().push(format!("answer {} by {}", claim.prefix, claim.responder));
        self.deny_answers.clone().map_or(Ok(()), |why| Err(Refusal(why)))
    }
}

/// A station and where others see it.
pub(crate) struct Station {
    pub(crate) node: Node,
    pub(crate) visible: Path,
    pub(crate) routes: Routes,
    pub(crate) events: Vec<Event>,
    /// Why messages to it were dropped.
    pub(crate) drops: Vec<Error>,
}

/// A message that was on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) from: usize,
    pub(crate) to: Path,
    pub(crate) bytes: Vec<u8>,
}

impl Sent {
    pub(crate) fn packet(&self) -> Packet {
        Packet::decode(&self.bytes).unwrap()
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) stations: Vec<Station>,
    /// Everything sent so far.
    pub(crate) wire: Vec<Sent>,
    /// Messages of these types are lost.
    pub(crate) lose: Vec<MessageType>,
    queue: VecDeque<(usize, Transmit)>,
}

pub(crate) fn config(address: &str, nbma: &str) -> Config {
    Config {
        protocol_addresses: vec![ip(address)],
        nbma_address: ip(nbma),
        udp_port: Some(PORT),
        identity: format!("{address}.example.com"),
        holding_time: seconds(600),
        authentication: None,
        unique: true,
        mtu: 1400,
        group: None,
        serve: false,
        shortcuts: true,
        quirks: Quirks::default(),
        max_entries: 1000,
    }
}

pub(crate) fn hub_config(address: &str, nbma: &str) -> Config {
    Config { serve: true, ..config(address, nbma) }
}

/// Station 0 of [`World::usual`].
pub(crate) const HUB: usize = 0;
/// Its tunnel address and path.
pub(crate) const HUB_ADDRESS: &str = "10.0.0.254";

pub(crate) fn hub_path() -> Path {
    Path::udp(ip("198.51.100.1"), PORT)
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Instant::ZERO + seconds(1000);
        Self { now, stations: Vec::new(), wire: Vec::new(), lose: Vec::new(), queue: VecDeque::new() }
    }

    /// A hub and `spokes` spokes, 10.0.0.1 and so on with 192.168.1.0/24 and so on behind them, registered.
    pub(crate) fn usual(spokes: u8) -> Self {
        let mut world = Self::new();
        world.add_hub();
        for n in 1..=spokes {
            world.add_spoke(n);
        }
        world.settle();
        world
    }

    pub(crate) fn add(&mut self, config: Config, visible: Path) -> usize {
        let own = config.protocol_addresses.clone();
        let seed = [u8::try_from(self.stations.len()).unwrap() + 1; 32];
        let node = Node::new(config, seed, 1);
        let routes = Routes { own, ..Routes::default() };
        self.stations.push(Station { node, visible, routes, events: Vec::new(), drops: Vec::new() });
        self.stations.len() - 1
    }

    pub(crate) fn add_hub(&mut self) -> usize {
        let hub = self.add(hub_config(HUB_ADDRESS, "198.51.100.1"), hub_path());
        self.stations[hub].routes.table =
            vec![(net("10.0.0.0/24"), Target::OnLink), (net("0.0.0.0/0"), Target::Off)];
        hub
    }

    /// Spoke `n`, which registers with the usual hub.
    pub(crate) fn add_spoke(&mut self, n: u8) -> usize {
        let config = config(&format!("10.0.0.{n}"), &format!("198.51.100.{}", 10 + n));
        self.add_spoke_with(n, config, Path::udp(ip(&format!("198.51.100.{}", 10 + n)), PORT))
    }

    pub(crate) fn add_spoke_with(&mut self, n: u8, config: Config, visible: Path) -> usize {
        let address = config.protocol_addresses[0];
        let spoke = self.add(config, visible);
        let lan = net(&format!("192.168.{n}.0/24"));
        self.stations[spoke].routes.table = vec![
            (net("10.0.0.0/24"), Target::OnLink),
            (net("192.168.0.0/16"), Target::Via(ip(HUB_ADDRESS))),
            (lan, Target::Off),
        ];
        self.stations[HUB].routes.table.push((lan, Target::Via(address)));
        self.register(spoke, hub_path());
        spoke
    }

    pub(crate) fn register(&mut self, station: usize, path: Path) {
        self.register_by(station, NhsId(0), vec![path]);
    }

    pub(crate) fn register_by(&mut self, station: usize, id: NhsId, paths: Vec<Path>) {
        let now = self.now;
        self.node(station).set_nhs(now, NhsConfig { id, protocol_address: None, paths });
    }

    pub(crate) fn node(&mut self, station: usize) -> &mut Node {
        &mut self.stations[station].node
    }

    pub(crate) fn resolve(&mut self, station: usize, destination: &str) -> dmvpn_nhrp::ResolutionId {
        let now = self.now;
        let Station { node, routes, .. } = &mut self.stations[station];
        node.resolve(now, ip(destination), routes)
    }

    /// Delivers all that is under way, and what that leads to. What is due now is done.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            self.drain();
            if let Some((from, transmit)) = self.queue.pop_front() {
                self.deliver(from, transmit);
            } else if !self.fire() {
                return;
            }
        }
        panic!("it never ends");
    }

    /// Lets time pass, from timer to timer.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            match self.stations.iter().filter_map(|s| s.node.poll_timeout()).min() {
                Some(next) if next <= end => self.now = next.max(self.now),
                _ => break,
            }
        }
        self.now = end;
        self.settle();
    }

    /// Hands a station a message as if it came by `path`.
    pub(crate) fn inject(&mut self, to: usize, path: Path, bytes: &[u8]) -> Result<(), Error> {
        let now = self.now;
        let station = &mut self.stations[to];
        let result = station.node.handle_packet(now, path, bytes, &station.routes);
        station.drops.extend(result.err());
        result
    }

    /// Takes a station's events.
    pub(crate) fn events(&mut self, station: usize) -> Vec<Event> {
        self.drain();
        std::mem::take(&mut self.stations[station].events)
    }

    /// All messages of a type that were sent.
    pub(crate) fn sent(&self, kind: MessageType) -> Vec<Sent> {
        self.wire.iter().filter(|s| s.bytes[17] == kind as u8).cloned().collect()
    }

    fn drain(&mut self) {
        for (from, station) in self.stations.iter_mut().enumerate() {
            while let Some(transmit) = station.node.poll_transmit() {
                let Transmit { path: to, payload: bytes } = transmit.clone();
                self.wire.push(Sent { at: self.now, from, to, bytes });
                self.queue.push_back((from, transmit));
            }
            while let Some(event) = station.node.poll_event() {
                station.events.push(event);
            }
        }
    }

    fn deliver(&mut self, from: usize, transmit: Transmit) {
        let kind = MessageType::from_wire(transmit.payload[17]).unwrap();
        let Some(to) = self.stations.iter().position(|s| s.visible == transmit.path) else { return };
        if !self.lose.contains(&kind) {
            let _ = self.inject(to, self.stations[from].visible, &transmit.payload);
        }
    }

    /// Calls those whose timer is due; answers whether there was one.
    fn fire(&mut self) -> bool {
        let now = self.now;
        let mut fired = false;
        for station in &mut self.stations {
            if station.node.poll_timeout().is_some_and(|t| t <= now) {
                station.node.handle_timeout(now, &station.routes);
                fired = true;
            }
        }
        fired
    }
}

/// The exchange in a packet.
pub(crate) fn exchange(packet: &Packet) -> &Exchange {
    match &packet.body {
        Body::Exchange(exchange) => exchange,
        other => panic!("{other:?}"),
    }
}

/// The exchange in a packet, to change.
pub(crate) fn exchange_mut(packet: &mut Packet) -> &mut Exchange {
    match &mut packet.body {
        Body::Exchange(exchange) => exchange,
        other => panic!("{other:?}"),
    }
}
