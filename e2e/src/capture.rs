//! Packets as they passed an interface, for assertions, and for Wireshark when a story fails.

use crate::decode::{Ip, Payload};
use crate::error::{Error, Result};
use crate::keys::Keyring;
use crate::topology::Node;
use crate::wait;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use pcap_file::pcap::{PcapPacket, PcapWriter};
use std::fs::File;
use std::io::{BufWriter, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Octets kept of each frame: enough for outer IPv6, UDP, ESP, GRE and an NHRP message with all its extensions.
const SNAP: u32 = 600;
/// Octets the kernel may keep for us while this machine is busy.
const QUEUE: usize = 64 << 20;

/// A frame on an interface.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel saw it.
    pub at: Instant,
    /// The interface.
    pub interface: Arc<str>,
    /// It left by the interface; otherwise it came in.
    pub outgoing: bool,
    /// Length on the wire, with the Ethernet header.
    pub length: usize,
    /// The first octets.
    pub data: Box<[u8]>,
    /// What they say, once it was read.
    read: OnceLock<Option<Ip>>,
}

/// A frame whose IP packet was read.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When the kernel saw it.
    pub at: Instant,
    /// The interface.
    pub interface: Arc<str>,
    /// It left by the interface; otherwise it came in.
    pub outgoing: bool,
    /// The outer packet.
    pub ip: Ip,
}

/// A running capture of some interfaces of one node. Dropping it stops it.
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// The same moment on the clock of timestamps and on ours.
    origin: (SystemTime, Instant),
    frames: Mutex<Vec<Frame>>,
    /// Reads what is encrypted.
    keys: Arc<Keyring>,
    /// Every frame until this moment, in nanoseconds since the capture began, is in `frames`.
    complete: AtomicU64,
    stop: AtomicBool,
}

impl Capture {
    /// Captures these interfaces of the node, which must exist.
    pub fn start(node: &Node, interfaces: &[&str]) -> Result<Self> {
        let links = node.namespace().ip_json("link show")?;
        let mut wanted: Vec<(usize, Arc<str>)> = Vec::new();
        for name in interfaces {
            let index = links.as_array().into_iter().flatten().find(|l| l["ifname"] == *name);
            let index = index.and_then(|l| l["ifindex"].as_u64()).and_then(|i| usize::try_from(i).ok());
            let index =
                index.ok_or_else(|| Error::other(format!("{} has no interface {name}", node.name())))?;
            wanted.push((index, Arc::from(*name)));
        }
        let fd = node.namespace().enter(|| open(&wanted))??;
        let origin = (SystemTime::now(), Instant::now());
        let shared = Arc::new(Shared {
            origin,
            frames: Mutex::default(),
            keys: node.keys(),
            complete: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (kept, name) = (Arc::clone(&shared), format!("{}-{}.pcap", node.name(), interfaces.join("-")));
        node.on_failure(move |folder| {
            let path = folder.join(&name);
            match kept.save(&path) {
                Ok(()) => eprintln!("---- captured packets are in {}", path.display()),
                Err(e) => eprintln!("---- {e}"),
            }
        });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || receive(&fd, &wanted, origin, &shared))
        };
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The frames so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        self.lock().clone()
    }

    /// The IP packets so far.
    #[must_use]
    pub fn packets(&self) -> Vec<Packet> {
        self.read(&self.lock()).collect()
    }

    /// The IP packets so far that `wanted` takes.
    pub fn select(&self, wanted: impl Fn(&Packet) -> bool) -> Vec<Packet> {
        self.read(&self.lock()).filter(wanted).collect()
    }

    /// How many packets there are like this.
    pub fn count(&self, wanted: impl Fn(&Packet) -> bool) -> usize {
        self.read(&self.lock()).filter(wanted).count()
    }

    /// Waits for a packet like this, and returns the first.
    pub fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Packet) -> bool,
    ) -> Result<Packet> {
        let mut seen = 0;
        wait::until(what, patience, || {
            let frames = self.lock();
            let found = self.read(&frames[seen..]).find(|p| wanted(p));
            // What can't be read yet is looked at again: its keys may be told a little later.
            let unread = frames[seen..].iter().position(|f| f.read.get().is_none());
            seen = unread.map_or(frames.len(), |first| seen + first);
            found.ok_or_else(|| format!("{seen} other frames"))
        })
    }

    /// Forgets the frames so far.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Writes the frames so far for Wireshark.
    pub fn save(&self, path: &Path) -> Result {
        drop(self.lock());
        self.shared.save(path)
    }

    fn read<'a>(&'a self, frames: &'a [Frame]) -> impl Iterator<Item = Packet> + 'a {
        frames.iter().filter_map(|frame| Packet::of(frame, &self.shared.keys))
    }

    /// The frames, with every one that passed before this call.
    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        let called = nanos_since(self.shared.origin.1);
        let give_up = Instant::now() + Duration::from_secs(2);
        while self.shared.complete.load(Ordering::Acquire) < called && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(1));
        }
        self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn save(&self, path: &Path) -> Result {
        let doing = || format!("write {}", path.display());
        let file = File::create(path).map_err(Error::io(doing()))?;
        let failed = |e: pcap_file::PcapError| Error::other(format!("{}: {e}", doing()));
        let mut writer = PcapWriter::new(BufWriter::new(file)).map_err(failed)?;
        for frame in self.frames.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let time = self.origin.0 + frame.at.saturating_duration_since(self.origin.1);
            let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let length = u32::try_from(frame.length).unwrap_or(u32::MAX);
            writer.write_packet(&PcapPacket::new(time, length, &frame.data)).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Packet {
    fn of(frame: &Frame, keys: &Keyring) -> Option<Self> {
        let ip = match frame.read.get() {
            Some(read) => read.clone(),
            None => {
                let ip = Ip::in_frame(&frame.data, keys);
                if !matches!(ip.as_ref().map(|ip| &ip.payload), Some(Payload::Esp(_))) {
                    let _ = frame.read.set(ip.clone());
                }
                ip
            }
        };
        Some(Self {
            at: frame.at,
            interface: Arc::clone(&frame.interface),
            outgoing: frame.outgoing,
            ip: ip?,
        })
    }
}

/// A packet socket of the calling thread's namespace that takes these interfaces only.
///
/// It is not bound: binding needs an address type that can't be built without unsafe code. A filter on the interface
/// index does the same.
fn open(wanted: &[(usize, Arc<str>)]) -> Result<OwnedFd> {
    let failed = |what: &'static str| move |e: nix::Error| Error::Io { doing: what.into(), source: e.into() };
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .map_err(failed("open a packet socket"))?;
    let refused = Error::io("set up a packet socket");
    let sock = socket2::SockRef::from(&fd);
    sock.attach_filter(&filter(wanted))
        .and_then(|()| sock.set_read_timeout(Some(Duration::from_millis(4))))
        .map_err(refused)?;
    setsockopt(&fd, sockopt::RcvBufForce, &QUEUE).map_err(failed("enlarge a packet socket's queue"))?;
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true).map_err(failed("ask for timestamps"))?;
    Ok(fd)
}

/// Accepts frames of these interfaces, a classic BPF program.
fn filter(wanted: &[(usize, Arc<str>)]) -> Vec<socket2::SockFilter> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// SKF_AD_OFF + SKF_AD_IFINDEX: the kernel's name for "the interface index" among offsets.
    const INTERFACE: u32 = 0xffff_f008;
    let mut program = vec![socket2::SockFilter::new(LOAD_WORD, 0, 0, INTERFACE)];
    for (i, (index, _)) in wanted.iter().enumerate() {
        // On a match skip the remaining comparisons and the refusal.
        let skip = u8::try_from(wanted.len() - i).unwrap_or(u8::MAX);
        program.push(socket2::SockFilter::new(JUMP_EQUAL, skip, 0, u32::try_from(*index).unwrap_or(0)));
    }
    program.push(socket2::SockFilter::new(RETURN, 0, 0, 0));
    program.push(socket2::SockFilter::new(RETURN, 0, 0, SNAP));
    program
}

fn receive(fd: &OwnedFd, wanted: &[(usize, Arc<str>)], origin: (SystemTime, Instant), shared: &Shared) {
    const OUTGOING: u8 = 4; // PACKET_OUTGOING
    let mut buffer = [0u8; SNAP as usize];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    while !shared.stop.load(Ordering::Relaxed) {
        let before = nanos_since(origin.1);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        // TRUNC: the true length is returned, however much was kept.
        let Ok(message) =
            recvmsg::<LinkAddr>(fd.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_TRUNC)
        else {
            // Nothing waits to be read.
            shared.complete.store(before, Ordering::Release);
            continue;
        };
        let length = message.bytes;
        let stamp = message.cmsgs().ok().into_iter().flatten().find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(t) => Some(Duration::from(t)),
            _ => None,
        });
        let Some(address) = message.address else { continue };
        let Some((_, interface)) = wanted.iter().find(|(index, _)| *index == address.ifindex()) else {
            continue;
        };
        let since = stamp.and_then(|t| (UNIX_EPOCH + t).duration_since(origin.0).ok()).unwrap_or_default();
        let frame = Frame {
            at: origin.1 + since,
            interface: Arc::clone(interface),
            outgoing: address.pkttype() == OUTGOING,
            length,
            data: Box::from(&buffer[..length.min(buffer.len())]),
            read: OnceLock::new(),
        };
        shared.frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        shared.complete.store(u64::try_from(since.as_nanos()).unwrap_or(0), Ordering::Release);
    }
}

fn nanos_since(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
