//! TSO and USO on the TAP: the kernel hands us super-frames with a virtio header and takes them back.

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, ioctl};
use std::os::fd::AsFd;

const CSUM: u32 = libc::TUN_F_CSUM;
const TSO: u32 = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// What a TAP accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapOffloads {
    /// Checksums may be left to us.
    pub checksum: bool,
    /// TCP super-frames.
    pub tso: bool,
    /// UDP super-frames (Linux 6.2).
    pub uso: bool,
}

/// Asks for all, then for less, and says what the kernel granted.
pub fn enable(tap: impl AsFd) -> TapOffloads {
    let set = |features: u32| -> Result<(), Errno> {
        // SAFETY: TUNSETOFFLOAD takes its feature bits as the argument itself, no pointer.
        unsafe {
            ioctl(
                tap.as_fd(),
                IntegerSetter::<{ libc::TUNSETOFFLOAD as rustix::ioctl::Opcode }>::new_usize(
                    features as usize,
                ),
            )
        }
    };
    for features in [CSUM | TSO | USO, CSUM | TSO, CSUM] {
        if set(features).is_ok() {
            return TapOffloads { checksum: true, tso: features & TSO != 0, uso: features & USO != 0 };
        }
    }
    TapOffloads { checksum: false, tso: false, uso: false }
}
