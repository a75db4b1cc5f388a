//! UDP_GRO: equal datagrams of one sender arrive glued together, with their size in a control message.

use crate::sockopt;
use std::os::fd::AsFd;

/// Switches it on; false where the kernel (before 5.0) lacks it.
pub fn enable(socket: impl AsFd) -> bool {
    sockopt::set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok()
}
