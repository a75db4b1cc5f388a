//! A lane without a kernel: frames and datagrams go in by calls, and what comes out is kept in memory reserved before.

use crate::exchange::{self, Exchange};
use crate::inbound::{self, Source, ToKernel};
use crate::io::{Tap, Underlay};
use crate::lane::Lane;
use crate::mailbox::Order;
use crate::messages::{FromDatapath, Peer, SaLimits, TunnelSettings};
use crate::opening;
use crate::outbound;
use crate::punt::{self, PuntDrain};
use crate::sa::{InboundSa, OutboundSa, Sas};
use crate::stats::{Counter, WorkerStats};
use crate::tables::Tables;
use crate::transmit::Run;
use esp::{Keys, Opener, Sealer, Suite};
use linux_io::Arrived;
use packet::coalesce::Offloads;
use packet::ip::Ip;
use packet::peer::{Mac, OWN_MAC};
use packet::{Instant, Path, PeerId, gre, ipv4, ipv6, vnet};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use zerocopy::IntoBytes;

// Counts allocations where a test asks it to, by thread.
#[global_allocator]
static ALLOCATOR: assert_no_alloc::AllocDisabler = assert_no_alloc::AllocDisabler;

pub(crate) const KEY: Option<u32> = Some(42);
pub(crate) const MTU: u16 = 1400;
pub(crate) const OWN: &str = "10.200.0.1";

/// Room for what comes out, so that a test of allocations sees only those of the code.
const ROOM: usize = 4 << 20;

pub(crate) struct MemoryTap {
    octets: Vec<u8>,
    ends: Vec<usize>,
}

impl Tap for MemoryTap {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        for piece in pieces {
            self.octets.extend_from_slice(piece);
        }
        self.ends.push(self.octets.len());
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct MemoryUnderlay(std::rc::Rc<std::cell::RefCell<(Vec<u8>, Vec<Run>)>>);

impl Underlay for MemoryUnderlay {
    fn send(&mut self, buffer: &[u8], runs: &[Run], _: &WorkerStats) {
        let (octets, sent) = &mut *self.0.borrow_mut();
        for run in runs {
            let start = octets.len();
            octets.extend_from_slice(&buffer[run.start..run.end]);
            sent.push(Run { start, end: octets.len(), ..*run });
        }
    }
}

/// An inner packet that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) path: Path,
    pub(crate) tos: u8,
    pub(crate) packet: Vec<u8>,
}

/// A frame that the kernel got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) vnet: vnet::Header,
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) packet: Vec<u8>,
}

pub(crate) struct Bench {
    pub(crate) lane: Lane<MemoryTap, MemoryUnderlay>,
    pub(crate) tables: Tables,
    pub(crate) drain: PuntDrain,
    to_kernel: ToKernel,
    underlay: MemoryUnderlay,
}

impl Bench {
    /// Peers 1 and 2 at 10.200.0.11 and .12 with networks 10.11.0.0/16 and 10.12.0.0/16; peer 9 is the hub, at .19.
    pub(crate) fn new() -> Self {
        Self::of_workers(1, None).remove(0)
    }

    /// The same, of an encrypted tunnel, with an SA of this suite in each direction for peers 1 and 2.
    pub(crate) fn encrypted(suite: Suite) -> Self {
        let mut bench = Self::of_workers(1, Some(suite)).remove(0);
        for n in [1, 2] {
            bench.receive_by(n, &keys(inbound_spi(n, 0), suite));
            bench.send_by(n, &keys(outbound_spi(n), suite), NO_LIMIT);
        }
        bench
    }

    /// The benches of so many workers of one tunnel, encrypted or not, without SAs yet.
    pub(crate) fn of_workers(workers: usize, suite: Option<Suite>) -> Vec<Self> {
        let ports = exchange::ports(workers).unwrap();
        (0..workers).map(|n| Self::of(Exchange::new(n, ports.clone(), suite.is_some()), suite)).collect()
    }

    fn of(exchange: Exchange, suite: Option<Suite>) -> Self {
        let workers = exchange.workers();
        let mut tables = Tables::default();
        tables.configure(&settings());
        for n in [1, 2, 9] {
            tables.set_peer(id(n), peer(n), workers);
        }
        tables.by_hub = Some(id(9));
        let (source, drain) = punt::queues().unwrap();
        drain.set_attached(true);
        let tap = MemoryTap { octets: Vec::with_capacity(ROOM), ends: Vec::with_capacity(4096) };
        let room = (Vec::with_capacity(ROOM), Vec::with_capacity(4096));
        let underlay = MemoryUnderlay(std::rc::Rc::new(room.into()));
        let sas = suite.map(|_| Sas::default());
        let mut lane = Lane::new(exchange, sas, tap, underlay.clone(), source.worker(), Default::default());
        lane.now = Instant::from_nanos(1_000_000_000);
        Self { lane, tables, drain, to_kernel: ToKernel::new(Offloads::ALL), underlay }
    }

    /// Receives from peer `n` by these keys.
    pub(crate) fn receive_by(&mut self, n: u8, keys: &Keys) {
        let sa = InboundSa::new(path(n), keys, Default::default()).unwrap();
        self.lane.obey(&self.tables, Order::AddInbound(Box::new(sa)));
    }

    /// Sends to peer `n` by these keys.
    pub(crate) fn send_by(&mut self, n: u8, keys: &Keys, soft: SaLimits) {
        let number = self.lane.exchange.number();
        let sa = OutboundSa::new((path(n), number as u16), keys, soft, Default::default()).unwrap();
        self.lane.obey(&self.tables, Order::SetOutbound(Box::new(sa)));
        self.tables_say_sender(n, number, keys);
    }

    /// What is published when worker `number` sends to peer `n` by these keys.
    pub(crate) fn tables_say_sender(&mut self, n: u8, number: usize, keys: &Keys) {
        Arc::make_mut(&mut self.tables.outbound).set(path(n), number, keys.spi, keys.suite);
    }

    /// Does what other workers handed over.
    pub(crate) fn take_handed(&mut self) {
        while let Some(mut batch) = self.lane.exchange.take() {
            opening::handed(&mut self.lane, &self.tables, &mut self.to_kernel, &mut batch);
            self.lane.exchange.give_back(batch);
            self.lane.flush();
        }
    }

    /// The packets that were sent since the last look, as they are on the wire.
    pub(crate) fn sent_raw(&mut self) -> Vec<(Path, Vec<u8>)> {
        let (octets, runs) = &mut *self.underlay.0.borrow_mut();
        let mut sent = Vec::new();
        for run in runs.drain(..) {
            for packet in octets[run.start..run.end].chunks(run.segment) {
                sent.push((run.path, packet.to_vec()));
            }
        }
        octets.clear();
        sent
    }

    /// A frame from the kernel to this MAC.
    pub(crate) fn frame(&mut self, vnet: &vnet::Header, to: Mac, ethertype: u16, payload: &[u8]) {
        let read = frame(vnet, to, ethertype, payload);
        self.read(&read);
    }

    /// One read of the interface.
    pub(crate) fn read(&mut self, read: &[u8]) {
        outbound::frame(&mut self.lane, &self.tables, read);
        self.lane.flush_all();
    }

    /// An IP packet from the kernel to this MAC.
    pub(crate) fn kernel_sends(&mut self, to: Mac, packet: &[u8]) {
        let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        self.frame(&vnet::Header::NONE, to, ethertype, packet);
    }

    /// Inner packets from a path, each in a datagram of its own.
    pub(crate) fn peer_sends(&mut self, path: Path, packets: &[Vec<u8>]) {
        for packet in packets {
            let protocol = if packet[0] >> 4 == 6 { gre::Protocol::IPV6 } else { gre::Protocol::IPV4 };
            let mut datagram = gre(protocol, KEY, packet);
            let length = datagram.len();
            self.datagrams(path, 0, &mut datagram, length);
        }
    }

    /// One message from a path: datagrams of `segment` octets each.
    pub(crate) fn datagrams(&mut self, path: Path, tos: u8, buffer: &mut [u8], segment: usize) {
        let source = match (path.port(), self.lane.is_encrypted()) {
            (Some(_), _) => Source::Udp,
            (None, false) => Source::GreV6,
            (None, true) => Source::EspV6,
        };
        self.datagrams_of(source, path, tos, buffer, segment);
    }

    /// The same, at a socket of this kind.
    pub(crate) fn datagrams_of(
        &mut self,
        source: Source,
        path: Path,
        tos: u8,
        buffer: &mut [u8],
        segment: usize,
    ) {
        let from = SocketAddr::new(path.remote, path.port().unwrap_or(0));
        let arrived = [Arrived { start: 0, length: buffer.len(), from, segment, tos }];
        inbound::datagrams(&mut self.lane, &self.tables, &mut self.to_kernel, source, buffer, &arrived);
        self.lane.flush_all();
    }

    /// What was sent since the last look: inner packets without their GRE headers, which must be ours.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let (octets, runs) = &mut *self.underlay.0.borrow_mut();
        let mut sent = Vec::new();
        for run in runs.drain(..) {
            for packet in octets[run.start..run.end].chunks(run.segment) {
                let (header, inner) = gre::decode(packet).unwrap();
                assert_eq!(header.key, KEY);
                sent.push(Sent { path: run.path, tos: run.outer.tos, packet: inner.to_vec() });
            }
        }
        octets.clear();
        sent
    }

    /// How many sends there were, and how many packets in each; not to be asked after [`Self::sent`].
    pub(crate) fn runs(&self) -> Vec<usize> {
        self.underlay.0.borrow().1.iter().map(Run::packets).collect()
    }

    /// What the kernel got since the last look.
    pub(crate) fn delivered(&mut self) -> Vec<Delivered> {
        let tap = &mut self.lane.tap;
        let mut start = 0;
        let mut delivered = Vec::new();
        for end in tap.ends.drain(..) {
            let (vnet, frame) = vnet::Header::decode(&tap.octets[start..end]).unwrap();
            delivered.push(Delivered {
                vnet,
                to: frame[..6].try_into().unwrap(),
                from: frame[6..12].try_into().unwrap(),
                packet: frame[14..].to_vec(),
            });
            start = end;
        }
        tap.octets.clear();
        delivered
    }

    pub(crate) fn punted(&self) -> Vec<FromDatapath> {
        self.drain.take().collect()
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.lane.stats.get(counter)
    }
}

pub(crate) const NO_LIMIT: SaLimits = SaLimits { packets: u64::MAX, octets: u64::MAX };

/// What peer `n` sends to worker `worker` by.
pub(crate) fn inbound_spi(n: u8, worker: u8) -> u32 {
    0x1000 + u32::from(n) * 64 + u32::from(worker)
}

/// What we send to peer `n` by.
pub(crate) fn outbound_spi(n: u8) -> u32 {
    0xc000_0000 + u32::from(n)
}

pub(crate) fn keys(spi: u32, suite: Suite) -> Keys {
    let material = (0..suite.key_len()).map(|i| i as u8 ^ spi as u8).collect::<Vec<_>>();
    Keys { spi, suite, esn: false, material: material.into() }
}

/// An inner packet as a peer seals it.
pub(crate) fn seal(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
    let protocol = if packet[0] >> 4 == 6 { gre::Protocol::IPV6 } else { gre::Protocol::IPV4 };
    seal_payload(sealer, &gre(protocol, KEY, packet), 47)
}

pub(crate) fn seal_payload(sealer: &mut Sealer, payload: &[u8], next_header: u8) -> Vec<u8> {
    let mut buffer = vec![0; sealer.sealed_len(payload.len())];
    let start = sealer.header_len();
    buffer[start..start + payload.len()].copy_from_slice(payload);
    sealer.seal(&mut buffer, payload.len(), next_header).unwrap();
    buffer
}

/// The inner packet of one that we sealed.
pub(crate) fn open(opener: &mut Opener, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let opened = opener.open(&mut packet).unwrap();
    assert_eq!(opened.next_header, 47);
    let (header, inner) = gre::decode(&packet[opened.payload]).unwrap();
    assert_eq!(header.key, KEY);
    inner.to_vec()
}

pub(crate) fn settings() -> TunnelSettings {
    TunnelSettings {
        interface: "dmvpn0".to_owned(),
        workers: 1,
        addresses: vec![OWN.parse().unwrap(), "fd00:200::1".parse().unwrap()],
        networks: vec!["10.200.0.0/16".parse().unwrap(), "fd00:200::/64".parse().unwrap()],
        bind: vec![IpAddr::from([192, 0, 2, 1])],
        udp_port: 4754,
        encrypted: false,
        ike_port: None,
        raw_gre: false,
        gre_key: KEY,
        mtu: MTU,
        ttl: 64,
        indicate_hairpins: false,
    }
}

pub(crate) fn id(index: u8) -> PeerId {
    PeerId { index: index.into(), generation: 0 }
}

pub(crate) fn path(n: u8) -> Path {
    Path::udp(IpAddr::from([192, 0, 2, n]), 4754)
}

pub(crate) fn peer(n: u8) -> Peer {
    let v6 = format!("fd00:200::{n}0");
    Peer {
        addresses: vec![IpAddr::from([10, 200, 0, 10 + n]), v6.parse().unwrap()],
        send: Some(path(n)),
        receive: vec![path(n)],
        sources: None,
        ours: true,
    }
}

pub(crate) fn gre(protocol: gre::Protocol, key: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let header = gre::encoded_len(key);
    let mut packet = vec![0; header];
    packet.extend_from_slice(payload);
    gre::encode(&mut packet, header, protocol, key).unwrap();
    packet
}

pub(crate) fn frame(vnet: &vnet::Header, to: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&vnet.encode()[..], &to, &OWN_MAC, &ethertype.to_be_bytes(), payload].concat()
}

/// A packet of an experimental protocol, with `length` octets in all; IPv4 with DF.
pub(crate) fn packet(source: &str, destination: &str, length: usize) -> Vec<u8> {
    with_protocol(source, destination, 253, 64, &vec![7; length - header_len(source)])
}

pub(crate) fn with_protocol(
    source: &str,
    destination: &str,
    protocol: u8,
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = payload.len() as u16;
    let header = match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            ipv4::Header::new(a, b, protocol, 0, ttl, length).as_bytes().to_vec()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            ipv6::Header::new(a, b, protocol, 0, ttl, length).as_bytes().to_vec()
        }
        _ => panic!("two versions"),
    };
    [&header, payload].concat()
}

/// A TCP segment of an established connection, or a SYN with an MSS of 8960; checksum complete.
pub(crate) fn tcp(source: &str, destination: &str, sequence: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x13, 0x88, 0x13, 0x89];
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 1, if syn { 0x60 } else { 0x50 }, if syn { 2 } else { 0x10 }, 1, 0]);
    segment.extend_from_slice(&[0, 0, 0, 0]);
    if syn {
        segment.extend_from_slice(&[2, 4, 0x23, 0]);
    }
    segment.extend_from_slice(payload);
    let mut packet = with_protocol(source, destination, 6, 64, &segment);
    let ip = Ip::parse(&packet).unwrap();
    let sum = ip.pseudo_sum().with(ip.upper(&packet)).finish();
    let at = ip.header_len + 16;
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// What the kernel hands over for a stream of `payload` octets: a TCP super-frame over IPv4 and its virtio header.
pub(crate) fn super_frame(destination: &str, payload: usize, size: u16) -> (vnet::Header, Vec<u8>) {
    let mut packet = tcp(OWN, destination, 1, false, &vec![9; payload]);
    let ip = Ip::parse(&packet).unwrap();
    let partial = ip.pseudo_sum().fold();
    packet[36..38].copy_from_slice(&partial.to_be_bytes());
    let vnet = vnet::Header {
        flags: vnet::flags::NEEDS_CSUM,
        gso: vnet::Gso::TcpV4,
        ecn: false,
        hdr_len: 54,
        gso_size: size,
        csum_start: 34,
        csum_offset: 16,
    };
    (vnet, packet)
}

fn header_len(address: &str) -> usize {
    if address.contains(':') { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }
}

/// The type and code of an ICMP error, and the MTU it says.
pub(crate) fn icmp_error(packet: &[u8]) -> (u8, u8, u32) {
    let ip = Ip::parse(packet).unwrap();
    let upper = ip.upper(packet);
    (upper[0], upper[1], u32::from_be_bytes(upper[4..8].try_into().unwrap()))
}
