//! The SAs of one worker. Each belongs to exactly one, so that replay windows and sequence numbers are plain `&mut`:
//! nothing here is shared but the counters, which the owner writes and control reads.

use crate::messages::SaLimits;
use crate::stats::Counter;
use esp::{BadKeys, Keys, OpenError, Opened, Opener, ReplayWindow, SealError, Sealer};
use packet::Path;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The IP protocol number of GRE, which is what all our ESP packets carry.
pub const NEXT_HEADER_GRE: u8 = 47;

/// Octets that sealing adds at most: SPI, sequence number, IV, padding, its length, next header, ICV.
pub const MAX_OVERHEAD: usize = 8 + 16 + 15 + 2 + 16;

/// The worker that owns an inbound SA: the low bits of the SPI say so.
#[inline]
#[must_use]
pub fn owner(spi: u32, workers: usize) -> usize {
    let workers = workers.max(1);
    let number = spi as usize & (workers.next_power_of_two() - 1);
    // Only an SPI of a time when there were more workers says a number beyond.
    if number < workers { number } else { number % workers }
}

/// Sequence numbers that a successor leaves out. Its predecessor has stopped before it begins, so that none would do;
/// this is a second lock on a door that must not open.
const JUMP: u64 = 1 << 16;

/// How far an SA to receive by has come, for a successor.
#[derive(Serialize, Deserialize)]
pub struct InboundNumbers {
    /// Which.
    pub spi: u32,
    window: ReplayWindow,
    counted: [u64; 5],
}

/// How far an SA to send by has come, for a successor.
#[derive(Serialize, Deserialize)]
pub struct OutboundNumbers {
    /// Where to.
    pub path: Path,
    /// Which.
    pub spi: u32,
    sequence: u64,
    soft: SaLimits,
    counted: [u64; 5],
}

/// What an SA has done. The owner writes, control reads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct SaStats {
    sequence: AtomicU64,
    packets: AtomicU64,
    octets: AtomicU64,
    replayed: AtomicU64,
    forged: AtomicU64,
}

impl SaStats {
    /// The last (outbound) or highest (inbound) sequence number, packets, octets, replayed and forged ones.
    #[must_use]
    pub fn get(&self) -> [u64; 5] {
        [&self.sequence, &self.packets, &self.octets, &self.replayed, &self.forged]
            .map(|value| value.load(Ordering::Relaxed))
    }

    fn resumed(counted: [u64; 5]) -> Arc<Self> {
        let [sequence, packets, octets, replayed, forged] = counted.map(AtomicU64::new);
        Arc::new(Self { sequence, packets, octets, replayed, forged })
    }

    #[inline]
    fn passed(&self, octets: usize) {
        add(&self.packets, 1);
        add(&self.octets, octets as u64);
    }
}

/// A single writer needs no atomic addition.
#[inline]
fn add(value: &AtomicU64, n: u64) {
    value.store(value.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// One SA we receive by.
pub struct InboundSa {
    spi: u32,
    /// Whose packets these are, wherever they came from.
    path: Path,
    opener: Opener,
    stats: Arc<SaStats>,
}

impl InboundSa {
    /// An SA that nothing was received by yet.
    ///
    /// # Errors
    /// What the keys lack.
    pub fn new(path: Path, keys: &Keys, stats: Arc<SaStats>) -> Result<Self, BadKeys> {
        Ok(Self { spi: keys.spi, path, opener: Opener::new(keys)?, stats })
    }

    /// One that another process received by, and no longer does.
    ///
    /// # Errors
    /// What the keys lack.
    pub fn resume(path: Path, keys: &Keys, numbers: InboundNumbers) -> Result<(Self, Arc<SaStats>), BadKeys> {
        let InboundNumbers { spi, window, counted } = numbers;
        let stats = SaStats::resumed(counted);
        Ok((Self { spi, path, opener: Opener::resume(keys, window)?, stats: stats.clone() }, stats))
    }

    fn numbers(&self) -> InboundNumbers {
        InboundNumbers { spi: self.spi, window: self.opener.window().clone(), counted: self.stats.get() }
    }

    /// Opens a packet in place.
    #[inline]
    fn open(&mut self, packet: &mut [u8]) -> Result<Opened, Counter> {
        match self.opener.open(packet) {
            Ok(opened) => {
                self.stats.passed(opened.payload.len());
                let highest = self.stats.sequence.load(Ordering::Relaxed).max(opened.sequence);
                self.stats.sequence.store(highest, Ordering::Relaxed);
                Ok(opened)
            }
            Err(error) => Err(match error {
                OpenError::Replayed | OpenError::TooOld => {
                    add(&self.stats.replayed, 1);
                    Counter::DropReplayed
                }
                OpenError::Forged => {
                    add(&self.stats.forged, 1);
                    Counter::DropForged
                }
                OpenError::TooShort | OpenError::BadLength => Counter::DropBadEsp,
                OpenError::BadPadding => Counter::DropBadPadding,
                OpenError::WrongSpi => Counter::DropUnknownSpi,
            }),
        }
    }
}

/// One SA we send by.
pub struct OutboundSa {
    spi: u32,
    path: Path,
    /// Its owner is worker `lane` modulo their number.
    lane: u16,
    sealer: Sealer,
    soft: SaLimits,
    stats: Arc<SaStats>,
}

impl OutboundSa {
    /// An SA that nothing was sent by yet.
    ///
    /// # Errors
    /// What the keys lack.
    pub fn new(
        (path, lane): (Path, u16),
        keys: &Keys,
        soft: SaLimits,
        stats: Arc<SaStats>,
    ) -> Result<Self, BadKeys> {
        Ok(Self { spi: keys.spi, path, lane, sealer: Sealer::new(keys)?, soft, stats })
    }

    /// One that another process sent by, and no longer does.
    ///
    /// # Errors
    /// What the keys lack.
    pub fn resume(lane: u16, keys: &Keys, numbers: OutboundNumbers) -> Result<(Self, Arc<SaStats>), BadKeys> {
        let OutboundNumbers { path, spi, sequence, soft, counted } = numbers;
        let mut sealer = Sealer::new(keys)?;
        sealer.jump(sequence.saturating_add(JUMP));
        let stats = SaStats::resumed(counted);
        Ok((Self { spi, path, lane, sealer, soft, stats: stats.clone() }, stats))
    }

    fn numbers(&self) -> OutboundNumbers {
        let Self { path, spi, soft, .. } = *self;
        OutboundNumbers { path, spi, sequence: self.sealer.sequence(), soft, counted: self.stats.get() }
    }

    /// Lets `write` put a payload of `length` octets where it belongs, and seals it in place. Says how long it is now.
    #[inline]
    fn seal(
        &mut self,
        room: &mut [u8],
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<usize, NotSealed> {
        let start = self.sealer.header_len();
        write(room.get_mut(start..start + length).ok_or(NotSealed::NoRoom)?);
        let sealed = self.sealer.seal(room, length, NEXT_HEADER_GRE)?;
        self.stats.passed(length);
        self.stats.sequence.store(self.sealer.sequence(), Ordering::Relaxed);
        Ok(sealed)
    }

    /// Did it just pass a soft limit?
    #[inline]
    fn passed_limit(&self) -> bool {
        let [_, packets, octets, ..] = self.stats.get();
        packets >= self.soft.packets || octets >= self.soft.octets
    }
}

/// Why a packet was not sealed, and so not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSealed {
    /// There is no SA.
    NoSa,
    /// The SA is used up.
    Exhausted,
    /// Too long for the buffer.
    NoRoom,
}

impl From<SealError> for NotSealed {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Exhausted => Self::Exhausted,
            SealError::NoRoom { .. } | SealError::Cipher => Self::NoRoom,
        }
    }
}

impl NotSealed {
    /// What it is counted as.
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Self::NoSa => Counter::DropNoSa,
            Self::Exhausted => Counter::DropExhausted,
            Self::NoRoom => Counter::DropTooBig,
        }
    }
}

/// A sealed packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Octets.
    pub length: usize,
    /// This SA has reached a soft limit, and nobody was told yet.
    pub at_limit: Option<u32>,
}

/// The SAs a worker receives by.
#[derive(Default)]
pub struct Inbound {
    // Boxed, since a replay window is half a kilobyte.
    by_spi: HashMap<u32, Box<InboundSa>>,
}

impl Inbound {
    /// Opens a packet in place, and says which path it counts as come by. `None`: no such SA.
    #[inline]
    pub fn open(&mut self, spi: u32, packet: &mut [u8]) -> Option<Result<(Opened, Path), Counter>> {
        let sa = self.by_spi.get_mut(&spi)?;
        Some(sa.open(packet).map(|opened| (opened, sa.path)))
    }

    /// Receives by this one too.
    pub fn add(&mut self, sa: InboundSa) {
        self.by_spi.insert(sa.spi, Box::new(sa));
    }

    /// No longer receives by this one.
    pub fn remove(&mut self, spi: u32) {
        self.by_spi.remove(&spi);
    }
}

/// The SAs a worker sends by: one for each path at most.
#[derive(Default)]
pub struct Outbound {
    slots: Vec<OutboundSa>,
    by_path: HashMap<Path, usize>,
    /// The slot used last: packets of one batch mostly go one way.
    last: usize,
}

impl Outbound {
    /// Is there an SA for this path?
    #[inline]
    pub fn has(&mut self, path: Path) -> bool {
        self.find(path).is_some()
    }

    #[inline]
    fn find(&mut self, path: Path) -> Option<&mut OutboundSa> {
        if self.slots.get(self.last).is_none_or(|sa| sa.path != path) {
            self.last = *self.by_path.get(&path)?;
        }
        self.slots.get_mut(self.last)
    }

    /// Seals what `write` puts into `room`.
    ///
    /// # Errors
    /// Then nothing may be sent of it.
    #[inline]
    pub fn seal(
        &mut self,
        path: Path,
        room: &mut [u8],
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<Sealed, NotSealed> {
        let sa = self.find(path).ok_or(NotSealed::NoSa)?;
        let length = sa.seal(room, length, write)?;
        Ok(Sealed { length, at_limit: sa.passed_limit().then_some(sa.spi) })
    }

    /// Control was told of the limit, or (false) could not be, and is to be told a little later.
    pub fn told(&mut self, path: Path, told: bool) {
        const LATER: u64 = 1024;
        if let Some(sa) = self.find(path) {
            let [_, packets, ..] = sa.stats.get();
            let again = if told { u64::MAX } else { packets.saturating_add(LATER) };
            sa.soft = SaLimits { packets: again, octets: u64::MAX };
        }
    }

    /// Sends by this one from now on, instead of the one before it on its path.
    pub fn set(&mut self, sa: OutboundSa) {
        match self.by_path.get(&sa.path).and_then(|slot| self.slots.get_mut(*slot)) {
            Some(slot) => *slot = sa,
            None => {
                self.by_path.insert(sa.path, self.slots.len());
                self.slots.push(sa);
            }
        }
    }

    /// No longer sends by this one, if it is still the one for its path.
    pub fn remove(&mut self, path: Path, spi: u32) {
        let Some(&slot) = self.by_path.get(&path) else { return };
        if self.slots.get(slot).is_some_and(|sa| sa.spi == spi) {
            self.by_path.remove(&path);
            self.slots.swap_remove(slot);
            if let Some(moved) = self.slots.get(slot) {
                self.by_path.insert(moved.path, slot);
            }
        }
    }
}

/// All SAs of a worker, or of none.
#[derive(Default)]
pub struct Sas {
    /// To receive by.
    pub inbound: Inbound,
    /// To send by.
    pub outbound: Outbound,
}

/// SAs between two sets of workers.
#[derive(Default)]
pub struct Parked {
    inbound: Vec<InboundSa>,
    outbound: Vec<OutboundSa>,
}

impl Parked {
    /// A worker ended, and these were its SAs.
    pub fn park(&mut self, sas: Sas) {
        self.inbound.extend(sas.inbound.by_spi.into_values().map(|sa| *sa));
        self.outbound.extend(sas.outbound.slots);
    }

    /// One more.
    pub fn park_inbound(&mut self, sa: InboundSa) {
        self.inbound.push(sa);
    }

    /// One more.
    pub fn park_outbound(&mut self, sa: OutboundSa) {
        self.outbound.push(sa);
    }

    /// How far all have come, for a successor.
    #[must_use]
    pub fn numbers(&self) -> (Vec<InboundNumbers>, Vec<OutboundNumbers>) {
        let inbound = self.inbound.iter().map(InboundSa::numbers).collect();
        (inbound, self.outbound.iter().map(OutboundSa::numbers).collect())
    }

    /// Hands all to so many workers. Where two of one path have one owner now, the lower lane's stays.
    pub fn distribute(&mut self, workers: usize) -> Vec<Sas> {
        let mut sas: Vec<Sas> = (0..workers.max(1)).map(|_| Sas::default()).collect();
        for sa in self.inbound.drain(..) {
            if let Some(sas) = sas.get_mut(owner(sa.spi, workers)) {
                sas.inbound.add(sa);
            }
        }
        self.outbound.sort_by_key(|sa| std::cmp::Reverse(sa.lane));
        for sa in self.outbound.drain(..) {
            if let Some(sas) = sas.get_mut(usize::from(sa.lane) % workers.max(1)) {
                sas.outbound.set(sa);
            }
        }
        sas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use esp::Suite;

    const SUITE: Suite = Suite::Aes128Gcm16;

    fn sends(lane: u16, spi: u32) -> OutboundSa {
        OutboundSa::new((path(1), lane), &keys(spi, SUITE), NO_LIMIT, Default::default()).unwrap()
    }

    fn receives(spi: u32) -> InboundSa {
        InboundSa::new(path(1), &keys(spi, SUITE), Default::default()).unwrap()
    }

    #[test]
    fn the_low_bits_of_an_spi_name_its_owner() {
        assert_eq!([0x1000, 0x1001, 0x1002, 0x1003].map(|spi| owner(spi, 4)), [0, 1, 2, 3]);
        assert_eq!([0x1000, 0x1001, 0x1002, 0x1003].map(|spi| owner(spi, 3)), [0, 1, 2, 0]);
        assert_eq!([0x1000, 0x1003].map(|spi| owner(spi, 1)), [0, 0]);
    }

    #[test]
    fn sas_find_new_owners_when_there_are_fewer_workers() {
        let mut parked = Parked::default();
        let mut sas = Sas::default();
        for lane in 0..4 {
            sas.inbound.add(receives(0x1000 + u32::from(lane)));
            let mut other = Sas::default();
            other.outbound.set(sends(lane, 0x2000 + u32::from(lane)));
            parked.park(other);
        }
        parked.park(sas);
        let mut sas = parked.distribute(2);
        let spis = |sas: &Sas| {
            let mut inbound: Vec<_> = sas.inbound.by_spi.keys().copied().collect();
            inbound.sort_unstable();
            (inbound, sas.outbound.slots.iter().map(|sa| sa.spi).collect::<Vec<_>>())
        };
        assert_eq!(spis(&sas[0]), (vec![0x1000, 0x1002], vec![0x2000]));
        assert_eq!(spis(&sas[1]), (vec![0x1001, 0x1003], vec![0x2001]));
        assert!(sas.iter_mut().all(|sas| sas.outbound.has(path(1))));
    }

    fn seal(outbound: &mut Outbound) -> Result<Vec<u8>, NotSealed> {
        let mut room = [0; 200];
        let sealed = outbound.seal(path(1), &mut room, 100, |payload| payload.fill(7))?;
        Ok(room[..sealed.length].to_vec())
    }

    #[test]
    fn a_successor_repeats_no_number_and_accepts_no_replay() {
        let (mut before, mut outbound) = (receives(0x3000), Outbound::default());
        outbound.set(sends(0, 0x3000));
        let first = seal(&mut outbound).unwrap();
        before.open(&mut first.clone()).unwrap();
        let mut parked = Parked::default();
        parked.park_inbound(before);
        parked.outbound.append(&mut outbound.slots);
        let encoded = postcard::to_stdvec(&parked.numbers()).unwrap();
        let (mut inbound, mut outbound): (Vec<InboundNumbers>, Vec<OutboundNumbers>) =
            postcard::from_bytes(&encoded).unwrap();
        let keys = keys(0x3000, SUITE);
        let (mut receiver, counted) = InboundSa::resume(path(1), &keys, inbound.remove(0)).unwrap();
        let (sender, sent) = OutboundSa::resume(0, &keys, outbound.remove(0)).unwrap();
        assert_eq!((counted.get()[1], sent.get()[1]), (1, 1));
        assert_eq!(receiver.open(&mut first.clone()), Err(Counter::DropReplayed));
        let mut outbound = Outbound::default();
        outbound.set(sender);
        let next = receiver.open(&mut seal(&mut outbound).unwrap()).unwrap();
        assert_eq!(next.sequence, 1 + JUMP + 1);
    }

    #[test]
    fn an_sa_that_is_used_up_sends_nothing_more() {
        let numbers = OutboundNumbers {
            path: path(1),
            spi: 0x4000,
            sequence: u64::from(u32::MAX) - JUMP - 1,
            soft: NO_LIMIT,
            counted: [0; 5],
        };
        let mut outbound = Outbound::default();
        outbound.set(OutboundSa::resume(0, &keys(0x4000, SUITE), numbers).unwrap().0);
        assert!(seal(&mut outbound).is_ok());
        assert_eq!(seal(&mut outbound), Err(NotSealed::Exhausted));
        assert_eq!(NotSealed::Exhausted.counter(), Counter::DropExhausted);
    }
}
