//! `recvmmsg(2)`: many packets, or many glued super-frames, in one system call, into one buffer.

use crate::cmsg::Control;
use socket2::{SockAddr, SockAddrStorage};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Octets of one message: the largest IP packet, and what UDP_GRO may glue.
pub const MESSAGE: usize = 65_535;

/// Distance between the messages in the buffer. Not a multiple of a page, so that the beginnings of messages don't
/// compete for the same lines of the cache.
const STRIDE: usize = (MESSAGE + 1) + 33 * 64;

type ReceiveControl = Control<128>;

/// Where one message lies in the buffer, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Its first octet.
    pub start: usize,
    /// How many octets.
    pub length: usize,
    /// Who sent it; port 0 on raw sockets.
    pub from: SocketAddr,
    /// Datagrams of this size (the last may be shorter); `length` when it is one.
    pub segment: usize,
    /// Type of service or traffic class of the outer header.
    pub tos: u8,
}

/// Buffers and headers for one `recvmmsg`, made once and used for ever. Memory that is never filled is never
/// touched.
pub struct Receiver {
    buffer: Vec<u8>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<SockAddrStorage>,
    controls: Vec<ReceiveControl>,
    arrived: Vec<Arrived>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are written anew by each call of `receive` and read by
// nothing after it, so that they carry nothing from thread to thread.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Room for `messages` at once.
    #[must_use]
    pub fn new(messages: usize) -> Self {
        let header = libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: ptr::null_mut(),
                msg_iovlen: 0,
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        };
        Self {
            buffer: vec![0; messages * STRIDE],
            headers: vec![header; messages],
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; messages],
            names: (0..messages).map(|_| SockAddrStorage::zeroed()).collect(),
            controls: vec![ReceiveControl::new(); messages],
            arrived: Vec::with_capacity(messages),
        }
    }

    /// Receives what is there, without blocking, and says how many messages that is. Those before are forgotten.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing, or what the kernel says; an error of an earlier send may be told here.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.arrived.clear();
        let parts =
            self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.names).zip(&mut self.controls);
        for ((((header, vector), name), control), room) in parts.zip(self.buffer.chunks_exact_mut(STRIDE)) {
            *vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: MESSAGE };
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = name.size_of();
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = 128;
            header.msg_flags = 0;
        }
        // SAFETY: every header points to a name, a vector and a control buffer of `self`, and every vector to
        // MESSAGE octets of `buffer` that no other one covers, all with the lengths told; nothing else touches them
        // before the call returns.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for i in 0..count {
            let header = &self.headers[i];
            let name = std::mem::replace(&mut self.names[i], SockAddrStorage::zeroed());
            // SAFETY: the kernel wrote an address of `msg_namelen` octets to it.
            let name = unsafe { SockAddr::new(name, header.msg_hdr.msg_namelen) };
            let length = (header.msg_len as usize).min(MESSAGE);
            let mut arrived = Arrived {
                start: i * STRIDE,
                length,
                from: name.as_socket().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
                segment: length,
                tos: 0,
            };
            for message in self.controls[i].messages(header.msg_hdr.msg_controllen) {
                let Some(value) = message.int() else { continue };
                match (message.level, message.kind) {
                    (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                        arrived.tos = value as u8;
                    }
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        arrived.segment = usize::try_from(value).ok().filter(|s| *s > 0).unwrap_or(length);
                    }
                    _ => {}
                }
            }
            self.arrived.push(arrived);
        }
        Ok(count)
    }

    /// The most messages it receives at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// The buffer, and where the messages of the last [`Self::receive`] lie in it.
    pub fn parts(&mut self) -> (&mut [u8], &[Arrived]) {
        (&mut self.buffer, &self.arrived)
    }
}
