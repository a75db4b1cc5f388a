//! Sequences of operations on stations that exchange messages: an upper hub, a hub that is registered with it, and a
//! spoke of each. Shared by the fuzz target and the replay of its corpus.

use arbitrary::{Arbitrary, Unstructured};
use dmvpn_nhrp::extension::{Extension, ExtensionType};
use dmvpn_nhrp::packet::{
    Body, Cie, CieCode, ErrorCode, Exchange, ExchangeType, Family, Flags, Packet, Protocol,
};
use dmvpn_nhrp::{
    AnswerClaim, Clear, Config, EntryKind, Environment, NhsConfig, NhsId, Node, Quirks, Refusal,
    RegistrationClaim, ResolutionId, Route, StaticEntry, Transmit,
};
use ipnet::IpNet;
use packet::{Instant, Path};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// Small, so that tables fill.
const MOST: usize = 6;
/// A sequence is cut off here.
const MOST_OPERATIONS: usize = 200;
/// Messages under way beyond this are lost, as on a wire.
const MOST_QUEUED: usize = 100;

#[derive(Clone, Debug)]
pub struct Operations {
    authentication: bool,
    deny_registrations: bool,
    deny_answers: bool,
    operations: Vec<Operation>,
}

/// As many operations as there are bytes for; the derived one would toss a coin after each.
impl<'a> Arbitrary<'a> for Operations {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let (authentication, deny_registrations, deny_answers) =
            (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
        let mut operations = Vec::new();
        while !u.is_empty() && operations.len() < MOST_OPERATIONS {
            operations.push(u.arbitrary()?);
        }
        Ok(Self { authentication, deny_registrations, deny_answers, operations })
    }
}

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    /// Time passes.
    Wait {
        tenths: u16,
    },
    /// The oldest message under way arrives.
    Deliver,
    /// All of them arrive, and what they lead to.
    DeliverAll,
    Lose,
    Repeat,
    /// The oldest message arrives with an octet changed and the checksum right.
    Damage {
        at: u8,
        value: u8,
    },
    /// The oldest message arrives by another path.
    Stray {
        path: u8,
    },
    /// A message that nobody sent.
    Inject {
        to: u8,
        by: u8,
        message: Message,
    },
    /// Bytes that nobody sent.
    Garbage {
        to: u8,
        by: u8,
        bytes: Vec<u8>,
    },
    Resolve {
        station: u8,
        destination: u8,
    },
    Cancel {
        station: u8,
        id: u8,
    },
    Withdraw {
        station: u8,
        prefix: u8,
    },
    Indicate {
        station: u8,
        path: u8,
        source: u8,
        destination: u8,
    },
    SetNhs {
        station: u8,
        id: u8,
        path: u8,
        second: Option<u8>,
        address: Option<u8>,
    },
    SetPaths {
        station: u8,
        id: u8,
        path: Option<u8>,
    },
    Prefer {
        station: u8,
        id: Option<u8>,
    },
    RemoveNhs {
        station: u8,
        id: u8,
    },
    RegisterNow {
        station: u8,
        id: u8,
    },
    Deregister {
        station: u8,
    },
    AddStatic {
        station: u8,
        address: u8,
        path: u8,
        prefix: u8,
    },
    RemoveStatic {
        station: u8,
        address: u8,
    },
    SetNbma {
        station: u8,
        address: u8,
    },
    Clear {
        station: u8,
        what: u8,
    },
    /// The station's process starts again from its checkpoint.
    Restart {
        station: u8,
        seed: u8,
    },
}

#[derive(Arbitrary, Clone, Debug)]
struct Message {
    kind: u8,
    hop_count: u8,
    flags: u16,
    request_id: u8,
    nbma: Option<u8>,
    source: u8,
    destination: u8,
    entries: Vec<Entry>,
    extensions: Vec<Ext>,
    code: u8,
    payload: Vec<u8>,
}

#[derive(Arbitrary, Clone, Debug)]
struct Entry {
    code: u8,
    prefix_length: u8,
    holding_time: u16,
    nbma: Option<u8>,
    protocol: Option<u8>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Ext {
    Entries { kind: u8, entries: Vec<Entry> },
    Raw { kind: u8, compulsory: bool, value: Vec<u8> },
    Station { address: u8, identity: bool, port: Option<u16>, observed: Option<u8> },
}

/// Addresses that mean something here, and a few that don't.
const ADDRESSES: [&str; 14] = [
    "10.0.0.254",
    "10.0.0.253",
    "10.0.0.1",
    "10.0.0.2",
    "192.168.1.9",
    "192.168.2.9",
    "192.168.2.10",
    "10.0.0.77",
    "10.0.0.200",
    "8.8.8.8",
    "fd00::fe",
    "fd00::1",
    "2001:db8:1::9",
    "0.0.0.0",
];

const NBMA: [&str; 6] =
    ["198.51.100.1", "198.51.100.2", "198.51.100.11", "198.51.100.12", "203.0.113.5", "2001:db8::5"];

const PREFIXES: [&str; 6] =
    ["192.168.1.0/24", "192.168.2.0/24", "192.168.0.0/16", "10.0.0.1/32", "0.0.0.0/0", "2001:db8:1::/48"];

fn pick<T: Copy>(from: &[T], at: u8) -> T {
    from[usize::from(at) % from.len()]
}

fn address(at: u8) -> IpAddr {
    pick(&ADDRESSES, at).parse().expect("an address")
}

fn nbma(at: u8) -> IpAddr {
    pick(&NBMA, at).parse().expect("an address")
}

/// The first four are the stations'.
fn path(at: u8) -> Path {
    if at & 0x40 == 0 { Path::udp(nbma(at & 0x3f), 4754) } else { Path::gre(nbma(at & 0x3f)) }
}

struct Station {
    node: Node,
    world: World,
}

struct World {
    own: Vec<IpAddr>,
    routes: Vec<(IpNet, Option<IpAddr>)>,
    deny_registrations: bool,
    deny_answers: bool,
}

impl Environment for World {
    fn route(&self, destination: IpAddr) -> Route {
        if self.own.contains(&destination) {
            return Route::Local;
        }
        let covering = self.routes.iter().filter(|(p, _)| p.contains(&destination));
        match covering.max_by_key(|(p, _)| p.prefix_len()) {
            None => Route::Unreachable,
            Some((prefix, None)) => Route::OffOverlay { prefix: *prefix },
            Some((prefix, Some(hop))) if hop.is_unspecified() => {
                Route::Overlay { next_hop: destination, prefix: *prefix }
            }
            Some((prefix, Some(hop))) => Route::Overlay { next_hop: *hop, prefix: *prefix },
        }
    }

    fn authorize_registration(&self, _: &RegistrationClaim<'_>) -> Result<(), Refusal> {
        if self.deny_registrations { Err(Refusal("no".into())) } else { Ok(()) }
    }

    fn authorize_answer(&self, _: &AnswerClaim<'_>) -> Result<(), Refusal> {
        if self.deny_answers { Err(Refusal("no".into())) } else { Ok(()) }
    }
}

struct Lab {
    now: Instant,
    stations: Vec<Station>,
    queue: VecDeque<(usize, Transmit)>,
}

/// Runs a sequence and checks after each step what must always be true.
pub fn run(operations: Operations) {
    let mut lab = Lab::new(&operations);
    for operation in operations.operations {
        lab.operate(operation);
        lab.settle_timers();
        lab.drain();
        lab.check();
    }
    // Whatever happened: with the wire good again, an hour later nothing spins and nothing leaks.
    for _ in 0..20 {
        lab.now += Duration::from_secs(180);
        lab.settle_timers();
        lab.deliver_all();
        lab.check();
    }
}

impl Lab {
    fn new(operations: &Operations) -> Self {
        let mut stations = Vec::new();
        let over = |prefix: &str, hop: &str| (prefix.parse().expect("p"), Some(hop.parse().expect("a")));
        let off = |prefix: &str| (prefix.parse().expect("p"), None);
        let on_link = over("10.0.0.0/24", "0.0.0.0");
        let tables = [
            vec![
                on_link,
                over("192.168.1.0/24", "10.0.0.1"),
                over("192.168.2.0/24", "10.0.0.253"),
                off("0.0.0.0/0"),
            ],
            vec![on_link, over("192.168.0.0/16", "10.0.0.254"), over("192.168.2.0/24", "10.0.0.2")],
            vec![
                on_link,
                over("192.168.0.0/16", "10.0.0.254"),
                off("192.168.1.0/24"),
                off("2001:db8:1::/48"),
            ],
            vec![on_link, over("192.168.0.0/16", "10.0.0.253"), off("192.168.2.0/24")],
        ];
        for (n, routes) in (0u8..).zip(tables) {
            let mut own = vec![address(n)];
            match n {
                0 => own.push(address(10)),
                2 => own.push(address(11)),
                _ => {}
            }
            let config = Config {
                protocol_addresses: own.clone(),
                nbma_address: nbma(n),
                udp_port: Some(4754),
                identity: format!("station-{n}"),
                holding_time: Duration::from_secs(120),
                authentication: operations.authentication.then(|| b"secret".to_vec()),
                unique: n != 3,
                mtu: 1400,
                group: (n == 2).then(|| "silver".into()),
                serve: n < 2,
                shortcuts: true,
                quirks: Quirks { pad_error_indications: n == 1, fixed_request_id: n == 3 },
                max_entries: MOST,
            };
            let node = Node::new(config, [n + 1; 32], 1);
            let (deny_registrations, deny_answers) = (operations.deny_registrations, operations.deny_answers);
            stations.push(Station { node, world: World { own, routes, deny_registrations, deny_answers } });
        }
        let mut lab =
            Self { now: Instant::ZERO + Duration::from_secs(1000), stations, queue: VecDeque::new() };
        for (station, server) in [(1, 0), (2, 0), (3, 1)] {
            let config = NhsConfig { id: NhsId(0), protocol_address: None, paths: vec![path(server)] };
            lab.stations[station].node.set_nhs(lab.now, config);
        }
        lab.deliver_all();
        lab
    }

    fn operate(&mut self, operation: Operation) {
        let now = self.now;
        match operation {
            Operation::Wait { tenths } => self.now += Duration::from_millis(u64::from(tenths) * 100),
            Operation::Deliver => self.deliver(|_| {}),
            Operation::DeliverAll => self.deliver_all(),
            Operation::Lose => drop(self.queue.pop_front()),
            Operation::Repeat => {
                if let Some(first) = self.queue.front().cloned() {
                    self.queue.push_back(first);
                }
            }
            Operation::Damage { at, value } => self.deliver(|bytes| {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
                refresh_checksum(bytes);
            }),
            Operation::Stray { path: by } => {
                if let Some((_, transmit)) = self.queue.pop_front()
                    && let Some(to) = receiver(&transmit.path)
                {
                    self.receive(to, path(by), &transmit.payload);
                }
            }
            Operation::Inject { to, by, message } => {
                if let Ok(bytes) = message.packet().encode(0) {
                    self.receive(usize::from(to) % 4, path(by), &bytes);
                }
            }
            Operation::Garbage { to, by, mut bytes } => {
                refresh_checksum(&mut bytes);
                self.receive(usize::from(to) % 4, path(by), &bytes);
            }
            Operation::Resolve { station, destination } => {
                let Station { node, world } = self.station(station);
                node.resolve(now, address(destination), world);
            }
            Operation::Cancel { station, id } => self.node(station).cancel(ResolutionId(id.into())),
            Operation::Withdraw { station, prefix } => {
                self.node(station).withdraw(now, pick(&PREFIXES, prefix).parse().expect("a prefix"));
            }
            Operation::Indicate { station, path: to, source, destination } => {
                let trigger = trigger(address(source), address(destination));
                self.node(station).indicate(now, path(to), &trigger);
            }
            Operation::SetNhs { station, id, path: first, second, address: known } => {
                let paths = [Some(first), second].into_iter().flatten().map(path).collect();
                let config =
                    NhsConfig { id: NhsId((id % 3).into()), protocol_address: known.map(address), paths };
                self.node(station).set_nhs(now, config);
            }
            Operation::SetPaths { station, id, path: only } => {
                let paths = only.map(path).into_iter().collect();
                self.node(station).set_paths(now, NhsId((id % 3).into()), paths);
            }
            Operation::Prefer { station, id } => {
                self.node(station).set_preferred_nhs(id.map(|id| NhsId((id % 3).into())));
            }
            Operation::RemoveNhs { station, id } => {
                self.node(station).remove_nhs(now, NhsId((id % 3).into()))
            }
            Operation::RegisterNow { station, id } => {
                self.node(station).register_now(now, NhsId((id % 3).into()));
            }
            Operation::Deregister { station } => self.node(station).deregister(now),
            Operation::AddStatic { station, address: who, path: at, prefix } => {
                self.node(station).add_static(StaticEntry {
                    protocol_address: address(who),
                    path: path(at),
                    prefixes: vec![pick(&PREFIXES, prefix).parse().expect("a prefix")],
                });
            }
            Operation::RemoveStatic { station, address: who } => {
                self.node(station).remove_static(now, address(who));
            }
            Operation::SetNbma { station, address: new } => {
                self.node(station).set_nbma_address(now, nbma(new))
            }
            Operation::Clear { station, what } => {
                let all = [Clear::Answers, Clear::Registrations, Clear::Servers, Clear::Counters];
                self.node(station).clear(now, pick(&all, what));
            }
            Operation::Restart { station, seed } => {
                let node = self.node(station);
                let bytes = postcard::to_stdvec(&node.checkpoint()).expect("it can be written down");
                let checkpoint = postcard::from_bytes(&bytes).expect("and read again");
                *node = Node::restore(node.config().clone(), checkpoint, [seed; 32]);
            }
        }
    }

    fn station(&mut self, at: u8) -> &mut Station {
        let count = self.stations.len();
        &mut self.stations[usize::from(at) % count]
    }

    fn node(&mut self, at: u8) -> &mut Node {
        &mut self.station(at).node
    }

    fn receive(&mut self, to: usize, by: Path, bytes: &[u8]) {
        let now = self.now;
        let Station { node, world } = &mut self.stations[to];
        let _ = node.handle_packet(now, by, bytes, world);
    }

    fn deliver(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let Some((from, mut transmit)) = self.queue.pop_front() else { return };
        if let Some(to) = receiver(&transmit.path) {
            change(&mut transmit.payload);
            self.receive(to, path(u8::try_from(from).expect("few")), &transmit.payload);
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..1000 {
            self.drain();
            if self.queue.is_empty() {
                return;
            }
            self.deliver(|_| {});
        }
        panic!("stations talk without end");
    }

    /// Does what is due; a station that is due again at once, again and again, spins.
    fn settle_timers(&mut self) {
        let now = self.now;
        for Station { node, world } in &mut self.stations {
            for _ in 0..3 {
                node.handle_timeout(now, world);
            }
            assert!(node.poll_timeout().is_none_or(|t| t > now), "it spins");
        }
    }

    fn drain(&mut self) {
        for (from, Station { node, .. }) in self.stations.iter_mut().enumerate() {
            while let Some(transmit) = node.poll_transmit() {
                let packet = Packet::decode(&transmit.payload).expect("we send what can be read");
                assert!(packet.hop_count > 0, "{packet:?}");
                if self.queue.len() < MOST_QUEUED {
                    self.queue.push_back((from, transmit));
                }
            }
            while node.poll_event().is_some() {}
        }
    }

    /// Nothing a peer does grows a table beyond its bound.
    fn check(&self) {
        for Station { node, .. } in &self.stations {
            let cache = node.cache();
            for kind in [EntryKind::Registered, EntryKind::Cached, EntryKind::Incomplete] {
                assert!(cache.iter().filter(|e| e.kind == kind).count() <= MOST, "{kind:?}");
            }
            assert!(node.answered().count() <= MOST);
        }
    }
}

/// The station that others see at this path.
fn receiver(at: &Path) -> Option<usize> {
    (0..4u8).position(|n| path(n) == *at)
}

impl Message {
    fn packet(self) -> Packet {
        let entries: Vec<Cie> = self.entries.into_iter().take(40).map(Entry::cie).collect();
        let kinds = [
            ExchangeType::ResolutionRequest,
            ExchangeType::ResolutionReply,
            ExchangeType::RegistrationRequest,
            ExchangeType::RegistrationReply,
            ExchangeType::PurgeRequest,
            ExchangeType::PurgeReply,
        ];
        let body = match self.kind % 8 {
            6 => Body::Error { code: ErrorCode(self.code.into()), offset: 0, offender: self.payload },
            7 => Body::Indication { code: 0, trigger: self.payload },
            n => {
                let (flags, request_id) = (Flags(self.flags), u32::from(self.request_id));
                Body::Exchange(Exchange { kind: pick(&kinds, n), flags, request_id, entries })
            }
        };
        let source = address(self.source);
        Packet {
            family: Family::V4,
            protocol: if source.is_ipv4() { Protocol::V4 } else { Protocol::V6 },
            hop_count: self.hop_count,
            source_nbma: self.nbma.map(nbma),
            source,
            destination: address(self.destination),
            body,
            extensions: self.extensions.into_iter().take(12).map(Ext::extension).collect(),
        }
    }
}

impl Entry {
    fn cie(self) -> Cie {
        Cie {
            code: CieCode(self.code),
            prefix_length: self.prefix_length,
            mtu: 1400,
            holding_time: self.holding_time,
            nbma: self.nbma.map(nbma),
            protocol: self.protocol.map(address),
            preference: self.code,
        }
    }
}

impl Ext {
    fn extension(self) -> Extension {
        match self {
            Self::Entries { kind, entries } => {
                let entries: Vec<Cie> = entries.into_iter().map(Entry::cie).collect();
                Extension::of_entries(ExtensionType(pick(&[3, 4, 5, 9], kind)), &entries)
            }
            Self::Raw { kind, compulsory, value } => {
                Extension { kind: ExtensionType(u16::from(kind % 16) + 1), compulsory, value }
            }
            Self::Station { address: who, identity, port, observed } => {
                let mut station = dmvpn_nhrp::vendor::Station::new(address(who));
                station.identity = identity.then(|| "station-9".into());
                station.udp_port = port;
                station.observed = observed.map(path);
                station.to_extension()
            }
        }
    }
}

fn trigger(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (mut packet, ends) = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => (vec![0x45; 12], [s.octets(), d.octets()].concat()),
        (IpAddr::V6(s), IpAddr::V6(d)) => (vec![0x60; 8], [s.octets(), d.octets()].concat()),
        _ => (vec![0x45; 12], vec![]),
    };
    packet.extend(ends);
    packet
}

fn refresh_checksum(bytes: &mut [u8]) {
    if bytes.len() < 20 {
        return;
    }
    bytes[12..14].fill(0);
    let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[12..14].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
