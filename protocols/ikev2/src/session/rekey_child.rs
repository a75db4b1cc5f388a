//! A child SA is replaced (RFC 7296 §1.3.3, §2.8), make before break:
//!
//! ```text
//!    we                                                          the peer
//!    CREATE_CHILD_SA { N(REKEY_SA, old) ... } -->                receives by the new one, still sends by the old
//!    receive by the new one, send by it          <-- { ... }
//!    INFORMATIONAL { D(old) } -->                                sends by the new one
//!    (both still receive by the old one for a while)  <-- { D(old) }
//! ```
//!
//! The responder sends by the new SA when the old one is deleted: then the initiator certainly has it.
//!
//! Both ends may begin at the same time (§2.8.1). Then both new SAs come to be, and the one that was made with the
//! lowest of the four nonces is deleted by who made it; the maker of the other deletes the old one.

use super::child::{Fate, Sending};
use super::established::{Established, notify};
use super::task::{Job, PendingChild, Task};
use super::{Base, Cx};
use crate::codes::NotifyType;
use crate::payload::{Notify, Payload};
use crate::timer::Timer;
use crate::{Event, Message};
use std::time::Duration;

/// If the peer has not deleted the old SA by then, the new one is sent by all the same: no peer of ours waits so long.
const CONFIRM: Duration = Duration::from_secs(40);

/// The SPI of the SA that a request is to replace: the one that its sender receives by.
pub(crate) fn is_meant(message: &Message) -> Option<u32> {
    message.notify(NotifyType::REKEY_SA).map(|n| n.esp_spi().unwrap_or_default())
}

impl Established {
    /// Begins.
    pub(crate) fn rekey_child(&mut self, base: &mut Base, cx: &mut Cx<'_>, old: u32) {
        // The peer was faster, or it is gone.
        let Some(lane) = self.replaceable(old) else { return };
        let (new, proposal) = self.propose_child(base, cx, lane);
        //= rfc7296#1.3.3
        //# The REKEY_SA notification MUST be included in a CREATE_CHILD_SA exchange if the purpose of the exchange is to
        //# replace an existing ESP or AH SA. The SA being rekeyed is identified by the SPI field in the Notify payload;
        //# this is the SPI the exchange initiator would expect in inbound ESP or AH packets.
        let mut payloads = vec![Payload::Notify(Notify::esp(NotifyType::REKEY_SA, old))];
        payloads.extend(proposal);
        self.ask_child(base, cx, &payloads, Task::RekeyChild { old, new });
    }

    fn replaceable(&mut self, inbound: u32) -> Option<u16> {
        let child = self.child_mut(inbound)?;
        (child.fate == Fate::Kept && child.theirs.is_none()).then_some(child.lane)
    }

    /// The answer to [`Self::rekey_child`].
    pub(crate) fn rekeyed_child(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        message: &Message,
        old: u32,
        new: PendingChild,
    ) {
        match self.finish_child(base, cx, message, &new) {
            Ok(agreed) => {
                let inbound = self.install(base, cx, agreed);
                self.settle_child(base, cx, old, inbound);
            }
            Err(error) => self.not_rekeyed(base, cx, old, error.unwrap_or(NotifyType::NO_PROPOSAL_CHOSEN)),
        }
    }

    /// Ours is there. Is it the one that stays?
    fn settle_child(&mut self, base: &mut Base, cx: &mut Cx<'_>, old: u32, ours: u32) {
        let theirs = self.children.iter().find(|c| c.inbound == old).and_then(|c| c.theirs);
        let rank = |spi: u32| self.children.iter().find(|c| c.inbound == spi).map(|c| c.rank.as_slice());
        //= rfc7296#2.8.1
        //# If redundant SAs are created though such a collision, the SA created with the lowest of the four nonces used
        //# in the two exchanges SHOULD be closed by the endpoint that created it.
        // One that is gone already was replaced in its turn, so it was not the one to be closed.
        let lost = theirs.is_some_and(|theirs| rank(theirs).is_none_or(|theirs| rank(ours) < Some(theirs)));
        if lost {
            if let Some(child) = self.child_mut(ours) {
                child.sending = Sending::Spent;
            }
            self.queue(Job::DeleteChild(ours));
            return;
        }
        if let Some(theirs) = theirs {
            // It goes as soon as its maker deletes it, and is never sent by.
            base.timers.stop(Timer::Confirm(theirs));
            if let Some(child) = self.child_mut(theirs) {
                child.sending = Sending::Spent;
            }
            base.timers.set(Timer::ExpireChild(theirs), cx.now + CONFIRM);
            base.timers.stop(Timer::RekeyChild(theirs));
        }
        self.ready(base, cx, ours);
        cx.out.counters.rekeyed_child += 1;
        cx.event(Event::Rekeyed { path: base.path, ike: false });
        if self.kept().any(|c| c.inbound == old) {
            self.queue(Job::DeleteChild(old));
        }
    }

    fn not_rekeyed(&mut self, base: &mut Base, cx: &mut Cx<'_>, old: u32, error: NotifyType) {
        // If the peer replaces it itself, that is all we want.
        let Some(lane) = self.replaceable(old) else { return };
        if error == NotifyType::CHILD_SA_NOT_FOUND {
            //= rfc7296#2.25
            //# A peer that receives a CHILD_SA_NOT_FOUND notification SHOULD silently delete the Child SA (if it still
            //# exists) and send a request to create a new Child SA from scratch (if the Child SA does not yet exist).
            self.drain(base, cx, old);
            self.queue(Job::CreateChild(lane));
        } else {
            self.refused(base, cx, Job::RekeyChild(old), error);
        }
    }

    /// The peer begins.
    pub(crate) fn answer_rekey_child(
        &mut self,
        base: &mut Base,
        cx: &mut Cx<'_>,
        local: u64,
        message: &Message,
        theirs: u32,
    ) -> Vec<Payload> {
        let Some(old) = self.children.iter().find(|c| c.outbound == theirs && c.fate != Fate::Draining)
        else {
            //= rfc7296#2.25.1
            //# If a peer receives a request to rekey a Child SA that does not exist, it SHOULD reply with
            //# CHILD_SA_NOT_FOUND.
            let mut gone = Notify::esp(NotifyType::CHILD_SA_NOT_FOUND, theirs);
            gone.data.clear();
            return vec![Payload::Notify(gone)];
        };
        let (inbound, lane) = (old.inbound, old.lane);
        //= rfc7296#2.25.1
        //# If a peer receives a request to rekey a Child SA that it is currently trying to close, it SHOULD reply with
        //# TEMPORARY_FAILURE. If a peer receives a request to rekey a Child SA that it is currently rekeying, it SHOULD
        //# reply as usual, and SHOULD prepare to close redundant SAs later based on the nonces
        if old.fate == Fate::Deleting || old.theirs.is_some() || self.ike_changes(local) {
            return vec![notify(NotifyType::TEMPORARY_FAILURE)];
        }
        match self.grant_child(base, cx, local, message, lane) {
            Err(error) => vec![error],
            Ok((new, payloads)) => {
                if let Some(old) = self.child_mut(inbound) {
                    old.theirs = Some(new);
                }
                self.jobs.retain(|job| *job != Job::RekeyChild(inbound));
                base.timers.stop(Timer::RekeyChild(inbound));
                base.timers.set(Timer::Confirm(new), cx.now + CONFIRM);
                cx.out.counters.rekeyed_child += 1;
                cx.event(Event::Rekeyed { path: base.path, ike: false });
                payloads
            }
        }
    }
}
