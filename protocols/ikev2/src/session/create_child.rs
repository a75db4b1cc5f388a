//! Child SAs are agreed upon: what both IKE_AUTH and CREATE_CHILD_SA say about them (RFC 7296 §1.2, §1.3.1), and the
//! exchange that makes a further one (a lane, RFC 9611).

use super::child::{Agreed, Fate, new_spi};
use super::established::{Established, notify};
use super::natd::Nat;
use super::selectors;
use super::task::{Job, PendingChild, Task};
use super::{Base, Cx, lower_nonce};
use crate::codes::{ExchangeType, NotifyType};
use crate::crypto::{Group, IkeKeys, KeyPair, Nonces};
use crate::exchange::{Patience, Question};
use crate::payload::{KeyExchange, Notify, Payload};
use crate::proposal::{EspSuite, Stage};
use crate::settings::EspChoice;
use crate::timer::Timer;
use crate::{Failure, Message};
use esp::Keys;
use packet::Path;
use rand::Rng;
use std::time::Duration;

/// Child SAs of a session beyond its lanes: replacements that are not finished, and a foreign peer's duplicates.
const SPARE: usize = 4;

/// Octets of our nonces.
///
/// //= rfc7296#2.10
/// //# Nonces used in IKEv2 MUST be randomly chosen, MUST be at least 128 bits in size, and MUST be at least half the
/// //# key size of the negotiated pseudorandom function (PRF).
const NONCE_LEN: usize = 32;

/// A peer that is not ours may never show that it has our answer; it has it by then, or asks again.
const CONFIRM_FOREIGN: Duration = Duration::from_secs(1);

/// As long for one of ours, whose next message may be late.
const CONFIRM: Duration = Duration::from_secs(20);

/// A fresh nonce.
pub(crate) fn nonce(cx: &mut Cx<'_>) -> Vec<u8> {
    let mut nonce = vec![0; NONCE_LEN];
    cx.rng.fill_bytes(&mut nonce);
    nonce
}

/// Which end of an exchange we are, and what a child's keys come from.
pub(crate) struct Exchange<'a> {
    pub keys: &'a IkeKeys,
    /// Did we begin this exchange?
    pub initiator: bool,
    pub nonces: Nonces<'a>,
    pub shared: Option<&'a [u8]>,
}

/// Why no child SA came to be: what the peer is told, or has told us.
pub(crate) type Refusal = Box<(Notify, Failure)>;

/// What is proposed: transport mode, proposals, selectors; in CREATE_CHILD_SA a nonce and a public value as well.
pub(crate) fn propose(
    cx: &Cx<'_>,
    path: Path,
    inbound: u32,
    stage: Stage,
    fresh: Option<(&[u8], &KeyPair)>,
) -> Vec<Payload> {
    let local = cx.settings.local_or_any(path.remote);
    let mut payloads = vec![
        notify(NotifyType::USE_TRANSPORT_MODE),
        Payload::SecurityAssociation(cx.settings.propose_esp(inbound, stage)),
    ];
    if let Some((nonce, pair)) = fresh {
        payloads.push(Payload::Nonce(nonce.to_vec()));
        payloads.push(public_value(pair));
    }
    payloads.push(Payload::SelectorsInitiator(selectors::propose(local)));
    payloads.push(Payload::SelectorsResponder(selectors::propose(path.remote)));
    payloads
}

/// A KE payload.
pub(crate) fn public_value(pair: &KeyPair) -> Payload {
    Payload::KeyExchange(KeyExchange { group: pair.group().id(), data: pair.public().to_vec() })
}

/// The responder's choice of what is proposed for a child SA.
pub(crate) struct Choice {
    pub esp: EspChoice,
    payloads: Vec<Payload>,
    selectors: [Payload; 2],
}

/// Chooses, as the responder.
pub(crate) fn choose(
    cx: &Cx<'_>,
    path: Path,
    nat: Nat,
    stage: Stage,
    message: &Message,
    inbound: u32,
) -> Result<Choice, Refusal> {
    let proposals = message.proposals().unwrap_or_default();
    let ke = message.key_exchange().map(|ke| ke.group);
    let (esp, answer) = cx.settings.choose_esp(proposals, stage, inbound, ke)?;
    //= rfc7296#1.3.1
    //# ... the USE_TRANSPORT_MODE notification MAY be included in a request message ... If the responder declines the
    //# request, the Child SA will be established in tunnel mode.
    // Which has no meaning here: GRE is the tunnel.
    if message.notify(NotifyType::USE_TRANSPORT_MODE).is_none() {
        return Err(Box::new((Notify::empty(NotifyType::NO_PROPOSAL_CHOSEN), Failure::Selectors)));
    }
    let refused = || Box::new((Notify::empty(NotifyType::TS_UNACCEPTABLE), Failure::Selectors));
    let (theirs, ours) = message.selectors().ok_or_else(refused)?;
    let local = cx.settings.local_ip(path.remote).or_else(|| match ours {
        [crate::payload::TrafficSelector::Range(range), ..] => range.single_address(),
        _ => None,
    });
    let theirs = selectors::narrow(theirs, path.remote, nat.any()).ok_or_else(refused)?;
    let ours = local.and_then(|local| selectors::narrow(ours, local, nat.any())).ok_or_else(refused)?;
    Ok(Choice {
        esp,
        payloads: vec![notify(NotifyType::USE_TRANSPORT_MODE), Payload::SecurityAssociation(vec![answer])],
        selectors: [
            Payload::SelectorsInitiator(vec![theirs.into()]),
            Payload::SelectorsResponder(vec![ours.into()]),
        ],
    })
}

impl Choice {
    /// What the initiator is told.
    pub(crate) fn into_payloads(self, fresh: Option<(&[u8], Option<&KeyPair>)>) -> Vec<Payload> {
        let mut payloads = self.payloads;
        if let Some((nonce, pair)) = fresh {
            payloads.push(Payload::Nonce(nonce.to_vec()));
            payloads.extend(pair.map(public_value));
        }
        payloads.extend(self.selectors);
        payloads
    }
}

/// Reads the responder's choice, as the initiator.
pub(crate) fn accept(
    cx: &Cx<'_>,
    path: Path,
    nat: Nat,
    stage: Stage,
    message: &Message,
) -> Result<EspChoice, Failure> {
    if let Some(error) = message.error() {
        return Err(cx.settings.failure_of("ESP", error.kind));
    }
    let esp = cx.settings.accept_esp(message.proposals().unwrap_or_default(), stage)?;
    if message.notify(NotifyType::USE_TRANSPORT_MODE).is_none() {
        return Err(Failure::Selectors);
    }
    let (ours, theirs) = message.selectors().ok_or(Failure::Selectors)?;
    let local = cx.settings.local_or_any(path.remote);
    let within = selectors::within_ours(ours, local, nat.any())
        && selectors::within_ours(theirs, path.remote, nat.any());
    if within { Ok(esp) } else { Err(Failure::Selectors) }
}

/// The keys of a child SA, from what was chosen.
pub(crate) fn derive(esp: EspChoice, lane: u16, inbound: u32, exchange: &Exchange<'_>) -> Agreed {
    let EspChoice { suite: EspSuite { suite, esn, .. }, spi } = esp;
    let keys = exchange.keys.child(suite, exchange.shared, exchange.nonces);
    let (ours, theirs) =
        if exchange.initiator { (keys.initiator, keys.responder) } else { (keys.responder, keys.initiator) };
    Agreed {
        lane,
        suite,
        esn,
        rank: lower_nonce(exchange.nonces.initiator, exchange.nonces.responder),
        // What the peer sends we open, and the other way round.
        inbound: Keys { spi: inbound, suite, esn, material: theirs },
        outbound: Keys { spi, suite, esn, material: ours },
    }
}

impl Established {
    /// Makes a child SA for a lane that has none.
    ///
    /// ```text
    /// CREATE_CHILD_SA { N(USE_TRANSPORT_MODE) SA Ni KEi TSi TSr N(SA_RESOURCE_INFO) } -->
    ///                                    <-- { N(USE_TRANSPORT_MODE) SA Nr KEr TSi TSr N(SA_RESOURCE_INFO) }
    /// ```
    pub(crate) fn create_child(&mut self, base: &mut Base, cx: &mut Cx<'_>, lane: u16) {
        if self.kept().any(|c| c.lane == lane) {
            return;
        }
        let (new, mut payloads) = self.propose_child(base, cx, lane);
        payloads.extend(lane_info(self, lane));
        self.ask_child(base, cx, &payloads, Task::CreateChild(new));
    }

    /// A proposal with fresh secrets.
    pub(crate) fn propose_child(
        &mut self,
        base: &Base,
        cx: &mut Cx<'_>,
        lane: u16,
    ) -> (PendingChild, Vec<Payload>) {
        let group = self.channel().map_or(Group::X25519, |c| c.keys.suite.group);
        let (inbound, nonce) = (new_spi(cx, lane), nonce(cx));
        let pair = KeyPair::generate(cx.settings.esp_group(group), cx.rng);
        let payloads = propose(cx, base.path, inbound, Stage::Create(group), Some((&nonce, &pair)));
        (PendingChild { lane, inbound, nonce, pair: Some(pair) }, payloads)
    }

    /// Sends it.
    pub(crate) fn ask_child(&mut self, base: &mut Base, cx: &mut Cx<'_>, payloads: &[Payload], task: Task) {
        let address = base.address;
        if let Some(channel) = self.channel() {
            let (exchange, patience) = (ExchangeType::CREATE_CHILD_SA, Patience::Established);
            channel.ask(cx, &mut base.timers, address, Question { exchange, payloads, task, patience });
        }
    }

    /// The answer to [`Self::create_child`].
    pub(crate) fn created_child(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        message: &Message,
        new: PendingChild,
    ) {
        let lane = new.lane;
        match self.finish_child(base, cx, message, &new) {
            Ok(agreed) => {
                let inbound = self.install(base, cx, agreed);
                self.ready(base, cx, inbound);
            }
            Err(Some(NotifyType::TS_MAX_QUEUE | NotifyType::NO_ADDITIONAL_SAS)) => {
                // The peer has enough: other lanes go by those that are there.
                self.jobs.retain(|job| !matches!(job, Job::CreateChild(_)));
            }
            Err(error) => {
                self.refused(
                    base,
                    cx,
                    Job::CreateChild(lane),
                    error.unwrap_or(NotifyType::NO_PROPOSAL_CHOSEN),
                );
            }
        }
    }

    /// What a response that makes a child SA agrees upon; `Err` is what the peer said instead, or nothing if what it
    /// answered is of no use. In that case it is told.
    pub(crate) fn finish_child(
        &mut self,
        base: &Base,
        cx: &mut Cx<'_>,
        message: &Message,
        new: &PendingChild,
    ) -> Result<Agreed, Option<NotifyType>> {
        if let Some(error) = message.error() {
            return Err(Some(error.kind));
        }
        let nat = self.nat;
        let agreed = self.channel().ok_or(None).and_then(|channel| {
            let stage = Stage::Create(channel.keys.suite.group);
            let esp = accept(cx, base.path, nat, stage, message).map_err(|_| None)?;
            let shared = match (esp.suite.group, message.key_exchange()) {
                (Some(group), Some(ke)) => {
                    let pair =
                        new.pair.as_ref().filter(|pair| pair.group() == group && ke.group == group.id());
                    Some(pair.and_then(|pair| pair.agree(&ke.data).ok()).ok_or(None)?)
                }
                (Some(_), None) => return Err(None),
                (None, _) => None,
            };
            let nonces = Nonces { initiator: &new.nonce, responder: message.nonce().ok_or(None)? };
            let shared = shared.as_ref().map(|s| s.as_slice());
            Ok(derive(
                esp,
                new.lane,
                new.inbound,
                &Exchange { keys: &channel.keys, initiator: true, nonces, shared },
            ))
        });
        if agreed.is_err() {
            // The peer believes in an SA that we can't use.
            self.queue(Job::DeleteChild(new.inbound));
        }
        agreed
    }

    /// The peer makes a further child SA.
    pub(crate) fn answer_create_child(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        local: u64,
        message: &Message,
    ) -> Vec<Payload> {
        if self.ike_changes(local) {
            //= rfc7296#2.25.2
            //# If a peer receives a request to create or rekey a Child SA when it is currently rekeying the IKE SA, it
            //# SHOULD reply with TEMPORARY_FAILURE.
            return vec![notify(NotifyType::TEMPORARY_FAILURE)];
        }
        let lane = if self.traits.ours.is_some() { told_lane(message) } else { 0 };
        let most = usize::from(self.lanes) + SPARE;
        let taken = self.traits.ours.is_some() && self.kept().any(|c| c.lane == lane);
        if lane >= self.lanes
            || taken
            || self.children.iter().filter(|c| c.fate != Fate::Draining).count() >= most
        {
            return vec![notify(NotifyType::TS_MAX_QUEUE)];
        }
        match self.grant_child(base, cx, local, message, lane) {
            Err(error) => vec![error],
            Ok((inbound, mut payloads)) => {
                let (ours, sent) = (self.traits.ours.is_some(), message.header.message_id);
                if let Some(child) = self.child_mut(inbound) {
                    child.shown_by = Some((local, sent));
                }
                let wait = if ours { CONFIRM } else { CONFIRM_FOREIGN };
                base.timers.set(Timer::Confirm(inbound), cx.now + wait);
                payloads.extend(lane_info(self, lane));
                payloads
            }
        }
    }

    /// Grants the peer a child SA: receives by it, and says so.
    pub(crate) fn grant_child(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        local: u64,
        message: &Message,
        lane: u16,
    ) -> Result<(u32, Vec<Payload>), Payload> {
        let inbound = new_spi(cx, lane);
        let group = self.channel_of(local).map_or(Group::X25519, |c| c.keys.suite.group);
        let choice = choose(cx, base.path, self.nat, Stage::Create(group), message, inbound)
            .map_err(|refusal| Payload::Notify(refusal.0))?;
        let nonce = nonce(cx);
        let (pair, shared) = match (choice.esp.suite.group, message.key_exchange()) {
            (Some(group), Some(ke)) => {
                let pair = KeyPair::generate(group, cx.rng);
                let shared = pair.agree(&ke.data).map_err(|_| notify(NotifyType::INVALID_SYNTAX))?;
                (Some(pair), Some(shared))
            }
            _ => (None, None),
        };
        let Some(channel) = self.channel_of(local) else { return Err(notify(NotifyType::TEMPORARY_FAILURE)) };
        let nonces = Nonces { initiator: message.nonce().unwrap_or_default(), responder: &nonce };
        let shared = shared.as_ref().map(|s| s.as_slice());
        let exchange = Exchange { keys: &channel.keys, initiator: false, nonces, shared };
        let agreed = derive(choice.esp, lane, inbound, &exchange);
        let payloads = choice.into_payloads(Some((&nonce, pair.as_ref())));
        Ok((self.install(base, cx, agreed), payloads))
    }

    /// Is an IKE SA being replaced, or deleted?
    pub(crate) fn ike_changes(&self, local: u64) -> bool {
        let rekeys = |c: &crate::exchange::Channel| {
            c.deleting
                || c.theirs.is_some()
                || c.request.as_ref().is_some_and(|r| matches!(r.task, Task::RekeyIke(_)))
        };
        self.channels.iter().any(|c| c.local == local && rekeys(c))
    }
}

/// SA_RESOURCE_INFO names the lane; sessions of one lane don't need it.
fn lane_info(session: &Established, lane: u16) -> Option<Payload> {
    (session.lanes > 1)
        .then(|| Payload::Notify(Notify::new(NotifyType::SA_RESOURCE_INFO, lane.to_be_bytes().to_vec())))
}

fn told_lane(message: &Message) -> u16 {
    let told = message.notify(NotifyType::SA_RESOURCE_INFO).and_then(|n| n.data.as_slice().try_into().ok());
    told.map_or(0, u16::from_be_bytes)
}
