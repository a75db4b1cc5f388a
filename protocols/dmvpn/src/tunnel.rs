//! The engine of one tunnel.

use crate::action::{Action, Event, Input};
use crate::config::Config;
use crate::routes::Routes;
use crate::view::{CacheView, HubView, PathView, PeerView, ShortcutView, Way};
use claims::Policy;
use ipnet::IpNet;
use packet::{Instant, Path, PeerId};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// The engine of one tunnel.
///
/// After any call that takes `&mut self`, drain [`Tunnel::poll_action`] and [`Tunnel::poll_event`] until both are
/// empty, then ask [`Tunnel::poll_timeout`] when to call [`Tunnel::handle_timeout`]. Actions are carried out strictly
/// in order, each before the next is begun.
pub struct Tunnel {
    config: Config,
    policy: Policy,
    routes: Routes,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
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
}

/// A checkpoint could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by another version, or damaged.
    #[error("the checkpoint can't be read")]
    Unreadable,
    /// Written for another identity or other tunnel addresses.
    #[error("the checkpoint is of another station")]
    OtherStation,
}

/// Everything that the datapath and the kernel were told and that still stands: what a restarted control process
/// compares with what it finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Rows of the peer table.
    pub peers: BTreeMap<PeerId, crate::PeerEntry>,
    /// Permanent neighbours; `None`: by the hub.
    pub neighbours: BTreeMap<IpAddr, Option<PeerId>>,
    /// Shortcut routes.
    pub routes: BTreeMap<IpNet, IpAddr>,
    /// Who carries what has no direct path.
    pub by_hub: Option<PeerId>,
    /// Who receives multicast.
    pub multicast: Vec<PeerId>,
}

impl Tunnel {
    /// An engine that knows nobody yet. `seed` must be random; `first_request_id` must lie ahead of every request ID
    /// that this station used before (RFC 2332 §5.2.3).
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], now: Instant, first_request_id: u32) -> Self {
        let _ = (seed, now, first_request_id);
        let policy = Policy::new(config.networks.clone(), config.admission.clone());
        Self { config, policy, routes: Routes::default(), actions: VecDeque::new(), events: VecDeque::new() }
    }

    /// The engine that wrote `checkpoint`, as it was. It emits no action for what still stands ([`Self::standing`]);
    /// paths that carry are probed at once. Tell it the kernel's routes before anything else.
    ///
    /// # Errors
    /// The checkpoint can't be used; make a new engine.
    pub fn restore(
        config: Config,
        checkpoint: &[u8],
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, RestoreError> {
        let _ = checkpoint;
        Ok(Self::new(config, seed, now, 0))
    }

    /// What [`Self::restore`] needs. Take one after every drain.
    #[must_use]
    pub fn checkpoint(&self, now: Instant) -> Vec<u8> {
        let _ = now;
        Vec::new()
    }

    /// Something happened outside.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        let _ = now;
        if let Input::Route { prefix, target } = input {
            self.routes.set(prefix, target);
        }
    }

    /// The moment of [`Self::poll_timeout`] has come. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to tell people.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The configuration changed: touches only what did.
    pub fn reconfigure(&mut self, now: Instant, config: Config) {
        let _ = now;
        self.config = config;
    }

    /// Clears `what` on request.
    pub fn clear(&mut self, now: Instant, what: Clear) {
        let _ = (now, what);
    }

    /// Deregisters from every hub and withdraws every answer. Drive the engine until [`Self::is_shut_down`], at most
    /// a few seconds.
    pub fn shutdown(&mut self, now: Instant) {
        let _ = now;
    }

    /// Is there nothing left to wait for after [`Self::shutdown`]?
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        true
    }

    /// The NHRP request ID to be kept across restarts.
    #[must_use]
    pub fn request_id(&self) -> u32 {
        0
    }

    /// What was told to the datapath and the kernel and still stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::default()
    }

    /// Who may claim what; for the import filter of BGP.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The identity that the peer with this tunnel address asserts; `None`: unknown, or foreign.
    #[must_use]
    pub fn identity_of(&self, address: IpAddr) -> Option<&str> {
        let _ = address;
        None
    }

    /// The NBMA address in use that a route to `prefix` over the tunnel would cover: such a route must be refused.
    #[must_use]
    pub fn would_recurse(&self, prefix: IpNet) -> Option<IpAddr> {
        let _ = prefix;
        None
    }

    /// Every peer.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        Vec::new()
    }

    /// Every hub we register with, best first.
    #[must_use]
    pub fn hubs(&self) -> Vec<HubView> {
        Vec::new()
    }

    /// Every shortcut, also those that are wanted or rest.
    #[must_use]
    pub fn shortcuts(&self) -> Vec<ShortcutView> {
        Vec::new()
    }

    /// The NHRP cache.
    #[must_use]
    pub fn cache(&self) -> Vec<CacheView> {
        Vec::new()
    }

    /// Which way a packet to `destination` goes now, and why.
    #[must_use]
    pub fn explain_path(&self, now: Instant, destination: IpAddr) -> PathView {
        let _ = (now, self.routes.route(destination));
        PathView { destination, prefix: None, next_hop: None, way: Way::Local }
    }

    /// By which peer a message from `path` came.
    #[must_use]
    pub fn peer_of(&self, path: Path) -> Option<PeerId> {
        let _ = path;
        None
    }
}
