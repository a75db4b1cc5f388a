//! Any sequence of operations on two endpoints and on what travels between them: nothing panics, what is told is
//! consistent, what is kept is bounded, and once the network is good again both settle on one session.

use arbitrary::Arbitrary;
use claims::Identity;
use dmvpn_ikev2::config::{Config, Limits};
use dmvpn_ikev2::{
    Address, Authentication, CertificateError, Credentials, Endpoint, Event, HashAlgorithm, Identification,
    LocalPort, TransmitKind,
};
use packet::{Instant, Path};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A sequence, and how the two ends are set.
#[derive(Arbitrary, Debug)]
pub struct Operations {
    lanes: u8,
    cookies: bool,
    operations: Vec<Operation>,
}

/// What happens.
#[derive(Arbitrary, Debug)]
pub enum Operation {
    Connect(bool),
    Disconnect(bool),
    RekeyIke(bool),
    RekeyChild(bool, u8),
    /// A message under way arrives; it may stay under way, to come again.
    Deliver {
        index: u8,
        again: bool,
    },
    Lose {
        index: u8,
    },
    /// A bit of it is turned on the way.
    Flip {
        index: u8,
        offset: u16,
        bit: u8,
    },
    /// It is sent back to its sender.
    Reflect {
        index: u8,
    },
    /// It comes from another port.
    Elsewhere {
        index: u8,
        port: u16,
    },
    Forge {
        to: bool,
        message: Vec<u8>,
    },
    UnknownSpi {
        at: bool,
        spi: u32,
    },
    Moved {
        at: bool,
        port: u16,
    },
    Wait {
        milliseconds: u16,
    },
    Crash(bool),
}

struct Shared(bool);

impl Credentials for Shared {
    fn local_id(&self) -> Identification {
        Identification::Fqdn(if self.0 { "a" } else { "b" }.to_owned())
    }
    fn chain(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn authorities(&self) -> Vec<[u8; 20]> {
        Vec::new()
    }
    fn sign(&self, _: &[HashAlgorithm], _: &[u8]) -> Result<Authentication, CertificateError> {
        Err(CertificateError(String::new()))
    }
    fn shared_key(&self, _: &Identification) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(vec![7; 16]))
    }
    fn verify(
        &self,
        _: u64,
        _: &Identification,
        _: &[Vec<u8>],
        _: &[u8],
        _: &Authentication,
    ) -> Result<Identity, CertificateError> {
        Err(CertificateError(String::new()))
    }
    fn still_holds(&self, _: u64, _: &Identity) -> Result<(), CertificateError> {
        Ok(())
    }
}

struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    local: LocalPort,
    message: Vec<u8>,
}

#[derive(Default)]
struct Told {
    inbound: BTreeSet<u32>,
    outbound: BTreeMap<(Path, u16), u32>,
    up: BTreeSet<Path>,
}

struct World {
    now: Instant,
    ends: [Endpoint; 2],
    told: [Told; 2],
    flights: VecDeque<Flight>,
    config: [Config; 2],
    seed: u8,
}

const fn ip(side: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1 + side as u8))
}

fn path(side: usize) -> Path {
    Path::udp(ip(1 - side), 4500)
}

impl World {
    fn new(lanes: u8, cookies: bool) -> Self {
        let config = [0, 1].map(|side| Config {
            ike: vec!["aes128gcm16-prfsha256-x25519".to_owned()],
            local: vec![ip(side)],
            workers: u16::from(lanes % 4 + 1),
            lanes: u16::from(lanes % 4 + 1),
            limits: Limits { half_open: 16, cookie_from: if cookies { 0 } else { 4 }, sessions: 32 },
            ..Config::default()
        });
        let now = Instant::from_nanos(1_000_000_000);
        let end = |side: usize| {
            Endpoint::new(config[side].clone(), Arc::new(Shared(side == 0)), [side as u8; 32], now).unwrap()
        };
        let ends = [end(0), end(1)];
        Self { now, ends, told: Default::default(), flights: VecDeque::new(), config, seed: 2 }
    }

    fn drain(&mut self) {
        for side in [0, 1] {
            while let Some(event) = self.ends[side].poll_event() {
                self.told[side].take(&event);
            }
            while let Some(transmit) = self.ends[side].poll_transmit() {
                let local = transmit.address.local;
                let port = if local == LocalPort::Ike { 500 } else { 4500 };
                if let TransmitKind::Message(message) = transmit.kind {
                    let (from, to) = (SocketAddr::new(ip(side), port), transmit.address.remote);
                    self.flights.push_back(Flight { from, to, local, message });
                }
            }
            assert!(self.ends[side].sessions().count() <= 32, "sessions are bounded");
        }
        while self.flights.len() > 64 {
            self.flights.pop_front();
        }
    }

    fn arrive(&mut self, flight: &Flight) {
        let Some(side) = [0, 1].into_iter().find(|side| ip(*side) == flight.to.ip()) else { return };
        let from = Address { remote: flight.from, local: flight.local };
        self.ends[side].handle_packet(self.now, from, &flight.message);
    }

    fn pick(&mut self, index: u8) -> Option<Flight> {
        let count = self.flights.len();
        (count > 0).then(|| self.flights.remove(usize::from(index) % count)).flatten()
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
    }

    fn apply(&mut self, operation: Operation) {
        let now = self.now;
        match operation {
            Operation::Connect(side) => {
                self.ends[usize::from(side)].connect(now, path(usize::from(side)), None)
            }
            Operation::Disconnect(side) => {
                self.ends[usize::from(side)].disconnect(now, path(usize::from(side)))
            }
            Operation::RekeyIke(side) => self.ends[usize::from(side)].rekey_ike(now, path(usize::from(side))),
            Operation::RekeyChild(side, index) => {
                let side = usize::from(side);
                let spis: Vec<u32> = self.told[side].outbound.values().copied().collect();
                if !spis.is_empty() {
                    self.ends[side].rekey_child(now, spis[usize::from(index) % spis.len()]);
                }
            }
            Operation::Deliver { index, again } => {
                if let Some(flight) = self.pick(index) {
                    self.arrive(&flight);
                    if again {
                        self.flights.push_back(flight);
                    }
                }
            }
            Operation::Lose { index } => drop(self.pick(index)),
            Operation::Flip { index, offset, bit } => {
                if let Some(mut flight) = self.pick(index) {
                    let offset = usize::from(offset) % flight.message.len().max(1);
                    if let Some(octet) = flight.message.get_mut(offset) {
                        *octet ^= 1 << (bit % 8);
                    }
                    self.arrive(&flight);
                }
            }
            Operation::Reflect { index } => {
                if let Some(flight) = self.pick(index) {
                    self.arrive(&Flight { from: flight.to, to: flight.from, ..flight });
                }
            }
            Operation::Elsewhere { index, port } => {
                if let Some(flight) = self.pick(index) {
                    self.arrive(&Flight { from: SocketAddr::new(flight.from.ip(), port), ..flight });
                }
            }
            Operation::Forge { to, message } => {
                let (from, to) = (usize::from(!to), usize::from(to));
                let (from, to) = (SocketAddr::new(ip(from), 4500), SocketAddr::new(ip(to), 4500));
                self.arrive(&Flight { from, to, local: LocalPort::NatTraversal, message });
            }
            Operation::UnknownSpi { at, spi } => {
                self.ends[usize::from(at)].unknown_spi(now, path(usize::from(at)), spi);
            }
            Operation::Moved { at, port } => {
                let at = usize::from(at);
                if let Some(spi) = self.told[at].inbound.first().copied() {
                    self.ends[at].moved(now, spi, Path::udp(ip(1 - at), port));
                }
            }
            Operation::Wait { milliseconds } => self.wait(Duration::from_millis(milliseconds.into())),
            Operation::Crash(side) => {
                let side = usize::from(side);
                self.seed = self.seed.wrapping_add(1);
                let (config, seed) = (self.config[side].clone(), [self.seed; 32]);
                self.ends[side] = Endpoint::new(config, Arc::new(Shared(side == 0)), seed, now).unwrap();
                self.told[side] = Told::default();
            }
        }
        self.drain();
    }

    /// A good network for so long.
    fn rest(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            for _ in 0..64 {
                let Some(flight) = self.flights.pop_front() else { break };
                self.arrive(&flight);
                self.drain();
            }
            let next = self.ends.iter().filter_map(Endpoint::poll_timeout).min().unwrap_or(until);
            let step = next.since(self.now).max(Duration::from_millis(5));
            self.wait(step.min(until.since(self.now)));
            self.drain();
        }
    }
}

impl Told {
    fn take(&mut self, event: &Event) {
        match event {
            Event::AddInbound { keys, .. } => assert!(self.inbound.insert(keys.spi), "received by twice"),
            Event::RemoveInbound { spi } => assert!(self.inbound.remove(spi), "removed what is not there"),
            Event::SetOutbound { path, lane, keys } => {
                self.outbound.insert((*path, *lane), keys.spi);
            }
            Event::RemoveOutbound { path, spi } => {
                let before = self.outbound.len();
                self.outbound.retain(|(p, _), s| (p, &*s) != (path, spi));
                assert!(self.outbound.len() < before, "removed what is not sent by");
            }
            Event::Up { path, .. } => {
                assert!(self.outbound.keys().any(|(p, _)| p == path), "up without an SA");
                self.up.insert(*path);
            }
            Event::Down { path, .. } => assert!(self.up.remove(path), "down without having been up"),
            Event::Failed { .. } | Event::Rekeyed { .. } | Event::IkeKeys { .. } => {}
        }
    }
}

/// Plays a sequence.
pub fn run(operations: Operations) {
    let mut world = World::new(operations.lanes, operations.cookies);
    for operation in operations.operations.into_iter().take(200) {
        world.apply(operation);
    }
    world.rest(120);
    for side in [0, 1] {
        world.ends[side].connect(world.now, path(side), None);
    }
    world.drain();
    world.rest(150);
    for side in [0, 1] {
        assert!(world.ends[side].is_up(path(side)), "both are up when nothing is in the way");
    }
}
