//! Packets that were lost before a worker saw them: in the kernel's queues, as the workers got no CPU or had too much to
//! do. The kernel counts for as long as an interface or a socket is there, and we count from a moment on.

use super::Tunnel;
use crate::io::Sockets;
use crate::stats::Counter;
use linux_io::losses;
use std::os::fd::AsFd;
use std::sync::Arc;

/// What the kernel has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    interface: u64,
    sockets: u64,
}

impl Losses {
    fn so_far(interface: &str, sockets: &[Arc<Sockets>]) -> Self {
        let of = |socket: &dyn AsFd| u64::from(losses::of_socket(socket.as_fd()).unwrap_or_default());
        let of_worker = |sockets: &Arc<Sockets>| -> u64 {
            let udp = sockets.udp.iter().chain(&sockets.ike).map(|(_, socket)| of(socket));
            udp.chain(sockets.raw.iter().map(|(_, socket)| of(socket))).sum()
        };
        Self {
            // An interface that somebody deleted has lost nothing.
            interface: losses::of_interface(interface).unwrap_or_default(),
            sockets: sockets.iter().map(of_worker).sum(),
        }
    }
}

impl Tunnel {
    /// Counts from now on what is lost at the queues and sockets that there are.
    pub(super) fn watch_losses(&mut self) {
        self.losses = Some(Losses::so_far(&self.name, &self.sockets));
    }

    /// What was lost since.
    pub(super) fn losses(&self) -> [(Counter, u64); 2] {
        let now = Losses::so_far(&self.name, &self.sockets);
        let before = self.losses.unwrap_or(now);
        [
            (Counter::DropInterfaceQueue, now.interface.saturating_sub(before.interface)),
            (Counter::DropSocketQueue, now.sockets.saturating_sub(before.sockets)),
        ]
    }

    /// Keeps what was lost at queues and sockets that are about to go.
    pub(super) fn keep_losses(&mut self) {
        for (counter, lost) in self.losses() {
            self.own_stats.add(counter, lost);
        }
        self.losses = None;
    }
}
