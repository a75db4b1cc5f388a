//! Probes on the wire: those that peers send, those that we send, and what their answers decide.

use crate::peer::{Answer, Peer};
use crate::tunnel::Tunnel;
use packet::probe::{Kind, Probe};
use packet::{Instant, Path, PeerId};

const GRE_IPV4: u16 = 0x0800;
const GRE_IPV6: u16 = 0x86dd;

impl Tunnel {
    /// A probe that the datapath did not answer itself, or an answer to one of ours.
    pub(crate) fn echo(&mut self, now: Instant, path: Path, packet: &[u8]) {
        let Some(probe) = Probe::parse(packet) else { return };
        if !self.config.addresses.contains(&probe.destination) {
            return;
        }
        let Some(id) = self.peers.by_address(probe.source) else { return };
        let Some(token) = self.peers.get(id).map(|p| self.token_with(p)) else { return };
        if token != probe.token {
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
                    Answer::Counted(None) | Answer::Unknown | Answer::Elsewhere => {}
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
        if peer.has_role() && peer.paths().all(|p| p != path) {
            return;
        }
        if !self.may_claim(now, path, id) {
            return;
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !peer.has_role() && !peer.reflect(now, path) {
            return;
        }
        self.touch(now, id);
        self.transmit_probe(path, &probe.reply());
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
            self.probe(id, path, opaque);
        }
        if let Some(verdict) = verdict {
            self.decided(now, id, verdict);
        }
        self.touch(now, id);
    }

    /// Sends a probe to a peer over one of its paths.
    pub(crate) fn probe(&mut self, id: PeerId, path: Path, opaque: u64) {
        let Some(peer) = self.peers.get(id) else { return };
        let own = &self.config.addresses;
        let pair =
            own.iter().find_map(|a| Some((*a, *peer.addresses.iter().find(|b| a.is_ipv4() == b.is_ipv4())?)));
        let Some((source, destination)) = pair else { return };
        let token = self.token_with(peer);
        self.transmit_probe(path, &Probe { kind: Kind::Request, source, destination, token, opaque });
    }

    pub(crate) fn transmit_probe(&mut self, path: Path, probe: &Probe) {
        let protocol = if probe.destination.is_ipv4() { GRE_IPV4 } else { GRE_IPV6 };
        self.outside.transmit(path, protocol, probe.to_vec());
    }

    /// The number that probes between us and a peer carry.
    pub(crate) fn token_with(&self, peer: &Peer) -> u64 {
        self.node.token() ^ peer.token.unwrap_or(0)
    }
}
