//! The error queue of a socket (`IP_RECVERR`): what ICMP, or our own kernel, says of packets we sent. The kernel
//! matches an ICMP error to the socket by the addresses and ports it quotes, and hands us the quoted payload.

use crate::cmsg::Control;
use crate::sockopt;
use socket2::{SockAddr, SockAddrStorage};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Octets of a quoted packet that are kept.
pub const QUOTE: usize = 64;

/// What happened to a packet of ours.
#[derive(Clone, Copy, Debug)]
pub struct PathError {
    /// Where it was sent to.
    pub to: IpAddr,
    /// Port it was sent to; 0 on raw sockets, and in what our own kernel says.
    pub port: u16,
    /// `Some`: a packet was too big, and this is what the path, or our own interface, takes: octets of the outer
    /// packet. `None`: something else.
    pub mtu: Option<u32>,
    /// Nobody listens there: the port is closed, or the protocol unknown.
    pub refused: bool,
    /// Our own kernel said so: nobody can have forged it.
    pub local: bool,
    quote: [u8; QUOTE],
    quoted: usize,
}

impl PathError {
    /// The quoted packet from its UDP payload, or GRE header, on.
    #[must_use]
    pub fn quote(&self) -> &[u8] {
        &self.quote[..self.quoted]
    }
}

/// Switches the error queue on.
///
/// # Errors
/// What the kernel says.
pub(crate) fn enable(socket: impl AsFd, version6: bool) -> io::Result<()> {
    if version6 {
        sockopt::set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        sockopt::set_int(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    }
}

/// Iterator over a socket's error queue, without blocking; ends when it is empty.
pub struct PathErrors<S> {
    socket: S,
}

impl<S: AsFd> PathErrors<S> {
    /// The errors waiting at `socket`.
    pub const fn of(socket: S) -> Self {
        Self { socket }
    }
}

impl<S: AsFd> Iterator for PathErrors<S> {
    type Item = PathError;

    fn next(&mut self) -> Option<PathError> {
        loop {
            let mut quote = [0u8; QUOTE];
            let mut name = SockAddrStorage::zeroed();
            let mut control = Control::<512>::new();
            let mut vector = libc::iovec { iov_base: quote.as_mut_ptr().cast(), iov_len: QUOTE };
            let mut header = libc::msghdr {
                msg_name: (&raw mut name).cast(),
                msg_namelen: name.size_of(),
                msg_iov: &raw mut vector,
                msg_iovlen: 1,
                msg_control: control.as_mut_ptr().cast(),
                msg_controllen: 512,
                msg_flags: 0,
            };
            // SAFETY: `header` points to buffers on this stack with the lengths told, which outlive the call.
            let length = unsafe {
                libc::recvmsg(
                    self.socket.as_fd().as_raw_fd(),
                    ptr::from_mut(&mut header),
                    libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
                )
            };
            let quoted = usize::try_from(length).ok()?.min(QUOTE);
            // SAFETY: the kernel wrote an address of `msg_namelen` octets to it.
            let to = unsafe { SockAddr::new(name, header.msg_namelen) }.as_socket();
            let error = control.messages(header.msg_controllen).find_map(|m| extended(&m));
            if let (Some(to), Some(Extended { mtu, refused, local })) = (to, error) {
                let (to, port) = (to.ip().to_canonical(), to.port());
                return Some(PathError { to, port, mtu, refused, local, quote, quoted });
            }
        }
    }
}

/// What `struct sock_extended_err` says.
struct Extended {
    mtu: Option<u32>,
    refused: bool,
    local: bool,
}

/// `struct sock_extended_err`: errno u32, origin u8, type u8, code u8, pad u8, info u32, data u32.
fn extended(message: &crate::cmsg::Message<'_>) -> Option<Extended> {
    let known = [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
    if !known.contains(&(message.level, message.kind)) {
        return None;
    }
    let (errno, rest) = message.data.split_first_chunk::<4>()?;
    let ([origin, _, _, _], rest) = rest.split_first_chunk::<4>()?;
    let (info, _) = rest.split_first_chunk::<4>()?;
    let errno = i32::from_ne_bytes(*errno);
    let mtu = u32::from_ne_bytes(*info);
    Some(Extended {
        mtu: (errno == libc::EMSGSIZE && mtu > 0).then_some(mtu),
        refused: [libc::ECONNREFUSED, libc::ENOPROTOOPT].contains(&errno),
        local: *origin == libc::SO_EE_ORIGIN_LOCAL,
    })
}
