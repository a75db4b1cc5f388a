//! `sendmmsg(2)`: many packets, or many super-frames, in one system call.

use crate::cmsg::Control;
use socket2::SockAddr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// The most messages one call takes.
pub const MAX_MESSAGES: usize = 64;

/// Two control messages: an `int` of traffic class and a segment size.
type SendControl = Control<64>;

/// One message to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to; port 0 on raw sockets.
    pub to: SocketAddr,
    /// Type of service or traffic class of the outer header: DSCP and ECN.
    pub tos: u8,
    /// Cut `data` into datagrams of this size (UDP_SEGMENT). `None`: it is one packet.
    pub segment: Option<u16>,
    /// From the UDP payload, or the GRE header, on.
    pub data: &'a [u8],
}

/// Room for the headers of one `sendmmsg`, made once and used for ever.
pub struct Sender {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<SockAddr>,
    controls: Vec<SendControl>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are written anew by each call of `send` and read by nothing
// after it, so that they carry nothing from thread to thread.
unsafe impl Send for Sender {}

impl Sender {
    /// Room for [`MAX_MESSAGES`].
    #[must_use]
    pub fn new() -> Self {
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
            headers: vec![header; MAX_MESSAGES],
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MAX_MESSAGES],
            names: Vec::with_capacity(MAX_MESSAGES),
            controls: vec![SendControl::new(); MAX_MESSAGES],
        }
    }

    /// Sends the first [`MAX_MESSAGES`] of `messages` without blocking and says how many the kernel took. When it
    /// stopped at one, the next call, beginning with that one, tells why.
    ///
    /// # Errors
    /// What the kernel says about the first message.
    pub fn send<'a>(
        &mut self,
        socket: impl AsFd,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        self.names.clear();
        let mut count = 0;
        for (message, ((header, vector), control)) in
            messages.zip(self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.controls))
        {
            control.clear();
            if message.tos != 0 {
                let (level, kind) = match message.to {
                    SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                    SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
                };
                control.push(level, kind, &i32::from(message.tos).to_ne_bytes());
            }
            if let Some(segment) = message.segment {
                control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
            }
            self.names.push(SockAddr::from(message.to));
            *vector = libc::iovec {
                iov_base: message.data.as_ptr().cast_mut().cast(),
                iov_len: message.data.len(),
            };
            let header = &mut header.msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control =
                if control.len() == 0 { ptr::null_mut() } else { control.as_mut_ptr().cast() };
            header.msg_controllen = control.len() as _;
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        // `names` no longer moves, so that its elements may be pointed to.
        for (header, name) in self.headers.iter_mut().zip(&self.names) {
            header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = name.len();
        }
        // SAFETY: the first `count` headers point to names, vectors and controls that `self` owns and that are not
        // touched before the call returns, and the vectors to data borrowed for 'a, which outlives the call; the
        // kernel only reads all of it, but for `msg_len`, which lies in `headers`.
        let sent = unsafe {
            libc::sendmmsg(socket.as_fd().as_raw_fd(), self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}
