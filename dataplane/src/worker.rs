//! One thread, which owns a queue of the interface and a set of sockets, and runs every packet to completion.
//!
//! It sleeps until one of them has something, then takes from each in turn no more than a budget, so that a flood at
//! one does not starve the others.

use crate::exchange::{Exchange, Port};
use crate::inbound::{self, Source, ToKernel};
use crate::io::{KernelUnderlay, Sockets, Tap};
use crate::lane::Lane;
use crate::opening;
use crate::outbound;
use crate::punt::Punts;
use crate::sa::Sas;
use crate::stats::{Counter, WorkerStats};
use crate::tables::Tables;
use arc_swap::ArcSwap;
use linux_io::poll::{self, Ready};
use linux_io::raw::Carries;
use linux_io::{PathErrors, Receiver, TapQueue};
use packet::coalesce::Offloads;
use packet::{Instant, Path, gre, vnet};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Frames taken from the interface before the others have their turn.
const FRAMES: usize = 64;
/// Messages taken from a UDP socket at once; each may be 64 KiB of glued datagrams.
const UDP_MESSAGES: usize = 16;
/// Messages taken from a raw socket, or one of IKE, at once.
const RAW_MESSAGES: usize = 64;
/// Receives from one socket before the others have their turn.
const RECEIVES: usize = 2;
/// Batches of other workers taken before the others have their turn.
const HANDED: usize = 16;
/// Entries taken from an error queue at once.
const ERRORS: usize = 32;

/// The longest read of the interface: headers, and a packet of any length.
const FRAME: usize = vnet::HEADER_LEN + packet::eth::HEADER_LEN + 65_536;

/// What a worker is made of.
pub struct Parts {
    /// Its number, from 0.
    pub number: usize,
    /// The ports of all workers of the tunnel.
    pub ports: Arc<[Port]>,
    /// Its SAs; `None` in a tunnel that is not encrypted.
    pub sas: Option<Sas>,
    /// Its queue.
    pub tap: Arc<TapQueue>,
    /// Its sockets.
    pub sockets: Arc<Sockets>,
    /// What it looks up.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Its way to the agent.
    pub punts: Punts,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
}

/// A running worker.
pub struct Handle {
    thread: Option<JoinHandle<Sas>>,
    stop: Arc<AtomicBool>,
    ports: Arc<[Port]>,
    number: usize,
}

impl Handle {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the process is out of threads.
    pub fn start(parts: Parts, name: &str) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ports, number) = (parts.ports.clone(), parts.number);
        let worker = Worker::new(parts, stop.clone());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || worker.run())?;
        Ok(Self { thread: Some(thread), stop, ports, number })
    }

    /// What control tells this worker by.
    #[must_use]
    pub fn port(&self) -> Option<&Port> {
        self.ports.get(self.number)
    }

    /// Ends the thread, and waits for it: afterwards nobody uses its queue, its sockets, or the SAs it gives back.
    #[must_use]
    pub fn stop(mut self) -> Sas {
        self.end()
    }

    fn end(&mut self) -> Sas {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(port) = self.port() {
            port.bell.waker().wake();
        }
        let ended = self.thread.take().map(JoinHandle::join);
        ended.unwrap_or_else(|| Ok(Sas::default())).unwrap_or_else(|_| {
            tracing::error!("a worker panicked; its SAs are lost");
            Sas::default()
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    lane: Lane<Arc<TapQueue>, KernelUnderlay>,
    tap: Arc<TapQueue>,
    sockets: Arc<Sockets>,
    tables: Arc<ArcSwap<Tables>>,
    stop: Arc<AtomicBool>,
    ports: Arc<[Port]>,
    number: usize,
    to_kernel: ToKernel,
    frame: Vec<u8>,
    udp: Receiver,
    raw: Receiver,
    /// The interface still takes and gives frames.
    tap_works: bool,
}

impl Tap for Arc<TapQueue> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        TapQueue::read(self, buffer)
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        TapQueue::write(self, pieces)
    }
}

impl Worker {
    fn new(parts: Parts, stop: Arc<AtomicBool>) -> Self {
        let granted = parts.tap.offloads();
        let offloads = Offloads { tcp4: granted.tso, tcp6: granted.tso, udp: granted.uso };
        let underlay = KernelUnderlay::new(parts.sockets.clone());
        let exchange = Exchange::new(parts.number, parts.ports.clone(), parts.sas.is_some());
        Self {
            lane: Lane::new(exchange, parts.sas, parts.tap.clone(), underlay, parts.punts, parts.stats),
            tap: parts.tap,
            sockets: parts.sockets,
            tables: parts.tables,
            stop,
            ports: parts.ports,
            number: parts.number,
            to_kernel: ToKernel::new(offloads),
            frame: vec![0; FRAME],
            udp: Receiver::new(UDP_MESSAGES),
            raw: Receiver::new(RAW_MESSAGES),
            tap_works: true,
        }
    }

    fn run(mut self) -> Sas {
        let (sockets, tap, ports) = (self.sockets.clone(), self.tap.clone(), self.ports.clone());
        let Some(port) = ports.get(self.number) else { return self.lane.into_sas() };
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![port.bell.waker().as_fd()];
        descriptors.extend(sockets.udp.iter().chain(&sockets.ike).map(|(_, socket)| socket.as_fd()));
        descriptors.extend(sockets.raw.iter().map(|(_, socket)| socket.as_fd()));
        descriptors.extend(sockets.clear.iter().map(AsFd::as_fd));
        descriptors.push(tap.as_fd());
        let mut ready = [Ready::default(); poll::MAX_DESCRIPTORS];
        while !self.stop.load(Ordering::Relaxed) {
            // Without its interface (somebody deleted it) a worker still answers probes and feeds the agent.
            let count = descriptors.len() - usize::from(!self.tap_works);
            let Some(ready) = ready.get_mut(..count) else { break };
            if let Err(error) = poll::wait(&descriptors[..count], ready, None) {
                tracing::error!(%error, "a worker can't wait for packets");
                break;
            }
            self.round(port, &sockets, ready);
        }
        self.lane.into_sas()
    }

    /// One turn for everything that is ready.
    fn round(&mut self, port: &Port, sockets: &Sockets, ready: &[Ready]) {
        let tables = self.tables.clone();
        let tables = tables.load();
        self.lane.now = Instant::from_nanos(poll::now());
        let mut ready = ready.iter();
        if ready.next().is_some_and(|waker| waker.readable) {
            port.bell.hush();
        }
        for order in port.mailbox.take().into_iter().flatten() {
            self.lane.obey(&tables, order);
        }
        self.take_handed(&tables, port);
        let ike = sockets.ike.iter().map(|(_, socket)| (socket, Source::Ike));
        for (socket, source) in sockets.udp.iter().map(|(_, socket)| (socket, Source::Udp)).chain(ike) {
            let Some(ready) = ready.next() else { return };
            if ready.error {
                self.path_errors(&tables, socket.as_fd(), source);
            }
            if ready.readable {
                self.receive(&tables, socket.as_fd(), source);
            }
        }
        for socket in sockets.raw.iter().map(|(_, socket)| socket).chain(&sockets.clear) {
            let Some(ready) = ready.next() else { return };
            let source = match (socket.carries(), socket.delivers_header()) {
                (Carries::Gre, true) => Source::GreV4,
                (Carries::Gre, false) => Source::GreV6,
                (Carries::Esp, true) => Source::EspV4,
                (Carries::Esp, false) => Source::EspV6,
            };
            if ready.error {
                self.path_errors(&tables, socket.as_fd(), source);
            }
            if ready.readable {
                self.receive(&tables, socket.as_fd(), source);
            }
        }
        if ready.next().is_some_and(|tap| tap.readable || tap.error) {
            self.read_frames(&tables);
        }
        self.lane.flush_all();
        self.lane.punts.ring();
    }

    /// Seals and opens what other workers handed over.
    fn take_handed(&mut self, tables: &Tables, port: &Port) {
        for _ in 0..HANDED {
            let Some(mut batch) = self.lane.exchange.take() else { return };
            opening::handed(&mut self.lane, tables, &mut self.to_kernel, &mut batch);
            self.lane.exchange.give_back(batch);
            self.lane.flush();
        }
        // There may be more.
        port.bell.ring();
    }

    fn receive(&mut self, tables: &Tables, socket: BorrowedFd<'_>, source: Source) {
        let receiver = if source == Source::Udp { &mut self.udp } else { &mut self.raw };
        for _ in 0..RECEIVES {
            // An error is that of an earlier packet, and its details are in the error queue; or there is nothing.
            let Ok(count) = receiver.receive(socket) else { return };
            let (buffer, arrived) = receiver.parts();
            inbound::datagrams(&mut self.lane, tables, &mut self.to_kernel, source, buffer, arrived);
            self.lane.flush_all();
            if count < receiver.capacity() {
                return;
            }
        }
    }

    fn read_frames(&mut self, tables: &Tables) {
        for _ in 0..FRAMES {
            match self.lane.tap.read(&mut self.frame) {
                Ok(length) => {
                    let read = self.frame.get(..length).unwrap_or_default();
                    outbound::frame(&mut self.lane, tables, read);
                    self.lane.flush_early();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "the interface is gone; configure the tunnel again to make a new one");
                    self.tap_works = false;
                    return;
                }
            }
        }
    }

    /// What ICMP, or our own kernel, says of packets we sent. "Too big" is acted on here; that nobody listens at the other
    /// end makes the agent look by its probes.
    fn path_errors(&mut self, tables: &Tables, socket: BorrowedFd<'_>, source: Source) {
        let udp = source == Source::Udp;
        let encrypted = self.lane.is_encrypted();
        for error in PathErrors::of(socket).take(ERRORS) {
            // What was wrong with an IKE message, retransmissions find out.
            if source == Source::Ike {
                continue;
            }
            let meant = |path: Path| {
                let port = if error.local { path.port() } else { udp.then_some(error.port) };
                let there = path.remote == error.to && path.port().is_some() == udp && path.port() == port;
                there && (error.local || quotes_us(tables, encrypted, path, error.quote()))
            };
            let lane = &mut self.lane;
            if let Some(mtu) = error.mtu {
                too_big(&mut lane.punts, tables, meant, mtu, lane.now, &lane.stats);
            } else if error.refused {
                nobody_there(&mut lane.punts, tables, meant, lane.now, &lane.stats);
            }
        }
    }
}

/// Does the error quote a packet of ours? The kernel has compared addresses and ports; this compares our GRE header, or
/// the SPI, which nobody knows who did not see our packets.
fn quotes_us(tables: &Tables, encrypted: bool, path: Path, quote: &[u8]) -> bool {
    if encrypted {
        return esp::spi_of(quote).is_some_and(|spi| tables.outbound.sends_by(path, spi));
    }
    let mut header = [0; gre::MAX_ENCODED_LEN];
    [gre::Protocol::IPV4, gre::Protocol::IPV6, gre::Protocol::NHRP].into_iter().any(|protocol| {
        let length = gre::encoded_len(tables.tunnel.key);
        let written = gre::encode(&mut header, length, protocol, tables.tunnel.key);
        written.is_ok() && quote.starts_with(header.get(..length).unwrap_or_default())
    })
}

fn too_big(
    punts: &mut Punts,
    tables: &Tables,
    meant: impl Fn(Path) -> bool,
    mtu: u32,
    now: Instant,
    stats: &WorkerStats,
) {
    // Rare enough to look at every peer.
    for row in tables.peers.iter() {
        let Some(path) = row.peer.send.filter(|path| meant(*path)) else { continue };
        if let Some(mtu) = row.path_mtu.set(path, mtu, now) {
            let inner = tables.inner_mtu(row, path, now);
            tracing::debug!(%path, mtu, inner, "the path is narrower than its link");
            stats.count(Counter::PathErrors);
            punts.path_mtu(path, (mtu, inner), stats);
        }
    }
}

fn nobody_there(
    punts: &mut Punts,
    tables: &Tables,
    meant: impl Fn(Path) -> bool,
    now: Instant,
    stats: &WorkerStats,
) {
    for path in tables.peers.iter().filter_map(|row| row.peer.send).filter(|path| meant(*path)) {
        stats.count(Counter::PathErrors);
        punts.nobody_there(path, now, stats);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn an_error_is_believed_if_it_quotes_what_only_we_sent() {
        let mut bench = Bench::encrypted(esp::Suite::Aes128Gcm16);
        bench.kernel_sends(id(1).mac(), &packet(OWN, "10.200.0.11", 100));
        let (_, sealed) = bench.sent_raw().remove(0);
        let clear = gre(gre::Protocol::IPV4, KEY, &packet(OWN, "10.200.0.11", 100));
        let believes = |encrypted, path, quote: &[u8]| quotes_us(&bench.tables, encrypted, path, quote);
        assert!(believes(true, path(1), &sealed[..8]));
        assert!(!believes(true, path(2), &sealed[..8]), "another path's SPI");
        assert!(!believes(true, path(1), &sealed[..7]));
        assert!(!believes(true, path(1), &clear));
        assert!(believes(false, path(1), &clear));
        assert!(!believes(false, path(1), &sealed));
    }
}
