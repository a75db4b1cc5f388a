//! What one worker owns and its packets pass through: nothing here is shared, so nothing is locked.

use crate::exchange::{Exchange, Handed, Way};
use crate::io::{Tap, Underlay};
use crate::limiter::Limiter;
use crate::mailbox::Order;
use crate::punt::Punts;
use crate::sa::{Inbound, NotSealed, Sas};
use crate::stats::{Counter, PeerStats, WorkerStats};
use crate::tables::{PeerRow, Tables};
use crate::transmit::{Outer, Transmit, Wire};
use packet::eth::{self, EtherType};
use packet::peer::{Mac, OWN_MAC};
use packet::segment::Segments;
use packet::{Instant, Path, gre, ip, vnet};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

/// Octets of the buffer for packets of our own making, and for those that are cut: any IP packet.
const SCRATCH: usize = 65_536;

/// Octets gathered that are worth a system call of their own.
const EARLY: usize = 32_768;

/// One worker's way between the interface and the underlay.
pub struct Lane<T, U> {
    /// The interface.
    pub tap: T,
    /// Counters.
    pub stats: Arc<WorkerStats>,
    /// To the agent.
    pub punts: Punts,
    /// The time of this batch.
    pub now: Instant,
    /// Holds back ICMP errors.
    pub icmp: Limiter,
    /// Room for a packet being made.
    pub scratch: Vec<u8>,
    /// (Encrypted) what we receive by.
    pub inbound: Inbound,
    /// To and from other workers.
    pub exchange: Exchange,
    underlay: U,
    transmit: Transmit,
}

impl<T: Tap, U: Underlay> Lane<T, U> {
    /// The lane of the worker that `exchange` is an end of. With `sas`, even with none yet, nothing leaves in clear.
    pub fn new(
        exchange: Exchange,
        sas: Option<Sas>,
        tap: T,
        underlay: U,
        punts: Punts,
        stats: Arc<WorkerStats>,
    ) -> Self {
        let (wire, inbound) = match sas {
            None => (Wire::Clear, Inbound::default()),
            Some(Sas { inbound, outbound }) => (Wire::Sealed(outbound), inbound),
        };
        Self {
            tap,
            stats,
            punts,
            now: Instant::ZERO,
            icmp: Limiter::new(256, 100, Duration::from_secs(1)),
            scratch: vec![0; SCRATCH],
            inbound,
            exchange,
            underlay,
            transmit: Transmit::new(wire),
        }
    }

    /// Gives the SAs back.
    #[must_use]
    pub fn into_sas(self) -> Sas {
        Sas { inbound: self.inbound, outbound: self.transmit.into_sas().unwrap_or_default() }
    }

    /// Is nothing to leave, or to be accepted, in clear?
    #[inline]
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.transmit.is_encrypted()
    }

    /// Our share of a peer's counters.
    #[must_use]
    pub fn peer_stats<'p>(&self, row: &'p PeerRow) -> Option<&'p PeerStats> {
        row.stats.get(self.exchange.number())
    }

    /// Puts one inner packet, written by `write` into the room it is given, behind what is gathered, in its GRE
    /// header. `length` is how long it is. In an encrypted tunnel it is sealed at once, or handed to the worker that
    /// can; everything that leaves for a peer goes through here.
    ///
    /// # Errors
    /// The reason it was dropped, which is counted.
    #[inline]
    pub fn gather(
        &mut self,
        tables: &Tables,
        path: Path,
        outer: Outer,
        protocol: gre::Protocol,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Counter> {
        let key = tables.tunnel.key;
        let header = gre::encoded_len(key);
        let write = |packet: &mut [u8]| {
            // There is room for the header: `header` octets of it.
            let _ = gre::encode(packet, header, protocol, key);
            write(packet.get_mut(header..).unwrap_or_default());
        };
        let elsewhere = self.transmit.sas().is_some_and(|sas| !sas.has(path));
        let gathered = if elsewhere {
            self.hand_out(tables, path, outer, header + length, write)
        } else {
            self.gather_here(path, outer, header + length, write)
        };
        gathered.inspect_err(|reason| self.stats.count(*reason))
    }

    /// Gathers all packets of a frame for one path; `after` sees each as it leaves. Says how many that were, and their
    /// octets.
    #[inline]
    pub fn gather_segments(
        &mut self,
        tables: &Tables,
        path: Path,
        (outer, protocol): (Outer, gre::Protocol),
        segments: &mut Segments<'_>,
        mut after: impl FnMut(&mut [u8]),
    ) -> (u64, u64) {
        let (mut packets, mut octets) = (0, 0);
        while let Some(length) = segments.next_len() {
            let gathered = self.gather(tables, path, outer, protocol, length, |room| {
                // There is room, which is the one thing that could be missing.
                let _ = segments.write_next(room);
                after(room);
            });
            if let Err(reason) = gathered {
                // Where one could not go, the others can't.
                self.stats.add(reason, segments.remaining().saturating_sub(1) as u64);
                break;
            }
            packets += 1;
            octets += length as u64;
        }
        (packets, octets)
    }

    /// Gathers one outer payload, sealed by an SA of our own where that must be.
    #[inline]
    fn gather_here(
        &mut self,
        path: Path,
        outer: Outer,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Counter> {
        if !self.transmit.has_room(length) {
            self.flush();
        }
        let sealed = self.transmit.gather(path, outer, length, write).map_err(NotSealed::counter)?;
        if let Some(spi) = sealed.at_limit {
            let told = self.punts.sa_limit(path, spi, &self.stats);
            if let Some(sas) = self.transmit.sas() {
                sas.told(path, told);
            }
        }
        Ok(())
    }

    /// Gathers what another worker handed over. It goes no further: another one that has the SA now is for the next
    /// packet to find.
    pub fn gather_handed(&mut self, path: Path, outer: Outer, payload: &[u8]) {
        let write = |room: &mut [u8]| room.copy_from_slice(payload);
        if let Err(reason) = self.gather_here(path, outer, payload.len(), write) {
            self.stats.count(reason);
        }
    }

    /// An outer payload for a path that another worker, or nobody, can seal for.
    fn hand_out(
        &mut self,
        tables: &Tables,
        path: Path,
        outer: Outer,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Counter> {
        let number = self.exchange.number();
        let owner = tables.outbound.owner(path, number).filter(|owner| *owner != number);
        self.hand(owner.ok_or(Counter::DropNoSa)?, Way::Out(path, outer), length, write)
    }

    /// Gives a packet to the worker that can deal with it.
    ///
    /// # Errors
    /// [`Counter::DropHandoffFull`].
    pub fn hand(
        &mut self,
        to: usize,
        way: Way,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Counter> {
        match self.exchange.hand(to, way, length, write) {
            Handed::Yes => self.stats.count(Counter::HandedOff),
            Handed::Full => return Err(Counter::DropHandoffFull),
        }
        Ok(())
    }

    /// Does what control wants.
    pub fn obey(&mut self, tables: &Tables, order: Order) {
        match order {
            Order::AddInbound(sa) => self.inbound.add(*sa),
            Order::RemoveInbound(spi) => self.inbound.remove(spi),
            Order::SetOutbound(sa) => {
                if let Some(sas) = self.transmit.sas() {
                    sas.set(*sa);
                }
            }
            Order::RemoveOutbound(path, spi) => {
                if let Some(sas) = self.transmit.sas() {
                    sas.remove(path, spi);
                }
            }
            Order::Transmit(path, outer, protocol, payload) => {
                // What was dropped is counted.
                let _ = self.gather(tables, path, outer, protocol, payload.len(), |room| {
                    room.copy_from_slice(&payload)
                });
            }
            // Whoever asked may have gone.
            Order::Report(to) => drop(to.send(())),
        }
    }

    /// Sends what is gathered if that is a super-frame already, so that the other end can begin.
    pub fn flush_early(&mut self) {
        if self.transmit.gathered().0.len() >= EARLY {
            self.flush();
        }
    }

    /// Sends what is gathered.
    pub fn flush(&mut self) {
        if !self.transmit.is_empty() {
            let (buffer, runs) = self.transmit.gathered();
            self.underlay.send(buffer, runs, &self.stats);
            self.transmit.clear();
        }
    }

    /// Sends what is gathered, and what is to be sealed by others on its way to them: at the end of a batch.
    pub fn flush_all(&mut self) {
        self.flush();
        self.exchange.flush();
    }

    /// Writes a whole packet to the interface, as if `from` had sent it on the LAN.
    pub fn deliver(&mut self, from: Mac, packet: &[u8]) {
        let header = ethernet(from, packet);
        let vnet = vnet::Header::NONE.encode();
        self.write(&[IoSlice::new(&vnet), IoSlice::new(&header), IoSlice::new(packet)]);
    }

    /// Writes one frame, its virtio header first.
    pub fn write(&mut self, pieces: &[IoSlice<'_>]) {
        match self.tap.write(pieces) {
            Ok(()) => self.stats.count(Counter::FramesWritten),
            Err(error) => {
                tracing::debug!(%error, "the interface did not take a frame");
                self.stats.count(Counter::DropTapWrite);
            }
        }
    }

    /// Shows an inner packet that arrived to whoever captures.
    #[inline]
    pub fn capture(&mut self, tables: &Tables, row: &PeerRow, packet: &[u8]) {
        if tables.capture {
            self.punts.captured(Some(row.id), false, packet, &self.stats);
        }
    }

    /// Shows the packets of a frame that leaves to whoever captures, each as it leaves.
    #[inline]
    pub fn capture_segments(&mut self, tables: &Tables, row: &PeerRow, segments: &Segments<'_>) {
        if tables.capture {
            let mut segments = segments.clone();
            while let Some(Ok(length)) = segments.write_next(&mut self.scratch) {
                let packet = self.scratch.get(..length).unwrap_or_default();
                self.punts.captured(Some(row.id), true, packet, &self.stats);
            }
        }
    }
}

/// The GRE protocol of an IP packet.
#[inline]
#[must_use]
pub fn protocol_of(packet: &[u8]) -> gre::Protocol {
    if ip::version(packet) == Some(6) { gre::Protocol::IPV6 } else { gre::Protocol::IPV4 }
}

/// The Ethernet header that takes a packet from a peer to the kernel: multicast to its group's address.
#[inline]
#[must_use]
pub fn ethernet(from: Mac, packet: &[u8]) -> [u8; eth::HEADER_LEN] {
    let (ethertype, group) = match ip::version(packet) {
        Some(6) => {
            let group = packet.get(24..40).and_then(|a| <[u8; 16]>::try_from(a).ok()).map(Into::into);
            (EtherType::IPV6, group)
        }
        _ => {
            let group = packet.get(16..20).and_then(|a| <[u8; 4]>::try_from(a).ok()).map(Into::into);
            (EtherType::IPV4, group)
        }
    };
    let to = group.and_then(eth::multicast_mac).unwrap_or(OWN_MAC);
    let mut header = [0; eth::HEADER_LEN];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&from);
    header[12..].copy_from_slice(&ethertype.get().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FromDatapath, SaLimits};
    use crate::testing::*;
    use esp::{Keys, Opener, Suite};

    const SUITE: Suite = Suite::Aes256Gcm16;

    #[test]
    fn a_super_frame_is_sealed_segment_by_segment_and_still_one_send() {
        for suite in Suite::ALL {
            let mut bench = Bench::encrypted(suite);
            let (vnet, packet) = super_frame("10.200.0.11", 50_000, 1360);
            bench.frame(&vnet, id(1).mac(), 0x0800, &packet);
            assert_eq!(bench.runs(), [37], "{suite}");
            let mut opener = Opener::new(&keys(outbound_spi(1), suite)).unwrap();
            let sent = bench.sent_raw();
            let opened: Vec<_> = sent.iter().map(|(_, sealed)| open(&mut opener, sealed)).collect();
            assert_eq!(opened.iter().map(|p| p.len() - 40).sum::<usize>(), 50_000);
            assert!(
                sent.iter().all(|(to, sealed)| *to == path(1) && sealed[..4] == 0xc000_0001u32.to_be_bytes())
            );
        }
    }

    #[test]
    fn without_an_sa_nothing_leaves_whatever_the_tables_say() {
        let mut bench = Bench::encrypted(SUITE);
        // The hub has no SA.
        bench.kernel_sends(packet::peer::BY_HUB_MAC, &packet(OWN, "10.200.0.77", 100));
        bench.tables.multicast = [id(9)].into();
        bench.kernel_sends([1, 0, 0x5e, 0, 0, 5], &packet(OWN, "224.0.0.5", 64));
        let order = Order::Transmit(path(9), Outer::with_tos(0), gre::Protocol::NHRP, b"nhrp".to_vec());
        bench.lane.obey(&bench.tables, order);
        bench.lane.flush();
        assert_eq!((bench.sent_raw(), bench.count(Counter::DropNoSa)), (vec![], 3));
    }

    #[test]
    fn an_sa_that_is_taken_away_no_longer_carries() {
        let mut bench = Bench::encrypted(SUITE);
        let send = |bench: &mut Bench| {
            bench.kernel_sends(id(1).mac(), &packet(OWN, "10.200.0.11", 100));
            bench.sent_raw().len()
        };
        assert_eq!(send(&mut bench), 1);
        // One that was replaced before takes nothing away.
        bench.lane.obey(&bench.tables, Order::RemoveOutbound(path(1), 0x7777));
        assert_eq!(send(&mut bench), 1);
        bench.lane.obey(&bench.tables, Order::RemoveOutbound(path(1), outbound_spi(1)));
        assert_eq!((send(&mut bench), bench.count(Counter::DropNoSa)), (0, 1));
        bench.kernel_sends(id(2).mac(), &packet(OWN, "10.200.0.12", 100));
        assert_eq!(bench.sent_raw().len(), 1);
    }

    #[test]
    fn a_new_sa_carries_from_the_next_packet_on() {
        let mut bench = Bench::encrypted(SUITE);
        bench.send_by(1, &keys(0xdddd, SUITE), NO_LIMIT);
        bench.kernel_sends(id(1).mac(), &packet(OWN, "10.200.0.11", 100));
        assert_eq!(bench.sent_raw()[0].1[..4], 0xddddu32.to_be_bytes());
    }

    #[test]
    fn a_soft_limit_is_told_once() {
        let mut bench = Bench::encrypted(SUITE);
        let soft = SaLimits { packets: 3, octets: u64::MAX };
        bench.send_by(1, &keys(0xdddd, SUITE), soft);
        let told: Vec<_> = (0..6)
            .map(|_| {
                bench.kernel_sends(id(1).mac(), &packet(OWN, "10.200.0.11", 100));
                bench.punted().len()
            })
            .collect();
        assert_eq!(told, [0, 0, 1, 0, 0, 0]);
        bench.send_by(2, &keys(0xeeee, SUITE), SaLimits { packets: u64::MAX, octets: 150 });
        for _ in 0..2 {
            bench.kernel_sends(id(2).mac(), &packet(OWN, "10.200.0.12", 100));
        }
        assert_eq!(bench.punted(), [FromDatapath::SaLimit { path: path(2), spi: 0xeeee }]);
    }

    #[test]
    fn a_soft_limit_that_nobody_heard_is_told_again() {
        let mut bench = Bench::encrypted(SUITE);
        bench.send_by(1, &keys(0xdddd, SUITE), SaLimits { packets: 1, octets: 1 });
        bench.drain.set_attached(false);
        bench.kernel_sends(id(1).mac(), &packet(OWN, "10.200.0.11", 100));
        bench.drain.set_attached(true);
        for _ in 0..1100 {
            bench.kernel_sends(id(1).mac(), &packet(OWN, "10.200.0.11", 100));
        }
        assert_eq!(bench.punted(), [FromDatapath::SaLimit { path: path(1), spi: 0xdddd }]);
    }

    #[test]
    fn what_a_narrow_path_takes_is_counted_with_esp() {
        let mut bench = Bench::encrypted(SUITE);
        bench.tables.peer(id(1)).unwrap().path_mtu.set(path(1), 1280, bench.lane.now);
        bench.kernel_sends(id(1).mac(), &packet(OWN, "10.11.0.1", 1300));
        // 1280 less IP 20, UDP 8, ESP 16, ICV 16 is 1220; less trailer 2 and GRE with key 8.
        assert_eq!(icmp_error(&bench.delivered()[0].packet), (3, 4, 1210));
        let (vnet, packet) = super_frame("10.11.0.1", 5000, 1360);
        bench.frame(&vnet, id(1).mac(), 0x0800, &packet);
        let sent = bench.sent_raw();
        assert!(sent.iter().all(|(_, sealed)| sealed.len() <= 1280 - 28));
        assert_eq!(sent[0].1.len(), 1280 - 28);
    }

    #[test]
    fn all_of_a_hairpin_is_opened_and_sealed_again() {
        let mut bench = Bench::encrypted(SUITE);
        let prefix = "10.12.0.0/16".parse().unwrap();
        bench.tables.set_hairpin(&[crate::messages::HairpinRoute { prefix, peer: Some(id(2)) }]);
        let keys_of = |spi| -> Keys { keys(spi, SUITE) };
        let mut sealer = esp::Sealer::new(&keys_of(inbound_spi(1, 0))).unwrap();
        let packet = packet("10.11.0.5", "10.12.0.5", 200);
        let mut sealed = seal(&mut sealer, &packet);
        let length = sealed.len();
        bench.datagrams(path(1), 0, &mut sealed, length);
        let (to, sealed) = bench.sent_raw().remove(0);
        let mut opener = Opener::new(&keys_of(outbound_spi(2))).unwrap();
        assert_eq!((to, &open(&mut opener, &sealed)[12..]), (path(2), &packet[12..]));
    }
}
