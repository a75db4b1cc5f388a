//! An IKE SA is replaced (RFC 7296 §1.3.2, §2.18). The children are the session's, so the new one has them at once.
//!
//! ```text
//!    we                                                    the peer
//!    CREATE_CHILD_SA { SA Ni KEi } -->                     has the new IKE SA, begins nothing until we use it
//!    use the new one                  <-- { SA Nr KEr }
//!    INFORMATIONAL { D } --> (by the old one)              uses the new one
//!                                     <-- { }
//! ```
//!
//! Both ends may begin at the same time (§2.8.2); nonces decide as with child SAs.

use super::child::jittered;
use super::create_child::{nonce, public_value};
use super::established::{Established, notify};
use super::task::{Job, PendingIke, Task};
use super::{Base, Cx, Note, lower_nonce};
use crate::codes::{ExchangeType, NotifyType, ProtocolId};
use crate::crypto::{IkeKeys, KeyPair, Nonces};
use crate::exchange::{Channel, Patience, Question};
use crate::payload::{Notify, Payload};
use crate::timer::Timer;
use crate::{Event, Message};
use rand::RngExt;
use std::time::Duration;

/// If the peer has neither used the IKE SA it made nor deleted the old one by then, we use it.
const SWITCH: Duration = Duration::from_secs(40);

/// An IKE SA that was replaced is kept so long, for answers that were lost.
const FORGET: Duration = Duration::from_secs(40);

/// Is this request for another IKE SA? It proposes one.
pub(crate) fn is_meant(message: &Message) -> bool {
    message.proposals().is_some_and(|p| p.first().is_some_and(|p| p.protocol == ProtocolId::IKE))
}

impl Established {
    /// Begins.
    pub(crate) fn rekey_ike(&mut self, base: &mut Base, cx: &mut Cx<'_>) {
        let (address, current) = (base.address, self.current);
        if self.ike_changes(current) {
            return;
        }
        let Some(channel) = self.channels.iter_mut().find(|c| c.local == current) else { return };
        let local = cx.rng.random_range(1..=u64::MAX);
        let nonce = nonce(cx);
        let pair = KeyPair::generate(channel.keys.suite.group, cx.rng);
        let payloads = [
            Payload::SecurityAssociation(cx.settings.propose_ike(Some(local))),
            Payload::Nonce(nonce.clone()),
            public_value(&pair),
        ];
        let task = Task::RekeyIke(PendingIke { local, nonce, pair: Some(pair) });
        let (exchange, patience) = (ExchangeType::CREATE_CHILD_SA, Patience::Established);
        channel.ask(
            cx,
            &mut base.timers,
            address,
            Question { exchange, payloads: &payloads, task, patience },
        );
    }

    /// The answer to [`Self::rekey_ike`].
    pub(crate) fn rekeyed_ike(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        old: u64,
        message: &Message,
        pending: PendingIke,
    ) {
        if let Some(error) = message.error() {
            // If the peer replaces it itself, that is all we want.
            if self.channel_of(old).is_some_and(|c| c.theirs.is_none()) {
                self.refused(base, cx, Job::RekeyIke, error.kind);
            }
            return;
        }
        let Some(new) = self.finish_ike(cx, old, message, &pending) else {
            // The peer believes in an IKE SA that we can't use: only a new session helps.
            cx.notes.push(Note::Suspect);
            return;
        };
        let (local, rank) = (new.local, new.rank.clone());
        self.add_channel(cx, new);
        let theirs = self.channel_of(old).and_then(|c| c.theirs);
        let lost = theirs.and_then(|t| self.channel_of(t)).is_some_and(|theirs| rank < theirs.rank);
        if lost {
            //= rfc7296#2.8.2
            //# The new IKE SA containing the lowest nonce SHOULD be deleted by the node that created it, and the other
            //# surviving new IKE SA MUST inherit all the Child SAs.
            self.queue(Job::DeleteChannel(local));
            return;
        }
        if let Some(theirs) = theirs {
            base.timers.stop(Timer::Switch(theirs));
            base.timers.set(Timer::Forget(theirs), cx.now + FORGET);
        }
        self.use_channel(base, cx, local);
        // RFC 7296 §2.8: who began the replacement that survives deletes what it has replaced.
        self.queue(Job::DeleteChannel(old));
    }

    fn finish_ike(
        &mut self,
        cx: &mut Cx<'_>,
        old: u64,
        message: &Message,
        new: &PendingIke,
    ) -> Option<Channel> {
        let (suite, remote) = cx.settings.accept_ike(message.proposals()?).ok()?;
        let (ke, pair, nr) = (message.key_exchange()?, new.pair.as_ref()?, message.nonce()?);
        if ke.group != suite.group.id() || pair.group() != suite.group {
            return None;
        }
        let shared = pair.agree(&ke.data).ok()?;
        let nonces = Nonces { initiator: &new.nonce, responder: nr };
        let old = self.channel_of(old)?;
        let keys = old.keys.rekeyed(suite, &shared, nonces, (new.local, remote));
        Some(successor(old, keys, (new.local, remote), true, nonces))
    }

    /// The peer begins.
    pub(crate) fn answer_rekey_ike(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        local: u64,
        message: &Message,
    ) -> Vec<Payload> {
        let Some(channel) = self.channel_of(local) else {
            return vec![notify(NotifyType::TEMPORARY_FAILURE)];
        };
        //= rfc7296#2.25.1
        //# If a peer receives a request to rekey the IKE SA, and it is currently creating, rekeying, or closing a Child SA of
        //# that IKE SA, it SHOULD reply with TEMPORARY_FAILURE.
        //= rfc7296#2.25.2
        //# If a peer receives a request to rekey an IKE SA that it is currently trying to close, it SHOULD reply with
        //# TEMPORARY_FAILURE.
        let busy = channel.request.as_ref().is_some_and(|r| {
            matches!(r.task, Task::CreateChild(_) | Task::RekeyChild { .. } | Task::DeleteChild(_))
        });
        if busy || channel.deleting || channel.theirs.is_some() || local != self.current {
            return vec![notify(NotifyType::TEMPORARY_FAILURE)];
        }
        match self.grant_ike(cx, local, message) {
            Err(error) => vec![Payload::Notify(error)],
            Ok((new, payloads)) => {
                let theirs = new.local;
                self.add_channel(cx, new);
                if let Some(channel) = self.channel_of(local) {
                    channel.theirs = Some(theirs);
                }
                self.jobs.retain(|job| *job != Job::RekeyIke);
                base.timers.stop(Timer::RekeyIke);
                base.timers.set(Timer::Switch(theirs), cx.now + SWITCH);
                payloads
            }
        }
    }

    fn grant_ike(
        &mut self,
        cx: &mut Cx<'_>,
        old: u64,
        message: &Message,
    ) -> Result<(Channel, Vec<Payload>), Notify> {
        let syntax = || Notify::empty(NotifyType::INVALID_SYNTAX);
        let (ke, ni) = (message.key_exchange().ok_or_else(syntax)?, message.nonce().ok_or_else(syntax)?);
        let local = cx.rng.random_range(1..=u64::MAX);
        let choice =
            cx.settings.choose_ike(message.proposals().unwrap_or_default(), Some(local), ke.group)?;
        let pair = KeyPair::generate(choice.suite.group, cx.rng);
        let shared = pair.agree(&ke.data).map_err(|_| syntax())?;
        let nonce = nonce(cx);
        let nonces = Nonces { initiator: ni, responder: &nonce };
        let old = self.channel_of(old).ok_or_else(syntax)?;
        let keys = old.keys.rekeyed(choice.suite, &shared, nonces, (choice.spi, local));
        let new = successor(old, keys, (local, choice.spi), false, nonces);
        let payloads = vec![
            Payload::SecurityAssociation(vec![choice.answer]),
            Payload::Nonce(nonce.clone()),
            public_value(&pair),
        ];
        Ok((new, payloads))
    }

    fn add_channel(&mut self, cx: &mut Cx<'_>, channel: Channel) {
        cx.notes.push(Note::Spi(channel.local));
        export_keys(cx, &channel.keys, channel.spis());
        self.channels.push(channel);
    }

    /// Uses another IKE SA from now on.
    pub(crate) fn use_channel(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64) {
        if self.current == local {
            return;
        }
        self.current = local;
        self.rekeyed = Some(cx.now);
        let lifetime = cx.settings.config.lifetimes.ike;
        let wait = jittered(cx, lifetime);
        base.timers.set(Timer::RekeyIke, cx.now + wait);
        base.timers.stop(Timer::Switch(local));
        self.refusals = 0;
        cx.out.counters.rekeyed_ike += 1;
        cx.event(Event::Rekeyed { path: base.path, ike: true });
    }

    /// The peer uses, or has to use, the IKE SA that it made.
    pub(crate) fn switch(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64) {
        if self.channel_of(local).is_none_or(|c| c.deleting) || self.current == local {
            return;
        }
        let old = self.current;
        let lost = self.channel_of(old).is_none_or(|c| c.theirs != Some(local));
        if lost {
            return;
        }
        self.use_channel(base, cx, local);
        base.timers.set_if_stopped(Timer::Forget(old), cx.now + FORGET);
    }

    /// Forgets an IKE SA that is no longer used.
    pub(crate) fn forget(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64) {
        if local == self.current {
            return;
        }
        self.channels.retain(|c| c.local != local);
        for channel in &mut self.channels {
            channel.theirs.take_if(|theirs| *theirs == local);
        }
        for timer in [Timer::Retransmit(local), Timer::Switch(local), Timer::Forget(local)] {
            base.timers.stop(timer);
        }
        self.jobs.retain(|job| *job != Job::DeleteChannel(local));
        cx.notes.push(Note::SpiGone(local));
    }

    /// When an IKE SA that is no longer used may be forgotten.
    pub(crate) fn forget_later(&mut self, base: &mut Base, cx: &Cx<'_>, local: u64) {
        base.timers.set(Timer::Forget(local), cx.now + FORGET);
    }
}

/// The IKE SA that follows another; message IDs begin at 0 again (RFC 7296 §2.2).
fn successor(old: &Channel, keys: IkeKeys, spis: (u64, u64), initiator: bool, nonces: Nonces<'_>) -> Channel {
    let mut new = Channel::new(spis.0, spis.1, initiator, keys, (0, 0));
    new.fragmentation = old.fragmentation;
    new.rank = lower_nonce(nonces.initiator, nonces.responder);
    new
}

/// Tells the secrets of an IKE SA, if we are told to.
pub(crate) fn export_keys(cx: &mut Cx<'_>, keys: &IkeKeys, spis: (u64, u64)) {
    if cx.settings.config.export_keys {
        cx.event(Event::IkeKeys { line: keys.wireshark(spis) });
    }
}
