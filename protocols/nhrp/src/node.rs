//! The station: what comes in passes a ladder of gates, gets a verdict, and goes to the handler of its kind.

use crate::config::Config;
use crate::counters::count;
use crate::event::{Event, Transmit};
use crate::extension::ExtensionType;
use crate::forward::Forwards;
use crate::limits::Limits;
use crate::packet::{Body, ErrorCode, Exchange, ExchangeType, MessageType, Packet};
use crate::state::State;
use crate::timer::Timer;
use crate::{Environment, Error};
use packet::{Instant, Path};
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::time::Duration;

/// How often tables are looked through for what has ended.
const SWEEP: Duration = Duration::from_secs(30);
/// Room that an emptied queue keeps.
const SMALL_QUEUE: usize = 64;

/// A message being treated, with what is needed to treat it.
#[derive(Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) now: Instant,
    /// Whence it came.
    pub(crate) path: Path,
    pub(crate) packet: &'a Packet,
    /// As it came, to be quoted.
    pub(crate) bytes: &'a [u8],
    pub(crate) env: &'a dyn Environment,
}

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
    pub(crate) rng: StdRng,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
}

impl Node {
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
        let m = &Incoming { now, path, packet: &packet, bytes, env };
        // 3. From one of our network.
        self.authenticate(m)?;
        // 4. And not our own. A registration may be by somebody who wants our address: that is answered.
        let kind = packet.message_type();
        if self.is_own(packet.source) && !kind.is_reply() && kind != MessageType::RegistrationRequest {
            return Err(Error::OwnMessage);
        }
        match &packet.body {
            Body::Exchange(exchange) => self.exchange(m, exchange),
            Body::Error { code, offender, .. } => self.error_received(m, *code, offender),
            Body::Indication { trigger, .. } => self.indicated(m, trigger),
        }
    }

    /// A request or reply: for us, or to be passed on?
    fn exchange(&mut self, m: &Incoming<'_>, exchange: &Exchange) -> Result<(), Error> {
        self.detect_loop(m, exchange)?;
        //= rfc2332#5.3
        // Requests travel to the destination protocol address, replies to the source protocol address.
        let asked_by_us = self.is_own(m.packet.source);
        let asked_of_us = self.is_own(m.packet.destination);
        let handle = match exchange.kind {
            // These two look for themselves whom they are for.
            ExchangeType::ResolutionRequest => return self.resolution_requested(m, exchange),
            ExchangeType::RegistrationRequest => Self::registration_requested,
            ExchangeType::RegistrationReply if asked_by_us => Self::registration_reply,
            ExchangeType::ResolutionReply if asked_by_us => Self::resolution_reply,
            ExchangeType::PurgeReply if asked_by_us => Self::purge_reply,
            ExchangeType::PurgeRequest if asked_of_us => Self::purge_requested,
            _ => return self.pass_on(m, exchange),
        };
        self.refuse_unknown_extensions(m)?;
        handle(self, m, exchange)
    }

    /// Hop-by-hop authentication, Cisco's plain text: exactly one extension, and the right password.
    fn authenticate(&mut self, m: &Incoming<'_>) -> Result<(), Error> {
        let Some(password) = &self.config.authentication else { return Ok(()) };
        let mut presented = m.packet.extensions.iter().filter(|e| e.kind == ExtensionType::AUTHENTICATION);
        let verdict = match (presented.next(), presented.next()) {
            (None, _) => Err(Error::AuthenticationMissing),
            (Some(one), None) if one.authenticates(password) => Ok(()),
            _ => Err(Error::AuthenticationFailed),
        };
        let registers = self.config.serve && m.packet.message_type() == MessageType::RegistrationRequest;
        if verdict.is_err() {
            self.suspect_key(m);
        }
        if verdict.is_err() && self.report_to_author(m, ErrorCode::AUTHENTICATION) && registers {
            let reason = "the NHRP key is wrong or missing".into();
            let protocol_address = m.packet.source;
            self.event(Event::RegistrationDenied { protocol_address, path: m.path, code: 0, reason });
        }
        verdict
    }

    /// As who acts on a message, we must know its compulsory extensions.
    ///
    //= rfc2332#5.3
    /// An unknown one is answered with error 1; without the C bit it is returned unchanged.
    pub(crate) fn refuse_unknown_extensions(&mut self, m: &Incoming<'_>) -> Result<(), Error> {
        if !has_unknown_compulsory(m.packet) {
            return Ok(());
        }
        self.report_to_author(m, ErrorCode::UNRECOGNISED_EXTENSION);
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

/// Does the message have a compulsory extension that we don't know?
pub(crate) fn has_unknown_compulsory(packet: &Packet) -> bool {
    packet.extensions.iter().any(|e| e.compulsory && !e.kind.is_known())
}
