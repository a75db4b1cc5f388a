//! The UDP sockets of GRE in UDP (RFC 8086): one per worker and bound address, sharing the port.

use crate::offload::{udp_gro, udp_segment};
use crate::{errors, sockopt};
use rustix::net::sockopt as opt;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Octets a socket may hold in either direction: some 20 ms at 2 Gbit/s.
pub const SOCKET_BUFFER: usize = 4 << 20;

/// A UDP socket of the underlay.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    gro: bool,
    segment: bool,
}

impl UdpSocket {
    /// Binds to `address`. Others of this process may bind to the same; the kernel spreads senders over them.
    /// Outer packets leave with this `ttl` and are never fragmented on the way.
    ///
    /// # Errors
    /// What the kernel says, with the address in it.
    pub fn bind(address: SocketAddr, ttl: u8) -> io::Result<Self> {
        let bind = || {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::DGRAM.nonblocking().cloexec(),
                Some(Protocol::UDP),
            )?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            configure(&socket, address.is_ipv6(), ttl)?;
            socket.set_reuse_port(true)?;
            socket.bind(&SockAddr::from(address))?;
            Ok(socket)
        };
        let socket =
            bind().map_err(|e: io::Error| io::Error::new(e.kind(), format!("UDP {address}: {e}")))?;
        Ok(Self::of(socket))
    }

    /// A socket that another process bound by [`Self::bind`].
    #[must_use]
    pub fn adopt(descriptor: OwnedFd) -> Self {
        Self::of(Socket::from(descriptor))
    }

    fn of(socket: Socket) -> Self {
        let (gro, segment) = (udp_gro::enable(&socket), udp_segment::probe(&socket));
        Self { socket, gro, segment }
    }

    /// Glues the kernel what arrives?
    #[must_use]
    pub const fn has_gro(&self) -> bool {
        self.gro
    }

    /// Cuts the kernel what is sent?
    #[must_use]
    pub const fn has_segment(&self) -> bool {
        self.segment
    }

    /// What it is bound to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets routers fragment what the socket sends from now on, or no longer. For UDP and raw sockets.
pub fn allow_fragments(socket: impl AsFd, version6: bool, allow: bool) {
    let result = match (version6, allow) {
        (false, true) => opt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT),
        (false, false) => opt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE),
        (true, true) => opt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT),
        (true, false) => opt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE),
    };
    // It worked when the socket was made; if not now, packets that need it are lost and nothing else.
    if let Err(error) = result {
        tracing::debug!(%error, "the fragmentation of outer packets can't be changed");
    }
}

/// What UDP and raw sockets have in common.
pub(crate) fn configure(socket: &Socket, version6: bool, ttl: u8) -> io::Result<()> {
    // PROBE: DF is set and what the kernel believes of the path is not asked; the tunnel keeps its own account.
    if version6 {
        socket.set_unicast_hops_v6(ttl.into())?;
        opt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE)?;
        opt::set_ipv6_recvtclass(socket, true)?;
    } else {
        socket.set_ttl_v4(ttl.into())?;
        opt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE)?;
        opt::set_ip_recvtos(socket, true)?;
    }
    errors::enable(socket, version6)?;
    buffers(socket);
    Ok(())
}

/// As large as may be: beyond `rmem_max` and `wmem_max` only with CAP_NET_ADMIN in the first user namespace.
fn buffers(socket: &Socket) {
    let size = SOCKET_BUFFER as i32;
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if sockopt::set_int(socket, libc::SOL_SOCKET, forced, size).is_err() {
            // Smaller buffers lose more under load, and do no other harm.
            let _ = sockopt::set_int(socket, libc::SOL_SOCKET, plain, size);
        }
    }
}
