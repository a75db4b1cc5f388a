//! Raw sockets: GRE over IP, protocol 47 (RFC 2784), and ESP without UDP, protocol 50 (RFC 4303). The kernel writes the
//! outer header; on IPv4 it leaves the header on what it delivers, on IPv6 it does not.

use crate::{steer, udp};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a raw socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// Overlay packets in clear.
    Gre,
    /// Sealed ones.
    Esp,
}

/// A raw socket of the underlay.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    version6: bool,
    carries: Carries,
}

impl RawSocket {
    /// Binds to `address`. Every raw socket gets a copy of every packet, so `share` says which part is this one's: (its
    /// number, how many there are). GRE is shared by its senders, ESP by the SPI, in whose low bits the number is.
    ///
    /// # Errors
    /// What the kernel says, with the address in it; needs CAP_NET_RAW.
    pub fn bind(carries: Carries, address: IpAddr, ttl: u8, share: (u16, u16)) -> io::Result<Self> {
        Self::open(carries, address, ttl, |socket, version6| match carries {
            Carries::Gre => steer::share_by_sender(socket, version6, share),
            Carries::Esp => steer::share_by_spi(socket, version6, share),
        })
    }

    /// Binds to `address` to see GRE with this key that arrives there, of all senders.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn watch_gre(address: IpAddr, key: Option<u32>) -> io::Result<Self> {
        Self::open(Carries::Gre, address, 64, |socket, version6| steer::only_gre_key(socket, version6, key))
    }

    fn open(
        carries: Carries,
        address: IpAddr,
        ttl: u8,
        filter: impl FnOnce(&Socket, bool) -> io::Result<()>,
    ) -> io::Result<Self> {
        let version6 = address.is_ipv6();
        let (name, protocol) = match carries {
            Carries::Gre => ("GRE", libc::IPPROTO_GRE),
            Carries::Esp => ("ESP", libc::IPPROTO_ESP),
        };
        let bind = || {
            let at = SocketAddr::new(address, 0);
            let kind = Type::RAW.nonblocking().cloexec();
            let socket = Socket::new(Domain::for_address(at), kind, Some(Protocol::from(protocol)))?;
            filter(&socket, version6)?;
            udp::configure(&socket, version6, ttl)?;
            socket.bind(&SockAddr::from(at))?;
            Ok(socket)
        };
        let socket =
            bind().map_err(|e: io::Error| io::Error::new(e.kind(), format!("{name} {address}: {e}")))?;
        Ok(Self { socket, version6, carries })
    }

    /// A socket that another process bound to `address` by [`Self::bind`].
    #[must_use]
    pub fn adopt(carries: Carries, address: IpAddr, descriptor: OwnedFd) -> Self {
        Self { socket: Socket::from(descriptor), version6: address.is_ipv6(), carries }
    }

    /// Does what arrives begin with an IP header?
    #[must_use]
    pub const fn delivers_header(&self) -> bool {
        !self.version6
    }

    /// What it is for.
    #[must_use]
    pub const fn carries(&self) -> Carries {
        self.carries
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
