//! A UDP flow of numbered packets at a constant rate, each way a flow of its own.

use crate::error::{Error, Result};
use crate::topology::Node;
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::{Timespec, clock_gettime};
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Every packet begins with this, so that a stray packet is not counted.
const MAGIC: [u8; 8] = *b"labflow1";
/// Magic, number, time of sending.
const HEADER: usize = 24;

/// A flow under way. Dropping it stops it.
pub struct Flow {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
    receiver: Option<JoinHandle<()>>,
    name: String,
}

struct Shared {
    stop_sending: AtomicBool,
    paused: AtomicBool,
    stop_receiving: AtomicBool,
    sent: AtomicU64,
    refused: AtomicU64,
    arrivals: Mutex<Vec<Arrival>>,
}

/// A packet that arrived. Times are nanoseconds of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 0.
    pub number: u64,
    /// When it was sent.
    pub sent: u64,
    /// When it was read.
    pub arrived: u64,
}

impl Arrival {
    /// How long it took.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        Duration::from_nanos(self.arrived.saturating_sub(self.sent))
    }
}

impl Flow {
    /// Sends `rate` packets a second of `payload` octets from one host's address to the other's, both ends on `port`.
    pub fn start(
        from: (&Node, &str),
        to: (&Node, &str),
        port: u16,
        rate: u32,
        payload: usize,
    ) -> Result<Self> {
        let name = format!("{} -> {}", from.1, to.1);
        let parse = |a: &str| a.parse::<IpAddr>().map_err(|e| Error::other(format!("{a}: {e}")));
        let source = SocketAddr::new(parse(from.1)?, port);
        let destination = SocketAddr::new(parse(to.1)?, port);
        let input = to.0.namespace().enter(|| bind(destination))??;
        let output = from.0.namespace().enter(|| bind(source))??;
        let shared = Arc::new(Shared {
            stop_sending: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            stop_receiving: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            arrivals: Mutex::default(),
        });
        let receiver = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || receive(&input, &shared))
        };
        let sender = {
            let shared = Arc::clone(&shared);
            let payload = payload.max(HEADER);
            thread::spawn(move || send(&output, destination, rate, payload, &shared))
        };
        Ok(Self { shared, sender: Some(sender), receiver: Some(receiver), name })
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Packets that arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Sends nothing for a while; numbers go on afterwards.
    pub fn pause(&self, yes: bool) {
        self.shared.paused.store(yes, Ordering::Relaxed);
    }

    /// Stops sending, gives the last packets a second to arrive, and tells what happened.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
        thread::sleep(Duration::from_secs(1));
        self.halt();
        let arrivals =
            std::mem::take(&mut *self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner));
        let refused = self.shared.refused.load(Ordering::Relaxed);
        Report::new(self.name.clone(), self.sent(), refused, arrivals)
    }

    fn halt(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        for thread in [self.sender.take(), self.receiver.take()].into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.halt();
    }
}

/// What became of a flow.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    /// Packets sent.
    pub sent: u64,
    /// Of these, the sending host's own kernel refused so many.
    pub refused: u64,
    /// Packets that arrived, each once.
    pub received: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Arrivals of a packet that had arrived before.
    pub duplicated: u64,
    /// Arrivals after a packet that was sent later.
    pub reordered: u64,
    /// Runs of lost packets: first number, how many.
    pub holes: Vec<(u64, u64)>,
    /// The longest time without an arrival.
    pub longest_gap: Duration,
    /// All arrivals, in order of arrival.
    pub arrivals: Vec<Arrival>,
}

impl Report {
    fn new(name: String, sent: u64, refused: u64, arrivals: Vec<Arrival>) -> Self {
        let mut seen = vec![false; usize::try_from(sent).unwrap_or(0)];
        let (mut received, mut duplicated, mut reordered, mut highest) = (0, 0, 0, None);
        for arrival in &arrivals {
            let Some(slot) = usize::try_from(arrival.number).ok().and_then(|n| seen.get_mut(n)) else {
                continue;
            };
            if std::mem::replace(slot, true) {
                duplicated += 1;
                continue;
            }
            received += 1;
            reordered += u64::from(highest.is_some_and(|h| arrival.number < h));
            highest = highest.max(Some(arrival.number));
        }
        let longest_gap =
            arrivals.windows(2).map(|w| w[1].arrived.saturating_sub(w[0].arrived)).max().unwrap_or(0);
        Self {
            name,
            sent,
            refused,
            received,
            lost: sent - received,
            duplicated,
            reordered,
            holes: holes(&seen),
            longest_gap: Duration::from_nanos(longest_gap),
            arrivals,
        }
    }

    /// Panics, with the whole report, unless every packet arrived once.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        assert!(self.sent > 0 && self.lost == 0 && self.duplicated == 0, "{self}");
    }

    /// Arrivals out of order that no change of path explains. A delay of `slow` or more tells that a packet came by the
    /// slower of two paths, overtaken by packets on the faster one. And within `settling` of such packets the flow has
    /// just changed its path, and with it maybe its lane: it is with other workers then, at both ends.
    #[must_use]
    pub fn late_for_no_reason(&self, slow: Duration, settling: Duration) -> Vec<Arrival> {
        let mut slowly: Vec<u64> =
            self.arrivals.iter().filter(|a| a.delay() >= slow).map(|a| a.sent).collect();
        slowly.sort_unstable();
        let settling = u64::try_from(settling.as_nanos()).unwrap_or(u64::MAX);
        let explained = |late: &Arrival| {
            let next = slowly.partition_point(|sent| sent.saturating_add(settling) < late.sent);
            slowly.get(next).is_some_and(|sent| *sent <= late.sent.saturating_add(settling))
        };
        self.late().filter(|late| !explained(late)).copied().collect()
    }

    /// Arrivals after a packet that was sent later.
    fn late(&self) -> impl Iterator<Item = &Arrival> {
        self.arrivals
            .iter()
            .scan(None, |highest: &mut Option<u64>, arrival| {
                let late = highest.is_some_and(|h| arrival.number < h);
                *highest = (*highest).max(Some(arrival.number));
                Some(late.then_some(arrival))
            })
            .flatten()
    }

    /// The middle one of the delays of packets sent within this span of the flow, counted from its start.
    #[must_use]
    pub fn median_delay(&self, from: Duration, to: Duration) -> Option<Duration> {
        let start = self.arrivals.iter().map(|a| a.sent).min()?;
        let within = |a: &&Arrival| {
            let at = Duration::from_nanos(a.sent - start);
            at >= from && at < to
        };
        let mut delays: Vec<Duration> = self.arrivals.iter().filter(within).map(Arrival::delay).collect();
        delays.sort_unstable();
        delays.get(delays.len() / 2).copied()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} sent, {} lost, {} duplicated, {} reordered, longest gap {:.1?}",
            self.name, self.sent, self.lost, self.duplicated, self.reordered, self.longest_gap
        )?;
        if self.reordered > 0 {
            let late: Vec<_> = self.late().take(5).map(|a| (a.number, a.delay())).collect();
            write!(f, " (number and delay of the first: {late:.1?})")?;
        }
        if self.refused > 0 {
            write!(f, ", {} refused by the sender's kernel", self.refused)?;
        }
        if !self.holes.is_empty() {
            write!(f, "; lost, first number and how many: {:?}", &self.holes[..self.holes.len().min(20)])?;
        }
        Ok(())
    }
}

fn holes(seen: &[bool]) -> Vec<(u64, u64)> {
    let mut holes: Vec<(u64, u64)> = Vec::new();
    for (number, _) in seen.iter().enumerate().filter(|(_, seen)| !**seen) {
        let number = number as u64;
        match holes.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => holes.push((number, 1)),
        }
    }
    holes
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).map_err(Error::io(format!("bind {address}")))?;
    socket.set_read_timeout(Some(Duration::from_millis(20))).map_err(Error::io("set a timeout"))?;
    // Losses shall be the network's, not those of a reader that slept.
    set_socket_recv_buffer_size_force(&socket, 32 << 20)
        .and_then(|()| set_socket_send_buffer_size_force(&socket, 8 << 20))
        .map_err(Error::sys("enlarge a socket's buffers"))?;
    Ok(socket)
}

fn send(socket: &UdpSocket, to: SocketAddr, rate: u32, payload: usize, shared: &Shared) {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let interval = 1_000_000_000 / u64::from(rate.max(1));
    let mut start = now();
    let mut packet = vec![0u8; payload];
    packet[..8].copy_from_slice(&MAGIC);
    for number in 0u64.. {
        sleep_until(start + number * interval);
        while shared.paused.load(Ordering::Relaxed) && !shared.stop_sending.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
            start = now() - number * interval;
        }
        if shared.stop_sending.load(Ordering::Relaxed) {
            return;
        }
        packet[8..16].copy_from_slice(&number.to_be_bytes());
        packet[16..24].copy_from_slice(&now().to_be_bytes());
        if socket.send_to(&packet, to).is_err() {
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        shared.sent.store(number + 1, Ordering::Relaxed);
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        // What waits here has arrived: on a busy machine this thread may be late, and that is no loss.
        let stopped = shared.stop_receiving.load(Ordering::Relaxed);
        let Ok(length) = socket.recv(&mut buffer) else {
            if stopped {
                return;
            }
            continue;
        };
        let arrived = now();
        let Some(Ok(fields)) = buffer[..length].get(..HEADER).map(<[u8; HEADER]>::try_from) else { continue };
        if fields[..8] != MAGIC {
            continue;
        }
        let field = |at: usize| fields[at..at + 8].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let arrival = Arrival { number: field(8), sent: field(16), arrived };
        shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
    }
}

/// Nanoseconds of the monotonic clock, the same in every namespace.
fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

fn sleep_until(nanos: u64) {
    let at = Timespec {
        tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
    };
    while clock_nanosleep_absolute(ClockId::Monotonic, &at).is_err() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sent: u64, numbers: &[(u64, u64)]) -> Report {
        let arrival = |(i, &(number, delay)): (usize, &(u64, u64))| {
            let arrived = 1_000_000 * (i as u64 + 100);
            Arrival { number, sent: arrived - delay * 1_000_000, arrived }
        };
        Report::new("a -> b".into(), sent, 0, numbers.iter().enumerate().map(arrival).collect())
    }

    #[test]
    fn every_fate_of_a_packet_is_counted_once() {
        let report = report(6, &[(0, 30), (2, 10), (1, 30), (2, 10), (5, 10)]);
        assert_eq!((report.received, report.lost, report.duplicated, report.reordered), (4, 2, 1, 1));
        assert_eq!(report.holes, [(3, 2)]);
        let unexplained = |slow, settling| {
            let late =
                report.late_for_no_reason(Duration::from_millis(slow), Duration::from_millis(settling));
            late.iter().map(|arrival| arrival.number).collect::<Vec<_>>()
        };
        assert_eq!(unexplained(20, 0), [0u64; 0]);
        assert_eq!(unexplained(40, 1000), [1]);
    }

    #[test]
    fn a_change_of_path_explains_what_was_sent_soon_before_or_after() {
        // Number 0 went slowly 23 ms before number 1 went fast, and was overtaken all the same.
        let report = report(3, &[(0, 30), (2, 10), (1, 9)]);
        let unexplained = |settling| {
            report.late_for_no_reason(Duration::from_millis(25), Duration::from_millis(settling)).len()
        };
        assert_eq!([0, 22, 23].map(unexplained), [1, 1, 0]);
    }
}
