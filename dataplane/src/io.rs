//! What a worker reads from and writes to, by batches, so that tests can stand in for the kernel.

use crate::stats::{Counter, WorkerStats};
use crate::transmit::Run;
use linux_io::offload::udp_segment;
use linux_io::raw::RawSocket;
use linux_io::udp::{self, UdpSocket};
use linux_io::{Outgoing, Sender, TapQueue};
use packet::{Encapsulation, Path};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// The interface's side.
pub trait Tap {
    /// Reads one frame with its virtio header; `WouldBlock` when there is none.
    ///
    /// # Errors
    /// What the kernel says.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes one frame, its virtio header first.
    ///
    /// # Errors
    /// What the kernel says.
    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()>;
}

/// The underlay's side.
pub trait Underlay {
    /// Sends all `runs`, whose octets are in `buffer`. What can't be sent is counted, not retried.
    fn send(&mut self, buffer: &[u8], runs: &[Run], stats: &WorkerStats);
}

impl Tap for TapQueue {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::read(self, buffer)
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        Self::write(self, pieces)
    }
}

/// One worker's sockets, by IP version and encapsulation.
#[derive(Debug, Default)]
pub struct Sockets {
    /// GRE in UDP, or ESP and IKE.
    pub udp: Vec<(SocketAddr, UdpSocket)>,
    /// Raw GRE, or raw ESP: never both.
    pub raw: Vec<(SocketAddr, RawSocket)>,
    /// IKE alone; the first worker has them.
    pub ike: Vec<(SocketAddr, UdpSocket)>,
    /// Raw GRE that arrives at an encrypted tunnel, only to be counted; the first worker has them.
    pub clear: Vec<RawSocket>,
}

impl Sockets {
    /// The socket packets to `path` leave by.
    #[must_use]
    pub fn towards(&self, path: Path) -> Option<(BorrowedFd<'_>, SocketAddr)> {
        let version = |at: &SocketAddr| at.is_ipv4() == path.remote.is_ipv4();
        match path.encapsulation {
            Encapsulation::Udp { port } => {
                let (_, socket) = self.udp.iter().find(|(at, _)| version(at))?;
                Some((socket.as_fd(), SocketAddr::new(path.remote, port)))
            }
            Encapsulation::Gre => {
                let (_, socket) = self.raw.iter().find(|(at, _)| version(at))?;
                Some((socket.as_fd(), SocketAddr::new(path.remote, 0)))
            }
        }
    }

    /// The socket IKE messages to `remote` leave by.
    #[must_use]
    pub fn for_ike(&self, remote: SocketAddr, nat_traversal: bool) -> Option<BorrowedFd<'_>> {
        let sockets = if nat_traversal { &self.udp } else { &self.ike };
        let found = sockets.iter().find(|(at, _)| at.is_ipv4() == remote.is_ipv4());
        found.map(|(_, socket)| socket.as_fd())
    }
}

/// Sends runs through [`Sockets`]: super-frames where the kernel cuts them, packet by packet where it does not.
pub struct KernelUnderlay {
    sockets: Arc<Sockets>,
    sender: Sender,
    segmenting: bool,
}

impl KernelUnderlay {
    /// Over these sockets.
    #[must_use]
    pub fn new(sockets: Arc<Sockets>) -> Self {
        let segmenting = sockets.udp.iter().all(|(_, socket)| socket.has_segment());
        if !segmenting {
            tracing::info!("UDP_SEGMENT is missing: outer packets are sent one by one");
        }
        Self { sockets, sender: Sender::new(), segmenting }
    }

    /// Sends runs that share a socket, each in one piece. Says how many the kernel took.
    fn send_runs(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &[u8],
        runs: &[Run],
        stats: &WorkerStats,
    ) -> io::Result<usize> {
        let messages = || {
            runs.iter().map(|run| {
                let segment = (run.packets() > 1).then(|| u16::try_from(run.segment).unwrap_or(u16::MAX));
                Outgoing { to: destination(run.path), tos: run.outer.tos, segment, data: octets(buffer, run) }
            })
        };
        stats.count(Counter::Sends);
        // With an error queue, what ICMP said of an earlier packet is told once by the next call, which does nothing
        // else. Only an error that is said twice is about this packet.
        self.sender.send(socket, messages()).or_else(|_| self.sender.send(socket, messages()))
    }

    /// Sends the packets of one run each by itself.
    fn send_packets(&mut self, socket: BorrowedFd<'_>, buffer: &[u8], run: &Run, stats: &WorkerStats) {
        let mut rest = octets(buffer, run);
        while !rest.is_empty() {
            let packets = || {
                let (to, tos) = (destination(run.path), run.outer.tos);
                rest.chunks(run.segment).map(move |data| Outgoing { to, tos, segment: None, data })
            };
            stats.count(Counter::Sends);
            let sent = self.sender.send(socket, packets()).or_else(|_| self.sender.send(socket, packets()));
            let done = sent.unwrap_or_else(|error| {
                stats.count(reason(&error));
                1
            });
            rest = rest.get(done.max(1) * run.segment..).unwrap_or(&[]);
        }
    }

    /// Goes as one piece by UDP?
    const fn is_whole(&self, run: &Run) -> bool {
        run.path.port().is_some() && (self.segmenting || run.packets() == 1)
    }

    /// The first of `runs` was refused.
    fn refused(
        &mut self,
        error: &io::Error,
        socket: BorrowedFd<'_>,
        buffer: &[u8],
        run: &Run,
        stats: &WorkerStats,
    ) {
        if run.packets() > 1 && udp_segment::is_missing(error) {
            tracing::warn!(%error, "UDP_SEGMENT is refused: outer packets are sent one by one from now on");
            self.segmenting = false;
            self.send_packets(socket, buffer, run, stats);
        } else if run.packets() > 1 && reason(error) == Counter::DropTooBig {
            // Larger than our own link takes: a path's MTU, no missing offload. A packet by itself makes the kernel
            // say in the error queue what fits.
            let first = Run { end: run.start + run.segment, ..*run };
            stats.add(Counter::DropTooBig, run.packets() as u64 - 1);
            self.send_packets(socket, buffer, &first, stats);
        } else {
            stats.add(reason(error), run.packets() as u64);
        }
    }
}

impl Underlay for KernelUnderlay {
    fn send(&mut self, buffer: &[u8], runs: &[Run], stats: &WorkerStats) {
        let sockets = self.sockets.clone();
        let mut rest = runs;
        while let Some((first, others)) = rest.split_first() {
            let Some((socket, _)) = sockets.towards(first.path) else {
                stats.add(Counter::DropNoSocket, first.packets() as u64);
                rest = others;
                continue;
            };
            if first.outer.fragmentable {
                let version6 = first.path.remote.is_ipv6();
                udp::allow_fragments(socket, version6, true);
                self.send_packets(socket, buffer, first, stats);
                udp::allow_fragments(socket, version6, false);
                rest = others;
                continue;
            }
            if !self.is_whole(first) {
                self.send_packets(socket, buffer, first, stats);
                rest = others;
                continue;
            }
            let version4 = first.path.remote.is_ipv4();
            let alike = rest
                .iter()
                .take_while(|run| run.path.remote.is_ipv4() == version4 && self.is_whole(run))
                .count();
            let (batch, _) = rest.split_at(alike);
            match self.send_runs(socket, buffer, batch, stats) {
                Ok(sent) => rest = rest.get(sent.max(1)..).unwrap_or(&[]),
                Err(error) => {
                    self.refused(&error, socket, buffer, first, stats);
                    rest = others;
                }
            }
        }
    }
}

const EMSGSIZE: i32 = 90;
const EAGAIN: i32 = 11;
const ENOBUFS: i32 = 105;

fn reason(error: &io::Error) -> Counter {
    match error.raw_os_error() {
        Some(EMSGSIZE) => Counter::DropTooBig,
        Some(EAGAIN | ENOBUFS) => Counter::DropSendQueue,
        _ => Counter::DropSendError,
    }
}

fn destination(path: Path) -> SocketAddr {
    SocketAddr::new(path.remote, path.port().unwrap_or(0))
}

fn octets<'a>(buffer: &'a [u8], run: &Run) -> &'a [u8] {
    buffer.get(run.start..run.end).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transmit::Outer;
    use linux_io::Receiver;
    use linux_io::poll::{self, Ready};
    use std::time::Duration;

    /// Sends runs of these lengths (octets in all, octets of each packet) over loopback; what arrives, and how many
    /// system calls it took.
    fn sent(segmenting: bool, runs: &[(usize, usize)]) -> (Vec<usize>, u64) {
        let socket = || UdpSocket::bind("127.0.0.1:0".parse().unwrap(), 64).unwrap();
        let (from, to) = (socket(), socket());
        let path = Path::udp(to.local().unwrap().ip(), to.local().unwrap().port());
        let local = from.local().unwrap();
        let mut underlay =
            KernelUnderlay::new(Arc::new(Sockets { udp: vec![(local, from)], ..Sockets::default() }));
        underlay.segmenting &= segmenting;
        let mut end = 0;
        let runs: Vec<Run> = runs
            .iter()
            .map(|&(length, segment)| {
                let start = end;
                end += length;
                Run { path, outer: Outer::with_tos(0), start, end, segment }
            })
            .collect();
        let stats = WorkerStats::default();
        underlay.send(&vec![7; end], &runs, &stats);
        let mut receiver = Receiver::new(32);
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < end {
            let mut ready = [Ready::default()];
            poll::wait(&[to.as_fd()], &mut ready, Some(Duration::from_secs(1))).unwrap();
            assert!(ready[0].readable, "{lengths:?} of {end}");
            receiver.receive(&to).unwrap();
            for one in receiver.parts().1 {
                let mut rest = one.length;
                while rest > 0 {
                    lengths.push(rest.min(one.segment));
                    rest -= rest.min(one.segment);
                }
            }
        }
        (lengths, stats.get(Counter::Sends))
    }

    #[test]
    fn all_runs_leave_in_one_call() {
        let expected = vec![1000, 1000, 500, 64, 300, 300];
        assert_eq!(sent(true, &[(2500, 1000), (64, 64), (600, 300)]), (expected, 1));
    }

    #[test]
    fn without_udp_segment_every_packet_is_a_message() {
        let expected = vec![1000, 1000, 500, 64, 300, 300];
        assert_eq!(sent(false, &[(2500, 1000), (64, 64), (600, 300)]), (expected, 3));
    }

    #[test]
    fn a_path_without_a_socket_is_counted() {
        let mut underlay = KernelUnderlay::new(Arc::new(Sockets::default()));
        let stats = WorkerStats::default();
        let outer = Outer::with_tos(0);
        for path in [Path::udp("127.0.0.1".parse().unwrap(), 1), Path::gre("::1".parse().unwrap())] {
            underlay.send(&[0; 300], &[Run { path, outer, start: 0, end: 300, segment: 100 }], &stats);
        }
        assert_eq!((stats.get(Counter::DropNoSocket), stats.get(Counter::Sends)), (6, 0));
    }
}
