//! Between workers: packets for an SA that another worker owns go to it by the batch, over a bounded queue without
//! locks. Buffers go round: whoever emptied one gives it back to the worker it came from.
//!
//! A batch leaves when the owner has taken those before it, and else when it is full. So the owner may sleep for some
//! thousand packets, and not for as many as there are batches: on a busy machine it does, and a worker that wakes for
//! each packet would fill a batch with each.

use crate::mailbox::Mailbox;
use crate::transmit::Outer;
use crossbeam_queue::ArrayQueue;
use linux_io::poll::Waker;
use packet::Path;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The most workers that share a tunnel: each is a bit of [`Port::kept_back`].
pub const MAX_WORKERS: u16 = u64::BITS as u16;
/// Octets of a batch: any packet with its GRE header, or a super-frame cut into packets.
const BATCH: usize = 66_000;
/// Packets of a batch.
const PACKETS: usize = 256;
/// Batches that a worker has on their way, at most.
const BATCHES: usize = 16;

/// What is to be done with a packet that was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Sealed and sent: GRE header and inner packet, in clear.
    Out(Path, Outer),
    /// Opened: an ESP packet that arrived by this path, with this DSCP and ECN outside.
    In(Path, u8),
}

/// Packets for another worker.
pub struct Batch {
    buffer: Vec<u8>,
    used: usize,
    packets: Vec<(Way, Range<usize>)>,
    /// Whose buffer it is.
    home: usize,
}

impl Batch {
    fn new(home: usize) -> Self {
        Self { buffer: vec![0; BATCH], used: 0, packets: Vec::with_capacity(PACKETS), home }
    }

    fn has_room(&self, length: usize) -> bool {
        self.used + length <= self.buffer.len() && self.packets.len() < PACKETS
    }

    /// The buffer, and the packets in it.
    pub fn parts(&mut self) -> (&mut [u8], &[(Way, Range<usize>)]) {
        (&mut self.buffer, &self.packets)
    }
}

/// What wakes a worker, at most once until it has looked.
pub struct Bell {
    waker: Waker,
    rung: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Self> {
        Ok(Self { waker: Waker::new()?, rung: AtomicBool::new(false) })
    }

    /// What becomes readable.
    #[must_use]
    pub const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// There is something for the worker.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// The worker is about to look.
    pub fn hush(&self) {
        // In this order: what is rung for from here on is heard again, and what was rung for before is seen.
        self.waker.clear();
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// Where others reach one worker.
pub struct Port {
    /// Wakes it.
    pub bell: Bell,
    /// What control wants of it.
    pub mailbox: Mailbox,
    inbox: ArrayQueue<Batch>,
    /// The workers, as bits, that keep a batch back until this one has taken those before it.
    kept_back: AtomicU64,
    returned: ArrayQueue<Batch>,
}

/// The ports of so many workers.
///
/// # Errors
/// When the process is out of descriptors.
pub fn ports(workers: usize) -> io::Result<Arc<[Port]>> {
    let port = |_| {
        Ok(Port {
            bell: Bell::new()?,
            mailbox: Mailbox::default(),
            inbox: ArrayQueue::new((workers * BATCHES).max(1)),
            kept_back: AtomicU64::new(0),
            returned: ArrayQueue::new(BATCHES),
        })
    };
    (0..workers).map(port).collect()
}

/// Did a packet go to its owner?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handed {
    /// It will.
    Yes,
    /// The owner does not keep up.
    Full,
}

/// One worker's end.
pub struct Exchange {
    number: usize,
    ports: Arc<[Port]>,
    /// The batch being filled for each other worker.
    open: Vec<Option<Batch>>,
    /// Empty ones of our own.
    free: Vec<Batch>,
}

impl Exchange {
    /// The end of worker `number`. One that is alone, or without SAs, needs no buffers.
    #[must_use]
    pub fn new(number: usize, ports: Arc<[Port]>, encrypted: bool) -> Self {
        let batches = if encrypted && ports.len() > 1 { BATCHES } else { 0 };
        Self {
            number,
            open: (0..ports.len()).map(|_| None).collect(),
            free: (0..batches).map(|_| Batch::new(number)).collect(),
            ports,
        }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.ports.len()
    }

    /// Which one this is.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Our own port.
    #[must_use]
    pub fn port(&self) -> Option<&Port> {
        self.ports.get(self.number)
    }

    /// Puts one packet of `length` octets, written by `write`, into the batch for worker `to`.
    pub fn hand(&mut self, to: usize, way: Way, length: usize, write: impl FnOnce(&mut [u8])) -> Handed {
        if self.open.get(to).is_some_and(|open| open.as_ref().is_some_and(|batch| !batch.has_room(length))) {
            self.send(to);
        }
        let free = &mut self.free;
        let returned = self.ports.get(self.number).map(|port| &port.returned);
        let Some(open) = self.open.get_mut(to) else { return Handed::Full };
        if open.is_none() {
            *open = free.pop().or_else(|| returned.and_then(ArrayQueue::pop));
        }
        let Some(batch) = open else { return Handed::Full };
        let at = batch.used..batch.used + length;
        let Some(room) = batch.buffer.get_mut(at.clone()) else { return Handed::Full };
        write(room);
        batch.used = at.end;
        batch.packets.push((way, at));
        Handed::Yes
    }

    /// Sends what is gathered for others on its way, as far as they have taken what came before: once a batch.
    pub fn flush(&mut self) {
        for to in 0..self.open.len() {
            if self.open.get(to).is_some_and(Option::is_some) && !self.is_behind(to) {
                self.send(to);
            }
        }
    }

    /// Has this worker not yet taken all it was given? Then it rings for us when it has.
    fn is_behind(&self, to: usize) -> bool {
        let Some(port) = self.ports.get(to).filter(|port| !port.inbox.is_empty()) else { return false };
        port.kept_back.fetch_or(self.bit(), Ordering::SeqCst);
        // If it took the last one before it could see the bit, nobody rings. If not, it will look once more.
        !port.inbox.is_empty()
    }

    /// This worker among the bits of [`Port::kept_back`].
    fn bit(&self) -> u64 {
        u32::try_from(self.number).ok().and_then(|number| 1u64.checked_shl(number)).unwrap_or(0)
    }

    fn send(&mut self, to: usize) {
        let Some(batch) = self.open.get_mut(to).and_then(Option::take) else { return };
        let Some(port) = self.ports.get(to) else { return };
        // There is room for all batches of all workers.
        match port.inbox.push(batch) {
            Ok(()) => port.bell.ring(),
            Err(batch) => self.give_back(batch),
        }
    }

    /// The next batch that others have for us. When there is none, those are rung for that keep one back.
    #[must_use]
    pub fn take(&self) -> Option<Batch> {
        let port = self.port()?;
        let batch = port.inbox.pop();
        if batch.is_none() && port.kept_back.load(Ordering::SeqCst) != 0 {
            let waiting = port.kept_back.swap(0, Ordering::SeqCst);
            let rings =
                |number: &usize| waiting.checked_shr(*number as u32).is_some_and(|bits| bits & 1 == 1);
            for port in (0..self.ports.len()).filter(rings).filter_map(|number| self.ports.get(number)) {
                port.bell.ring();
            }
        }
        batch
    }

    /// A batch that was dealt with.
    pub fn give_back(&mut self, mut batch: Batch) {
        batch.used = 0;
        batch.packets.clear();
        if batch.home == self.number {
            self.free.push(batch);
        } else if let Some(port) = self.ports.get(batch.home) {
            // There is room: it has no more batches than that.
            let _ = port.returned.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux_io::poll::{self, Ready};
    use packet::Path;
    use std::os::fd::AsFd;
    use std::time::Duration;

    const WAY: Way =
        Way::Out(Path::udp(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1), Outer::with_tos(0));

    fn pair() -> [Exchange; 2] {
        let ports = ports(2).unwrap();
        [0, 1].map(|number| Exchange::new(number, ports.clone(), true))
    }

    /// Hands over a packet with this number in it, as a worker does that wakes for it alone.
    fn hand(from: &mut Exchange, number: u16) -> Handed {
        let handed = from.hand(1, WAY, 100, |room| room[..2].copy_from_slice(&number.to_be_bytes()));
        from.flush();
        handed
    }

    /// The numbers of all packets that are there.
    fn taken(by: &mut Exchange) -> Vec<u16> {
        let mut numbers = Vec::new();
        while let Some(mut batch) = by.take() {
            let (buffer, packets) = batch.parts();
            numbers.extend(
                packets.iter().map(|(_, at)| u16::from_be_bytes([buffer[at.start], buffer[at.start + 1]])),
            );
            by.give_back(batch);
        }
        numbers
    }

    fn is_rung(exchange: &Exchange) -> bool {
        let mut ready = [Ready::default()];
        let bell = &exchange.port().unwrap().bell;
        poll::wait(&[bell.waker().as_fd()], &mut ready, Some(Duration::ZERO)).unwrap();
        ready[0].readable
    }

    #[test]
    fn an_owner_that_is_awake_has_each_packet_at_once() {
        let [mut from, mut owner] = pair();
        for number in 0..100 {
            assert_eq!(hand(&mut from, number), Handed::Yes);
            assert!(is_rung(&owner));
            assert_eq!(taken(&mut owner), [number]);
        }
        assert!(!is_rung(&from), "nothing was kept back");
    }

    #[test]
    fn an_owner_that_sleeps_for_a_thousand_packets_loses_none() {
        let [mut from, mut owner] = pair();
        for number in 0..1000 {
            assert_eq!(hand(&mut from, number), Handed::Yes, "{number}");
        }
        let mut numbers = taken(&mut owner);
        assert!(numbers.len() < 1000 && is_rung(&from), "the last are kept back, and asked for");
        from.flush();
        numbers.extend(taken(&mut owner));
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn an_owner_that_does_not_wake_is_given_no_more_than_there_is_room_for() {
        let [mut from, mut owner] = pair();
        let most = BATCHES * PACKETS;
        let given = (0..most + 1000).take_while(|n| hand(&mut from, *n as u16) == Handed::Yes).count();
        // The first went alone.
        assert!((most - PACKETS..=most).contains(&given), "{given}");
        let numbers = taken(&mut owner);
        from.flush();
        assert_eq!(numbers.len() + taken(&mut owner).len(), given);
        assert_eq!(hand(&mut from, 7), Handed::Yes, "the buffers came back");
    }
}
