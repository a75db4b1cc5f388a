//! Two endpoints in one process, with virtual time, a network that loses, doubles and reorders from a seed, and a model
//! of ESP: at every step each end sends a packet by whatever it sends by, and the other end must know the SA.
#![allow(dead_code)] // each test file uses a part

use claims::{Identity, Proof};
use dmvpn_ikev2::config::Config;
use dmvpn_ikev2::{
    Address, Authentication, CertificateError, Credentials, Endpoint, Event, HashAlgorithm, Identification,
    LocalPort, TransmitKind,
};
use packet::{Encapsulation, Instant, Path};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Side {
    A,
    B,
}

pub(crate) use Side::{A, B};

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            A => B,
            B => A,
        }
    }

    pub(crate) const fn ip(self) -> IpAddr {
        IpAddr::V4(match self {
            A => Ipv4Addr::new(192, 0, 2, 1),
            B => Ipv4Addr::new(192, 0, 2, 2),
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            A => "a.example.com",
            B => "b.example.com",
        }
    }
}

/// A pre-shared key for everybody.
pub(crate) struct SharedKey {
    pub(crate) name: String,
    pub(crate) key: Vec<u8>,
    /// Peers that are no longer believed.
    pub(crate) revoked: Vec<String>,
}

impl SharedKey {
    pub(crate) fn new(side: Side) -> Self {
        Self { name: side.name().to_owned(), key: b"a secret".to_vec(), revoked: Vec::new() }
    }
}

impl Credentials for SharedKey {
    fn local_id(&self) -> Identification {
        Identification::Fqdn(self.name.clone())
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn authorities(&self) -> Vec<[u8; 20]> {
        Vec::new()
    }

    fn sign(&self, _: &[HashAlgorithm], _: &[u8]) -> Result<Authentication, CertificateError> {
        Err(CertificateError("no key".to_owned()))
    }

    fn shared_key(&self, _: &Identification) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(self.key.clone()))
    }

    fn verify(
        &self,
        _: u64,
        _: &Identification,
        _: &[Vec<u8>],
        _: &[u8],
        _: &Authentication,
    ) -> Result<Identity, CertificateError> {
        Err(CertificateError("no roots".to_owned()))
    }

    fn still_holds(&self, _: u64, identity: &Identity) -> Result<(), CertificateError> {
        if self.revoked.contains(&identity.name) {
            return Err(CertificateError("revoked".to_owned()));
        }
        Ok(())
    }
}

/// How the network behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    pub(crate) delay: Duration,
    /// Of so many messages out of a hundred...
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) reordered: u32,
    /// ... which come later by up to this.
    pub(crate) late: Duration,
}

impl Net {
    pub(crate) const GOOD: Self = Self {
        delay: Duration::from_millis(10),
        lost: 0,
        doubled: 0,
        reordered: 0,
        late: Duration::from_millis(200),
    };
    pub(crate) const BAD: Self = Self { lost: 10, doubled: 10, reordered: 30, ..Self::GOOD };
}

/// What travels.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Datagram {
    Ike(Vec<u8>),
    Keepalive,
    Esp { spi: u32, material: Vec<u8> },
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    local: LocalPort,
    datagram: Datagram,
}

/// One end, and what its datapath would know.
pub(crate) struct End {
    pub(crate) side: Side,
    pub(crate) endpoint: Endpoint,
    pub(crate) inbound: HashMap<u32, (Path, Vec<u8>)>,
    pub(crate) outbound: BTreeMap<(Path, u16), (u32, Vec<u8>)>,
    pub(crate) up: BTreeMap<Path, String>,
    pub(crate) events: Vec<Event>,
    /// Packets that came by an SA it does not have.
    pub(crate) lost: u64,
    pub(crate) received: u64,
    /// Whoever drives it wants a session, and begins again when it comes to nothing.
    pub(crate) wanted: bool,
}

/// Both.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) net: Net,
    pub(crate) a: End,
    pub(crate) b: End,
    flights: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    store: HashMap<usize, Flight>,
    sent: u64,
    pub(crate) rng: StdRng,
    /// Packets of the model are sent, and must arrive.
    pub(crate) traffic: bool,
    /// Where A appears to B, if a NAT stands before it.
    pub(crate) nat: Option<u16>,
    /// Nothing passes.
    pub(crate) cut: bool,
    pub(crate) esp_lost: u64,
    /// Messages sent, and the octets of the longest.
    pub(crate) messages: u64,
    pub(crate) longest: usize,
}

pub(crate) fn config(side: Side) -> Config {
    Config {
        ike: vec!["aes128gcm16-prfsha256-x25519".to_owned()],
        local: vec![side.ip()],
        ..Config::default()
    }
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, config(A), config(B))
    }

    pub(crate) fn with(seed: u64, a: Config, b: Config) -> Self {
        Self::full(seed, (a, Arc::new(SharedKey::new(A))), (b, Arc::new(SharedKey::new(B))))
    }

    pub(crate) fn full(
        seed: u64,
        (a, a_credentials): (Config, Arc<dyn Credentials>),
        (b, b_credentials): (Config, Arc<dyn Credentials>),
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Instant::from_nanos(1_000_000_000);
        let a = End::new(A, a, a_credentials, &mut rng, now);
        let b = End::new(B, b, b_credentials, &mut rng, now);
        Self {
            now,
            net: Net::GOOD,
            a,
            b,
            flights: BinaryHeap::new(),
            store: HashMap::new(),
            sent: 0,
            rng,
            traffic: true,
            nat: None,
            cut: false,
            esp_lost: 0,
            messages: 0,
            longest: 0,
        }
    }

    pub(crate) fn end(&mut self, side: Side) -> &mut End {
        match side {
            A => &mut self.a,
            B => &mut self.b,
        }
    }

    /// The path on which a side sees the other.
    pub(crate) fn path(&self, side: Side) -> Path {
        match (side, self.nat) {
            (B, Some(port)) => Path::udp(A.ip(), port),
            _ => Path::udp(side.other().ip(), 4500),
        }
    }

    /// A process that has forgotten everything, its datapath too.
    pub(crate) fn crash(&mut self, side: Side, config: Config) {
        let (seed, now) = (self.rng.random(), self.now);
        let end = self.end(side);
        end.endpoint = Endpoint::new(config, Arc::new(SharedKey::new(side)), seed, now).unwrap();
        end.inbound.clear();
        end.outbound.clear();
        end.up.clear();
    }

    /// Control is killed, and begins anew with its checkpoint.
    pub(crate) fn restart_control(&mut self, side: Side, config: Config) {
        let checkpoint = serde_json::to_vec(&self.end(side).endpoint.checkpoint()).unwrap();
        self.restore(side, config, &checkpoint);
    }

    pub(crate) fn restore(&mut self, side: Side, config: Config, checkpoint: &[u8]) {
        let (now, seed) = (self.now, self.rng.random());
        let checkpoint = serde_json::from_slice(checkpoint).unwrap();
        let credentials = Arc::new(SharedKey::new(side));
        let endpoint = Endpoint::restore(checkpoint, config, credentials, seed, now).unwrap();
        self.end(side).endpoint = endpoint;
        self.drain();
    }

    pub(crate) fn connect(&mut self, side: Side) {
        let (now, path) = (self.now, self.path(side));
        self.end(side).wanted = true;
        self.end(side).endpoint.connect(now, path, None);
        self.drain();
    }

    /// Calls an endpoint, and drains it.
    pub(crate) fn call<R>(&mut self, side: Side, call: impl FnOnce(&mut Endpoint, Instant) -> R) -> R {
        let now = self.now;
        let result = call(&mut self.end(side).endpoint, now);
        self.drain();
        result
    }

    /// Lets time pass, and everything happen that happens meanwhile.
    pub(crate) fn run(&mut self, for_so_long: Duration) {
        let until = self.now + for_so_long;
        self.connect_again();
        while let Some(next) = self.next().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = until;
    }

    pub(crate) fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// What whoever drives an endpoint does.
    fn connect_again(&mut self) {
        for side in [A, B] {
            let (now, path) = (self.now, self.path(side));
            if self.end(side).wanted && !self.end(side).endpoint.is_up(path) {
                self.end(side).endpoint.connect(now, path, None);
                self.drain();
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let flight = self.flights.peek().map(|Reverse((at, ..))| *at);
        [flight, self.a.endpoint.poll_timeout(), self.b.endpoint.poll_timeout()].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let now = self.now;
        let mut happened = self.a.endpoint.poll_timeout().is_some_and(|at| at <= now)
            || self.b.endpoint.poll_timeout().is_some_and(|at| at <= now);
        while let Some(Reverse((at, _, key))) = self.flights.peek().copied() {
            if at > now {
                break;
            }
            self.flights.pop();
            if let Some(flight) = self.store.remove(&key) {
                happened |= !matches!(flight.datagram, Datagram::Esp { .. });
                self.deliver(flight);
                self.drain();
            }
        }
        self.a.endpoint.handle_timeout(now);
        self.b.endpoint.handle_timeout(now);
        self.drain();
        // Whatever happened: what is sent now must be received.
        if happened {
            self.connect_again();
        }
        if self.traffic && happened {
            self.esp(A);
            self.esp(B);
        }
    }

    fn drain(&mut self) {
        for side in [A, B] {
            let now = self.now;
            self.end(side).drain_events(now);
            while let Some(transmit) = self.end(side).endpoint.poll_transmit() {
                let port = if transmit.address.local == LocalPort::Ike { 500 } else { 4500 };
                let datagram = match transmit.kind {
                    TransmitKind::Message(message) => Datagram::Ike(message),
                    TransmitKind::Keepalive => Datagram::Keepalive,
                };
                self.messages += 1;
                if let Datagram::Ike(message) = &datagram {
                    self.longest = self.longest.max(message.len());
                }
                self.send(side, port, transmit.address.remote, transmit.address.local, datagram);
            }
        }
    }

    fn send(&mut self, side: Side, port: u16, to: SocketAddr, local: LocalPort, datagram: Datagram) {
        if self.cut {
            return;
        }
        let port = if side == A { self.nat.unwrap_or(port) } else { port };
        let flight = Flight { from: SocketAddr::new(side.ip(), port), to, local, datagram };
        let is_esp = matches!(flight.datagram, Datagram::Esp { .. });
        let net = self.net;
        let mut chance = |of: u32| of > 0 && self.rng.random_range(0..100) < of;
        if !is_esp && chance(net.lost) {
            if std::env::var_os("TRACE").is_some() {
                eprintln!("{:?} {side:?} -> lost", self.now);
            }
            return;
        }
        let copies = if !is_esp && chance(net.doubled) { 2 } else { 1 };
        let late: Vec<bool> = (0..copies).map(|_| chance(net.reordered)).collect();
        for late in late {
            let extra = if late { self.rng.random_range(Duration::ZERO..net.late) } else { Duration::ZERO };
            self.sent += 1;
            let key = self.sent as usize;
            self.flights.push(Reverse((self.now + net.delay + extra, self.sent, key)));
            self.store.insert(key, flight.clone());
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let now = self.now;
        let nat = self.nat;
        let side = if flight.to.ip() == A.ip() { A } else { B };
        if side == A && nat.is_some_and(|port| flight.to.port() != port) {
            return;
        }
        let end = self.end(side);
        match flight.datagram {
            Datagram::Ike(message) => {
                let from = Address { remote: flight.from, local: flight.local };
                if std::env::var_os("TRACE").is_some() {
                    eprintln!(
                        "{now:?} {side:?} <- {:?} {}",
                        dmvpn_ikev2::Header::decode(&message),
                        message.len()
                    );
                }
                end.endpoint.handle_packet(now, from, &message);
            }
            Datagram::Keepalive => {}
            Datagram::Esp { spi, material } => {
                let path = match flight.local {
                    LocalPort::NatTraversal => Path::udp(flight.from.ip(), flight.from.port()),
                    LocalPort::Ike => Path::gre(flight.from.ip()),
                };
                // As a datapath does.
                let known =
                    end.inbound.get(&spi).filter(|(_, known)| *known == material).map(|(path, _)| *path);
                if let Some(bound) = known {
                    end.received += 1;
                    if bound != path {
                        end.endpoint.moved(now, spi, path);
                    }
                } else {
                    end.lost += 1;
                    end.endpoint.unknown_spi(now, path, spi);
                    self.esp_lost += 1;
                    if std::env::var_os("TRACE").is_some() {
                        eprintln!("{now:?} {side:?} does not know {spi:08x}");
                    }
                }
            }
        }
    }

    /// A packet by every lane.
    fn esp(&mut self, side: Side) {
        let packets: Vec<(SocketAddr, LocalPort, u32, Vec<u8>)> = {
            let end = self.end(side);
            let paths: Vec<Path> = end.up.keys().copied().collect();
            end.outbound
                .iter()
                .filter(|((path, _), _)| paths.contains(path))
                .map(|((path, _), (spi, material))| {
                    let (port, local) = match path.encapsulation {
                        Encapsulation::Udp { port } => (port, LocalPort::NatTraversal),
                        Encapsulation::Gre => (500, LocalPort::Ike),
                    };
                    (SocketAddr::new(path.remote, port), local, *spi, material.clone())
                })
                .collect()
        };
        for (to, local, spi, material) in packets {
            self.send(side, 4500, to, local, Datagram::Esp { spi, material });
        }
    }

    /// Both are up, and there is one session, and one child SA for each lane, and no packet was lost.
    pub(crate) fn assert_settled(&self, lanes: usize) {
        for (end, path) in [(&self.a, self.path(A)), (&self.b, self.path(B))] {
            assert!(end.endpoint.is_up(path), "{:?} is not up", end.side);
            let sessions: Vec<_> = end.endpoint.sessions().collect();
            assert_eq!(sessions.len(), 1, "{:?} has {sessions:#?}", end.side);
            assert_eq!(sessions[0].children.len(), lanes, "{:?} has {sessions:#?}", end.side);
            assert_eq!(end.outbound.len(), lanes, "{:?} sends by {:?}", end.side, end.outbound.keys());
        }
        let (a, b) = (self.a.endpoint.sessions().next().unwrap(), self.b.endpoint.sessions().next().unwrap());
        assert_eq!(a.spis, b.spis);
        for child in &a.children {
            let other = b.children.iter().find(|c| c.inbound == child.outbound).expect("the other half");
            assert_eq!((other.outbound, other.lane), (child.inbound, child.lane));
        }
        assert_eq!(self.esp_lost, 0, "packets were lost");
    }
}

impl End {
    fn new(
        side: Side,
        config: Config,
        credentials: Arc<dyn Credentials>,
        rng: &mut StdRng,
        now: Instant,
    ) -> Self {
        let endpoint = Endpoint::new(config, credentials, rng.random(), now).unwrap();
        Self {
            side,
            endpoint,
            inbound: HashMap::new(),
            outbound: BTreeMap::new(),
            up: BTreeMap::new(),
            events: Vec::new(),
            lost: 0,
            received: 0,
            wanted: false,
        }
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            if std::env::var_os("TRACE").is_some() {
                eprintln!("{now:?} {:?} {event:?}", self.side);
            }
            match &event {
                Event::AddInbound { path, keys } => {
                    let before = self.inbound.insert(keys.spi, (*path, keys.material.to_vec()));
                    assert!(before.is_none(), "an SA is received by twice");
                }
                Event::SetOutbound { path, lane, keys } => {
                    self.outbound.insert((*path, *lane), (keys.spi, keys.material.to_vec()));
                }
                Event::RemoveInbound { spi } => {
                    assert!(self.inbound.remove(spi).is_some(), "an SA is removed that is not there");
                }
                Event::RemoveOutbound { path, spi } => {
                    let before = self.outbound.len();
                    self.outbound.retain(|(p, _), (s, _)| (p, &*s) != (path, spi));
                    assert_eq!(self.outbound.len() + 1, before, "an SA is removed that is not sent by");
                }
                Event::Up { path, identity, .. } => {
                    assert!(self.outbound.keys().any(|(p, _)| p == path), "up without an SA");
                    self.up.insert(*path, identity.name.clone());
                }
                Event::Down { path, .. } => {
                    assert!(self.up.remove(path).is_some(), "down without having been up");
                }
                Event::Failed { .. } | Event::Rekeyed { .. } | Event::IkeKeys { .. } => {}
            }
            self.events.push(event);
        }
    }

    pub(crate) fn ups(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Up { .. })).count()
    }

    pub(crate) fn failures(&self) -> Vec<&dmvpn_ikev2::Failure> {
        self.events
            .iter()
            .filter_map(|e| match e {
                Event::Failed { reason, .. } => Some(reason),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn downs(&self) -> Vec<&dmvpn_ikev2::Failure> {
        self.events
            .iter()
            .filter_map(|e| match e {
                Event::Down { reason, .. } => Some(reason),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn rekeyed(&self, ike: bool) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Rekeyed { ike: i, .. } if *i == ike)).count()
    }
}

/// An identity proven by the pre-shared key.
pub(crate) fn shared_key_identity(side: Side) -> Identity {
    Identity { name: side.name().to_owned(), proof: Proof::SharedKey }
}
