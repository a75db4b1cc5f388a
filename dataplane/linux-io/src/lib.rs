//! TAP queues, UDP and raw sockets with their offloads, and the system calls that move batches through them.
//!
//! This is the only crate of the workspace with `unsafe` in it; each block says why it is sound. Everything it
//! offers is safe to call, does not allocate per packet, and never blocks except in [`poll::wait`].
//!
//! | module | what |
//! |---|---|
//! | [`tap`] | queues of the tunnel interface, with virtio headers |
//! | [`link`] | the interface's MTU, address and super-frame limits, by rtnetlink |
//! | [`udp`], [`raw`] | the sockets of the underlay |
//! | [`send`], [`receive`] | `sendmmsg` and `recvmmsg` over the caller's buffers |
//! | [`errors`] | what ICMP says of our own packets |
//! | [`offload`] | one file per offload: probing and names |
//! | [`steer`] | which of several sockets gets a packet |
//! | [`pass`] | descriptors from process to process |
//! | [`poll`] | waiting, and being woken |
//! | [`losses`] | what the kernel lost of what was for us |
//! | [`memory`] | what becomes of large blocks |

pub mod errors;
pub mod link;
pub mod losses;
pub mod memory;
pub mod offload;
pub mod pass;
pub mod poll;
pub mod raw;
pub mod receive;
pub mod send;
pub mod steer;
pub mod tap;
pub mod udp;

mod cmsg;
mod sockopt;

pub use errors::{PathError, PathErrors};
pub use receive::{Arrived, Receiver};
pub use send::{Outgoing, Sender};
pub use tap::TapQueue;
