//! IKE_AUTH (RFC 7296 §1.2, §2.15): both ends prove who they are, and the first child SA comes with it.
//!
//! ```text
//!    HDR, SK { IDi, [CERT+], [CERTREQ], AUTH, N(USE_TRANSPORT_MODE), SAi2, TSi, TSr, [N(INITIAL_CONTACT)] } -->
//!                        <-- HDR, SK { IDr, [CERT+], AUTH, N(USE_TRANSPORT_MODE), SAr2, TSi, TSr, [N(IC)] }
//!    (ours to ours) HDR, SK { } -->
//! ```
//!
//! The responder's child is received by at once and sent by when the initiator has shown that it has the answer: one
//! of ours asks something right away, of a foreign one we can't know and don't wait.

use super::child::{Agreed, Sending, jittered, new_spi};
use super::create_child::{self, Exchange, Refusal, choose, derive, propose};
use super::established::{Established, notify};
use super::natd::Nat;
use super::peer::Traits;
use super::rekey_ike::export_keys;
use super::task::{Job, Task};
use super::{Base, Cx, Note, State, lower_nonce, path_of};
use crate::codes::{ExchangeType, NotifyType};
use crate::counters::Drop;
use crate::crypto::{IkeKeys, IkeSuite, KeyPair, Nonces, auth};
use crate::exchange::{Channel, Incoming, Patience, Question};
use crate::payload::{AuthPayload, Certificate, CertificateRequest, IdPayload, Notify, Payload};
use crate::proposal::Stage;
use crate::timer::Timer;
use crate::{Address, Authentication, Failure, Header, Identification, LocalPort, Message, rules};
use claims::{Identity, Proof};
use packet::Path;
use std::collections::VecDeque;
use std::time::Duration;

/// What IKE_SA_INIT has told both ends.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    pub traits: Traits,
    pub nat: Nat,
    pub ni: Vec<u8>,
    pub nr: Vec<u8>,
}

impl Handshake {
    fn nonces(&self) -> Nonces<'_> {
        Nonces { initiator: &self.ni, responder: &self.nr }
    }
}

/// We began, and have said who we are.
#[derive(Debug)]
pub(crate) struct ExpectAuthReply {
    handshake: Handshake,
    channel: Channel,
    /// The peer's answer to IKE_SA_INIT: its AUTH covers it.
    init_reply: Vec<u8>,
    /// Our SPI of the first child.
    inbound: u32,
}

/// A peer began; it has not said yet who it is.
#[derive(Debug)]
pub(crate) struct ExpectAuth {
    handshake: Handshake,
    suite: IkeSuite,
    /// The initiator's SPI, and ours.
    spis: (u64, u64),
    pair: KeyPair,
    peer_value: Vec<u8>,
    init_request: Vec<u8>,
    init_reply: Vec<u8>,
    /// Made when the first protected message comes: what strangers begin and leave costs one multiplication, not two.
    channel: Option<Channel>,
    /// It was refused; only kept to say so again.
    refused: bool,
}

/// What an initiator is granted.
struct Granted {
    remote: Identification,
    identity: Identity,
    agreed: Agreed,
    payloads: Vec<Payload>,
}

/// What AUTH of one end covers.
fn signed(keys: &IkeKeys, initiator: bool, message: &[u8], peer_nonce: &[u8], id: &IdPayload) -> Vec<u8> {
    auth::signed_octets(keys.suite.prf, message, peer_nonce, &keys.side(initiator).authentication, id)
}

/// CERTREQ, if we judge peers by certificates.
pub(crate) fn certificate_request(cx: &Cx<'_>) -> Option<Payload> {
    let authorities = cx.credentials.authorities();
    (!authorities.is_empty()).then(|| Payload::CertificateRequest(CertificateRequest::x509(&authorities)))
}

/// Says who we are: the ID payload (made by `wrap`), certificates, AUTH.
fn prove(
    cx: &Cx<'_>,
    handshake: &Handshake,
    keys: &IkeKeys,
    initiator: bool,
    message: &[u8],
    remote: Option<&Identification>,
) -> Result<Vec<Payload>, Failure> {
    let id = IdPayload::from(&cx.credentials.local_id());
    let peer_nonce = if initiator { &handshake.nr } else { &handshake.ni };
    let octets = signed(keys, initiator, message, peer_nonce, &id);
    let chain = cx.credentials.chain();
    let authentication = if chain.is_empty() {
        // An initiator doesn't know yet whom it talks to, but perhaps whom it wants to talk to.
        let wanted = || Identification::Fqdn(cx.expect.clone().unwrap_or_default());
        let key =
            remote.map_or_else(|| cx.credentials.shared_key(&wanted()), |id| cx.credentials.shared_key(id));
        let key = key.ok_or_else(|| Failure::Authentication("we have no key for it".to_owned()))?;
        AuthPayload {
            method: crate::codes::AuthType::SHARED_KEY,
            data: auth::shared_key(keys.suite.prf, &key, &octets),
        }
    } else {
        let signed = cx.credentials.sign(&handshake.traits.hashes, &octets);
        signed.map_err(|error| Failure::Authentication(error.to_string()))?.into()
    };
    let id = if initiator { Payload::IdInitiator(id) } else { Payload::IdResponder(id) };
    let certificates = chain.into_iter().map(|der| Payload::Certificate(Certificate::x509(der)));
    Ok(std::iter::once(id)
        .chain(certificates)
        .chain(if initiator { certificate_request(cx) } else { None })
        .chain([Payload::Authentication(authentication)])
        .collect())
}

/// Judges what the peer says about itself.
fn judge(
    cx: &Cx<'_>,
    handshake: &Handshake,
    keys: &IkeKeys,
    peer_is_initiator: bool,
    init_message: &[u8],
    message: &Message,
) -> Result<(Identification, Identity), Failure> {
    let wrong = |what: String| Failure::Authentication(what);
    let (id, our_nonce) = if peer_is_initiator {
        (message.id_initiator(), &handshake.nr)
    } else {
        (message.id_responder(), &handshake.ni)
    };
    let id = id.ok_or_else(|| wrong("it does not say who it is".to_owned()))?;
    let proof = message.authentication().ok_or_else(|| wrong("it proves nothing".to_owned()))?;
    let remote = Identification::try_from(id).map_err(|error| wrong(error.to_string()))?;
    let octets = signed(keys, peer_is_initiator, init_message, our_nonce, id);
    let authentication = Authentication::try_from(proof).map_err(|error| wrong(error.to_string()))?;
    let identity = if authentication.method == crate::AuthMethod::SharedKey {
        let key = cx.credentials.shared_key(&remote);
        let key =
            key.ok_or_else(|| wrong(format!("`{remote}` uses a pre-shared key, and we have none for it")))?;
        if !auth::shared_key_matches(keys.suite.prf, &key, &octets, &authentication.data) {
            return Err(wrong(format!("the pre-shared key of `{remote}` is not ours")));
        }
        Identity { name: remote.to_string(), proof: Proof::SharedKey }
    } else {
        let chain: Vec<Vec<u8>> = message.certificates().map(<[u8]>::to_vec).collect();
        let verified = cx.credentials.verify(cx.unix, &remote, &chain, &octets, &authentication);
        verified.map_err(|error| wrong(error.to_string()))?
    };
    if claims::is_pattern(&identity.name) {
        return Err(wrong(format!("`{}` is no name of one peer", identity.name)));
    }
    match &cx.expect {
        Some(pattern) if !claims::matches(pattern, Some(&identity.name)) => {
            Err(Failure::Identity { expected: pattern.clone(), found: identity.name })
        }
        _ => Ok((remote, identity)),
    }
}

impl ExpectAuthReply {
    pub(crate) const fn spis(&self) -> (u64, u64) {
        self.channel.spis()
    }

    /// Says who we are.
    pub(crate) fn begin(
        base: &mut Base,
        cx: &mut Cx<'_>,
        handshake: Handshake,
        mut channel: Channel,
        init_request: Vec<u8>,
        init_reply: Vec<u8>,
    ) -> State {
        export_keys(cx, &channel.keys, channel.spis());
        let mut payloads = match prove(cx, &handshake, &channel.keys, true, &init_request, None) {
            Ok(payloads) => payloads,
            Err(failure) => {
                base.over(cx, failure);
                return State::Over;
            }
        };
        let inbound = new_spi(cx, 0);
        payloads.extend(first_contact(cx, &whom(base, cx)));
        payloads.extend(propose(cx, base.path, inbound, Stage::Auth, None));
        let (exchange, patience) = (ExchangeType::IKE_AUTH, Patience::Established);
        let question = Question { exchange, payloads: &payloads, task: Task::Auth, patience };
        channel.ask(cx, &mut base.timers, base.address, question);
        State::ExpectAuthReply(Box::new(Self { handshake, channel, init_reply, inbound }))
    }

    /// Nothing came.
    pub(crate) fn handle_timeout(&mut self, base: &mut Base, cx: &mut Cx<'_>, timer: Timer) {
        if timer == Timer::Retransmit(self.channel.local)
            && !self.channel.ask_again(cx, &mut base.timers, base.address)
        {
            base.over(cx, Failure::Timeout);
        }
    }

    /// Something came that bears our SPI.
    pub(crate) fn handle(
        mut self: Box<Self>,
        base: &mut Base,
        cx: &mut Cx<'_>,
        from: Address,
        header: &Header,
        datagram: &[u8],
    ) -> State {
        // Nothing but the answer has a place here; what the peer asks it asks again.
        if !header.response || header.exchange != ExchangeType::IKE_AUTH {
            cx.drop(Drop::State);
            return State::ExpectAuthReply(self);
        }
        match self.channel.receive(cx, &mut base.timers, from, header, datagram) {
            Incoming::Response(message, _) => self.finish(base, cx, &message),
            _ => State::ExpectAuthReply(self),
        }
    }

    fn finish(self: Box<Self>, base: &mut Base, cx: &mut Cx<'_>, message: &Message) -> State {
        let Self { handshake, channel, init_reply, inbound } = *self;
        if let Err(illegal) = rules::check(ExchangeType::IKE_AUTH, true, &message.payloads) {
            base.over(cx, Failure::Protocol(illegal.to_string()));
            return State::Over;
        }
        if message.authentication().is_none() {
            let kind = message.error().map_or(NotifyType::AUTHENTICATION_FAILED, |n| n.kind);
            base.over(cx, cx.settings.failure_of("ESP", kind));
            return State::Over;
        }
        let judged = judge(cx, &handshake, &channel.keys, false, &init_reply, message);
        let agreed = create_child::accept(cx, base.path, handshake.nat, Stage::Auth, message).map(|esp| {
            let exchange =
                Exchange { keys: &channel.keys, initiator: true, nonces: handshake.nonces(), shared: None };
            derive(esp, 0, inbound, &exchange)
        });
        let (remote, identity) = match judged {
            Ok(known) => known,
            // It believes in the session, so it is told.
            Err(failure) => {
                return Established::leave_at_once(base, cx, handshake, channel, failure);
            }
        };
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(failure) => return Established::leave_at_once(base, cx, handshake, channel, failure),
        };
        let restarted = message.notify(NotifyType::INITIAL_CONTACT).is_some();
        let mut session = Established::new(base, cx, handshake, channel, remote, identity);
        cx.notes.push(Note::Established { restarted, began: base.path });
        let inbound = session.install(base, cx, agreed);
        session.ready(base, cx, inbound);
        if session.traits.ours.is_some() {
            for lane in 1..session.lanes {
                session.queue(Job::CreateChild(lane));
            }
            // The last request shows the peer that we have its answer to the one before.
            session.queue(Job::Liveness);
        }
        session.run(base, cx);
        State::Established(Box::new(session))
    }
}

impl ExpectAuth {
    pub(crate) const fn spis(&self) -> (u64, u64) {
        self.spis
    }

    pub(crate) fn new(
        handshake: Handshake,
        suite: IkeSuite,
        spis: (u64, u64),
        pair: KeyPair,
        peer_value: Vec<u8>,
        init_request: &[u8],
        init_reply: Vec<u8>,
    ) -> Self {
        Self {
            handshake,
            suite,
            spis,
            pair,
            peer_value,
            init_request: init_request.to_vec(),
            init_reply,
            channel: None,
            refused: false,
        }
    }

    /// The initiator has not got our answer to IKE_SA_INIT.
    pub(crate) fn answer_again(&self, base: &Base, cx: &mut Cx<'_>, request: &[u8]) {
        //= rfc7296#2.1
        //# The responder MUST never retransmit a response unless it receives a retransmission of the request.
        if request == self.init_request {
            cx.out.counters.answered_again += 1;
            cx.transmit(base.address, self.init_reply.clone());
        } else {
            cx.drop(Drop::State);
        }
    }

    /// It took too long.
    pub(crate) fn handle_timeout(&mut self, base: &mut Base, cx: &mut Cx<'_>) {
        base.over(cx, Failure::Timeout);
    }

    /// Something came that bears our SPI.
    pub(crate) fn handle(
        mut self: Box<Self>,
        base: &mut Base,
        cx: &mut Cx<'_>,
        from: Address,
        header: &Header,
        datagram: &[u8],
    ) -> State {
        // A NAT was found on port 500: it goes on on 4500 (RFC 7296 §2.23). Otherwise it stays where it began.
        if header.response || header.exchange != ExchangeType::IKE_AUTH {
            cx.drop(Drop::State);
            return State::ExpectAuth(self);
        }
        if self.refused {
            if let Some(channel) = &mut self.channel {
                channel.repeat(cx, from, header, datagram);
            }
            return State::ExpectAuth(self);
        }
        if self.channel.is_none() {
            match self.agree() {
                Some(channel) => {
                    export_keys(cx, &channel.keys, channel.spis());
                    self.channel = Some(channel);
                }
                None => {
                    base.over(cx, Failure::Protocol("its public value is invalid".to_owned()));
                    return State::Over;
                }
            }
        }
        let Some(channel) = &mut self.channel else { return State::ExpectAuth(self) };
        match channel.receive(cx, &mut base.timers, from, header, datagram) {
            Incoming::Request(message) => {
                let path = self.path(base, cx, from);
                let began = std::mem::replace(&mut base.path, path);
                base.address = from;
                self.authenticate(base, cx, &message, began)
            }
            Incoming::Malformed(error) => {
                channel.answer(cx, from, ExchangeType::IKE_AUTH, &[Payload::Notify(error)]);
                self.refuse(base, cx, Failure::Protocol("its message is malformed".to_owned()))
            }
            _ => State::ExpectAuth(self),
        }
    }

    /// The path of a peer that goes on from this address. One that began on 500 and goes on on 4500 wraps ESP in UDP if
    /// a NAT was found; others go there because they would know MOBIKE (strongSwan), and send bare ESP.
    fn path(&self, base: &Base, cx: &Cx<'_>, from: Address) -> Path {
        let floated = base.address.local == LocalPort::Ike && from.local == LocalPort::NatTraversal;
        if floated && !self.handshake.nat.any() && !cx.settings.config.force_encapsulation {
            return Path::gre(from.remote.ip());
        }
        path_of(from)
    }

    fn agree(&self) -> Option<Channel> {
        let shared = self.pair.agree(&self.peer_value).ok()?;
        let keys = IkeKeys::initial(self.suite, &shared, self.handshake.nonces(), self.spis);
        let mut channel = Channel::new(self.spis.1, self.spis.0, false, keys, (0, 1));
        channel.fragmentation = self.handshake.traits.fragmentation;
        Some(channel)
    }

    fn authenticate(
        mut self: Box<Self>,
        base: &mut Base,
        cx: &mut Cx<'_>,
        message: &Message,
        began: Path,
    ) -> State {
        let Some(mut channel) = self.channel.take() else { return State::Over };
        let handshake = &self.handshake;
        let granted = self.grant(base, cx, &channel, message);
        let Granted { remote, identity, agreed, payloads } = match granted {
            Ok(granted) => granted,
            Err(refusal) => {
                let (error, failure) = *refusal;
                channel.answer(cx, base.address, ExchangeType::IKE_AUTH, &[Payload::Notify(error)]);
                self.channel = Some(channel);
                return self.refuse(base, cx, failure);
            }
        };
        let ours = handshake.traits.ours.is_some();
        let restarted = message.notify(NotifyType::INITIAL_CONTACT).is_some();
        base.timers.clear();
        channel.answer(cx, base.address, ExchangeType::IKE_AUTH, &payloads);
        let local = channel.local;
        let mut session = Established::new(base, cx, self.handshake, channel, remote, identity);
        cx.notes.push(Note::Established { restarted, began });
        let inbound = session.install(base, cx, agreed);
        if ours {
            if let Some(child) = session.child_mut(inbound) {
                child.shown_by = Some((local, message.header.message_id));
                child.certain = true;
            }
            base.timers.set(Timer::Confirm(inbound), cx.now + CONFIRM);
        } else if cx.generation.is_none() {
            session.ready(base, cx, inbound);
        } else {
            // Another session carries meanwhile.
            base.timers.set(Timer::Confirm(inbound), cx.now + CONFIRM_FOREIGN);
        }
        State::Established(Box::new(session))
    }

    /// Everything that is to be granted, or an error to be told.
    fn grant(
        &self,
        base: &Base,
        cx: &mut Cx<'_>,
        channel: &Channel,
        message: &Message,
    ) -> Result<Granted, Refusal> {
        let told = |kind: NotifyType| move |failure: Failure| Box::new((Notify::empty(kind), failure));
        rules::check(ExchangeType::IKE_AUTH, false, &message.payloads)
            .map_err(|illegal| Failure::Protocol(illegal.to_string()))
            .map_err(told(NotifyType::INVALID_SYNTAX))?;
        let (handshake, keys) = (&self.handshake, &channel.keys);
        let failed = told(NotifyType::AUTHENTICATION_FAILED);
        let (remote, identity) =
            judge(cx, handshake, keys, true, &self.init_request, message).map_err(failed)?;
        let mut payloads =
            prove(cx, handshake, keys, false, &self.init_reply, Some(&remote)).map_err(failed)?;
        let inbound = new_spi(cx, 0);
        let choice = choose(cx, base.path, handshake.nat, Stage::Auth, message, inbound)?;
        let exchange = Exchange { keys, initiator: false, nonces: handshake.nonces(), shared: None };
        let agreed = derive(choice.esp, 0, inbound, &exchange);
        payloads.extend(first_contact(cx, &identity.name));
        payloads.extend(choice.into_payloads(None));
        Ok(Granted { remote, identity, agreed, payloads })
    }

    /// Kept for a while, to say it again.
    fn refuse(mut self: Box<Self>, base: &Base, cx: &mut Cx<'_>, failure: Failure) -> State {
        if !self.refused {
            self.refused = true;
            cx.notes.push(Note::Refused(failure));
        }
        tracing::debug!(path = %base.path, "refused");
        State::ExpectAuth(self)
    }
}

/// If the initiator has not shown by then that it has our answer, we send all the same.
const CONFIRM: Duration = Duration::from_secs(20);

/// A foreign initiator shows nothing; in a moment it has the answer, or asks again.
const CONFIRM_FOREIGN: Duration = Duration::from_secs(1);

/// The name of the peer we want, or its address.
fn whom(base: &Base, cx: &Cx<'_>) -> String {
    let named = cx.expect.clone().filter(|pattern| !pattern.contains('*'));
    named.unwrap_or_else(|| base.path.remote.to_string())
}

/// INITIAL_CONTACT, if this process has no session with the peer and had none.
fn first_contact(cx: &Cx<'_>, whom: &str) -> Option<Payload> {
    //= rfc7296#2.4
    //# The INITIAL_CONTACT notification asserts that this IKE SA is the only IKE SA currently active between the
    //# authenticated identities. ... The INITIAL_CONTACT notification, if sent, MUST be in the first IKE_AUTH request or
    //# response, not as a separate exchange afterwards
    (cx.generation.is_none() && !cx.met.contains(whom)).then(|| notify(NotifyType::INITIAL_CONTACT))
}

impl Established {
    fn new(
        base: &mut Base,
        cx: &mut Cx<'_>,
        handshake: Handshake,
        channel: Channel,
        remote_id: Identification,
        identity: Identity,
    ) -> Self {
        let Handshake { traits, nat, ni, nr } = handshake;
        let config = &cx.settings.config;
        let (lifetime, delay, keepalive) = (config.lifetimes.ike, config.dpd_delay, config.keepalive);
        let wait = jittered(cx, lifetime);
        base.timers.set(Timer::RekeyIke, cx.now + wait);
        base.timers.set(Timer::Liveness, cx.now + delay);
        if nat.us {
            base.timers.set(Timer::Keepalive, cx.now + keepalive);
        }
        cx.out.counters.established += 1;
        Self {
            identity,
            remote_id,
            lanes: traits.lanes(cx.settings),
            traits,
            nat,
            rank: lower_nonce(&ni, &nr),
            current: channel.local,
            channels: vec![channel],
            children: Vec::new(),
            jobs: VecDeque::new(),
            at: cx.now,
            rekeyed: None,
            heard: cx.now,
            suspected: None,
            closing: None,
            refusals: 0,
        }
    }

    /// The peer believes in a session that we don't want: it is told, and nothing else came of it.
    fn leave_at_once(
        base: &mut Base,
        cx: &mut Cx<'_>,
        handshake: Handshake,
        channel: Channel,
        failure: Failure,
    ) -> State {
        let nobody = Identity { name: String::new(), proof: Proof::SharedKey };
        let id = Identification::KeyId(Vec::new());
        let mut session = Self::new(base, cx, handshake, channel, id, nobody);
        base.timers.clear();
        cx.out.counters.established -= 1;
        cx.notes.push(Note::Refused(failure));
        session.close(base, cx);
        State::Established(Box::new(session))
    }
}

impl Sending {
    /// Not yet sent by.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}
