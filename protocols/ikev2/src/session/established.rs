//! A session that is established: where its messages go to, and what is done next.

use super::child::{Child, Fate, Sending};
use super::natd::Nat;
use super::peer::Traits;
use super::task::{Job, Task};
use super::{Base, Cx, Note, delete, dpd, path_of, rekey_child, rekey_ike};
use crate::codes::{ExchangeType, NotifyType, PayloadType};
use crate::counters::Drop;
use crate::exchange::{Channel, Incoming, Patience};
use crate::payload::{Notify, Payload};
use crate::timer::Timer;
use crate::{Address, Failure, Header, Identification, Message, rules};
use claims::Identity;
use packet::Instant;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Refusals in a row of what has to be done, after which the session is given up.
const REFUSALS: u8 = 5;

/// What both ends have agreed upon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Established {
    pub identity: Identity,
    pub remote_id: Identification,
    pub traits: Traits,
    /// Child SAs that it is to have.
    pub lanes: u16,
    pub nat: Nat,
    /// Decides between sessions of one generation.
    pub rank: Vec<u8>,
    /// IKE SAs: the one we use, and those that come or go.
    pub channels: Vec<Channel>,
    /// The SPI, ours, of the one we use.
    pub current: u64,
    pub children: Vec<Child>,
    pub jobs: VecDeque<Job>,
    /// Since when.
    pub at: Instant,
    pub rekeyed: Option<Instant>,
    /// When it was last certain that the peer lives.
    pub heard: Instant,
    /// When the peer's SAs were last said to be lost.
    pub suspected: Option<Instant>,
    /// It is being closed.
    pub closing: Option<()>,
    pub refusals: u8,
}

impl Established {
    /// The IKE SA we use.
    pub(crate) fn channel(&mut self) -> Option<&mut Channel> {
        let current = self.current;
        self.channel_of(current)
    }

    /// One of the IKE SAs, by our SPI.
    pub(crate) fn channel_of(&mut self, local: u64) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|c| c.local == local)
    }

    /// Asks for something to be done as soon as the window allows.
    pub(crate) fn queue(&mut self, job: Job) {
        if self.closing.is_none() && !self.jobs.contains(&job) {
            // What takes away goes before what adds: an old SA is not in the way of anything for long.
            match job {
                Job::DeleteChild(_) | Job::DeleteChannel(_) => self.jobs.push_front(job),
                _ => self.jobs.push_back(job),
            }
        }
    }

    /// Takes a message with one of our SPIs.
    pub(crate) fn handle(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        from: Address,
        header: &Header,
        datagram: &[u8],
    ) {
        if let Some(kind) = unprotected(datagram) {
            self.unprotected(base, cx, kind);
            return;
        }
        let local = if header.initiator { header.responder_spi } else { header.initiator_spi };
        let Some(channel) = self.channel_of(local) else { return cx.drop(Drop::UnknownSpi) };
        match channel.receive(cx, &mut base.timers, from, header, datagram) {
            Incoming::Done => {}
            Incoming::Malformed(notify) => {
                channel.answer(cx, from, header.exchange, &[Payload::Notify(notify)]);
            }
            Incoming::Request(message) => {
                self.hear(base, cx, from);
                self.request(base, cx, local, &message);
            }
            Incoming::Response(message, task) => {
                self.hear(base, cx, from);
                self.response(base, cx, local, &message, task);
            }
        }
        self.run(base, cx);
    }

    /// The peer lives, and is there.
    fn hear(&mut self, base: &mut Base, cx: &mut Cx<'_>, from: Address) {
        self.heard = cx.now;
        if from != base.address {
            self.follow(base, cx, from);
        }
    }

    /// Goes after a peer whose NAT has given it another address or port. Packets that reach us and are authentic prove
    /// that it is there; a peer that is not behind a NAT stays where it is.
    ///
    /// ```text
    /// //= rfc7296#2.23
    /// There are cases where a NAT box decides to remove mappings that are still alive ... a host that does not support
    /// other methods of recovery ... and that is not behind a NAT, SHOULD send all packets (including retransmission
    /// packets) to the IP address and port in the validated packet
    /// ```
    ///
    /// Child SAs are replaced at once: those that are there are bound to the old path, and one SA must not be sent by
    /// from two places.
    pub(crate) fn follow(&mut self, base: &mut Base, cx: &mut Cx<'_>, to: Address) {
        if !self.nat.peer || self.nat.us || to.local != base.address.local || self.closing.is_some() {
            return;
        }
        let from = std::mem::replace(&mut base.path, path_of(to));
        base.address = to;
        cx.notes.push(Note::Moved { from });
        for inbound in
            self.children.iter().filter(|c| c.fate == Fate::Kept).map(|c| c.inbound).collect::<Vec<_>>()
        {
            self.queue(Job::RekeyChild(inbound));
        }
    }

    fn request(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64, message: &Message) {
        let exchange = message.header.exchange;
        let answer = match rules::check(exchange, false, &message.payloads) {
            Err(illegal) => {
                cx.drop(Drop::Illegal);
                self.answer(base, cx, local, exchange, &[notify(NotifyType::INVALID_SYNTAX)]);
                //= rfc7296#2.21.3
                //# ... then this error notification is considered fatal in both peers, meaning that the IKE SA is deleted
                //# without needing an explicit Delete payload.
                return base.over(cx, Failure::Protocol(illegal.to_string()));
            }
            Ok(()) => match exchange {
                ExchangeType::INFORMATIONAL => self.informational(base, cx, local, message),
                ExchangeType::CREATE_CHILD_SA if self.closing.is_some() => {
                    vec![notify(NotifyType::TEMPORARY_FAILURE)]
                }
                ExchangeType::CREATE_CHILD_SA if rekey_ike::is_meant(message) => {
                    self.answer_rekey_ike(base, cx, local, message)
                }
                ExchangeType::CREATE_CHILD_SA => match rekey_child::is_meant(message) {
                    Some(theirs) => self.answer_rekey_child(base, cx, local, message, theirs),
                    None => self.answer_create_child(base, cx, local, message),
                },
                // IKE_SA_INIT and IKE_AUTH are past.
                _ => return cx.drop(Drop::State),
            },
        };
        self.answer(base, cx, local, exchange, &answer);
        self.after_request(base, cx, local, message);
    }

    fn answer(
        &mut self,
        base: &Base,
        cx: &mut Cx<'_>,
        local: u64,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) {
        if let Some(channel) = self.channel_of(local) {
            channel.answer(cx, base.address, exchange, payloads);
        }
    }

    fn informational(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        local: u64,
        message: &Message,
    ) -> Vec<Payload> {
        if message.notify(NotifyType::AUTHENTICATION_FAILED).is_some() {
            //= rfc7296#2.21.2
            //# If the error occurs on the initiator, the notification MAY be returned in a separate INFORMATIONAL exchange,
            //# usually with no other payloads.
            // The IKE SA is gone then.
            base.over(cx, Failure::Refused);
        }
        self.answer_deletes(base, cx, local, message)
    }

    /// What the peer's request shows beyond what it asks: with a window of one it has our last answer.
    fn after_request(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64, message: &Message) {
        if self.channels.iter().any(|c| c.theirs == Some(local)) {
            // It uses the IKE SA that it made to replace the one we use.
            self.switch(base, cx, local);
        }
        let made_now = message.header.message_id;
        let known: Vec<u32> = self
            .children
            .iter()
            .filter(|c| c.fate == Fate::Kept && c.shown_by.is_some_and(|(l, id)| l == local && id < made_now))
            .map(|c| c.inbound)
            .collect();
        for inbound in known {
            self.ready(base, cx, inbound);
        }
    }

    fn response(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64, message: &Message, task: Task) {
        if let Err(illegal) = rules::check(message.header.exchange, true, &message.payloads) {
            cx.drop(Drop::Illegal);
            return base.over(cx, Failure::Protocol(illegal.to_string()));
        }
        match task {
            Task::Auth | Task::Liveness => {}
            Task::CreateChild(pending) => self.created_child(base, cx, message, pending),
            Task::RekeyChild { old, new } => self.rekeyed_child(base, cx, message, old, new),
            Task::RekeyIke(pending) => self.rekeyed_ike(base, cx, local, message, pending),
            Task::DeleteChild(inbound) => self.deleted_child(base, cx, inbound),
            Task::DeleteIke => self.deleted_ike(base, cx, local),
        }
    }

    /// Something was refused for now, or for good: try again a little later, and not for ever.
    pub(crate) fn refused(&mut self, base: &mut Base, cx: &mut Cx<'_>, job: Job, error: NotifyType) {
        if error != NotifyType::TEMPORARY_FAILURE {
            self.refusals += 1;
        }
        if self.refusals > REFUSALS {
            return base.over(cx, Failure::Notify(error.to_string()));
        }
        //= rfc7296#2.25
        //# When a peer receives a TEMPORARY_FAILURE notification, it MUST NOT immediately retry the operation; it MUST
        //# wait so that the sender may complete whatever operation caused the temporary condition.
        let wait = Duration::from_millis(cx.rng.random_range(300..2000));
        match job {
            Job::RekeyChild(inbound) => base.timers.set(Timer::RekeyChild(inbound), cx.now + wait),
            Job::RekeyIke => base.timers.set(Timer::RekeyIke, cx.now + wait),
            job => {
                self.queue(job);
                base.timers.set(Timer::Retry, cx.now + wait);
            }
        }
    }

    /// Begins the next exchange, if one is to be had and the window is open.
    pub(crate) fn run(&mut self, base: &mut Base, cx: &mut Cx<'_>) {
        self.run_on_others(base, cx);
        while let Some(&job) = self.jobs.front() {
            let held = base.timers.runs(Timer::Retry) && matches!(job, Job::CreateChild(_));
            let Some(channel) = self.channel() else { return };
            // While the IKE SA is replaced by the peer nothing is begun on it.
            if held || !channel.idle() || channel.theirs.is_some() {
                return;
            }
            self.jobs.pop_front();
            match job {
                Job::DeleteChild(inbound) => delete::child(self, base, cx, inbound),
                Job::DeleteChannel(local) => delete::channel(self, base, cx, local, Patience::Established),
                Job::CreateChild(lane) => self.create_child(base, cx, lane),
                Job::RekeyChild(inbound) => self.rekey_child(base, cx, inbound),
                Job::RekeyIke => self.rekey_ike(base, cx),
                Job::Liveness => dpd::ask(self, base, cx),
                Job::Close => {
                    let current = self.current;
                    delete::channel(self, base, cx, current, Patience::Leaving);
                }
            }
        }
    }

    /// Deletes of IKE SAs other than the one we use travel by themselves.
    fn run_on_others(&mut self, base: &mut Base, cx: &mut Cx<'_>) {
        let current = self.current;
        let others: Vec<u64> = self
            .jobs
            .iter()
            .filter_map(|job| match job {
                Job::DeleteChannel(local) if *local != current => Some(*local),
                _ => None,
            })
            .collect();
        for local in others {
            if self.channel_of(local).is_none_or(|c| c.idle()) {
                self.jobs.retain(|job| *job != Job::DeleteChannel(local));
                delete::channel(self, base, cx, local, Patience::Established);
            }
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, base: &mut Base, cx: &mut Cx<'_>, timer: Timer) {
        match timer {
            Timer::Retransmit(local) => self.retransmit(base, cx, local),
            Timer::Liveness => dpd::due(self, base, cx),
            Timer::Keepalive => dpd::keep_mapping(self, base, cx),
            Timer::RekeyIke => self.queue(Job::RekeyIke),
            Timer::RekeyChild(inbound) => self.queue(Job::RekeyChild(inbound)),
            Timer::ExpireChild(inbound) => self.queue(Job::DeleteChild(inbound)),
            Timer::Confirm(inbound) => self.ready(base, cx, inbound),
            Timer::Drained(inbound) => self.drained(base, cx, inbound),
            Timer::Switch(local) => self.switch(base, cx, local),
            Timer::Forget(local) => self.forget(base, cx, local),
            Timer::Childless => self.childless(cx),
            Timer::Retry | Timer::HalfOpen | Timer::Hint => {}
        }
        self.run(base, cx);
    }

    fn retransmit(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64) {
        let (address, current, closing) = (base.address, self.current, self.closing.is_some());
        let Some(channel) = self.channel_of(local) else { return };
        if channel.ask_again(cx, &mut base.timers, address) {
            return;
        }
        if local == current {
            base.over(cx, if closing { Failure::Closed } else { Failure::Dead });
        } else {
            // One that is replaced already: nothing depends on it.
            self.forget(base, cx, local);
        }
    }

    /// A message in the clear proves nothing, but may be true.
    ///
    /// ```text
    /// //= rfc7296#2.4
    /// an endpoint MUST NOT conclude that the other endpoint has failed based on any routing information (e.g., ICMP
    /// messages) or IKE messages that arrive without cryptographic protection
    /// ```
    fn unprotected(&mut self, base: &mut Base, cx: &mut Cx<'_>, kind: NotifyType) {
        cx.drop(Drop::Unprotected);
        if kind != NotifyType::INVALID_IKE_SPI {
            return;
        }
        if self.closing.is_some() {
            // It is gone already, as we want it.
            return base.over(cx, Failure::Closed);
        }
        cx.notes.push(Note::Suspect);
    }

    /// Begins to take leave. What we receive by stays until the peer has answered.
    pub(crate) fn close(&mut self, base: &mut Base, cx: &mut Cx<'_>) {
        if self.closing.is_some() {
            return;
        }
        self.jobs.clear();
        self.queue(Job::Close);
        self.closing = Some(());
        self.run(base, cx);
    }

    /// Goes on after a restart: what is not under way begins with a question that is harmless.
    pub(crate) fn resume(&mut self) {
        for channel in &mut self.channels {
            channel.resume();
        }
        self.jobs.retain(|job| *job != Job::Liveness);
        self.jobs.push_front(Job::Liveness);
    }

    /// Children that carry traffic, or may.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(|c| c.fate == Fate::Kept)
    }

    /// Hands out the secrets of a child that is now sent by.
    pub(crate) fn take_outbound(&mut self, inbound: u32) -> Option<(u16, esp::Keys)> {
        let child = self.children.iter_mut().find(|c| c.inbound == inbound)?;
        match std::mem::replace(&mut child.sending, Sending::Live) {
            Sending::Waiting(keys) => Some((child.lane, keys)),
            other => {
                child.sending = other;
                None
            }
        }
    }
}

/// A notification without more.
pub(crate) fn notify(kind: NotifyType) -> Payload {
    Payload::Notify(Notify::empty(kind))
}

/// What a message in the clear says; `None` for one that is protected.
fn unprotected(datagram: &[u8]) -> Option<NotifyType> {
    const FIRST_PAYLOAD: usize = 16;
    let first = PayloadType(*datagram.get(FIRST_PAYLOAD)?);
    if matches!(first, PayloadType::SK | PayloadType::SKF) {
        return None;
    }
    let said = Message::decode(datagram).ok().and_then(|m| m.notifies().next().map(|n| n.kind));
    Some(said.unwrap_or(NotifyType::INVALID_SYNTAX))
}
