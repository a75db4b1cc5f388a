//! UDP_SEGMENT: one send is cut into equal datagrams below the routing decision.

use crate::sockopt;
use std::io;
use std::os::fd::AsFd;

/// Datagrams in one send: `UDP_MAX_SEGMENTS` was 64 until Linux 6.9.
pub const MAX_SEGMENTS: usize = 64;

/// Octets in one send: what an IPv4 datagram holds, less the headers.
pub const MAX_OCTETS: usize = 65_507;

/// Does the kernel (4.18 and later) know it? The device may still refuse at run time, see [`is_missing`].
pub fn probe(socket: impl AsFd) -> bool {
    sockopt::get_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
}

/// Does this error of a segmented send mean that the offload is missing? EIO is said where the device does no
/// checksums, EINVAL by older kernels and some tunnels. EMSGSIZE is a path's MTU and no reason to do without.
#[must_use]
pub fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}
