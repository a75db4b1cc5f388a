//! What somebody on the path can send: packets with any source, straight from a raw socket.

use crate::error::{Error, Result};
use crate::topology::Node;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Sends IPv4 packets whose header it writes itself.
pub struct Forger {
    socket: Socket,
}

impl Forger {
    /// One that sends from this node.
    pub fn at(node: &Node) -> Result<Self> {
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            socket.set_header_included_v4(true)?;
            Ok(socket)
        };
        let socket = node.namespace().enter(open)?.map_err(Error::io("open a raw socket"))?;
        Ok(Self { socket })
    }

    /// Sends one packet.
    pub fn send(&self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Result {
        let packet = ipv4(from, to, protocol, payload);
        let to = SocketAddr::from((to, 0));
        self.socket.send_to(&packet, &to.into()).map(drop).map_err(Error::io("send a forged packet"))
    }
}

/// An IPv4 packet. The kernel fills in its length and checksum where it leaves by a raw socket; inside another packet
/// they are as written here.
#[must_use]
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum: u32 = header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

/// A UDP datagram without a checksum.
#[must_use]
pub fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let header = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [&header[..], data].concat()
}

/// An overlay packet in clear, as GRE carries it.
#[must_use]
pub fn gre(inner: &[u8]) -> Vec<u8> {
    [&[0, 0, 8, 0][..], inner].concat()
}

/// A flood under way; it ends when it is dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends `rate` packets a second, each made anew by its number.
    pub fn start(
        forger: Forger,
        rate: u32,
        mut make: impl FnMut(u64) -> (Ipv4Addr, Ipv4Addr, u8, Vec<u8>) + Send + 'static,
    ) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let start = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                let mut number = count.load(Ordering::Relaxed);
                while number < due {
                    let (from, to, protocol, payload) = make(number);
                    // What the kernel refuses was not sent in time, which the count of a story shows.
                    let _ = forger.send(from, to, protocol, &payload);
                    number += 1;
                }
                count.store(number, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
