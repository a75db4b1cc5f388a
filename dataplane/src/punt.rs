//! What goes to the agent: bounded queues, one for each kind, so that a flood of one kind starves no other. Workers
//! put in and never wait; what does not fit is counted.

use crate::limiter::Limiter;
use crate::messages::{FromDatapath, ReceivedKind};
use crate::stats::{Counter, WorkerStats};
use linux_io::poll::Waker;
use packet::{Instant, Path, PeerId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Octets of a hairpinned packet the agent is shown.
pub const HEAD: usize = 128;

/// Messages waiting in each queue, at most.
const NHRP: usize = 512;
const ECHO: usize = 512;
/// IKE messages of exchanges that somebody answered already, and those that anybody may begin.
const IKE: usize = 1024;
const IKE_FIRST: usize = 1024;
/// When a hub begins anew, all of its spokes send what belongs to SAs of before.
const SPIS: usize = 1024;
const NOTICES: usize = 512;
const CAPTURE: usize = 4096;

/// One kind's queue, the workers' end.
#[derive(Clone)]
struct Queue {
    sender: SyncSender<FromDatapath>,
    waiting: Arc<AtomicUsize>,
    most: usize,
    full: Counter,
}

/// One kind's queue, the agent's end.
struct Drain {
    receiver: Receiver<FromDatapath>,
    waiting: Arc<AtomicUsize>,
}

/// A worker's way to the agent.
pub struct Punts {
    nhrp: Queue,
    echo: Queue,
    ike: Queue,
    ike_first: Queue,
    spis: Queue,
    notices: Queue,
    capture: Queue,
    shared: Arc<Shared>,
    rung: bool,
    nhrp_by_path: Limiter,
    ike_by_source: Limiter,
    spis_by_path: Limiter,
    refusals: Limiter,
    wanted: Limiter,
    hairpins: Limiter,
}

/// How many queues there are.
const QUEUES: usize = 7;

/// Makes [`Punts`] for new workers.
#[derive(Clone)]
pub struct PuntSource {
    queues: [Queue; QUEUES],
    shared: Arc<Shared>,
}

/// The agent's end of all queues.
pub struct PuntDrain {
    drains: Vec<Drain>,
    shared: Arc<Shared>,
}

struct Shared {
    waker: Waker,
    attached: AtomicBool,
}

/// The two ends of the queues of one tunnel.
///
/// # Errors
/// When the process is out of descriptors.
pub fn queues() -> std::io::Result<(PuntSource, PuntDrain)> {
    let shared = Arc::new(Shared { waker: Waker::new()?, attached: AtomicBool::new(false) });
    let make = |most: usize, full: Counter| {
        let (sender, receiver) = sync_channel(most);
        let waiting = Arc::new(AtomicUsize::new(0));
        (Queue { sender, waiting: waiting.clone(), most, full }, Drain { receiver, waiting })
    };
    let made = [
        make(NHRP, Counter::DropPuntNhrp),
        make(ECHO, Counter::DropPuntEcho),
        make(IKE, Counter::DropIkeFlood),
        make(IKE_FIRST, Counter::DropIkeFlood),
        make(SPIS, Counter::DropPuntNotice),
        make(NOTICES, Counter::DropPuntNotice),
        make(CAPTURE, Counter::DropPuntCapture),
    ];
    let mut drains = Vec::with_capacity(QUEUES);
    let queues = made.map(|(queue, drain)| {
        drains.push(drain);
        queue
    });
    Ok((PuntSource { queues, shared: shared.clone() }, PuntDrain { drains, shared }))
}

impl PuntSource {
    /// For one worker.
    #[must_use]
    pub fn worker(&self) -> Punts {
        let [nhrp, echo, ike, ike_first, spis, notices, capture] = self.queues.clone();
        Punts {
            nhrp,
            echo,
            ike,
            ike_first,
            spis,
            notices,
            capture,
            shared: self.shared.clone(),
            rung: false,
            // A registered spoke sends a handful in a second; this is what one path may, of all there is.
            nhrp_by_path: Limiter::new(1024, 100, Duration::from_secs(1)),
            // A handshake takes a few messages, a certificate chain in fragments some ten.
            ike_by_source: Limiter::new(4096, 200, Duration::from_secs(1)),
            spis_by_path: Limiter::new(4096, 1, Duration::from_secs(1)),
            refusals: Limiter::new(1024, 1, Duration::from_millis(100)),
            wanted: Limiter::new(1024, 1, Duration::from_millis(100)),
            // The agent says it to the peer less often; but it may not know the peer yet when it is told first.
            hairpins: Limiter::new(4096, 1, Duration::from_millis(250)),
        }
    }
}

impl Punts {
    /// A control message or a marked echo arrived.
    pub fn received(
        &mut self,
        path: Path,
        kind: ReceivedKind,
        payload: &[u8],
        now: Instant,
        stats: &WorkerStats,
    ) {
        let queue = match kind {
            ReceivedKind::Nhrp if !self.nhrp_by_path.pass(now, path) => {
                stats.count(Counter::DropPuntNhrp);
                return;
            }
            ReceivedKind::Nhrp => &self.nhrp,
            ReceivedKind::Echo => &self.echo,
        };
        let message = || FromDatapath::Received { path, kind, payload: payload.to_vec() };
        self.rung |= put(queue, &self.shared, stats, message);
    }

    /// An IKE message arrived. What begins an exchange out of nothing, which costs a forger one packet, waits in a
    /// queue of its own, so that a flood of it holds up nobody who has been answered.
    pub fn ike(
        &mut self,
        remote: SocketAddr,
        nat_traversal: bool,
        message: &[u8],
        now: Instant,
        stats: &WorkerStats,
    ) {
        let Some(header) = message.first_chunk::<IKE_HEADER>() else {
            stats.count(Counter::DropBadIke);
            return;
        };
        if !self.ike_by_source.pass(now, remote) {
            stats.count(Counter::DropIkeFlood);
            return;
        }
        let queue = if is_first(header) { &self.ike_first } else { &self.ike };
        let message = || FromDatapath::Ike { remote, nat_traversal, message: message.to_vec() };
        self.rung |= put(queue, &self.shared, stats, message);
    }

    /// A packet of an SA that does not exist.
    pub fn unknown_spi(&mut self, path: Path, spi: u32, now: Instant, stats: &WorkerStats) {
        if self.spis_by_path.pass(now, path) {
            self.rung |= put(&self.spis, &self.shared, stats, || FromDatapath::UnknownSpi { path, spi });
        }
    }

    /// An authentic packet came by another path than its SA's.
    pub fn sa_moved(&mut self, spi: u32, path: Path, now: Instant, stats: &WorkerStats) {
        if self.spis_by_path.pass(now, (spi, path)) {
            self.rung |= put(&self.spis, &self.shared, stats, || FromDatapath::SaMoved { spi, path });
        }
    }

    /// An SA reached a soft limit. False: there was no room to say so, or nobody to hear it.
    pub fn sa_limit(&mut self, path: Path, spi: u32, stats: &WorkerStats) -> bool {
        let told = put(&self.notices, &self.shared, stats, || FromDatapath::SaLimit { path, spi });
        self.rung |= told;
        told
    }

    /// The kernel asked for a next hop that has no direct path.
    pub fn next_hop_wanted(&mut self, address: IpAddr, now: Instant, stats: &WorkerStats) {
        if self.wanted.pass(now, address) {
            self.notice(stats, || FromDatapath::NextHopWanted(address));
        }
    }

    /// A packet came from one peer and goes to another.
    pub fn hairpin(
        &mut self,
        (from, to): (PeerId, PeerId),
        (source, destination): (IpAddr, IpAddr),
        packet: &[u8],
        now: Instant,
        stats: &WorkerStats,
    ) {
        if self.hairpins.pass(now, (from, source, destination)) {
            let head = packet.get(..HEAD).unwrap_or(packet);
            self.notice(stats, || FromDatapath::Hairpin { from, to, head: head.to_vec() });
        }
    }

    /// A path turned out to be narrow.
    pub fn path_mtu(&mut self, path: Path, (mtu, inner): (u16, u16), stats: &WorkerStats) {
        self.notice(stats, || FromDatapath::PathMtu { path, mtu, inner });
    }

    /// ICMP says that nobody is at the end of a path.
    pub fn nobody_there(&mut self, path: Path, now: Instant, stats: &WorkerStats) {
        if self.refusals.pass(now, path) {
            self.notice(stats, || FromDatapath::NobodyThere(path));
        }
    }

    /// Somebody watches, and this is what passed.
    pub fn captured(&mut self, peer: Option<PeerId>, outbound: bool, packet: &[u8], stats: &WorkerStats) {
        let message = || {
            let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let time = since_epoch.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
            FromDatapath::Captured { time, peer, outbound, packet: packet.to_vec() }
        };
        self.rung |= put(&self.capture, &self.shared, stats, message);
    }

    /// Wakes the agent's thread if there is something for it: once a batch.
    pub fn ring(&mut self) {
        if std::mem::take(&mut self.rung) {
            self.shared.waker.wake();
        }
    }

    fn notice(&mut self, stats: &WorkerStats, message: impl FnOnce() -> FromDatapath) {
        self.rung |= put(&self.notices, &self.shared, stats, message);
    }
}

/// Octets of the header of an IKE message (RFC 7296 §3.1).
const IKE_HEADER: usize = 28;

/// Does the message begin an exchange with somebody who has not shown yet that he gets our answers? It has no
/// responder's SPI then, and its first payload is no notification, as a cookie is (RFC 7296 §2.6).
fn is_first(header: &[u8; IKE_HEADER]) -> bool {
    const NOTIFY: u8 = 41;
    let (responder, next_payload) = (&header[8..16], header[16]);
    responder == [0; 8] && next_payload != NOTIFY
}

/// Puts a message in, or counts why not. It is made only if there is room, so that a flood costs little.
fn put(queue: &Queue, shared: &Shared, stats: &WorkerStats, message: impl FnOnce() -> FromDatapath) -> bool {
    if !shared.attached.load(Ordering::Relaxed) {
        stats.count(Counter::DropNoControl);
        return false;
    }
    if queue.waiting.load(Ordering::Relaxed) >= queue.most {
        stats.count(queue.full);
        return false;
    }
    queue.waiting.fetch_add(1, Ordering::Relaxed);
    if queue.sender.try_send(message()).is_err() {
        queue.waiting.fetch_sub(1, Ordering::Relaxed);
        stats.count(queue.full);
        return false;
    }
    stats.count(Counter::Punted);
    true
}

impl PuntDrain {
    /// What becomes readable when there is something to take.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.shared.waker
    }

    /// An agent is there, or no longer. What waited for another one is forgotten.
    pub fn set_attached(&self, attached: bool) {
        if attached {
            while self.take().next().is_some() {}
        }
        self.shared.attached.store(attached, Ordering::Relaxed);
    }

    /// Takes what waits, the kinds in turn.
    pub fn take(&self) -> impl Iterator<Item = FromDatapath> + '_ {
        let mut next = 0;
        let mut empty = 0;
        std::iter::from_fn(move || {
            while empty < self.drains.len() {
                let drain = self.drains.get(next)?;
                next = (next + 1) % self.drains.len();
                if let Ok(message) = drain.receiver.try_recv() {
                    drain.waiting.fetch_sub(1, Ordering::Relaxed);
                    empty = 0;
                    return Some(message);
                }
                empty += 1;
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (Punts, PuntDrain, WorkerStats) {
        let (source, drain) = queues().unwrap();
        drain.set_attached(true);
        (source.worker(), drain, WorkerStats::default())
    }

    fn path(last: u16) -> Path {
        let [a, b] = last.to_be_bytes();
        Path::udp(IpAddr::from([192, 0, a, b]), 4754)
    }

    #[test]
    fn a_flood_of_nhrp_does_not_starve_probes() {
        let (mut punts, drain, stats) = setup();
        let now = Instant::from_nanos(1);
        for i in 0..2000 {
            punts.received(path(i), ReceivedKind::Nhrp, b"flood", now, &stats);
        }
        punts.received(path(1), ReceivedKind::Echo, b"probe", now, &stats);
        assert_eq!(stats.get(Counter::DropPuntNhrp), 2000 - NHRP as u64);
        let first_two: Vec<_> = drain.take().take(2).collect();
        assert!(matches!(&first_two[1], FromDatapath::Received { kind: ReceivedKind::Echo, .. }));
    }

    #[test]
    fn one_path_has_no_more_than_its_share() {
        let (mut punts, drain, stats) = setup();
        for _ in 0..2000 {
            punts.received(path(1), ReceivedKind::Nhrp, b"flood", Instant::from_nanos(1), &stats);
        }
        assert_eq!(drain.take().count(), 100);
        assert_eq!(stats.get(Counter::DropPuntNhrp), 1900);
    }

    #[test]
    fn a_flood_of_first_messages_holds_up_no_exchange() {
        let (mut punts, drain, stats) = setup();
        let from = |n: u16| SocketAddr::new(IpAddr::from([198, 51, 100, 1]), n);
        let (mut first, mut answered, mut cookie) = ([7; 400], [7; 400], [7; 400]);
        first[8..16].fill(0);
        cookie[8..17].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 41]);
        answered[16] = 46;
        for n in 0..5000 {
            punts.ike(from(n), true, &first, Instant::from_nanos(1), &stats);
        }
        assert_eq!(stats.get(Counter::DropIkeFlood), 5000 - IKE_FIRST as u64);
        punts.ike(from(6000), true, &answered, Instant::from_nanos(1), &stats);
        punts.ike(from(6001), true, &cookie, Instant::from_nanos(1), &stats);
        let seen: Vec<_> = drain.take().take(4).collect();
        for (remote, message) in [(from(6000), answered), (from(6001), cookie)] {
            let message = message.to_vec();
            assert!(seen.contains(&FromDatapath::Ike { remote, nat_traversal: true, message }));
        }
    }

    #[test]
    fn one_source_has_no_more_ike_than_its_share() {
        let (mut punts, drain, stats) = setup();
        let from = SocketAddr::from(([198, 51, 100, 1], 500));
        for _ in 0..1000 {
            punts.ike(from, false, &[7; 28], Instant::from_nanos(1), &stats);
        }
        punts.ike(from, false, &[7; 27], Instant::from_nanos(1), &stats);
        assert_eq!(drain.take().count(), 200);
        assert_eq!((stats.get(Counter::DropIkeFlood), stats.get(Counter::DropBadIke)), (800, 1));
    }

    #[test]
    fn spokes_behind_one_nat_have_a_share_of_ike_each() {
        let (mut punts, drain, stats) = setup();
        for n in 0..40 {
            let from = SocketAddr::from(([198, 51, 100, 1], 40_000 + n));
            for _ in 0..20 {
                punts.ike(from, true, &[7; 28], Instant::from_nanos(1), &stats);
            }
        }
        assert_eq!((drain.take().count(), stats.get(Counter::DropIkeFlood)), (800, 0));
    }

    #[test]
    fn a_next_hop_is_wanted_once_in_100_ms() {
        let (mut punts, drain, stats) = setup();
        let start = Instant::from_nanos(1);
        for ms in [0, 10, 99, 100, 150] {
            let address = IpAddr::from([10, 0, 0, 1]);
            punts.next_hop_wanted(address, start + Duration::from_millis(ms), &stats);
        }
        assert_eq!(drain.take().count(), 2);
    }

    #[test]
    fn nothing_is_kept_for_an_agent_that_is_not_there() {
        let (mut punts, drain, stats) = setup();
        drain.set_attached(false);
        punts.received(path(1), ReceivedKind::Nhrp, b"late", Instant::from_nanos(1), &stats);
        drain.set_attached(true);
        assert_eq!(drain.take().count(), 0);
        assert_eq!(stats.get(Counter::DropNoControl), 1);
    }
}
