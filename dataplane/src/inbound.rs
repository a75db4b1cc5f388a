//! The walk of a packet from the underlay to the kernel:
//!
//! 1. The worker receives a batch of messages; with UDP_GRO each may be many datagrams of one sender ([`datagrams`]).
//! 2. In clear, source address, encapsulation and source port are the path, once for a whole message. In an encrypted
//!    tunnel IKE ends here, ESP is opened by the SA its SPI names, and the SA says which path it counts as come by,
//!    wherever it came from ([`opening`]). The path says which peer it is.
//! 3. Each datagram's GRE header is read: its key must be ours, its checksum, if any, right. NHRP goes to the agent
//!    ([`datagram`]).
//! 4. Somebody unknown may do no more than probe. Probes of a known peer are answered over the path they came by
//!    ([`from_stranger`], [`inner`]).
//! 5. The inner source must be one the peer may use, and never ours; congestion met on the way is carried over
//!    ([`inner`]).
//! 6. What the hairpin has a route for goes to another peer ([`hairpin::forward`]), all else to the kernel.
//! 7. Packets of one flow become one super-frame, and one write of the interface ([`ToKernel`]).

use crate::hairpin::{self, LastWay, Way};
use crate::io::{Tap, Underlay};
use crate::lane::{Lane, ethernet, protocol_of};
use crate::messages::ReceivedKind;
use crate::opening;
use crate::partial;
use crate::stats::Counter;
use crate::tables::{PeerRow, Tables};
use crate::transmit::Outer;
use linux_io::Arrived;
use packet::coalesce::{Coalescer, MAX_SEGMENTS, Offloads};
use packet::ip::Ip;
use packet::peer::Mac;
use packet::probe::{self, Kind, Probe};
use packet::{Encapsulation, Malformed, Path, ecn, gre, ipv4, mss, vnet};
use std::io::IoSlice;
use std::net::IpAddr;
use std::ops::Range;

/// What kind of socket a batch came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// GRE in UDP.
    Udp,
    /// Raw GRE; the message begins with the outer IPv4 header.
    GreV4,
    /// Raw GRE over IPv6; the message begins with the GRE header.
    GreV6,
    /// Raw ESP; the message begins with the outer IPv4 header.
    EspV4,
    /// Raw ESP over IPv6; the message begins with the ESP header.
    EspV6,
    /// IKE without a marker.
    Ike,
}

/// What one batch leaves open until its end.
pub(crate) struct Batch<'t> {
    tables: &'t Tables,
    last_way: LastWay,
    last_row: Option<(Path, Option<&'t PeerRow>)>,
    pub(crate) source: Source,
}

impl<'t> Batch<'t> {
    pub(crate) const fn new(tables: &'t Tables, source: Source) -> Self {
        Self { tables, last_way: LastWay::NONE, last_row: None, source }
    }

    /// Who is known by this path.
    #[inline]
    pub(crate) fn row(&mut self, path: Path) -> Option<&'t PeerRow> {
        match self.last_row {
            Some((last, row)) if last == path => row,
            _ => {
                let row = self.tables.peers.by_path(&path);
                self.last_row = Some((path, row));
                row
            }
        }
    }
}

/// Where a datagram came from.
#[derive(Clone, Copy)]
pub(crate) struct From<'t> {
    pub(crate) path: Path,
    pub(crate) tos: u8,
    pub(crate) row: Option<&'t PeerRow>,
}

/// A batch of messages, which lie in `buffer` where `arrived` says.
pub fn datagrams<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    to_kernel: &mut ToKernel,
    source: Source,
    buffer: &mut [u8],
    arrived: &[Arrived],
) {
    lane.stats.count(Counter::Receives);
    let mut batch = Batch::new(tables, source);
    for message in arrived {
        let encapsulation = match source {
            Source::Udp | Source::Ike => Encapsulation::Udp { port: message.from.port() },
            Source::GreV4 | Source::GreV6 | Source::EspV4 | Source::EspV6 => Encapsulation::Gre,
        };
        let path = Path { remote: message.from.ip(), encapsulation };
        let mut start = message.start;
        let end = message.start + message.length;
        while start < end {
            let next = (start + message.segment).min(end);
            let outer = match source {
                Source::GreV4 | Source::EspV4 => outer_header(part(buffer, &(start..next))),
                _ => Ok(0),
            };
            match outer {
                Ok(length) => {
                    let at = start + length..next;
                    if lane.is_encrypted() {
                        opening::datagram(lane, &mut batch, to_kernel, (message, path), buffer, at);
                    } else {
                        let from = From { path, tos: message.tos, row: batch.row(path) };
                        datagram(lane, &mut batch, to_kernel, from, buffer, at);
                    }
                }
                Err(_) => lane.stats.count(Counter::DropBadGre),
            }
            start = next;
        }
    }
    to_kernel.flush(lane, buffer);
}

/// Octets of the outer IPv4 header that a raw socket leaves on.
fn outer_header(message: &[u8]) -> Result<usize, Malformed> {
    let (header, _) = ipv4::Header::parse(message)?;
    Ok(header.header_len())
}

/// One GRE packet: `buffer[at]`.
pub(crate) fn datagram<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    batch: &mut Batch<'_>,
    to_kernel: &mut ToKernel,
    from: From<'_>,
    buffer: &mut [u8],
    at: Range<usize>,
) {
    let Ok((header, payload)) = gre::decode(part(buffer, &at)) else {
        lane.stats.count(Counter::DropBadGre);
        return;
    };
    if header.key != batch.tables.tunnel.key {
        lane.stats.count(Counter::DropKey);
        return;
    }
    match header.protocol {
        gre::Protocol::NHRP => {
            lane.punts.received(from.path, ReceivedKind::Nhrp, payload, lane.now, &lane.stats);
        }
        gre::Protocol::IPV4 | gre::Protocol::IPV6 => {
            if payload.is_empty() || protocol_of(payload) != header.protocol {
                lane.stats.count(Counter::DropBadInner);
                return;
            }
            let at = at.start + header.header_len..at.end;
            match from.row {
                Some(row) => inner(lane, batch, to_kernel, (from, row), buffer, at),
                None => from_stranger(lane, from.path, payload),
            }
        }
        _ => lane.stats.count(Counter::DropProtocol),
    }
}

/// An inner packet by a path nobody is known by: only a probe is of interest, to the agent.
fn from_stranger<T: Tap, U: Underlay>(lane: &mut Lane<T, U>, path: Path, packet: &[u8]) {
    if Probe::parse(packet).is_some() {
        lane.punts.received(path, ReceivedKind::Echo, packet, lane.now, &lane.stats);
    } else {
        lane.stats.count(Counter::DropUnknownPeer);
    }
}

/// An inner packet from a peer: `buffer[at]`, and perhaps padding.
fn inner<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    batch: &mut Batch<'_>,
    to_kernel: &mut ToKernel,
    (from, row): (From<'_>, &PeerRow),
    buffer: &mut [u8],
    at: Range<usize>,
) {
    let tables = batch.tables;
    let Ok(ip) = Ip::parse(part(buffer, &at)) else {
        lane.stats.count(Counter::DropBadInner);
        return;
    };
    let at = at.start..at.start + ip.total_len;
    let Some(packet) = buffer.get_mut(at.clone()) else { return };
    if probe::maybe(packet) && probed(lane, tables, (row, from.path), packet) {
        return;
    }
    if tables.is_own(ip.source) {
        lane.stats.count(Counter::DropOwnSource);
        return;
    }
    if !row.accepts_source(ip.source) && !is_link_scope(&ip) {
        lane.stats.count(Counter::DropSource);
        return;
    }
    if ecn::apply(from.tos, packet).is_err() {
        lane.stats.count(Counter::DropCongested);
        return;
    }
    let mut vnet = vnet::Header::NONE;
    if matches!(batch.source, Source::GreV4 | Source::GreV6) {
        match partial::recover(packet, &ip, tables.tunnel.mtu) {
            Ok(recovered) => vnet = recovered,
            Err(_) => {
                lane.stats.count(Counter::DropBadInner);
                return;
            }
        }
    }
    lane.stats.count(Counter::PacketsReceived);
    lane.stats.add(Counter::BytesReceived, packet.len() as u64);
    if let Some(stats) = lane.peer_stats(row) {
        stats.received(1, packet.len() as u64);
    }
    lane.capture(tables, row, packet);
    if mss::clamp(packet, tables.tunnel.mtu) {
        lane.stats.count(Counter::MssClamped);
    }
    match batch.last_way.way(tables, ip.destination) {
        Way::Peer(to) => hairpin::forward(lane, tables, (row, from.path), to, &vnet, packet, &ip),
        Way::Kernel if vnet == vnet::Header::NONE => to_kernel.packet(lane, row.mac, buffer, at),
        Way::Kernel => {
            to_kernel.flush(lane, buffer);
            let packet = part(buffer, &at);
            let (head, ethernet) = (partial::in_frame(&vnet).encode(), ethernet(row.mac, packet));
            lane.write(&[IoSlice::new(&head), IoSlice::new(&ethernet), IoSlice::new(packet)]);
        }
    }
}

/// A packet with our mark from a known peer. True: it is dealt with.
fn probed<T: Tap, U: Underlay>(
    lane: &mut Lane<T, U>,
    tables: &Tables,
    (row, path): (&PeerRow, Path),
    packet: &[u8],
) -> bool {
    let Some(probe) = Probe::parse(packet).filter(|probe| tables.is_own(probe.destination)) else {
        return false;
    };
    match probe.kind {
        // Two behind one NAT: the port that the one has towards the hub, the other may have towards us. Who asks by
        // the path of another is the agent's to find out; an answer from here would prove a path that we don't accept
        // its packets from.
        Kind::Request if row.peer.addresses.contains(&probe.source) => {
            let reply = probe.reply();
            let outer = Outer::with_tos(ecn::encapsulate(Ip::parse(packet).map_or(0, |ip| ip.tos)));
            let gathered = lane.gather(tables, path, outer, protocol_of(packet), packet.len(), |room| {
                // There is room, which is the one thing that could be missing.
                let _ = reply.write(room);
            });
            if gathered.is_ok() {
                lane.stats.count(Counter::ProbesAnswered);
            }
        }
        Kind::Request | Kind::Reply => {
            lane.punts.received(path, ReceivedKind::Echo, packet, lane.now, &lane.stats);
        }
    }
    true
}

/// Between neighbours on the link, as routing protocols over IPv6 are: such a packet goes no further than to us, and
/// no identity claims link-local addresses.
fn is_link_scope(ip: &Ip) -> bool {
    match (ip.source, ip.destination) {
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            source.is_unicast_link_local() && (to.is_unicast_link_local() || to.is_multicast())
        }
        _ => false,
    }
}

/// Packets on their way to the kernel: those of one flow in a row make one super-frame.
pub struct ToKernel {
    coalescer: Coalescer,
    /// Where the open super-frame's payloads lie in the batch's buffer.
    pieces: Vec<Range<usize>>,
    /// Whose packets are in it.
    from: Mac,
}

impl ToKernel {
    /// For an interface that takes such super-frames.
    #[must_use]
    pub fn new(offloads: Offloads) -> Self {
        Self {
            coalescer: Coalescer::new(offloads),
            pieces: Vec::with_capacity(usize::from(MAX_SEGMENTS)),
            from: [0; 6],
        }
    }

    /// One packet more: `buffer[at]`.
    #[inline]
    fn packet<T: Tap, U: Underlay>(
        &mut self,
        lane: &mut Lane<T, U>,
        from: Mac,
        buffer: &[u8],
        at: Range<usize>,
    ) {
        if from != self.from || self.pieces.len() == self.pieces.capacity() {
            self.flush(lane, buffer);
            self.from = from;
        }
        let packet = part(buffer, &at);
        let header = ethernet(from, packet);
        let piece = match self.coalescer.offer(&header, packet) {
            Some(piece) => piece,
            None => {
                self.flush(lane, buffer);
                self.coalescer.open(&header, packet)
            }
        };
        self.pieces.push(at.start + piece.start..at.start + piece.end);
    }

    /// Writes what is open.
    pub(crate) fn flush<T: Tap, U: Underlay>(&mut self, lane: &mut Lane<T, U>, buffer: &[u8]) {
        const PIECES: usize = 1 + MAX_SEGMENTS as usize;
        if self.coalescer.is_empty() {
            return;
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let (head, rest) = slices.split_at_mut(1);
        head[0] = IoSlice::new(self.coalescer.finish());
        for (slice, piece) in rest.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(part(buffer, piece));
        }
        let count = 1 + self.pieces.len().min(rest.len());
        lane.write(&slices[..count]);
        self.pieces.clear();
    }
}

/// What lies there; nothing, if it is outside.
#[inline]
pub(crate) fn part<'b>(buffer: &'b [u8], at: &Range<usize>) -> &'b [u8] {
    buffer.get(at.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FromDatapath, HairpinRoute, Peer};
    use crate::testing::*;
    use packet::peer::OWN_MAC;
    use packet::vnet::Gso;

    #[test]
    fn a_packet_reaches_the_kernel_as_if_its_peer_were_on_the_lan() {
        let mut bench = Bench::new();
        let packet = packet("10.11.0.5", "10.1.0.5", 200);
        bench.peer_sends(path(1), std::slice::from_ref(&packet));
        let delivered = bench.delivered().remove(0);
        assert_eq!((delivered.to, delivered.from), (OWN_MAC, id(1).mac()));
        assert_eq!(delivered.packet, packet);
        assert_eq!(bench.tables.peer(id(1)).unwrap().counters().packets_received, 1);
    }

    #[test]
    fn multicast_has_the_mac_of_its_group() {
        let mut bench = Bench::new();
        bench.peer_sends(path(1), &[packet("10.200.0.11", "224.0.0.5", 64)]);
        bench.peer_sends(path(1), &[packet("10.200.0.11", "255.255.255.255", 64)]);
        let to: Vec<_> = bench.delivered().iter().map(|d| d.to).collect();
        assert_eq!(to, [[1, 0, 0x5e, 0, 0, 5], [0xff; 6]]);
    }

    fn stream(source: &str) -> (Vec<u8>, usize) {
        let packets = (0..20u32).map(|i| tcp(source, "10.1.0.5", 1 + 1000 * i, false, &[5; 1000]));
        let datagrams: Vec<_> = packets.map(|p| gre(gre::Protocol::IPV4, KEY, &p)).collect();
        (datagrams.concat(), datagrams[0].len())
    }

    #[test]
    fn a_stream_is_one_write() {
        let mut bench = Bench::new();
        let (mut message, size) = stream("10.11.0.5");
        bench.datagrams(path(1), 0, &mut message, size);
        let delivered = bench.delivered();
        assert_eq!(delivered.len(), 1);
        assert_eq!((delivered[0].vnet.gso, delivered[0].vnet.gso_size), (Gso::TcpV4, 1000));
        assert_eq!(delivered[0].packet.len(), 40 + 20_000);
        assert_eq!(bench.count(Counter::PacketsReceived), 20);
    }

    #[test]
    fn an_unknown_path_may_only_probe() {
        let mut bench = Bench::new();
        bench.peer_sends(path(77), &[packet("10.11.0.5", "10.1.0.5", 200)]);
        assert_eq!((bench.delivered(), bench.punted()), (vec![], vec![]));
        assert_eq!(bench.count(Counter::DropUnknownPeer), 1);
        let probe = probe(Kind::Request).to_vec();
        bench.peer_sends(path(77), std::slice::from_ref(&probe));
        let kind = ReceivedKind::Echo;
        assert_eq!(bench.punted(), [FromDatapath::Received { path: path(77), kind, payload: probe }]);
        assert_eq!(bench.sent(), []);
    }

    fn probe(kind: Kind) -> Probe {
        Probe {
            kind,
            source: "10.200.0.11".parse().unwrap(),
            destination: OWN.parse().unwrap(),
            token: 5,
            opaque: 6,
        }
    }

    #[test]
    fn a_known_peers_probe_is_answered_over_the_path_it_came_by() {
        let mut bench = Bench::new();
        let other = Path::udp(path(1).remote, 9999);
        let row = Peer { receive: vec![path(1), other], ..peer(1) };
        bench.tables.set_peer(id(1), row, 1);
        bench.peer_sends(other, &[probe(Kind::Request).to_vec()]);
        let sent = bench.sent().remove(0);
        assert_eq!((sent.path, sent.packet), (other, probe(Kind::Request).reply().to_vec()));
        assert_eq!(bench.count(Counter::ProbesAnswered), 1);
        bench.peer_sends(other, &[probe(Kind::Reply).to_vec()]);
        assert!(matches!(&bench.punted()[..], [FromDatapath::Received { kind: ReceivedKind::Echo, .. }]));
        assert_eq!(bench.delivered(), []);
    }

    #[test]
    fn a_probe_by_the_path_of_another_is_the_agents() {
        let mut bench = Bench::new();
        let probe = Probe { source: "10.200.0.12".parse().unwrap(), ..probe(Kind::Request) }.to_vec();
        bench.peer_sends(path(1), std::slice::from_ref(&probe));
        assert_eq!(bench.sent(), []);
        let kind = ReceivedKind::Echo;
        assert_eq!(bench.punted(), [FromDatapath::Received { path: path(1), kind, payload: probe }]);
    }

    #[test]
    fn nhrp_is_the_agents_whatever_the_path() {
        let mut bench = Bench::new();
        let mut message = gre(gre::Protocol::NHRP, KEY, b"nhrp");
        let length = message.len();
        bench.datagrams(path(77), 0, &mut message, length);
        let (kind, payload) = (ReceivedKind::Nhrp, b"nhrp".to_vec());
        assert_eq!(bench.punted(), [FromDatapath::Received { path: path(77), kind, payload }]);
    }

    #[test]
    fn another_key_or_none_is_not_ours() {
        let mut bench = Bench::new();
        for key in [None, Some(0), Some(43)] {
            let mut message = gre(gre::Protocol::IPV4, key, &packet("10.11.0.5", "10.1.0.5", 100));
            let length = message.len();
            bench.datagrams(path(1), 0, &mut message, length);
        }
        assert_eq!((bench.count(Counter::DropKey), bench.delivered()), (3, vec![]));
    }

    #[test]
    fn a_source_the_peer_may_not_use_is_dropped() {
        let mut bench = Bench::new();
        let sources = Some(vec!["10.11.0.0/16".parse().unwrap()]);
        bench.tables.set_peer(id(1), Peer { sources, ..peer(1) }, 1);
        bench.peer_sends(path(1), &[packet("10.12.0.5", "10.1.0.5", 100)]);
        bench.peer_sends(path(1), &[packet(OWN, "10.1.0.5", 100)]);
        bench.peer_sends(path(1), &[packet("2001:db8::1", "2001:db8::2", 100)]);
        assert_eq!(bench.delivered(), []);
        assert_eq!((bench.count(Counter::DropSource), bench.count(Counter::DropOwnSource)), (2, 1));
        bench.peer_sends(path(1), &[packet("10.11.0.5", "10.1.0.5", 100)]);
        bench.peer_sends(path(1), &[packet("fe80::1", "ff02::5", 100)]);
        assert_eq!(bench.delivered().len(), 2);
    }

    #[test]
    fn congestion_on_the_way_is_carried_over() {
        let mut bench = Bench::new();
        let mut capable = packet("10.11.0.5", "10.1.0.5", 100);
        packet::ip::set_tos(&mut capable, 2);
        let mut message = gre(gre::Protocol::IPV4, KEY, &capable);
        let length = message.len();
        bench.datagrams(path(1), 3, &mut message, length);
        assert_eq!(bench.delivered()[0].packet[1], 3);
        let mut message = gre(gre::Protocol::IPV4, KEY, &packet("10.11.0.5", "10.1.0.5", 100));
        bench.datagrams(path(1), 3, &mut message, length);
        assert_eq!((bench.delivered(), bench.count(Counter::DropCongested)), (vec![], 1));
    }

    #[test]
    fn garbage_is_counted_by_reason() {
        let mut bench = Bench::new();
        let mut send = |octets: &[u8]| {
            let mut message = octets.to_vec();
            bench.datagrams(path(1), 0, &mut message, octets.len());
        };
        send(&[0x20]);
        send(&[0x20, 1, 8, 0, 0, 0, 0, 42]);
        send(&gre(gre::Protocol(0x6558), KEY, &[0; 60]));
        send(&gre(gre::Protocol::IPV4, KEY, &[]));
        send(&gre(gre::Protocol::IPV6, KEY, &packet("10.11.0.5", "10.1.0.5", 100)));
        send(&gre(gre::Protocol::IPV4, KEY, &packet("10.11.0.5", "10.1.0.5", 100)[..50]));
        let reasons = [Counter::DropBadGre, Counter::DropProtocol, Counter::DropBadInner];
        assert_eq!(reasons.map(|r| bench.count(r)), [2, 1, 3]);
        assert_eq!(bench.delivered(), []);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics(
            mut octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            like in 0..4u8, segment in 1..200usize, tos: u8,
        ) {
            // Mostly something that passes the first gates.
            let head: &[u8] = match like {
                0 => &[],
                1 => &[0x20, 0, 0x08, 0, 0, 0, 0, 42, 0x45, 0],
                2 => &[0x20, 0, 0x86, 0xdd, 0, 0, 0, 42, 0x60],
                _ => &[0x45, 0, 0, 0, 0, 0, 0, 0, 0, 47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 8, 0, 0, 0, 0, 42, 0x45],
            };
            let length = octets.len().min(head.len());
            octets[..length].copy_from_slice(&head[..length]);
            let mut bench = Bench::new();
            let prefix = "0.0.0.0/0".parse().unwrap();
            bench.tables.set_hairpin(&[HairpinRoute { prefix, peer: Some(id(2)) }]);
            for path in [path(1), Path::gre(path(1).remote)] {
                let row = Peer { receive: vec![path], ..peer(1) };
                bench.tables.set_peer(id(1), row, 1);
                bench.datagrams(path, tos, &mut octets, segment);
            }
            bench.read(&octets);
        }
    }

    #[test]
    fn the_packet_path_does_not_allocate() {
        let mut bench = Bench::new();
        let prefix = "10.12.0.0/16".parse().unwrap();
        bench.tables.set_hairpin(&[HairpinRoute { prefix, peer: Some(id(2)) }]);
        let (vnet, packet_out) = super_frame("10.200.0.11", 50_000, 1360);
        let big = frame(&vnet, id(1).mac(), 0x0800, &packet_out);
        let small = frame(&vnet::Header::NONE, id(2).mac(), 0x0800, &packet(OWN, "10.200.0.12", 64));
        let (mut message, size) = stream("10.11.0.5");
        let hairpinned = gre(gre::Protocol::IPV4, KEY, &packet("10.11.0.5", "10.12.0.5", 300));
        assert_no_alloc::reset_violation_count();
        for _ in 0..10 {
            let mut hairpinned = hairpinned.clone();
            let length = hairpinned.len();
            assert_no_alloc::assert_no_alloc(|| {
                bench.read(&big);
                bench.read(&small);
                bench.datagrams(path(1), 0, &mut message, size);
                bench.datagrams(path(1), 0, &mut hairpinned, length);
            });
        }
        assert_eq!(assert_no_alloc::violation_count(), 0);
        assert_eq!((bench.sent().len(), bench.delivered().len()), (10 * (37 + 1 + 1), 10));
    }
}
