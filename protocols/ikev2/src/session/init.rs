//! IKE_SA_INIT (RFC 7296 §1.2): algorithms, nonces and public values.
//!
//! ```text
//!    HDR, SAi1, KEi, Ni, N(NATD)*2, N(FRAG), N(HASH), V -->
//!                                     <-- HDR, SAr1, KEr, Nr, N(NATD)*2, N(FRAG), N(HASH), V
//! ```

use super::auth::{ExpectAuth, ExpectAuthReply, Handshake};
use super::create_child::{nonce, public_value};
use super::natd;
use super::peer::Traits;
use super::{Base, Cx, Id, Note, Session, State, address_of, path_of};
use crate::codes::{ExchangeType, NotifyType};
use crate::counters::Drop;
use crate::crypto::{Group, IkeKeys, KeyPair, Nonces};
use crate::exchange::{Channel, Patience};
use crate::payload::{Notify, Payload};
use crate::timer::{Timer, Timers};
use crate::{Address, Failure, Header, LocalPort, Message, rules};
use packet::{Encapsulation, Path};
use rand::RngExt;
use std::time::Duration;

/// An error in the clear may be anybody's; if nothing better comes meanwhile, it is believed.
const HINT: Duration = Duration::from_secs(1);

/// How often a responder may send us back to begin again (cookie, group).
const RESTARTS: u8 = 4;

/// How long a peer that began may take to authenticate itself.
const HALF_OPEN: Duration = Duration::from_secs(30);

/// We began.
#[derive(Debug)]
pub(crate) struct ExpectInit {
    spi: u64,
    nonce: Vec<u8>,
    pair: KeyPair,
    cookie: Option<Vec<u8>>,
    /// The request as sent: AUTH covers it.
    request: Vec<u8>,
    sent: u8,
    restarts: u8,
    /// What an error in the clear says.
    hint: Option<Failure>,
}

/// Begins a session.
pub(crate) fn begin(cx: &mut Cx<'_>, id: Id, path: Path) -> Session {
    let spi = cx.rng.random_range(1..=u64::MAX);
    let (nonce, pair) = (nonce(cx), KeyPair::generate(cx.settings.ike_group(), cx.rng));
    let mut base = Base {
        id,
        path,
        address: address_of(path, cx.settings.config.ports),
        initiator: true,
        generation: cx.generation.map_or(0, |g| g.saturating_add(1)),
        born: cx.now,
        timers: Timers::default(),
        stranger: None,
        told: false,
    };
    cx.notes.push(Note::Spi(spi));
    let mut state =
        ExpectInit { spi, nonce, pair, cookie: None, request: Vec::new(), sent: 0, restarts: 0, hint: None };
    state.ask(&mut base, cx);
    Session { base, state: State::ExpectInit(Box::new(state)) }
}

impl ExpectInit {
    pub(crate) const fn spis(&self) -> (u64, u64) {
        (self.spi, 0)
    }

    /// Sends the request, as it has to be now.
    fn ask(&mut self, base: &mut Base, cx: &mut Cx<'_>) {
        let spis = (self.spi, 0);
        let mut payloads = Vec::with_capacity(9);
        //= rfc7296#2.6
        //# If the IKE_SA_INIT response includes the COOKIE notification, the initiator MUST then retry the IKE_SA_INIT
        //# request, and include the COOKIE notification containing the received data as the first payload, and all other
        //# payloads unchanged.
        payloads.extend(self.cookie.clone().map(|c| Payload::Notify(Notify::new(NotifyType::COOKIE, c))));
        payloads.push(Payload::SecurityAssociation(cx.settings.propose_ike(None)));
        payloads.push(public_value(&self.pair));
        payloads.push(Payload::Nonce(self.nonce.clone()));
        payloads.extend(natd::notifies(spis, source(base, cx), base.address.remote));
        payloads.extend(Traits::tell(cx.settings, base.generation));
        let header = Header {
            initiator_spi: self.spi,
            responder_spi: 0,
            exchange: ExchangeType::IKE_SA_INIT,
            initiator: true,
            response: false,
            message_id: 0,
        };
        match (Message { header, payloads }).encode() {
            Ok(request) => self.request = request,
            // The proposals in the configuration are too long for a message.
            Err(_) => return base.over(cx, Failure::Protocol("our proposals are too long".to_owned())),
        }
        self.sent = 1;
        self.send(base, cx);
    }

    fn send(&self, base: &mut Base, cx: &mut Cx<'_>) {
        cx.transmit(base.address, self.request.clone());
        if let Some(wait) = Patience::First.wait(self.sent) {
            base.timers.set(Timer::Retransmit(self.spi), cx.now + wait);
        }
    }

    /// Nothing came, or nothing good.
    pub(crate) fn handle_timeout(&mut self, base: &mut Base, cx: &mut Cx<'_>, timer: Timer) {
        if timer == Timer::Hint {
            return base.over(cx, self.hint.take().unwrap_or(Failure::Timeout));
        }
        self.sent = self.sent.saturating_add(1);
        if Patience::First.wait(self.sent).is_none() {
            return base.over(cx, self.hint.take().unwrap_or(Failure::Timeout));
        }
        cx.out.counters.retransmitted += 1;
        self.send(base, cx);
    }

    /// Something came that bears our SPI.
    pub(crate) fn handle(
        mut self: Box<Self>,
        base: &mut Base,
        cx: &mut Cx<'_>,
        from: Address,
        datagram: &[u8],
    ) -> State {
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(malformed) => {
                cx.out.counters.drop_named(malformed.name());
                return State::ExpectInit(self);
            }
        };
        let header = &message.header;
        let ours = header.response
            && !header.initiator
            && header.exchange == ExchangeType::IKE_SA_INIT
            && header.message_id == 0
            && from.remote.ip() == base.address.remote.ip();
        if !ours || rules::check(header.exchange, true, &message.payloads).is_err() {
            cx.drop(if ours { Drop::Illegal } else { Drop::State });
            return State::ExpectInit(self);
        }
        if let Some(again) = self.restart(cx, &message) {
            self.restarts += 1;
            if again && self.restarts <= RESTARTS {
                self.ask(base, cx);
            } else {
                self.suspect(base, cx, Failure::Protocol("it never accepts how we begin".to_owned()));
            }
            return State::ExpectInit(self);
        }
        if let Some(error) = message.error() {
            let failure = cx.settings.failure_of("IKE", error.kind);
            self.suspect(base, cx, failure);
            return State::ExpectInit(self);
        }
        match self.agree(base, cx, &message) {
            Ok((handshake, channel)) => {
                base.timers.clear();
                ExpectAuthReply::begin(base, cx, handshake, channel, self.request, datagram.to_vec())
            }
            Err(failure) => {
                self.suspect(base, cx, failure);
                State::ExpectInit(self)
            }
        }
    }

    /// Are we sent back to begin again? With a cookie, or with another group. False: with something we don't have.
    fn restart(&mut self, cx: &mut Cx<'_>, message: &Message) -> Option<bool> {
        if let Some(cookie) = message.notify(NotifyType::COOKIE) {
            self.cookie = Some(cookie.data.clone());
            return Some((1..=64).contains(&cookie.data.len()));
        }
        let wanted = message.notify(NotifyType::INVALID_KE_PAYLOAD)?;
        let group = wanted.group().and_then(Group::from_id).filter(|g| cx.settings.offers_ike_group(*g));
        //= rfc7296#1.2
        //# ... the initiator MUST retry the IKE_SA_INIT with the corrected Diffie-Hellman group.  The initiator MUST again
        //# propose its full set of acceptable cryptographic suites because the rejection message was unauthenticated
        if let Some(group) = group {
            self.pair = KeyPair::generate(group, cx.rng);
        }
        Some(group.is_some())
    }

    /// It was not protected, so it is believed only if nothing better comes.
    fn suspect(&mut self, base: &mut Base, cx: &mut Cx<'_>, failure: Failure) {
        self.hint.get_or_insert(failure);
        base.timers.set_if_stopped(Timer::Hint, cx.now + HINT);
    }

    fn agree(
        &self,
        base: &Base,
        cx: &mut Cx<'_>,
        message: &Message,
    ) -> Result<(Handshake, Channel), Failure> {
        let (suite, _) = cx.settings.accept_ike(message.proposals().unwrap_or_default())?;
        let protocol = |what: &str| Failure::Protocol(what.to_owned());
        let ke = message.key_exchange().ok_or_else(|| protocol("no public value"))?;
        if ke.group != suite.group.id() || self.pair.group() != suite.group {
            return Err(protocol("its public value is of another group than the one chosen"));
        }
        let shared = self.pair.agree(&ke.data).map_err(|_| protocol("its public value is invalid"))?;
        let remote = message.header.responder_spi;
        if remote == 0 {
            return Err(protocol("its SPI is zero"));
        }
        let nr = message.nonce().ok_or_else(|| protocol("no nonce"))?;
        let nonces = Nonces { initiator: &self.nonce, responder: nr };
        let spis = (self.spi, remote);
        let keys = IkeKeys::initial(suite, &shared, nonces, spis);
        let nat = natd::detect(message, spis, cx.local_end(base.address), base.address.remote);
        if nat.any() && base.path.encapsulation == Encapsulation::Gre {
            return Err(protocol(
                "a NAT lies between, or it asks for ESP in UDP, and our path is one of bare ESP",
            ));
        }
        let traits = Traits::of(message);
        let mut channel = Channel::new(self.spi, remote, true, keys, (1, 0));
        channel.fragmentation = traits.fragmentation;
        let handshake = Handshake { traits, nat, ni: self.nonce.clone(), nr: nr.to_vec() };
        Ok((handshake, channel))
    }
}

/// Where we say that we send from: a lie, if we want ESP in UDP.
fn source(base: &Base, cx: &Cx<'_>) -> Option<std::net::SocketAddr> {
    let lie = cx.settings.config.force_encapsulation && base.address.local == LocalPort::NatTraversal;
    if lie { None } else { cx.local_end(base.address) }
}

/// Why a stranger is refused, and what it is told.
pub(crate) struct Refused {
    pub notify: Notify,
    pub failure: Failure,
}

/// A stranger begins: answers. `message` is one of IKE_SA_INIT that is legal.
pub(crate) fn respond(
    cx: &mut Cx<'_>,
    id: Id,
    from: Address,
    message: &Message,
    request: &[u8],
) -> Result<Session, Box<Refused>> {
    let syntax = |what: &str| {
        let notify = Notify::empty(NotifyType::INVALID_SYNTAX);
        Box::new(Refused { notify, failure: Failure::Protocol(what.to_owned()) })
    };
    let ke = message.key_exchange().ok_or_else(|| syntax("no public value"))?;
    let ni = message.nonce().ok_or_else(|| syntax("no nonce"))?;
    let proposals = message.proposals().unwrap_or_default();
    let choice = cx
        .settings
        .choose_ike(proposals, None, ke.group)
        .map_err(|notify| Box::new(Refused { failure: cx.settings.no_ike_proposal(proposals), notify }))?;
    if ke.data.len() != choice.suite.group.public_len() {
        return Err(syntax("its public value is too short, or too long"));
    }
    let (local, remote) = (cx.rng.random_range(1..=u64::MAX), message.header.initiator_spi);
    let (nr, pair) = (nonce(cx), KeyPair::generate(choice.suite.group, cx.rng));
    let traits = Traits::of(message);
    let nat = natd::detect(message, (remote, 0), cx.local_end(from), from.remote);
    let next = cx.generation.map_or(0, |g| g.saturating_add(1));
    let generation = traits.ours.map_or(next, |ours| ours.generation);
    let mut base = Base {
        id,
        path: path_of(from),
        address: from,
        initiator: false,
        generation,
        born: cx.now,
        timers: Timers::default(),
        stranger: Some((from, remote)),
        told: false,
    };
    let source = if cx.settings.config.force_encapsulation { None } else { cx.local_end(from) };
    let mut payloads = vec![
        Payload::SecurityAssociation(vec![choice.answer]),
        public_value(&pair),
        Payload::Nonce(nr.clone()),
    ];
    payloads.extend(natd::notifies((remote, local), source, from.remote));
    payloads.extend(super::auth::certificate_request(cx));
    payloads.extend(Traits::tell(cx.settings, generation));
    let header = Header {
        initiator_spi: remote,
        responder_spi: local,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: false,
        response: true,
        message_id: 0,
    };
    let reply = (Message { header, payloads }).encode().map_err(|_| syntax("our answer is too long"))?;
    cx.notes.push(Note::Spi(local));
    cx.transmit(from, reply.clone());
    base.timers.set(Timer::HalfOpen, cx.now + HALF_OPEN);
    let handshake = Handshake { traits, nat, ni: ni.to_vec(), nr };
    let state =
        ExpectAuth::new(handshake, choice.suite, (remote, local), pair, ke.data.clone(), request, reply);
    Ok(Session { base, state: State::ExpectAuth(Box::new(state)) })
}
