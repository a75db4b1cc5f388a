//! What one worker owns and its packets pass through: nothing here is shared, so nothing is locked.

use crate::io::{Tap, Underlay};
use crate::limiter::Limiter;
use crate::punt::Punts;
use crate::stats::{Counter, PeerStats, WorkerStats};
use crate::tables::{PeerRow, Tables};
use crate::transmit::{Outer, Transmit};
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
    underlay: U,
    transmit: Transmit,
    /// Which share of the peers' counters is ours.
    number: usize,
}

impl<T: Tap, U: Underlay> Lane<T, U> {
    /// Worker `number`'s lane.
    pub fn new(number: usize, tap: T, underlay: U, punts: Punts, stats: Arc<WorkerStats>) -> Self {
        Self {
            tap,
            stats,
            punts,
            now: Instant::ZERO,
            icmp: Limiter::new(256, 100, Duration::from_secs(1)),
            scratch: vec![0; SCRATCH],
            underlay,
            transmit: Transmit::default(),
            number,
        }
    }

    /// Our share of a peer's counters.
    #[must_use]
    pub fn peer_stats<'p>(&self, row: &'p PeerRow) -> Option<&'p PeerStats> {
        row.stats.get(self.number)
    }

    /// Puts one inner packet, written by `write` into the room it is given, behind what is gathered, in its GRE
    /// header. `length` is how long it is.
    #[inline]
    pub fn gather(
        &mut self,
        path: Path,
        outer: Outer,
        protocol: gre::Protocol,
        key: Option<u32>,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) {
        let header = gre::encoded_len(key);
        if !self.transmit.has_room(header + length) {
            self.flush();
        }
        let room = self.transmit.room();
        let Some(packet) = room.get_mut(..header + length) else {
            self.stats.count(Counter::DropTooBig);
            return;
        };
        if gre::encode(packet, header, protocol, key).is_ok() {
            write(&mut packet[header..]);
            self.transmit.commit(path, outer, header + length);
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
