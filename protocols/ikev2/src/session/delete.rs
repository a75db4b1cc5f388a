//! SAs are deleted (RFC 7296 §1.4.1).

use super::child::Fate;
use super::established::Established;
use super::task::{Job, Task};
use super::{Base, Cx};
use crate::codes::ExchangeType;
use crate::exchange::{Patience, Question};
use crate::payload::{Delete, Payload};
use crate::{Failure, Message};

/// Deletes a child SA, named by our SPI. One that is not there is one that only the peer believes in.
pub(crate) fn child(session: &mut Established, base: &mut Base, cx: &mut Cx<'_>, inbound: u32) {
    if let Some(child) = session.child_mut(inbound) {
        if child.fate != Fate::Kept {
            return;
        }
        child.fate = Fate::Deleting;
    }
    let address = base.address;
    let payloads = [Payload::Delete(Delete::Esp(vec![inbound]))];
    if let Some(channel) = session.channel() {
        let (exchange, task) = (ExchangeType::INFORMATIONAL, Task::DeleteChild(inbound));
        let question = Question { exchange, payloads: &payloads, task, patience: Patience::Established };
        channel.ask(cx, &mut base.timers, address, question);
    }
}

/// Deletes an IKE SA, by itself.
pub(crate) fn channel(
    session: &mut Established,
    base: &mut Base,
    cx: &mut Cx<'_>,
    local: u64,
    patience: Patience,
) {
    let address = base.address;
    if let Some(channel) = session.channel_of(local).filter(|c| !c.deleting) {
        let (exchange, payloads) = (ExchangeType::INFORMATIONAL, [Payload::Delete(Delete::Ike)]);
        let question = Question { exchange, payloads: &payloads, task: Task::DeleteIke, patience };
        channel.ask(cx, &mut base.timers, address, question);
        channel.deleting = true;
    }
}

impl Established {
    /// The answer to the deletion of a child SA.
    pub(crate) fn deleted_child(&mut self, base: &mut Base, cx: &mut Cx<'_>, inbound: u32) {
        self.drain(base, cx, inbound);
    }

    /// The answer to the deletion of an IKE SA.
    pub(crate) fn deleted_ike(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64) {
        if local == self.current {
            base.over(cx, Failure::Closed);
        } else {
            // The peer may still ask, by it, for what it has asked before.
            self.forget_later(base, cx, local);
        }
    }

    /// The peer deletes.
    ///
    /// ```text
    /// //= rfc7296#1.4.1
    /// Normally, the response in the INFORMATIONAL exchange will contain Delete payloads for the paired SAs going in the
    /// other direction. There is one exception. If, by chance, both ends of a set of SAs independently decide to close
    /// them, each may send a Delete payload and the two requests may cross in the network. If a node receives a delete
    /// request for SAs for which it has already issued a delete request, it MUST delete the outgoing SAs while
    /// processing the request and the incoming SAs while processing the response. In that case, the responses MUST NOT
    /// include Delete payloads for the deleted SAs
    /// ```
    pub(crate) fn answer_deletes(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        local: u64,
        message: &Message,
    ) -> Vec<Payload> {
        let mut paired = Vec::new();
        for delete in message.deletes() {
            match delete {
                Delete::Ike => self.peer_deletes_ike(base, cx, local),
                Delete::Esp(spis) => {
                    for spi in spis {
                        paired.extend(self.peer_deletes_child(base, cx, *spi));
                    }
                }
                Delete::Other { .. } => {}
            }
        }
        if paired.is_empty() { Vec::new() } else { vec![Payload::Delete(Delete::Esp(paired))] }
    }

    /// The peer no longer receives by this SA. Returns ours of the pair, if the peer is to be told.
    fn peer_deletes_child(&mut self, base: &mut Base, cx: &mut Cx<'_>, outbound: u32) -> Option<u32> {
        let child = self.children.iter().find(|c| c.outbound == outbound && c.fate != Fate::Draining)?;
        let (inbound, crossed, theirs) = (child.inbound, child.fate == Fate::Deleting, child.theirs);
        let in_vain = child.sending.is_waiting();
        if let Some(new) = theirs {
            // What it made to replace this one is complete on its side.
            self.ready(base, cx, new);
        }
        // One that it made to replace another, and gave up: the other can be replaced again.
        for other in &mut self.children {
            other.theirs.take_if(|theirs| *theirs == inbound && in_vain);
        }
        self.drain(base, cx, inbound);
        (!crossed).then_some(inbound)
    }

    fn peer_deletes_ike(&mut self, base: &mut Base, cx: &mut Cx<'_>, local: u64) {
        let theirs = self.channel_of(local).and_then(|c| c.theirs);
        if local == self.current {
            match theirs {
                Some(new) => self.switch(base, cx, new),
                None => {
                    return base
                        .over(cx, if self.closing.is_some() { Failure::Closed } else { Failure::Deleted });
                }
            }
        }
        // What was asked by it is not answered any more.
        if let Some(Task::RekeyIke(_)) = self.channel_of(local).and_then(|c| c.request.take()).map(|r| r.task)
        {
            base.timers.stop(crate::timer::Timer::Retransmit(local));
        }
        for channel in &mut self.channels {
            channel.theirs.take_if(|theirs| *theirs == local);
        }
        self.jobs.retain(|job| *job != Job::DeleteChannel(local));
        self.forget_later(base, cx, local);
    }
}
