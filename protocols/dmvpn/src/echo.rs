//! Probes on the wire: those that peers send, those that we send, and what their answers decide.

use crate::peer::{Answer, Peer};
use crate::tunnel::Tunnel;
use packet::probe::{Kind, Probe};
use packet::{Instant, Path, PeerId};
use serde::{Deserialize, Serialize};

const GRE_IPV4: u16 = 0x0800;
const GRE_IPV6: u16 = 0x86dd;

/// Probes that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeDrops {
    /// Not a probe, or not to us.
    pub no_probe: u64,
    /// From a tunnel address that is no peer's.
    pub unknown_prober: u64,
    /// The token is not the one that the two of us share.
    pub wrong_token: u64,
    /// An answer to nothing that is waited for: late, or repeated.
    pub unexpected_answer: u64,
    /// By a path that is another peer's, or that a registered peer has not registered.
    pub foreign_path: u64,
}

impl Tunnel {
    /// A probe that the datapath did not answer itself, or an answer to one of ours.
    pub(crate) fn echo(&mut self, now: Instant, path: Path, packet: &[u8]) {
        let Some(probe) = Probe::parse(packet).filter(|p| self.config.addresses.contains(&p.destination))
        else {
            self.drops.no_probe += 1;
            return;
        };
        let Some(id) = self.peers.by_address(probe.source) else {
            self.drops.unknown_prober += 1;
            return;
        };
        if self.peers.get(id).is_none_or(|p| self.token_with(p) != probe.token) {
            self.drops.wrong_token += 1;
            return;
        }
        match probe.kind {
            Kind::Request => self.probed(now, id, path, &probe),
            Kind::Reply => {
                let Some(peer) = self.peers.get_mut(id) else { return };
                match peer.answered(now, probe.opaque, path) {
                    Answer::Counted(Some(verdict)) => self.decided(now, id, verdict),
                    Answer::Elsewhere if self.may_claim(now, path, id) => {
                        if let Some(peer) = self.peers.get_mut(id) {
                            peer.reflect(now, path);
                        }
                    }
                    Answer::Unknown => self.drops.unexpected_answer += 1,
                    Answer::Counted(None) | Answer::Elsewhere => {}
                }
                self.touch(now, id);
            }
        }
    }

    /// A peer's probe came by a path that the datapath does not know as its own.
    pub(crate) fn probed(&mut self, now: Instant, id: PeerId, path: Path, probe: &Probe) {
        let Some(peer) = self.peers.get(id) else { return };
        if peer.token.is_none() {
            return;
        }
        // Who registered with us is reached as it registered. If its NAT has given it another port, silence tells
        // it so, and it registers again.
        let unregistered = peer.has_role() && peer.paths().all(|p| p != path);
        if unregistered || !self.may_claim(now, path, id) {
            self.drops.foreign_path += 1;
            return;
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !peer.has_role() && !peer.reflect(now, path) {
            return;
        }
        self.touch(now, id);
        self.transmit_probe(now, path, &probe.reply());
    }

    /// A peer's timer.
    pub(crate) fn drive(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let (mut due, next) = (Vec::new(), &mut self.next_probe);
        let verdict = peer.handle_timeout(now, |path| {
            *next = next.wrapping_add(1);
            due.push((path, *next));
            *next
        });
        peer.drop_drained(now);
        if peer.is_over(now) {
            return self.remove_peer(now, id);
        }
        for (path, opaque) in due {
            self.probe(now, id, path, opaque);
        }
        if let Some(verdict) = verdict {
            self.decided(now, id, verdict);
        }
        self.touch(now, id);
    }

    /// Sends a probe to a peer over one of its paths.
    pub(crate) fn probe(&mut self, now: Instant, id: PeerId, path: Path, opaque: u64) {
        let Some(peer) = self.peers.get(id) else { return };
        let own = &self.config.addresses;
        let pair =
            own.iter().find_map(|a| Some((*a, *peer.addresses.iter().find(|b| a.is_ipv4() == b.is_ipv4())?)));
        let Some((source, destination)) = pair else { return };
        let token = self.token_with(peer);
        self.transmit_probe(now, path, &Probe { kind: Kind::Request, source, destination, token, opaque });
    }

    pub(crate) fn transmit_probe(&mut self, now: Instant, path: Path, probe: &Probe) {
        let protocol = if probe.destination.is_ipv4() { GRE_IPV4 } else { GRE_IPV6 };
        self.transmit(now, path, protocol, probe.to_vec());
    }

    /// The number that probes between us and a peer carry.
    pub(crate) fn token_with(&self, peer: &Peer) -> u64 {
        self.node.token() ^ peer.token.unwrap_or(0)
    }
}
