//! The station: what comes in passes a ladder of gates, gets a verdict, and goes to the handler of its kind.

use crate::answered::Answered;
use crate::cache::{CacheEntry, EntryKind, Registrations, Resolved};
use crate::config::{Config, NhsId, StaticEntry};
use crate::counters::{Counters, count};
use crate::event::{Event, ResolutionId, Transmit};
use crate::extension::{Extension, ExtensionType};
use crate::forward::Forwards;
use crate::limits::{Buckets, Rate};
use crate::packet::{
    Body, Cie, ErrorCode, Exchange, ExchangeType, Family, Flags, MessageType, Packet, Protocol,
};
use crate::purge::Purge;
use crate::registration::Nhs;
use crate::resolution::Resolution;
use crate::timer::{Timer, Timers};
use crate::vendor::{Station, capability};
use crate::{Environment, Error};
use ipnet::IpNet;
use packet::{Instant, Path};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// Hop count of what travels further than to our server.
pub(crate) const HOPS: u8 = 64;
/// How often tables are looked through for what has ended.
const SWEEP: Duration = Duration::from_secs(30);
/// Request IDs skipped when starting from a checkpoint, which may be older than the last request.
const SKIPPED_IDS: u32 = 1024;
/// Most answers that wait to be picked up by `poll_event` and `poll_transmit`; the driver drains after each call.
const SMALL_QUEUE: usize = 64;

/// One NHRP station on one tunnel.
///
/// After each call that takes `&mut self`: drain [`Node::poll_transmit`] and [`Node::poll_event`], then arrange
/// for [`Node::handle_timeout`] at [`Node::poll_timeout`].
///
/// ```
/// # use dmvpn_nhrp::{Config, Environment, Node, NhsConfig, NhsId, Quirks, Route, RegistrationClaim, AnswerClaim, Refusal};
/// # use packet::{Instant, Path};
/// # use std::{net::IpAddr, time::Duration};
/// # struct World;
/// # impl Environment for World {
/// #     fn route(&self, _: IpAddr) -> Route { Route::Unreachable }
/// #     fn authorize_registration(&self, _: &RegistrationClaim<'_>) -> Result<(), Refusal> { Ok(()) }
/// #     fn authorize_answer(&self, _: &AnswerClaim<'_>) -> Result<(), Refusal> { Ok(()) }
/// # }
/// let config = Config {
///     protocol_addresses: vec!["10.200.16.1".parse()?],
///     nbma_address: "198.51.100.11".parse()?,
///     udp_port: Some(4754),
///     identity: "a-1.branch.example.com".into(),
///     holding_time: Duration::from_secs(600),
///     authentication: None,
///     unique: true,
///     mtu: 1400,
///     group: None,
///     serve: false,
///     shortcuts: true,
///     quirks: Quirks::default(),
///     max_entries: 1000,
/// };
/// let now = Instant::ZERO;
/// let mut node = Node::new(config, [7; 32], 1);
/// let hub = Path::udp("198.51.100.1".parse()?, 4754);
/// node.set_nhs(now, NhsConfig { id: NhsId(0), protocol_address: None, paths: vec![hub] });
/// while let Some(message) = node.poll_transmit() {
///     assert_eq!(message.path, hub); // ... GRE protocol 0x2001 carries message.payload there
/// }
/// while let Some(_event) = node.poll_event() {}
/// if let Some(then) = node.poll_timeout() {
///     node.handle_timeout(then, &World);
/// }
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct Node {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) limits: Limits,
    pub(crate) forwards: Forwards,
    rng: StdRng,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

/// What survives a restart of the process.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct State {
    next_request_id: u32,
    /// Used for all registrations and purges where [`crate::Quirks::fixed_request_id`] is set.
    fixed_request_id: u32,
    token: u64,
    pub(crate) next_resolution: u32,
    pub(crate) nhs: BTreeMap<NhsId, Nhs>,
    pub(crate) preferred: Option<NhsId>,
    pub(crate) registered: Registrations,
    pub(crate) statics: BTreeMap<IpAddr, StaticEntry>,
    pub(crate) resolved: BTreeMap<IpNet, Resolved>,
    pub(crate) resolutions: BTreeMap<ResolutionId, Resolution>,
    /// IDs of the last resolutions, so that a repeated answer isn't taken for an unsolicited one.
    pub(crate) finished: VecDeque<u32>,
    pub(crate) answered: Answered,
    pub(crate) purges: BTreeMap<u32, Purge>,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters,
}

/// A station's state, to be written down and given to the [`Node`] that comes after it. Moments in it are of the
/// host's monotonic clock: it is of no use after a reboot.
#[derive(Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    addresses: Vec<IpAddr>,
    state: State,
}

/// What peers may ask of us, and how often we say certain things.
pub(crate) struct Limits {
    /// Messages from one path of a peer that is registered with us.
    pub(crate) peers: Buckets<Path>,
    /// Messages from one path of anybody else: many of them can't crowd out our peers.
    pub(crate) strangers: Buckets<Path>,
    /// Error Indications to one path.
    pub(crate) errors: Buckets<Path>,
    /// Traffic Indications to one path.
    pub(crate) indications: Buckets<Path>,
    /// Traffic Indications about one pair of source and destination.
    pub(crate) indicated_pairs: Buckets<(IpAddr, IpAddr)>,
}

impl Limits {
    fn new(max_entries: usize) -> Self {
        let most = max_entries.saturating_mul(2).max(256);
        let rate = |burst, millis| Rate { burst, interval: Duration::from_millis(millis) };
        Self {
            peers: Buckets::new(rate(128, 20), most),
            strangers: Buckets::new(rate(128, 20), most),
            errors: Buckets::new(rate(8, 1000), most),
            indications: Buckets::new(rate(32, 50), most),
            indicated_pairs: Buckets::new(rate(2, 4000), most.saturating_mul(4)),
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.peers.sweep(now);
        self.strangers.sweep(now);
        self.errors.sweep(now);
        self.indications.sweep(now);
        self.indicated_pairs.sweep(now);
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty()
            && self.strangers.is_empty()
            && self.errors.is_empty()
            && self.indications.is_empty()
            && self.indicated_pairs.is_empty()
    }
}

impl Node {
    /// A station that knows nobody yet. The seed must be random; it feeds jitter and the probe token.
    ///
    //= rfc2332#5.2.3
    /// Registration request IDs must not repeat over restarts: pass a `first_request_id` ahead of all used before
    /// (see [`Node::request_id`]).
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], first_request_id: u32) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let state = State {
            next_request_id: first_request_id,
            fixed_request_id: first_request_id,
            token: rng.next_u64(),
            next_resolution: 0,
            nhs: BTreeMap::new(),
            preferred: None,
            registered: Registrations::default(),
            statics: BTreeMap::new(),
            resolved: BTreeMap::new(),
            resolutions: BTreeMap::new(),
            finished: VecDeque::new(),
            answered: Answered::default(),
            purges: BTreeMap::new(),
            timers: Timers::default(),
            counters: Counters::default(),
        };
        Self::with(config, rng, state)
    }

    /// The station that wrote the checkpoint, gone on. Nothing is announced again: what it knew, it still knows.
    /// When our tunnel addresses have changed since, servers are registered with anew.
    #[must_use]
    pub fn restore(config: Config, checkpoint: Checkpoint, seed: [u8; 32]) -> Self {
        let Checkpoint { addresses, mut state } = checkpoint;
        state.next_request_id = state.next_request_id.wrapping_add(SKIPPED_IDS);
        if addresses != config.protocol_addresses {
            state.nhs.clear();
        }
        Self::with(config, StdRng::from_seed(seed), state)
    }

    fn with(config: Config, rng: StdRng, state: State) -> Self {
        let limits = Limits::new(config.max_entries);
        let forwards = Forwards::new(config.max_entries);
        let (transmits, events) = (VecDeque::new(), VecDeque::new());
        Self { config, state, limits, forwards, rng, transmits, events }
    }

    /// All that must be written down for [`Node::restore`].
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { addresses: self.config.protocol_addresses.clone(), state: self.state.clone() }
    }

    /// The ID that the next request will have. Written down where it survives a reboot; the next start skips ahead.
    #[must_use]
    pub const fn request_id(&self) -> u32 {
        self.state.next_request_id
    }

    /// Our probe token: goes to every station of ours with each request and reply, and stays the same while the
    /// state lives. Probes between two of ours carry the exclusive or of both tokens.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.state.token
    }

    /// The configuration in use.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// A message arrived by `path`, as the payload of GRE protocol 0x2001. An error says why it was dropped; it is
    /// counted here already.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
        env: &dyn Environment,
    ) -> Result<(), Error> {
        let result = self.receive(now, path, bytes, env);
        if let Err(reason) = result {
            tracing::debug!(%path, reason = reason.name(), "NHRP message dropped: {reason}");
            count(&mut self.state.counters.dropped, reason);
        }
        if !self.limits.is_empty() || !self.forwards.is_empty() {
            self.state.timers.start(Timer::Sweep, now + SWEEP);
        }
        result
    }

    /// Does all that is due.
    pub fn handle_timeout(&mut self, now: Instant, env: &dyn Environment) {
        while let Some(timer) = self.state.timers.pop(now) {
            match timer {
                Timer::Register(nhs, protocol) => self.registration_due(now, nhs, protocol),
                Timer::Resolve(id) => self.resolution_due(now, id, env),
                Timer::Unregister(prefix) => self.registration_expired(prefix),
                Timer::Forget(prefix) => drop(self.state.resolved.remove(&prefix)),
                Timer::Purge(id) => self.purge_due(now, id, env),
                Timer::Sweep => self.sweep(now),
            }
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let next = self.transmits.pop_front();
        if self.transmits.is_empty() {
            self.transmits.shrink_to(SMALL_QUEUE);
        }
        next
    }

    /// The next thing learnt.
    pub fn poll_event(&mut self) -> Option<Event> {
        let next = self.events.pop_front();
        if self.events.is_empty() {
            self.events.shrink_to(SMALL_QUEUE);
        }
        next
    }

    /// When [`Node::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.state.timers.next()
    }

    /// The ladder: each gate drops for a reason of its own.
    fn receive(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
        env: &dyn Environment,
    ) -> Result<(), Error> {
        // 1. One peer must not starve the others; our servers speak for many.
        let bucket = match self.state.registered.on_path(&path) {
            0 => &mut self.limits.strangers,
            _ => &mut self.limits.peers,
        };
        if !bucket.take(now, path) && !self.is_nhs_path(&path) {
            return Err(Error::RateLimited);
        }
        // 2. It is an NHRP message.
        let packet = Packet::decode(bytes).inspect_err(|e| self.report_undecodable(now, path, *e, bytes))?;
        count(&mut self.state.counters.received, packet.message_type());
        // 3. From one of our network.
        self.authenticate(now, path, &packet, bytes)?;
        // 4. And not our own. A registration may be by somebody who wants our address: that is answered.
        let kind = packet.message_type();
        if self.is_own(packet.source) && !kind.is_reply() && kind != MessageType::RegistrationRequest {
            return Err(Error::OwnMessage);
        }
        match &packet.body {
            Body::Exchange(exchange) => self.exchange(now, path, &packet, exchange, bytes, env),
            Body::Error { code, offender, .. } => self.error_received(path, &packet, *code, offender, env),
            Body::Indication { trigger, .. } => self.indicated(path, trigger, env),
        }
    }

    /// A request or reply: for us, or to be passed on?
    fn exchange(
        &mut self,
        now: Instant,
        path: Path,
        packet: &Packet,
        exchange: &Exchange,
        bytes: &[u8],
        env: &dyn Environment,
    ) -> Result<(), Error> {
        self.detect_loop(now, path, packet, exchange, bytes)?;
        let kind = exchange.kind;
        //= rfc2332#5.3
        // Requests travel to the destination protocol address, replies to the source protocol address.
        let ours = match kind {
            ExchangeType::RegistrationRequest => true,
            ExchangeType::ResolutionRequest => {
                return self.resolution_requested(now, path, packet, exchange, bytes, env);
            }
            ExchangeType::PurgeRequest => self.is_own(packet.destination),
            ExchangeType::ResolutionReply | ExchangeType::RegistrationReply | ExchangeType::PurgeReply => {
                self.is_own(packet.source)
            }
        };
        if !ours {
            return self.pass_on(now, path, packet, exchange, bytes, env);
        }
        self.refuse_unknown_extensions(now, path, packet, bytes)?;
        match kind {
            ExchangeType::RegistrationRequest => {
                self.registration_requested(now, path, packet, exchange, bytes, env)
            }
            ExchangeType::RegistrationReply => self.registration_reply(now, path, packet, exchange),
            ExchangeType::ResolutionReply => self.resolution_reply(now, path, packet, exchange, bytes, env),
            ExchangeType::PurgeRequest => self.purge_requested(now, path, packet, exchange, bytes),
            ExchangeType::PurgeReply => self.purge_reply(packet, exchange),
            ExchangeType::ResolutionRequest => Ok(()), // above
        }
    }

    /// Hop-by-hop authentication, Cisco's plain text: exactly one extension, and the right password.
    fn authenticate(&mut self, now: Instant, path: Path, packet: &Packet, bytes: &[u8]) -> Result<(), Error> {
        let Some(password) = &self.config.authentication else { return Ok(()) };
        let mut presented = packet.extensions.iter().filter(|e| e.kind == ExtensionType::AUTHENTICATION);
        let verdict = match (presented.next(), presented.next()) {
            (None, _) => Err(Error::AuthenticationMissing),
            (Some(one), None) if one.authenticates(password) => Ok(()),
            _ => Err(Error::AuthenticationFailed),
        };
        if verdict.is_err() && packet.message_type() != MessageType::ErrorIndication {
            self.report_to_author(now, path, packet, ErrorCode::AUTHENTICATION, bytes);
        }
        verdict
    }

    /// As who acts on a message, we must know its compulsory extensions.
    ///
    //= rfc2332#5.3
    /// An unknown one is answered with error 1; without the C bit it is returned unchanged.
    pub(crate) fn refuse_unknown_extensions(
        &mut self,
        now: Instant,
        path: Path,
        packet: &Packet,
        bytes: &[u8],
    ) -> Result<(), Error> {
        if !has_unknown_compulsory(packet) {
            return Ok(());
        }
        self.report_to_author(now, path, packet, ErrorCode::UNRECOGNISED_EXTENSION, bytes);
        Err(Error::UnknownExtension)
    }

    fn sweep(&mut self, now: Instant) {
        self.limits.sweep(now);
        self.forwards.sweep(now);
        self.state.answered.sweep(now);
        if !self.limits.is_empty() || !self.forwards.is_empty() || !self.state.answered.is_empty() {
            self.state.timers.set(Timer::Sweep, now + SWEEP);
        }
    }
}

/// Commands that belong to no exchange.
impl Node {
    /// Maps a peer that doesn't speak NHRP. Requests for it are answered with ourselves: only we have a path to it.
    pub fn add_static(&mut self, entry: StaticEntry) {
        self.state.statics.insert(entry.protocol_address, entry);
    }

    /// Takes such a mapping away, and withdraws what was answered for it.
    pub fn remove_static(&mut self, now: Instant, protocol_address: IpAddr) {
        let Some(entry) = self.state.statics.remove(&protocol_address) else { return };
        self.withdraw(now, IpNet::from(protocol_address));
        for prefix in entry.prefixes {
            self.withdraw(now, prefix);
        }
    }

    /// Our own NBMA address changed: servers are told at once, and what we answered is withdrawn.
    pub fn set_nbma_address(&mut self, now: Instant, address: IpAddr) {
        if self.config.nbma_address == address {
            return;
        }
        self.config.nbma_address = address;
        for id in self.state.nhs.keys().copied().collect::<Vec<_>>() {
            self.register_now(now, id);
        }
        self.withdraw_matching(now, None);
    }

    /// Forgets, as an operator asks for it.
    pub fn clear(&mut self, now: Instant, what: Clear) {
        match what {
            Clear::Answers => {
                for prefix in std::mem::take(&mut self.state.resolved).into_keys() {
                    self.state.timers.stop(Timer::Forget(prefix));
                }
            }
            Clear::Registrations => {
                for prefix in self.state.registered.iter().map(|(p, _)| p).collect::<Vec<_>>() {
                    self.unregister(prefix, "cleared");
                }
            }
            Clear::Servers => {
                for id in self.state.nhs.keys().copied().collect::<Vec<_>>() {
                    self.register_now(now, id);
                }
            }
            Clear::Counters => self.state.counters = Counters::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// All that is known of addresses, for people.
    #[must_use]
    pub fn cache(&self) -> Vec<CacheEntry> {
        let entry = |prefix: IpNet, kind, info: &crate::PeerInfo, path, expires| CacheEntry {
            prefix,
            kind,
            protocol_address: info.protocol_address,
            path,
            nbma_claimed: Some(info.nbma_claimed),
            natted: info.natted,
            expires,
            group: info.group.clone(),
            identity: info.identity.clone(),
        };
        let bare = |address: IpAddr, kind, path, nbma| CacheEntry {
            prefix: IpNet::from(address),
            kind,
            protocol_address: address,
            path,
            nbma_claimed: nbma,
            natted: false,
            expires: None,
            group: None,
            identity: None,
        };
        let nbma = self.config.nbma_address;
        let mut entries: Vec<_> = self
            .config
            .protocol_addresses
            .iter()
            .map(|a| bare(*a, EntryKind::Local, None, Some(nbma)))
            .collect();
        for (address, mapped) in &self.state.statics {
            entries.push(bare(*address, EntryKind::Static, Some(mapped.path), Some(mapped.path.remote)));
        }
        for accepted in self.state.nhs.values().flat_map(Nhs::accepted) {
            let prefix = IpNet::from(accepted.server);
            entries.push(entry(
                prefix,
                EntryKind::Nhs,
                &accepted.info,
                Some(accepted.path),
                Some(accepted.expires),
            ));
        }
        for (prefix, r) in self.state.registered.iter() {
            entries.push(entry(prefix, EntryKind::Registered, &r.info, Some(r.path), Some(r.expires)));
        }
        for (prefix, r) in &self.state.resolved {
            let path = r.info.candidates.first().copied();
            entries.push(entry(*prefix, EntryKind::Cached, &r.info, path, Some(r.expires)));
        }
        for resolution in self.state.resolutions.values() {
            entries.push(bare(resolution.destination, EntryKind::Incomplete, None, None));
        }
        entries
    }
}

/// What [`Node::clear`] forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clear {
    /// Answers we got.
    Answers,
    /// (Server) registrations with us; stations register again when theirs is due.
    Registrations,
    /// Our registrations: made again at once.
    Servers,
    /// Counters.
    Counters,
}

/// Does the message have a compulsory extension that we don't know?
pub(crate) fn has_unknown_compulsory(packet: &Packet) -> bool {
    packet.extensions.iter().any(|e| e.compulsory && !e.kind.is_known())
}

/// What the handlers share.
impl Node {
    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Sends a message: authentication is made anew, since it is hop by hop.
    pub(crate) fn send(&mut self, path: Path, mut packet: Packet) {
        packet.extensions.retain(|e| e.kind != ExtensionType::AUTHENTICATION);
        if let Some(password) = &self.config.authentication {
            packet.extensions.push(Extension::authentication(password));
        }
        let kind = packet.message_type();
        let quirk = self.config.quirks.pad_error_indications && kind == MessageType::ErrorIndication;
        match packet.encode(if quirk { 16 } else { 0 }) {
            Ok(payload) => {
                count(&mut self.state.counters.sent, kind);
                self.transmits.push_back(Transmit { path, payload });
            }
            Err(reason) => count(&mut self.state.counters.dropped, reason),
        }
    }

    /// A message of ours from `source` to `destination`, still without a body.
    pub(crate) fn blank(&self, source: IpAddr, destination: IpAddr) -> Packet {
        Packet {
            family: Family::of(self.config.nbma_address),
            protocol: Protocol::of(source),
            hop_count: HOPS,
            source_nbma: Some(self.config.nbma_address),
            source,
            destination,
            body: Body::Error { code: ErrorCode::default(), offset: 0, offender: Vec::new() },
            extensions: Vec::new(),
        }
    }

    /// The reply to a request: addresses, flags that are copied, and all extensions echoed.
    pub(crate) fn reply_to(
        &self,
        request: &Packet,
        exchange: &Exchange,
        kind: ExchangeType,
        entries: Vec<Cie>,
    ) -> Packet {
        let Exchange { flags, request_id, .. } = *exchange;
        Packet {
            hop_count: HOPS,
            body: Body::Exchange(Exchange { kind, flags, request_id, entries }),
            ..request.clone()
        }
    }

    /// Our tunnel address of this IP version.
    pub(crate) fn own(&self, protocol: Protocol) -> Option<IpAddr> {
        self.config.protocol_addresses.iter().copied().find(|a| Protocol::of(*a) == protocol)
    }

    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.config.protocol_addresses.contains(&address)
    }

    /// Is it a path of one of our servers?
    pub(crate) fn is_nhs_path(&self, path: &Path) -> bool {
        self.state.nhs.values().any(|nhs| nhs.config.paths.contains(path))
    }

    /// How we describe ourselves to stations of ours.
    pub(crate) fn station(&self, own: IpAddr) -> Station {
        Station {
            identity: Some(self.config.identity.clone()).filter(|i| !i.is_empty()),
            token: Some(self.state.token),
            private: Some(self.config.nbma_address),
            udp_port: self.config.udp_port,
            capabilities: capability::PROBES,
            ..Station::new(own)
        }
    }

    /// Our own CIE, as it stands in the responder address and transit extensions.
    pub(crate) fn own_entry(&self, own: IpAddr) -> Cie {
        Cie {
            holding_time: self.holding_time(),
            nbma: Some(self.config.nbma_address),
            protocol: Some(own),
            ..Cie::default()
        }
    }

    /// Our public NBMA address, where a server sees another than we claim.
    pub(crate) fn public_nbma(&self) -> Option<IpAddr> {
        let observed = |nhs: &Nhs| nhs.accepted().find_map(|a| a.observed).map(|p| p.remote);
        self.state.nhs.values().find_map(observed).filter(|a| *a != self.config.nbma_address)
    }

    /// Fills our own CIE into Cisco's NAT extension, or empties it when we are not behind a NAT.
    pub(crate) fn nat_extension(&self, own: IpAddr) -> Extension {
        let entry = self.public_nbma().map(|nbma| Cie {
            prefix_length: Protocol::of(own).bits(),
            mtu: self.config.mtu,
            nbma: Some(nbma),
            protocol: Some(own),
            ..Cie::default()
        });
        Extension::of_entries(ExtensionType::NAT, entry.as_slice())
    }

    /// Our holding time in seconds, as on the wire.
    pub(crate) fn holding_time(&self) -> u16 {
        u16::try_from(self.config.holding_time.as_secs()).unwrap_or(u16::MAX).max(1)
    }

    /// A new request ID.
    pub(crate) const fn take_request_id(&mut self) -> u32 {
        let id = self.state.next_request_id;
        self.state.next_request_id = id.wrapping_add(1);
        id
    }

    /// The request ID for a registration or a purge.
    pub(crate) const fn registration_request_id(&mut self) -> u32 {
        if self.config.quirks.fixed_request_id { self.state.fixed_request_id } else { self.take_request_id() }
    }

    /// The time, a quarter shorter to a quarter longer, so that many stations don't act at once.
    pub(crate) fn jitter(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// The time, up to a tenth shorter: for what must not be late.
    pub(crate) fn jitter_down(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.random_range(0.9..=1.0))
    }

    /// Flags of a request that its reply repeats.
    pub(crate) const fn echoed_flags(flags: Flags) -> Flags {
        flags.and(Flags(Flags::ROUTER.0 | Flags::SOURCE_STABLE.0 | Flags::UNIQUE_ANSWER.0 | Flags::NAT.0))
    }
}
