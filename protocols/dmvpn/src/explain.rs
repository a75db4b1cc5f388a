//! Which way a packet goes, and why: for people.

use crate::RouteTarget;
use crate::config::Phase;
use crate::nat::{OwnNat, PeerNat};
use crate::peer::{Peer, Reach};
use crate::resting::Resting;
use crate::shortcut::{Shortcut, State};
use crate::tunnel::Tunnel;
use crate::view::{HubView, PathView, PeerState, PeerView, Role, ShortcutState, ShortcutView, Way};
use ipnet::IpNet;
use nhrp::ResolutionFailure;
use packet::{Instant, PeerId};
use std::net::IpAddr;

/// Why a question came to nothing.
pub(crate) fn failure(reason: &ResolutionFailure) -> Resting {
    Resting::Unresolved(match reason {
        ResolutionFailure::Timeout => "no answer, the request may not reach the egress".into(),
        ResolutionFailure::Refused(4) => {
            "administratively prohibited: the peer makes no shortcuts, or the claim was refused".into()
        }
        ResolutionFailure::Refused(5) => "the responder has no room".into(),
        ResolutionFailure::Refused(11 | 12) => "nobody is registered who leads there".into(),
        ResolutionFailure::Refused(13) => "several stations lead there".into(),
        ResolutionFailure::Refused(code) => format!("refused with code {code}"),
        ResolutionFailure::Error(6) => "no server has a way there".into(),
        ResolutionFailure::Error(15) => "the request took too many hops".into(),
        ResolutionFailure::Error(code) => format!("error {code} came back"),
        ResolutionFailure::NoRoute => "there is no hub to ask".into(),
        ResolutionFailure::Denied(why) => return Resting::Denied(why.clone()),
    })
}

impl Tunnel {
    /// Which way a packet to `destination` goes now, and why.
    #[must_use]
    pub fn explain_path(&self, now: Instant, destination: IpAddr) -> PathView {
        let route = self.routes.lookup(destination);
        let shortcut = self.shortcuts.covering(destination);
        if let Some(s) = shortcut
            && let State::Up { leg, .. } = &s.state
            && route.is_none_or(|(r, _)| s.prefix.prefix_len() >= r.prefix_len())
            && let Some(way) = self.straight(now, leg.peer)
        {
            let (prefix, next_hop) = (Some(s.prefix), Some(leg.via));
            return PathView { destination, prefix, next_hop, way };
        }
        let prefix = route.map(|(prefix, _)| prefix);
        let (next_hop, way) = match route {
            Some((_, RouteTarget::Local)) => (None, Way::Local),
            Some((_, RouteTarget::OffOverlay)) => (None, Way::OffOverlay),
            None => (None, Way::Unreachable { reason: "there is no route".into() }),
            Some((_, RouteTarget::Nowhere)) => (
                None,
                Way::Unreachable {
                    reason: "the route is unreachable: protected, nothing leads there".into(),
                },
            ),
            Some((_, RouteTarget::Overlay(next_hop))) => {
                let next_hop = next_hop.unwrap_or(destination);
                (Some(next_hop), self.by_next_hop(now, destination, next_hop, shortcut))
            }
        };
        PathView { destination, prefix, next_hop, way }
    }

    /// Every peer.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        self.peers.iter().map(|p| self.peer_view(p)).collect()
    }

    /// Every hub we register with, best first.
    #[must_use]
    pub fn hubs(&self) -> Vec<HubView> {
        let view = |hub: &crate::hub::Hub| {
            let peer = hub.peer.and_then(|id| self.peers.get(id));
            HubView {
                name: hub.name.clone(),
                priority: hub.priority,
                addresses: hub.addresses.iter().copied().collect(),
                peer: hub.peer,
                registered: !hub.registered.is_empty(),
                reachable: peer.is_some_and(|p| p.direct().is_some()),
                carries: hub.peer.is_some() && self.outside.standing.by_hub == hub.peer,
                path: peer.and_then(Peer::direct).or_else(|| hub.paths.first().copied()),
                observed: hub.observed,
                rtt: peer.and_then(Peer::rtt),
                since: hub.since,
                reason: hub.reason.clone(),
            }
        };
        self.hubs.iter().map(view).collect()
    }

    /// The NHRP cache.
    #[must_use]
    pub fn cache(&self) -> Vec<nhrp::CacheEntry> {
        self.node.cache()
    }

    /// Every shortcut, also those that are wanted or rest.
    #[must_use]
    pub fn shortcuts(&self) -> Vec<ShortcutView> {
        self.shortcuts.iter().map(|s| self.shortcut_view(s)).collect()
    }

    /// Why no probe of a peer was answered, from what is known of both ends.
    pub(crate) fn why_unproven(&self, id: PeerId) -> String {
        let Some(peer) = self.peers.get(id) else { return "the peer is gone".into() };
        let tried: Vec<String> = peer.paths().map(|p| p.to_string()).collect();
        let own = self.own_nat();
        let private = peer.nbma_claimed.and_then(|a| peer.paths().find(|p| p.remote == a));
        let nat = PeerNat { natted: peer.natted, observed: peer.paths().next(), private };
        let tried = if tried.is_empty() { "no address".to_owned() } else { tried.join(", ") };
        let mut why = format!("no probe to {tried} was answered; {own}; {nat}");
        if peer.heard {
            why += "; the peer's probes arrive here, so it is the way towards it that is closed";
        }
        let closed = |path| Some(format!("IKE with {path}: {}", self.gate.as_ref()?.why_closed(path)?));
        let closed: Vec<String> = peer.paths().filter_map(closed).chain(peer.refused.clone()).collect();
        if !closed.is_empty() {
            why += &format!("; {}", closed.join("; "));
        }
        let symmetric = matches!(own, OwnNat::PerDestination(_) | OwnNat::PortChanged(_));
        if peer.token.is_none() {
            why += "; it is a foreign router: raw GRE, and ICMP echo to its tunnel address, must pass";
        } else if symmetric && peer.natted {
            why += "; two such NATs can't be passed unless one maps its port by hand";
        } else {
            why += "; check that UDP to both nodes' ports passes the firewalls between them";
        }
        why
    }

    pub(crate) fn own_nat(&self) -> OwnNat {
        OwnNat::of(&self.hubs, self.config.nbma_address, self.config.udp_port)
    }

    fn by_next_hop(
        &self,
        now: Instant,
        destination: IpAddr,
        next_hop: IpAddr,
        shortcut: Option<&Shortcut>,
    ) -> Way {
        let known = self.outside.standing.neighbours.get(&next_hop).copied().flatten();
        let hub = |id: PeerId| self.peers.get(id).and_then(|p| p.hub).and_then(|h| self.hubs.get(h));
        if let Some(id) = known
            && hub(id).is_none()
            && let Some(way) = self.straight(now, id)
        {
            return way;
        }
        let carrier = known.or(self.outside.standing.by_hub);
        let Some((id, hub)) = carrier.and_then(|id| Some((id, hub(id)?))) else {
            let reason = format!("nothing leads to next hop {next_hop}, and no hub is up");
            return Way::Unreachable { reason };
        };
        let Some(path) = self.outside.standing.peers.get(&id).and_then(|row| row.send) else {
            return Way::Unreachable { reason: format!("hub {} does not answer", hub.name) };
        };
        let wanted = shortcut.or_else(|| self.shortcuts.covering(next_hop));
        let reason = self.why_by_hub(now, destination, next_hop, wanted);
        Way::ByHub { hub: hub.name.clone(), path, reason }
    }

    fn why_by_hub(
        &self,
        now: Instant,
        destination: IpAddr,
        next_hop: IpAddr,
        wanted: Option<&Shortcut>,
    ) -> String {
        if self.config.phase == Phase::One {
            return "phase 1: all traffic goes by the hub".into();
        }
        match wanted.map(|s| (s, &s.state)) {
            Some((s, State::Resolving)) => {
                format!(
                    "the hub was asked for the way to {} {}s ago",
                    s.destination,
                    now.since(s.since).as_secs()
                )
            }
            Some((s, State::Forming(leg))) => format!(
                "forming: the direct path to {} is being proven for {:.1}s",
                leg.via,
                now.since(s.since).as_secs_f64()
            ),
            Some((_, State::Resting { reason, until })) if *until > now => {
                format!("{reason}; not tried again for {}s", until.since(now).as_secs())
            }
            Some((_, State::Resting { reason, .. })) => format!("{reason}; tried again when it is used"),
            Some((_, State::Up { .. })) => "a more specific route leads by the hub".into(),
            None if self.hubs.has_address(next_hop) && self.config.phase == Phase::Two => {
                "its next hop is the hub: in phase 2 routing must preserve the spoke's".into()
            }
            None if self.hubs.has_address(next_hop) => {
                format!("no hub has redirected traffic to {destination} yet")
            }
            None => format!("next hop {next_hop} was not used yet"),
        }
    }

    /// The direct way by this peer, if its path is good.
    fn straight(&self, now: Instant, id: PeerId) -> Option<Way> {
        let peer = self.peers.get(id)?;
        let path = peer.direct()?;
        let since = match peer.reach() {
            Reach::Direct { since, .. }
            | Reach::Given { since, .. }
            | Reach::Probing { since, .. }
            | Reach::Listening { since } => since,
        };
        let carries = self.outside.standing.by_hub.and_then(|id| self.peers.get(id)?.hub);
        Some(Way::Direct {
            peer: id,
            identity: peer.identity.clone(),
            path,
            natted: peer.natted,
            duration: now.since(since),
            rtt: peer.rtt(),
            fallback: carries.and_then(|h| self.hubs.get(h)).map(|h| h.name.clone()),
        })
    }

    fn peer_view(&self, p: &Peer) -> PeerView {
        let resting = || {
            let mine = |s: &&Shortcut| p.addresses.contains(&s.destination);
            self.shortcuts.iter().filter(mine).find_map(|s| match &s.state {
                State::Resting { reason, .. } => Some(reason.to_string()),
                _ => None,
            })
        };
        let (state, since) = match p.reach() {
            Reach::Given { alive: true, since, .. } | Reach::Direct { since, .. } => (PeerState::Up, since),
            Reach::Given { alive: false, since, path } => {
                (PeerState::Down(format!("{path} does not answer")), since)
            }
            Reach::Probing { since, .. } => (PeerState::Probing, since),
            Reach::Listening { since } => (resting().map_or(PeerState::Listening, PeerState::Down), since),
        };
        PeerView {
            id: p.id,
            addresses: p.addresses.clone(),
            identity: p.identity.clone(),
            role: match p {
                p if p.hub.is_some() => Role::Hub,
                p if !p.registrations.is_empty() => Role::Registered,
                p if p.fixed => Role::Static,
                _ => Role::Spoke,
            },
            state,
            path: p.direct(),
            candidates: p.paths().collect(),
            nbma_claimed: p.nbma_claimed,
            natted: p.natted,
            group: p.group.clone(),
            rtt: p.rtt(),
            since,
            expires: p.registrations.iter().map(|(_, at)| *at).max(),
        }
    }

    fn shortcut_view(&self, s: &Shortcut) -> ShortcutView {
        let leg = match &s.state {
            State::Forming(leg) | State::Up { leg, .. } => Some(*leg),
            State::Resolving | State::Resting { .. } => None,
        };
        let peer = leg.and_then(|l| self.peers.get(l.peer));
        let up = matches!(s.state, State::Up { .. });
        ShortcutView {
            prefix: s.prefix,
            via: leg.map(|l| l.via),
            identity: peer.and_then(|p| p.identity.clone()),
            path: peer.filter(|_| up).and_then(Peer::direct),
            state: match &s.state {
                State::Resolving => ShortcutState::Resolving,
                State::Forming(_) => ShortcutState::Forming,
                State::Up { .. } => ShortcutState::Up,
                State::Resting { reason, until } => {
                    ShortcutState::Resting { reason: reason.clone(), until: *until }
                }
            },
            since: s.since,
            expires: leg.map(|l| l.expires),
            used: peer.map(|p| p.sent).filter(|at| *at != Instant::ZERO),
        }
    }

    /// The NBMA address in use that a route to `prefix` over the tunnel would cover: such a route must be refused.
    #[must_use]
    pub fn would_recurse(&self, prefix: IpNet) -> Option<IpAddr> {
        self.recursion(prefix, &[])
    }
}
