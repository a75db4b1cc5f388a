//! The engine of one tunnel: composes NHRP, claims, the route mirror and the peers, and drives their timers.

use crate::RouteTarget;
use crate::action::{Action, Activity, Event, Input};
use crate::config::{Config, Phase};
use crate::echo::ProbeDrops;
use crate::farewell::Farewell;
use crate::gate::Gate;
use crate::hub::Hubs;
use crate::outside::{Outside, Standing};
use crate::peers::Peers;
use crate::registered::MULTICAST_PACE;
use crate::routes::Routes;
use crate::shortcut::Shortcuts;
use crate::timer::{Timer, Timers};
use crate::world::World;
use claims::Policy;
use ikev2::{ConfigError, Endpoint};
use ipnet::IpNet;
use nhrp::{Environment, Node};
use packet::{Instant, Path, PeerId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::net::IpAddr;

/// GRE protocol type of NHRP.
pub(crate) const GRE_NHRP: u16 = 0x2001;

/// The engine of one tunnel.
///
/// After any call that takes `&mut self`, drain [`Tunnel::poll_action`] and [`Tunnel::poll_event`] until both are
/// empty, then ask [`Tunnel::poll_timeout`] when to call [`Tunnel::handle_timeout`]. Actions are carried out strictly
/// in order, each before the next is begun.
pub struct Tunnel {
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) routes: Routes,
    pub(crate) node: Node,
    pub(crate) peers: Peers,
    pub(crate) hubs: Hubs,
    pub(crate) shortcuts: Shortcuts,
    /// The sessions of an encrypted tunnel; `None`: in clear.
    pub(crate) gate: Option<Gate>,
    pub(crate) outside: Outside,
    pub(crate) events: VecDeque<Event>,
    pub(crate) timers: Timers,
    /// The opaque number of the next probe.
    pub(crate) next_probe: u64,
    random: StdRng,
    pub(crate) drops: ProbeDrops,
    multicast_told: Instant,
    pub(crate) farewell: Farewell,
    /// Restored, and the kernel's routes are only being told: what they lack so far says nothing.
    pub(crate) learning_routes: bool,
}

/// What to clear on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clear {
    /// Leave every shortcut and forget every back-off; what is used is resolved again.
    Shortcuts,
    /// Leave the shortcuts that cover this destination, or go by this peer.
    Shortcut(IpAddr),
    /// Register with every hub again, now.
    Registrations,
    /// (Hub) forget who registered this tunnel address, so that another may have it: the remedy for a conflict when
    /// its owner is gone for good. Who is still there registers again when its registration is due.
    Registration(IpAddr),
}

impl Tunnel {
    /// An engine that knows nobody yet. `seed` must be random; `first_request_id` must lie ahead of every request ID
    /// that this station used before (RFC 2332 §5.2.3).
    ///
    /// # Errors
    /// The settings of IKE can't be used.
    pub fn new(
        config: Config,
        seed: [u8; 32],
        now: Instant,
        first_request_id: u32,
    ) -> Result<Self, ConfigError> {
        let mut random = StdRng::from_seed(seed);
        let mut node_seed = [0; 32];
        random.fill_bytes(&mut node_seed);
        let node = Node::new(station(&config), node_seed, first_request_id);
        let mut tunnel = Self::around(config, node, random);
        if let Some(security) = tunnel.config.security.clone() {
            tunnel.gate = Some(Gate::new(&security, tunnel.seed(), now)?);
            tunnel.watch_sessions(now);
        }
        for hub in tunnel.config.hubs.clone() {
            tunnel.add_hub(now, &hub);
        }
        for peer in tunnel.config.static_peers.clone() {
            tunnel.add_static(now, &peer);
        }
        tunnel.settle(now);
        Ok(tunnel)
    }

    /// An engine around this station, with nobody in it.
    pub(crate) fn around(config: Config, node: Node, random: StdRng) -> Self {
        let policy = Policy::new(config.networks.clone(), config.admission.clone());
        let mut tunnel = Self {
            policy,
            routes: Routes::default(),
            node,
            peers: Peers::default(),
            hubs: Hubs::default(),
            shortcuts: Shortcuts::default(),
            gate: None,
            outside: Outside::default(),
            events: VecDeque::new(),
            timers: Timers::default(),
            next_probe: 0,
            random,
            drops: ProbeDrops::default(),
            multicast_told: Instant::ZERO,
            farewell: Farewell::default(),
            learning_routes: false,
            config,
        };
        tunnel.own_routes();
        tunnel
    }

    /// A seed for a part of the engine.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        seed
    }

    /// Something happened outside.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        if !matches!(input, Input::Route { .. } | Input::WallClock(_)) {
            self.routes_are_learnt(now);
        }
        match input {
            Input::Nhrp { path, payload } if !self.is_heard(path) => {
                self.hear_later(now, path, Some(payload));
            }
            Input::Echo { path, .. } if !self.is_heard(path) => self.hear_later(now, path, None),
            Input::Nhrp { path, payload } => self.nhrp_arrived(now, path, &payload),
            Input::Echo { path, packet } => self.echo(now, path, &packet),
            Input::NextHopWanted { address } => self.next_hop_wanted(now, address),
            Input::Hairpin { from, to, head } => self.hairpinned(now, from, to, &head),
            Input::NobodyThere(path) => self.nobody_there(now, path),
            Input::Activity(moved) => moved.into_iter().for_each(|a| self.active(now, a)),
            Input::Route { prefix, target } => self.route_changed(now, prefix, target),
            Input::HubPaths { hub, paths } => self.hub_paths(now, hub, paths),
            Input::UnderlayAddress(address) => self.underlay_changed(now, address),
            Input::Ike { address, message } => {
                self.with_gate(|e| e.handle_packet(now, address, &message));
            }
            Input::UnknownSpi { path, spi } => self.with_gate(|e| e.unknown_spi(now, path, spi)),
            Input::SaLimit { spi, .. } => self.with_gate(|e| e.rekey_child(now, spi)),
            Input::SaMoved { spi, path } => {
                if let Some(gate) = &mut self.gate {
                    gate.moved(now, spi, path);
                }
            }
            Input::WallClock(seconds) => self.with_gate(|e| e.set_wall_clock(now, seconds)),
        }
        self.settle(now);
    }

    /// The moment of [`Self::poll_timeout`] has come. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.routes_are_learnt(now);
        self.with_gate(|e| e.handle_timeout(now));
        self.with_node(|node, world| node.handle_timeout(now, world));
        self.settle(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Peer(id) => self.drive(now, id),
                Timer::Shortcut(prefix) => self.shortcut_due(now, prefix),
                Timer::Multicast => self.tell_multicast(now),
                Timer::Hubs => self.choose_hub(now),
                Timer::Sessions => self.sweep_sessions(now),
            }
            self.ensure_progress(now, timer);
        }
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.outside.poll()
    }

    /// The next thing to tell people.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ike = self.gate.as_ref().and_then(Gate::poll_timeout);
        let own = self.timers.next().into_iter().chain(self.farewell.deadline());
        own.chain(self.node.poll_timeout()).chain(ike).min()
    }

    /// Clears `what` on request.
    pub fn clear(&mut self, now: Instant, what: Clear) {
        match what {
            Clear::Shortcuts => self.clear_shortcuts(now, None),
            Clear::Shortcut(address) => self.clear_shortcuts(now, Some(address)),
            Clear::Registrations => {
                let hubs: Vec<_> = self.hubs.iter().map(|h| h.id).collect();
                hubs.into_iter().for_each(|id| self.node.register_now(now, id));
            }
            Clear::Registration(address) => self.node.end_registration(address, "cleared"),
        }
        self.settle(now);
    }

    /// The NHRP request ID to be kept across restarts.
    #[must_use]
    pub const fn request_id(&self) -> u32 {
        self.node.request_id()
    }

    /// What was told to the datapath and the kernel and still stands.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.outside.standing
    }

    /// Who may claim what; for the import filter of BGP.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// NHRP messages by type, and those dropped by reason.
    #[must_use]
    pub const fn nhrp_counters(&self) -> &nhrp::Counters {
        self.node.counters()
    }

    /// The station within.
    #[must_use]
    pub const fn nhrp(&self) -> &Node {
        &self.node
    }

    /// Probes that were dropped, by reason; since the process started.
    #[must_use]
    pub const fn probe_drops(&self) -> ProbeDrops {
        self.drops
    }

    /// The identity of the peer with this tunnel address: proven ([`Self::identity_at`]), or as it asserts in a tunnel in
    /// clear. `None`: unknown, or foreign.
    #[must_use]
    pub fn identity_of(&self, address: IpAddr) -> Option<&str> {
        self.peers.get(self.peers.by_address(address)?)?.identity.as_deref()
    }

    /// The peer that packets from `path` are taken to come from.
    #[must_use]
    pub fn peer_of(&self, path: Path) -> Option<PeerId> {
        self.peers.by_path(path)
    }

    // ---- inputs

    /// Packets were moved.
    fn active(&mut self, now: Instant, activity: Activity) {
        let Some(peer) = self.peers.get_mut(activity.peer) else { return };
        if activity.sent > 0 {
            peer.sent = now;
        }
        if activity.received > 0 {
            peer.heard_from(now);
        }
        self.retime_peer(now, activity.peer);
    }

    /// Whoever was at the end of a path may have gone.
    fn nobody_there(&mut self, now: Instant, path: Path) {
        let Some(id) = self.peers.by_path(path) else { return };
        if self.peers.get_mut(id).is_some_and(|peer| peer.denied(now, path)) {
            self.drive(now, id);
        }
    }

    /// A kernel route appeared, changed or went.
    fn route_changed(&mut self, now: Instant, prefix: IpNet, target: Option<RouteTarget>) {
        self.routes.set(prefix, target);
        self.own_routes();
        if !self.learning_routes {
            self.withdraw_what_is_gone(now);
        }
        self.reconsider_hubs(now);
        let ours = matches!(target, Some(RouteTarget::Local | RouteTarget::OffOverlay));
        if ours && prefix.prefix_len() > 0 {
            self.routed_elsewhere(now, prefix);
        }
    }

    /// The kernel's routes have all been told after a restart: what was answered may have gone meanwhile.
    fn routes_are_learnt(&mut self, now: Instant) {
        if std::mem::take(&mut self.learning_routes) {
            self.withdraw_what_is_gone(now);
        }
    }

    /// Withdraws what was answered and no longer leads here, or not all of it.
    fn withdraw_what_is_gone(&mut self, now: Instant) {
        self.with_node(|node, world| node.withdraw_stale(now, world));
    }

    /// The tunnel's own network and addresses are known whatever the kernel says, also before it says anything.
    pub(crate) fn own_routes(&mut self) {
        for network in &self.config.networks {
            if self.routes.get(*network).is_none() {
                self.routes.set(*network, Some(RouteTarget::Overlay(None)));
            }
        }
        for address in &self.config.addresses {
            self.routes.set((*address).into(), Some(RouteTarget::Local));
        }
    }

    /// Our own underlay address changed: everybody must learn of it, and every path must prove itself again.
    pub(crate) fn underlay_changed(&mut self, now: Instant, address: IpAddr) {
        if self.config.nbma_address == address {
            return;
        }
        let old = std::mem::replace(&mut self.config.nbma_address, address);
        self.bind_sessions(now, old, address);
        self.node.set_nbma_address(now, address);
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.get_mut(id)
                && (!peer.has_role() || peer.hub.is_some())
            {
                peer.suspect(now);
            }
            self.touch(now, id);
        }
    }

    // ---- NHRP

    /// A message of whoever is at the end of this path.
    pub(crate) fn nhrp_arrived(&mut self, now: Instant, path: Path, payload: &[u8]) {
        if let Err(e) = self.with_node(|node, world| node.handle_packet(now, path, payload, world)) {
            tracing::debug!(%path, error = %e, "NHRP message dropped");
        }
    }

    /// Calls the station with a look at the rest of the engine.
    pub(crate) fn with_node<T>(&mut self, call: impl FnOnce(&mut Node, &dyn Environment) -> T) -> T {
        let world = World {
            config: &self.config,
            policy: &self.policy,
            routes: &self.routes,
            hubs: &self.hubs,
            gate: self.gate.as_ref(),
        };
        call(&mut self.node, &world)
    }

    /// Carries out what the station wants, until it wants nothing more; then what was put off until now.
    pub(crate) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(message) = self.node.poll_transmit() {
                self.transmit(now, message.path, GRE_NHRP, message.payload);
            }
            match self.node.poll_event() {
                Some(event) => self.learnt(now, event),
                None if self.pump(now) || self.take_leave(now) => {}
                None => break,
            }
        }
        if self.timers.is_set(Timer::Multicast) && now.since(self.multicast_told) >= MULTICAST_PACE {
            self.tell_multicast(now);
        }
    }

    /// Tells the endpoint of an encrypted tunnel; what follows from it is carried out by [`Self::settle`].
    fn with_gate(&mut self, call: impl FnOnce(&mut Endpoint)) {
        if let Some(gate) = &mut self.gate {
            call(gate.endpoint());
        }
    }

    fn learnt(&mut self, now: Instant, event: nhrp::Event) {
        use nhrp::Event as Nhrp;
        match event {
            Nhrp::NhsUp { nhs, protocol_address, path, info, observed } => {
                self.nhs_up(now, nhs, protocol_address, path, &info, observed);
            }
            Nhrp::NhsDown { nhs, reason, silent } => self.nhs_down(now, nhs, reason, silent),
            Nhrp::NhsSuspected { nhs, reason } => self.nhs_suspected(nhs, reason),
            Nhrp::RegistrationRefused { nhs, protocol_address, code } => {
                let hub = self.hubs.get(nhs).map(|h| h.name.clone()).unwrap_or_default();
                if code == 14 {
                    self.events.push_back(Event::AddressConflict { address: protocol_address, hub });
                }
            }
            Nhrp::Registered { info, prefix, expires, moved_from, new } => {
                self.registered(now, &info, prefix, expires, moved_from, new);
            }
            Nhrp::Unregistered { protocol_address, reason } => {
                self.unregistered(now, protocol_address, reason)
            }
            Nhrp::RegistrationDenied { protocol_address, path, code, reason } => {
                let reason = if code == 0 { reason } else { format!("{reason} (code {code})") };
                self.events.push_back(Event::RegistrationDenied { address: protocol_address, path, reason });
            }
            Nhrp::Resolved { id, destination, prefix, peer, holding_time } => {
                self.resolved(now, id, destination, prefix, &peer, holding_time);
            }
            Nhrp::ResolutionFailed { id, reason, .. } => self.unresolved(now, id, &reason),
            Nhrp::Asked { peer, holding_time, .. } => self.asked(now, &peer, holding_time),
            Nhrp::Purged { prefix, by } => self.purged(now, prefix, by),
            Nhrp::Indicated { source, destination, path } => self.indicated(now, source, destination, path),
            Nhrp::PeerError { code, from } => {
                tracing::debug!(%from, code, "NHRP error about something we sent")
            }
        }
    }

    // ---- peers

    /// What was handled just now must not be due again just now: time would stand still.
    pub(crate) fn ensure_progress(&mut self, now: Instant, timer: Timer) {
        if let Some(at) = self.timers.when(timer).filter(|at| *at <= now) {
            debug_assert!(false, "{timer:?} is due again at once ({at:?})");
            self.timers.set(timer, now + MULTICAST_PACE);
        }
    }

    pub(crate) fn multicast_changed(&mut self) {
        if !self.timers.is_set(Timer::Multicast) {
            self.timers.set(Timer::Multicast, self.multicast_told + MULTICAST_PACE);
        }
    }

    fn tell_multicast(&mut self, now: Instant) {
        self.timers.stop(Timer::Multicast);
        self.multicast_told = now;
        let members = self.multicast_members();
        self.outside.set_multicast(members);
    }
}

/// The NHRP station of a tunnel.
pub(crate) fn station(config: &Config) -> nhrp::Config {
    nhrp::Config {
        protocol_addresses: config.addresses.clone(),
        nbma_address: config.nbma_address,
        udp_port: Some(config.udp_port),
        identity: config.identity.clone(),
        holding_time: config.nhrp.holding_time,
        authentication: config.nhrp.authentication.clone(),
        unique: config.nhrp.unique,
        mtu: config.mtu,
        group: config.nhrp.group.clone(),
        serve: config.hub,
        shortcuts: config.phase != Phase::One,
        quirks: config.nhrp.quirks,
        max_entries: crate::limits::MAX_PEERS,
    }
}
