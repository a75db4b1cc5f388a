//! The tunnel interface as a link: the few properties the datapath depends on, by one rtnetlink message.
//! (Addresses, routes and neighbours are control's.)

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::io;
use std::mem::MaybeUninit;

/// Octets of a super-frame the kernel hands us, so that with GRE and UDP headers on each segment it still is one
/// send.
pub const GSO_MAX_SIZE: u32 = 60_000;
/// Segments of a super-frame.
pub const GSO_MAX_SEGMENTS: u32 = 44;

/// What the datapath wants of the interface.
#[derive(Clone, Copy, Debug)]
pub struct LinkSettings {
    /// Octets of an inner IP packet.
    pub mtu: u16,
    /// Link-layer address of our end.
    pub mac: [u8; 6],
}

/// Applies `settings` and the super-frame limits to the interface `name`.
///
/// # Errors
/// What the kernel says. A kernel that refuses the limits gets the rest.
pub fn configure(name: &str, settings: LinkSettings) -> io::Result<()> {
    let mut limits = Vec::new();
    attribute(&mut limits, IFLA_GSO_MAX_SIZE, &GSO_MAX_SIZE.to_ne_bytes());
    attribute(&mut limits, IFLA_GSO_MAX_SEGS, &GSO_MAX_SEGMENTS.to_ne_bytes());
    if let Err(error) = change(name, &limits) {
        tracing::info!(interface = name, %error, "super-frames can't be limited; some need two sends");
    }
    let mut basics = Vec::new();
    attribute(&mut basics, libc::IFLA_MTU, &u32::from(settings.mtu).to_ne_bytes());
    attribute(&mut basics, libc::IFLA_ADDRESS, &settings.mac);
    change(name, &basics)
}

const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_GSO_MAX_SIZE: u16 = 41;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// Changes these attributes of a link and waits for the acknowledgement.
fn change(name: &str, attributes: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(128);
    // struct nlmsghdr: length, type, flags, sequence number, port
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend_from_slice(&1u32.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    // struct ifinfomsg: family, pad, type, index, flags, change; the name says which link
    message.extend_from_slice(&[0; 16]);
    let mut terminated = name.as_bytes().to_vec();
    terminated.push(0);
    attribute(&mut message, libc::IFLA_IFNAME, &terminated);
    message.extend_from_slice(attributes);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());

    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW.cloexec(),
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    socket.connect(&kernel())?;
    socket.send(&message)?;
    let mut answer = [MaybeUninit::uninit(); 4096];
    let length = socket.recv(&mut answer)?;
    acknowledged(answer[..length].iter().map(|octet| {
        // SAFETY: `recv` initialised the first `length` octets.
        unsafe { octet.assume_init() }
    }))
}

/// The error in an `NLMSG_ERROR` message; 0 is success.
fn acknowledged(answer: impl Iterator<Item = u8>) -> io::Result<()> {
    let octets: Vec<u8> = answer.take(HEADER + 4).collect();
    let kind = octets.get(4..6).and_then(|b| <[u8; 2]>::try_from(b).ok()).map(u16::from_ne_bytes);
    let error = octets.get(HEADER..).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(i32::from_ne_bytes);
    match (kind.map(i32::from), error) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Appends `struct rtattr` and its padded data.
fn attribute(to: &mut Vec<u8>, kind: u16, data: &[u8]) {
    to.extend_from_slice(&((4 + data.len()) as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(data);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The kernel's netlink address: `struct sockaddr_nl` of zeros.
fn kernel() -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_nl` is plain integers and smaller than the storage.
    unsafe { storage.view_as::<libc::sockaddr_nl>() }.nl_family = libc::AF_NETLINK as u16;
    // SAFETY: the storage holds a `sockaddr_nl` of that length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_nl>() as libc::socklen_t) }
}
