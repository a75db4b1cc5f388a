//! What makes us want a direct way: the kernel's need of a next hop (phase 2), and a hub's indication (phase 3).

use crate::config::Phase;
use crate::tunnel::Tunnel;
use nhrp::Route;
use packet::{Instant, Path};
use std::net::IpAddr;

impl Tunnel {
    /// The kernel asked for a next hop. The datapath has answered "by the hub"; now look for the direct way.
    ///
    /// This is phase 2's trigger, and in phase 3 what serves a destination on the tunnel network itself. A hub does
    /// not resolve so: most of what it forwards came over the overlay, and that must not make it resolve anything
    /// (RFC 2332 §6.4).
    pub(crate) fn next_hop_wanted(&mut self, now: Instant, address: IpAddr) {
        let in_networks = self.config.networks.iter().any(|n| n.contains(&address));
        if !in_networks || self.config.addresses.contains(&address) {
            return;
        }
        if self.outside.repeat_neighbour(address) {
            return; // It is known: somebody else removed the entry.
        }
        if self.config.phase == Phase::One || self.config.hub || self.hubs.has_address(address) {
            return;
        }
        self.want(now, address);
    }

    /// A hub said that there is a shorter way for a packet that it had from us.
    pub(crate) fn indicated(&mut self, now: Instant, source: IpAddr, destination: IpAddr, path: Path) {
        if self.config.phase != Phase::Three || self.peers.by_path(path).is_none() {
            return;
        }
        //= rfc2332#6.4
        // Only the node at which the packet entered the overlay makes the shortcut.
        if !self.routes.is_ours(source) {
            return;
        }
        if matches!(self.routes.route(destination), Route::Overlay { .. }) {
            self.want(now, destination);
        }
    }
}
