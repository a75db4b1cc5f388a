//! Who is who in an encrypted tunnel, and what he may be believed.
//!
//! A message that came straight from a station is of the identity which the session of its path has proven. What hubs
//! pass on names an identity that only they know: it is believed provisionally, and a path that was learnt so is used
//! only when whoever is at its end proves to be that one, and may have the tunnel address that he is looked for by.

use crate::RouteTarget;
use crate::action::SourceCheck;
use crate::peer::Peer;
use crate::tunnel::Tunnel;
use claims::{Claimant, Identity};
use ipnet::IpNet;
use packet::{Path, PeerId};
use std::net::IpAddr;

/// Routes over the overlay that a foreign router's inner sources may lie in; with more, any may.
const MOST_ROUTES: usize = 64;

impl Tunnel {
    /// Who the peer with this tunnel address has proven to be. `None`: nobody knows, or the tunnel is in clear.
    #[must_use]
    pub fn identity_at(&self, address: IpAddr) -> Option<&Identity> {
        self.proven(self.peers.get(self.peers.by_address(address)?)?)
    }

    /// The tunnel addresses of the peer that is registered here by this path.
    #[must_use]
    pub fn registered_at(&self, path: Path) -> Vec<IpAddr> {
        let peer = self.peers.by_path(path).and_then(|id| self.peers.get(id));
        let registered = peer.filter(|peer| !peer.registrations.is_empty());
        registered.map(|peer| peer.addresses.to_vec()).unwrap_or_default()
    }

    /// Who a peer has proven to be, by the path that carries, or by any of its paths: all are of one identity.
    pub(crate) fn proven(&self, peer: &Peer) -> Option<&Identity> {
        let gate = self.gate.as_ref()?;
        peer.direct().into_iter().chain(peer.paths()).find_map(|path| gate.identity(path))
    }

    /// Whom we expect at the end of a path, as a pattern. `None`: anyone with good credentials.
    pub(crate) fn expected_at(&self, path: Path) -> Option<String> {
        if let Some(hub) = self.hubs.iter().find(|h| h.paths.contains(&path)) {
            return hub.identity.clone();
        }
        let peer = self.peers.get(self.peers.by_path(path)?)?;
        peer.identity.clone().filter(|_| peer.hub.is_none() && !peer.fixed)
    }

    /// May this identity be at the end of a path, which is the owner's?
    ///
    /// # Errors
    /// Why not, in a person's words.
    pub(crate) fn may_be_at(
        &self,
        owner: Option<PeerId>,
        path: Path,
        identity: &Identity,
    ) -> Result<(), String> {
        let name = identity.name.as_str();
        let of_hub = self.hubs.iter().filter(|h| h.paths.contains(&path));
        if let Some(pattern) =
            of_hub.filter_map(|h| h.identity.as_deref()).find(|p| !claims::matches(p, Some(name)))
        {
            return Err(format!("the hub at {path} is `{name}`, and `{pattern}` is configured"));
        }
        let Some(peer) = owner.and_then(|id| self.peers.get(id)) else { return Ok(()) };
        if peer.hub.is_some() || peer.fixed {
            return Ok(());
        }
        if let Some(asserted) = peer.identity.as_deref().filter(|asserted| *asserted != name) {
            return Err(format!("`{name}` is at {path}, and not `{asserted}`"));
        }
        for address in &peer.addresses {
            self.policy
                .authorize_registration(identity, IpNet::from(*address))
                .map_err(|denied| denied.to_string())?;
        }
        Ok(())
    }

    /// May the peer with the next hop `via` carry `prefix`, now that it is known who it is? A hub vouched for what it
    /// passed on, which matters for those whose certificates say nothing.
    ///
    /// # Errors
    /// Why not, in a person's words.
    pub(crate) fn may_carry(&self, id: PeerId, via: IpAddr, prefix: IpNet) -> Result<(), String> {
        let Some(peer) = self.peers.get(id).filter(|p| !p.has_role()) else { return Ok(()) };
        if self.gate.is_none() {
            return Ok(());
        }
        let Some(identity) = self.proven(peer) else { return Err("nobody has proven to be there".into()) };
        self.policy
            .authorize_answer(Claimant::Vouched(identity), via, prefix)
            .map_err(|denied| denied.to_string())
    }

    /// Which inner source addresses a peer may send from.
    pub(crate) fn sources(&self, peer: &Peer) -> SourceCheck {
        if peer.hub.is_some() {
            return SourceCheck::Any; // It carries everybody's.
        }
        if peer.fixed {
            let mapped = self.config.static_peers.iter().find(|s| peer.addresses.contains(&s.tunnel_address));
            return match mapped {
                Some(s) if !self.config.admission.is_empty() => {
                    let own = peer.addresses.iter().map(|a| IpNet::from(*a));
                    SourceCheck::Only(own.chain(s.prefixes.iter().copied()).collect())
                }
                _ => SourceCheck::Any,
            };
        }
        let who = match (&self.gate, self.proven(peer)) {
            (None, _) => Claimant::Asserted(peer.identity.as_deref()),
            (Some(_), Some(identity)) if self.is_vouched_for(identity) => {
                return self.overlay_sources(peer);
            }
            (Some(_), Some(identity)) => Claimant::Proven(identity),
            (Some(_), None) => return SourceCheck::Only(Vec::new()),
        };
        match self.policy.sources(who, &peer.addresses) {
            Some(sources) => SourceCheck::Only(sources),
            None => SourceCheck::Any,
        }
    }

    /// A foreign router, whose certificate names no prefixes and which no class of ours is about: what lies behind it is
    /// known to the hub that passed its messages on.
    fn is_vouched_for(&self, identity: &Identity) -> bool {
        self.config.admission.is_empty() && identity.certified().is_some_and(|c| c.prefixes.is_none())
    }

    /// Whatever lies behind the overlay and not behind this node: a packet may well come before it is known what lies
    /// behind its sender.
    fn overlay_sources(&self, peer: &Peer) -> SourceCheck {
        let mut sources: Vec<IpNet> = peer.addresses.iter().map(|a| IpNet::from(*a)).collect();
        let overlay =
            self.routes.iter().filter(|(_, target)| matches!(target, RouteTarget::Overlay(Some(_))));
        sources.extend(overlay.map(|(prefix, _)| prefix).take(MOST_ROUTES + 1));
        if sources.len() > MOST_ROUTES { SourceCheck::Any } else { SourceCheck::Only(sources) }
    }
}
