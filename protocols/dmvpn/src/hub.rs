//! The hubs we register with: which of them are up, and which one carries what has no direct path.

use crate::action::Event;
use crate::config::HubConfig;
use crate::peer::Reach;
use crate::timer::Timer;
use crate::tunnel::Tunnel;
use nhrp::{NhsConfig, NhsId, PeerInfo};
use packet::{Instant, Path, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// A registration that gets no answer is repeated after this at the latest.
const LONGEST_ABSENCE: Duration = Duration::from_secs(64);

/// All hubs, best first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hubs {
    hubs: Vec<Hub>,
}

/// One hub.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hub {
    pub(crate) id: NhsId,
    pub(crate) name: String,
    pub(crate) priority: u32,
    pub(crate) tunnel_address: Option<IpAddr>,
    /// Who it must prove to be, as a pattern; for encrypted tunnels.
    pub(crate) identity: Option<String>,
    /// Where it may be reached, as configured or as its name was last resolved.
    pub(crate) paths: Vec<Path>,
    /// Its peer, once a path of it is known.
    pub(crate) peer: Option<PeerId>,
    /// Its tunnel addresses by which it accepted a registration that still holds.
    pub(crate) registered: BTreeSet<IpAddr>,
    /// Its tunnel addresses ever heard.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Where it sees us.
    pub(crate) observed: Option<Path>,
    /// People were told that it is up.
    pub(crate) announced: bool,
    pub(crate) since: Instant,
    /// Why it is down.
    pub(crate) reason: Option<String>,
    /// It is up again, and others may still be missing there until then.
    trusted_from: Instant,
}

/// How good a hub is at carrying; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// Registered, and its path answers.
    Good,
    /// Its path answers, but the registration lapsed: its datapath may well go on while its control is away.
    Unregistered,
    /// Its path does not answer: better than nobody.
    Lost,
}

impl Hub {
    fn new(config: &HubConfig, now: Instant) -> Self {
        Self {
            id: config.id,
            name: config.name.clone(),
            priority: config.priority,
            tunnel_address: config.tunnel_address,
            identity: config.identity.clone(),
            paths: config.paths.clone(),
            peer: None,
            registered: BTreeSet::new(),
            addresses: config.tunnel_address.into_iter().collect(),
            observed: None,
            announced: false,
            since: now,
            reason: None,
            trusted_from: now,
        }
    }

    /// Is it configured as it is? Paths of a name that was resolved count as such.
    pub(crate) fn matches(&self, config: &HubConfig) -> bool {
        (&self.name, self.priority, self.tunnel_address, &self.identity)
            == (&config.name, config.priority, config.tunnel_address, &config.identity)
            && (config.paths.is_empty() || self.paths == config.paths)
    }

    /// It is up, and people are told. Everybody whom it served asks for it at intervals that grow as long as it is
    /// away; until all have, it would drop what is for the others.
    fn announce(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.announced, true) {
            self.trusted_from = now + now.since(self.since).min(LONGEST_ABSENCE);
            (self.since, self.reason) = (now, None);
        }
    }

    fn nhs(&self) -> NhsConfig {
        NhsConfig { id: self.id, protocol_address: self.tunnel_address, paths: self.paths.clone() }
    }
}

impl Hubs {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hub> {
        self.hubs.iter()
    }

    pub(crate) fn get(&self, id: NhsId) -> Option<&Hub> {
        self.hubs.iter().find(|h| h.id == id)
    }

    fn get_mut(&mut self, id: NhsId) -> Option<&mut Hub> {
        self.hubs.iter_mut().find(|h| h.id == id)
    }

    /// Is this the tunnel address of a hub of ours?
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.hubs.iter().any(|h| h.addresses.contains(&address))
    }

    /// Does any hub hold a registration of ours?
    pub(crate) fn any_registered(&self) -> bool {
        self.hubs.iter().any(|h| !h.registered.is_empty())
    }
}

impl Tunnel {
    /// A hub was configured.
    pub(crate) fn add_hub(&mut self, now: Instant, config: &HubConfig) {
        let hub = Hub::new(config, now);
        let (id, nhs) = (hub.id, hub.nhs());
        self.hubs.hubs.push(hub);
        self.sort_hubs();
        self.node.set_nhs(now, nhs);
        self.expect_hub(now, id);
    }

    /// Best first; of equal priority, as they are listed: an ID says nothing of the order.
    /// Answers whether the order changed.
    pub(crate) fn sort_hubs(&mut self) -> bool {
        let listed = |id: NhsId| self.config.hubs.iter().position(|h| h.id == id);
        let key = |h: &Hub| (h.priority, listed(h.id));
        let sorted = self.hubs.hubs.is_sorted_by_key(key);
        self.hubs.hubs.sort_by_key(key);
        !sorted
    }

    /// A hub was taken out of the configuration.
    pub(crate) fn remove_hub(&mut self, now: Instant, id: NhsId) {
        let Some(at) = self.hubs.hubs.iter().position(|h| h.id == id) else { return };
        self.node.remove_nhs(now, id);
        let hub = self.hubs.hubs.remove(at);
        self.choose_hub(now);
        let Some(peer) = hub.peer else { return };
        self.abandon(now, peer, "the hub was removed from the configuration");
        if let Some(p) = self.peers.get_mut(peer) {
            p.hub = None;
            p.take_back(now);
        }
        // Unless they are known in another way.
        let other = |id: PeerId| id != peer || self.peers.get(id).is_some_and(|p| p.has_role());
        for address in &hub.addresses {
            if !self.peers.by_address(*address).is_some_and(other) {
                self.outside.remove_neighbour(*address);
            }
        }
        self.touch(now, peer);
        self.multicast_changed();
    }

    /// A hub's entry changed, or its name was resolved again.
    pub(crate) fn change_hub(&mut self, now: Instant, config: &HubConfig) {
        let Some(hub) = self.hubs.get_mut(config.id) else { return };
        hub.name.clone_from(&config.name);
        hub.priority = config.priority;
        hub.tunnel_address = config.tunnel_address;
        hub.identity.clone_from(&config.identity);
        if !config.paths.is_empty() {
            hub.paths.clone_from(&config.paths);
        }
        let (nhs, paths) = (hub.nhs(), hub.paths.clone());
        self.sort_hubs();
        self.node.set_nhs(now, nhs);
        self.expect_hub(now, config.id);
        self.recheck_hub(now, &paths);
        self.choose_hub(now);
    }

    /// A hub's name was resolved.
    pub(crate) fn hub_paths(&mut self, now: Instant, id: NhsId, paths: Vec<Path>) {
        let Some(hub) = self.hubs.get_mut(id) else { return };
        if paths.is_empty() || hub.paths == paths {
            return;
        }
        hub.paths.clone_from(&paths);
        let nhs = hub.nhs();
        self.node.set_nhs(now, nhs);
        self.expect_hub(now, id);
        self.recheck_hub(now, &paths);
    }

    /// A hub may send as soon as it has our registration, which is before we have its reply: its row is there already.
    fn expect_hub(&mut self, now: Instant, id: NhsId) {
        let Some(hub) = self.hubs.get(id) else { return };
        let paths: Vec<Path> = hub.paths.iter().copied().take(4).collect();
        if paths.is_empty() {
            return;
        }
        let known = hub.peer.filter(|p| self.peers.get(*p).is_some());
        let Some(peer) = known.or_else(|| self.create_peer(now)) else { return };
        let free: Vec<Path> = paths
            .into_iter()
            .filter(|path| self.peers.by_path(*path).is_none_or(|owner| owner == peer))
            .collect();
        if let Some(p) = self.peers.get_mut(peer) {
            p.hub = Some(id);
            free.into_iter().for_each(|path| p.expect_from(path));
        }
        if let Some(hub) = self.hubs.get_mut(id) {
            hub.peer = Some(peer);
        }
        self.touch(now, peer);
    }

    /// A hub accepted our registration.
    pub(crate) fn nhs_up(
        &mut self,
        now: Instant,
        id: NhsId,
        address: IpAddr,
        path: Path,
        info: &PeerInfo,
        observed: Option<Path>,
    ) {
        if self.config.addresses.contains(&address) {
            return; // We registered with ourselves: one of several hubs that list each other.
        }
        self.expect_hub(now, id);
        // It may be a peer already: as a spoke of ours, when hubs register with each other. But never another hub's
        // peer: two entries may lead to one hub.
        let free = |peer: &PeerId| self.peers.get(*peer).is_some_and(|p| p.hub.is_none_or(|h| h == id));
        let by_address = self.peers.by_address(address).filter(free);
        let other = by_address.or_else(|| self.peers.by_path(path).filter(free));
        let Some(hub) = self.hubs.get_mut(id) else { return };
        let Some(peer) = other.or(hub.peer) else { return };
        let replaced = hub.peer.replace(peer).filter(|old| *old != peer);
        hub.registered.insert(address);
        hub.addresses.insert(address);
        hub.observed = observed;
        let (name, was_up) = (hub.name.clone(), hub.announced);
        hub.announce(now);
        hub.reason = None;
        if let Some(old) = replaced.and_then(|old| self.peers.get_mut(old)) {
            old.hub = None;
            old.take_back(now);
            let old = old.id;
            self.touch(now, old);
        }
        self.own_path(now, path, peer);
        self.bind_address(now, address, peer);
        let encrypted = self.gate.is_some();
        if let Some(p) = self.peers.get_mut(peer) {
            p.learn(info, encrypted);
            p.hub = Some(id);
            p.give(now, path);
        }
        self.touch(now, peer);
        self.choose_hub(now);
        self.multicast_changed();
        self.install_by(now, peer);
        if !was_up {
            self.wake_unresolved(now);
            self.events.push_back(Event::HubUp { hub: name, address, path, observed });
        }
    }

    /// A hub's row is gone; the next registration makes another.
    pub(crate) fn forget_hub_peer(&mut self, peer: PeerId) {
        for hub in self.hubs.hubs.iter_mut().filter(|h| h.peer == Some(peer)) {
            hub.peer = None;
        }
    }

    /// A hub does not answer, or refuses us. That it does not answer is no news once it is known to be lost.
    pub(crate) fn nhs_down(&mut self, now: Instant, id: NhsId, reason: String, silent: bool) {
        let Some(hub) = self.hubs.get_mut(id) else { return };
        hub.registered.clear();
        if !silent && !hub.announced && hub.reason.as_ref() != Some(&reason) {
            self.events.push_back(Event::HubDown { hub: hub.name.clone(), reason: reason.clone() });
            hub.reason = Some(reason.clone());
        }
        self.hub_down(now, id, reason);
        self.multicast_changed();
    }

    /// What a hub with which we aren't registered seems to want; unproven, so that people are told and no more.
    pub(crate) fn nhs_suspected(&mut self, id: NhsId, reason: String) {
        let Some(hub) = self.hubs.get_mut(id) else { return };
        if !hub.announced && hub.registered.is_empty() && hub.reason.as_ref() != Some(&reason) {
            self.events.push_back(Event::HubDown { hub: hub.name.clone(), reason: reason.clone() });
            hub.reason = Some(reason);
        }
    }

    /// Why there is no session with a hub, for people: NHRP only sees that it does not answer.
    pub(crate) fn hub_is_closed(&mut self, path: Path, why: String) {
        let at: Vec<NhsId> = self.hubs.iter().filter(|h| h.paths.contains(&path)).map(|h| h.id).collect();
        for id in at {
            self.nhs_suspected(id, why.clone());
        }
    }

    /// A hub's path no longer answers probes, or its session is gone.
    pub(crate) fn hub_lost(&mut self, now: Instant, peer: PeerId, why: &str) {
        let Some(id) = self.peers.get(peer).and_then(|p| p.hub) else { return };
        self.hub_down(now, id, why.to_owned());
        // It may have restarted and have forgotten us: only a registration makes it answer again.
        self.node.register_now(now, id);
        self.abandon(now, peer, "the hub at the end of it does not answer");
    }

    /// A lost hub's path answers again.
    pub(crate) fn hub_back(&mut self, now: Instant, peer: PeerId) {
        let Some(id) = self.peers.get(peer).and_then(|p| p.hub) else { return };
        self.node.register_now(now, id);
        let path = self.peers.get(peer).and_then(|p| p.direct());
        let Some(hub) = self.hubs.get_mut(id) else { return };
        if let (false, Some(path), Some(address)) = (hub.announced, path, hub.registered.first().copied()) {
            hub.announce(now);
            let (hub, observed) = (hub.name.clone(), hub.observed);
            self.events.push_back(Event::HubUp { hub, address, path, observed });
        }
        self.choose_hub(now);
    }

    fn hub_down(&mut self, now: Instant, id: NhsId, reason: String) {
        if let Some(hub) = self.hubs.get_mut(id) {
            let first = hub.reason.replace(reason.clone()).is_none();
            let fell = std::mem::take(&mut hub.announced);
            if fell {
                hub.since = now;
            }
            if fell || first {
                self.events.push_back(Event::HubDown { hub: hub.name.clone(), reason });
            }
        }
        self.choose_hub(now);
    }

    /// Decides who carries what has no direct path, and makes it so. In this order: somebody else carries, the lost
    /// hub's row lets go, its neighbour entries follow.
    pub(crate) fn choose_hub(&mut self, now: Instant) {
        let hubs = self.hubs.iter().filter_map(|h| Some((self.fitness(h)?, h)));
        let best = hubs.min_by_key(|(fitness, hub)| (*fitness, now < hub.trusted_from));
        let next = self.hubs.iter().map(|h| h.trusted_from).filter(|at| *at > now).min();
        self.timers.set(Timer::Hubs, next.unwrap_or(Instant::NEVER));
        let chosen = best.and_then(|(_, hub)| hub.peer);
        let id = best.map(|(_, hub)| hub.id);
        let good = best.is_some_and(|(fitness, _)| fitness != Fitness::Lost);
        self.node.set_preferred_nhs(id);

        let all: Vec<PeerId> = self.hubs.iter().filter_map(|h| h.peer).collect();
        for peer in &all {
            if let Some(p) = self.peers.get_mut(*peer) {
                p.last_resort = !good && Some(*peer) == chosen;
            }
        }
        if let Some(peer) = chosen {
            self.touch(now, peer);
        }
        self.outside.set_by_hub(chosen);
        for peer in all {
            self.touch(now, peer);
            let Some(p) = self.peers.get(peer) else { continue };
            let reachable = p.direct().is_some() || p.last_resort;
            let trusted = self.hubs.iter().all(|h| h.peer != Some(peer) || now >= h.trusted_from);
            for address in p.addresses.clone() {
                // Routes by a hub that has just returned are as it was before; another hub goes on carrying them.
                let carries = trusted || chosen == Some(peer) || !self.routes.lead_by(address);
                self.outside.set_neighbour(address, (reachable && carries).then_some(peer));
            }
        }
    }

    /// The kernel's routes changed while a hub that returned is not trusted yet.
    pub(crate) fn reconsider_hubs(&mut self, now: Instant) {
        if self.timers.is_set(Timer::Hubs) {
            self.choose_hub(now);
        }
    }

    fn fitness(&self, hub: &Hub) -> Option<Fitness> {
        match self.peers.get(hub.peer?)?.reach() {
            Reach::Given { alive: true, .. } if hub.registered.is_empty() => Some(Fitness::Unregistered),
            Reach::Given { alive: true, .. } => Some(Fitness::Good),
            Reach::Given { alive: false, .. } => Some(Fitness::Lost),
            _ => None,
        }
    }
}
