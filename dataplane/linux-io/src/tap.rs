//! The queues of the tunnel interface: a multi-queue TAP whose frames carry a virtio header.

use crate::offload::tap_segmentation::{self, TapOffloads};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use tun::AbstractDevice;

/// Octets before each frame: `struct virtio_net_hdr`.
pub const VNET_HEADER: usize = 10;

/// One queue: frames go in and out with a [`VNET_HEADER`] before them, without blocking.
pub struct TapQueue {
    device: tun::Device,
    offloads: TapOffloads,
}

impl TapQueue {
    /// Opens one more queue of the interface `name`, which is made if it is not there and then stays until
    /// it is [released](Self::release). At most 256 queues; a queue belongs to the network namespace it was opened in.
    ///
    /// # Errors
    /// What the kernel says: no `/dev/net/tun`, no permission, a name that is too long or taken by another kind
    /// of interface.
    pub fn open(name: &str) -> io::Result<Self> {
        // The `tun` crate makes single-queue devices only, so the queue is made here and handed to it.
        let mut queue = Self::adopt(name, attach(name)?)?;
        queue.device.persist().map_err(io::Error::from)?;
        Ok(queue)
    }

    /// A queue of the interface `name` that another process opened.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt(name: &str, descriptor: OwnedFd) -> io::Result<Self> {
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(name).layer(tun::Layer::L2).raw_fd(descriptor.into_raw_fd());
        let device = tun::create(&configuration).map_err(io::Error::from)?;
        device.set_nonblock()?;
        let mut queue = Self { device, offloads: TapOffloads { checksum: false, tso: false, uso: false } };
        queue.offloads = tap_segmentation::enable(&queue);
        Ok(queue)
    }

    /// What the kernel granted.
    #[must_use]
    pub const fn offloads(&self) -> TapOffloads {
        self.offloads
    }

    /// Interface name.
    ///
    /// # Errors
    /// Never on Linux; the `tun` crate's signature has one.
    pub fn name(&self) -> io::Result<String> {
        self.device.tun_name().map_err(io::Error::from)
    }

    /// Reads one frame with its virtio header. `WouldBlock` when there is none.
    ///
    /// # Errors
    /// `WouldBlock`, or what the kernel says; EBADFD when the interface was deleted.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self, buffer)?)
    }

    /// Writes one frame, its virtio header first, gathered from `pieces`.
    ///
    /// # Errors
    /// What the kernel says: EINVAL for a frame whose header it doesn't like, EIO when the interface is down.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(self, pieces)?;
        Ok(())
    }

    /// Is the interface still there? A queue outlives an interface that somebody deleted, and is of no use then.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
        // SAFETY: TUNGETIFF writes a `struct ifreq`, which `InterfaceRequest` has the size and layout of.
        unsafe { ioctl(self, Updater::<TUNGETIFF, InterfaceRequest>::new(&mut request)) }.is_ok()
    }

    /// Lets the interface vanish with its last queue.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release(&self) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes its flag as the argument itself, no pointer.
        unsafe { ioctl(self, IntegerSetter::<TUNSETPERSIST>::new_usize(0))? };
        Ok(())
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `device` owns the descriptor and keeps it open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
    }
}

const TUNSETIFF: Opcode = libc::TUNSETIFF as Opcode;
const TUNGETIFF: Opcode = libc::TUNGETIFF as Opcode;
const TUNSETPERSIST: Opcode = libc::TUNSETPERSIST as Opcode;

/// `struct ifreq` with flags as its union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

fn attach(name: &str) -> io::Result<OwnedFd> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['\0', '/', '%']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name of an interface"));
    }
    let descriptor = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: flags as i16, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `InterfaceRequest` has the size and layout of.
    unsafe { ioctl(&descriptor, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request))? };
    Ok(descriptor)
}
