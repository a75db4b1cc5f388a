//! The guard against recursive routing: a route over the tunnel must never carry the tunnel's own outer packets.

use crate::tunnel::Tunnel;
use ipnet::IpNet;
use nhrp::PeerInfo;
use packet::{Encapsulation, Path};
use std::net::IpAddr;

impl Tunnel {
    /// The NBMA address, of those in use and these, that a route to `prefix` over the tunnel would cover.
    pub(crate) fn recursion(&self, prefix: IpNet, also: &[Path]) -> Option<IpAddr> {
        let hubs = self.hubs.iter().flat_map(|h| &h.paths).map(|p| p.remote);
        let fixed = self.config.static_peers.iter().map(|s| s.path.remote);
        let carrying = self.peers.iter().filter_map(|p| p.direct()).map(|p| p.remote);
        let also = also.iter().map(|p| p.remote);
        also.chain(hubs).chain(fixed).chain(carrying).find(|nbma| prefix.contains(nbma))
    }

    /// Those of the ways to a peer that can be tried, best first: not our own address, and not one that our routes (or
    /// the one that is wanted) lead into the tunnel again. Behind the same NAT as the peer, its private address comes
    /// first: not every NAT turns packets around.
    pub(crate) fn usable_candidates(&self, info: &PeerInfo, wanted: Option<IpNet>) -> Vec<Path> {
        let own = |p: &Path| {
            *p == Path::udp(self.config.nbma_address, self.config.udp_port)
                || self.hubs.iter().any(|h| h.observed == Some(*p) && p.port().is_some())
        };
        let recursive = |p: &Path| {
            self.routes.leads_into_the_overlay(p.remote) || wanted.is_some_and(|w| w.contains(&p.remote))
        };
        let mut usable: Vec<Path> = Vec::with_capacity(info.candidates.len());
        for path in info.candidates.iter().map(|p| self.as_wrapped(*p, info.token.is_none())) {
            if !own(&path) && !recursive(&path) && !usable.contains(&path) {
                usable.push(path);
            }
        }
        if let Some(public) = self.own_nat().public() {
            usable.sort_by_key(|p| p.remote == public);
        }
        usable
    }

    /// NHRP tells no more of a foreign router than its NBMA address. In an encrypted tunnel that leaves open how ESP is
    /// to be wrapped: in UDP, as we prefer it, unless our hubs are reached without.
    fn as_wrapped(&self, path: Path, foreign: bool) -> Path {
        let Some(security) = self.config.security.as_ref().filter(|_| foreign) else { return path };
        let bare =
            self.hubs.iter().filter_map(|h| self.peers.get(h.peer?)?.given()).all(|p| p.port().is_none())
                && !self.hubs.iter().all(|h| h.registered.is_empty());
        match path.encapsulation {
            Encapsulation::Gre if !bare => Path::udp(path.remote, security.ike.ports.1),
            _ => path,
        }
    }
}
