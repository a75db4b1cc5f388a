//! Raw sockets of GRE over IP, protocol 47 (RFC 2784). The kernel writes the outer header; on IPv4 it leaves the
//! header on what it delivers, on IPv6 it does not.

use crate::{steer, udp};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

const IPPROTO_GRE: i32 = libc::IPPROTO_GRE;

/// A raw GRE socket of the underlay.
#[derive(Debug)]
pub struct GreSocket {
    socket: Socket,
    version6: bool,
}

impl GreSocket {
    /// Binds to `address`. Every raw socket gets a copy of every packet, so `share` says which part of the senders
    /// is this one's: (its number, how many there are).
    ///
    /// # Errors
    /// What the kernel says, with the address in it; needs CAP_NET_RAW.
    pub fn bind(address: IpAddr, ttl: u8, share: (u16, u16)) -> io::Result<Self> {
        let bind = || {
            let at = SocketAddr::new(address, 0);
            let kind = Type::RAW.nonblocking().cloexec();
            let socket = Socket::new(Domain::for_address(at), kind, Some(Protocol::from(IPPROTO_GRE)))?;
            steer::share_by_sender(&socket, address.is_ipv6(), share)?;
            udp::configure(&socket, address.is_ipv6(), ttl)?;
            socket.bind(&SockAddr::from(at))?;
            Ok(socket)
        };
        let socket =
            bind().map_err(|e: io::Error| io::Error::new(e.kind(), format!("GRE {address}: {e}")))?;
        Ok(Self { socket, version6: address.is_ipv6() })
    }

    /// Does what arrives begin with an IP header?
    #[must_use]
    pub const fn delivers_header(&self) -> bool {
        !self.version6
    }
}

impl AsFd for GreSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
