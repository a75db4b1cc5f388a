//! Child SAs of a session: made, sent by, and removed. How they are agreed upon is `create_child.rs`.

use super::established::Established;
use super::task::{Job, Task};
use super::{Base, Cx, Note};
use crate::exchange::Channel;
use crate::timer::Timer;
use crate::{Event, Failure};
use esp::{Keys, Suite};
use packet::{Instant, Path};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A deleted SA is received by so long: what was sent by it before may be late.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// A session without any child SA is of no use; so long it may wait for one.
const CHILDLESS: Duration = Duration::from_secs(10);

/// What is not replaced by then, after it should have been, is deleted.
const OVERDUE: Duration = Duration::from_secs(300);

/// One child SA: a pair, one for each direction.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Child {
    /// The path it is bound to.
    pub path: Path,
    /// The worker that owns it.
    pub lane: u16,
    /// What we receive by.
    pub inbound: u32,
    /// What the peer receives by.
    pub outbound: u32,
    pub suite: Suite,
    pub esn: bool,
    pub sending: Sending,
    pub fate: Fate,
    /// The lowest nonce of the exchange that made it: decides between two that were made at the same time.
    pub rank: Vec<u8>,
    /// What the peer made to replace it, by our SPI.
    pub theirs: Option<u32>,
    /// The peer made it in this request (IKE SA, message ID): a later one shows that it has our answer.
    pub shown_by: Option<(u64, u32)>,
    /// The peer certainly has it, or has it if it does anything else with the session (the one made by IKE_AUTH).
    pub certain: bool,
    pub installed: Instant,
    pub rekey_at: Instant,
}

/// Do we send by it? Once replaced, never again: sequence numbers begin at 1 only once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Sending {
    /// Not yet: the peer may not have it.
    Waiting(Keys),
    /// Yes.
    Live,
    /// No more.
    Spent,
}

/// How long it is to be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// Until it is replaced.
    Kept,
    /// We are deleting it.
    Deleting,
    /// Deleted; what is under way is still received.
    Draining,
}

/// A child SA as agreed upon.
pub(crate) struct Agreed {
    pub lane: u16,
    pub suite: Suite,
    pub esn: bool,
    pub rank: Vec<u8>,
    /// What we receive by.
    pub inbound: Keys,
    /// What the peer receives by.
    pub outbound: Keys,
}

impl Established {
    /// Receives by a new child SA. What to send by it waits for [`Self::ready`].
    pub(crate) fn install(&mut self, base: &mut Base, cx: &mut Cx<'_>, agreed: Agreed) -> u32 {
        let Agreed { lane, suite, esn, rank, inbound, outbound } = agreed;
        let spi = inbound.spi;
        let lifetime = cx.settings.config.lifetimes.child;
        let rekey_at = cx.now + jittered(cx, lifetime);
        base.timers.set(Timer::RekeyChild(spi), rekey_at);
        base.timers.set(Timer::ExpireChild(spi), rekey_at + OVERDUE);
        base.timers.stop(Timer::Childless);
        cx.event(Event::AddInbound { path: base.path, keys: inbound });
        self.refusals = 0;
        // Most have one as long as they live: room for four, as a vector takes, is much on a hub.
        self.children.reserve_exact(1);
        self.children.push(Child {
            path: base.path,
            lane,
            inbound: spi,
            outbound: outbound.spi,
            suite,
            esn,
            sending: Sending::Waiting(outbound),
            fate: Fate::Kept,
            rank,
            theirs: None,
            shown_by: None,
            certain: false,
            installed: cx.now,
            rekey_at,
        });
        spi
    }

    /// The peer certainly receives by this child SA.
    pub(crate) fn ready(&mut self, base: &mut Base, cx: &mut Cx<'_>, inbound: u32) {
        base.timers.stop(Timer::Confirm(inbound));
        if let Some(child) = self.child_mut(inbound) {
            child.shown_by = None;
            child.certain = true;
            if child.fate == Fate::Kept && matches!(child.sending, Sending::Waiting(_)) {
                cx.notes.push(Note::Ready(inbound));
            }
        }
    }

    /// A child SA, by our SPI.
    pub(crate) fn child_mut(&mut self, inbound: u32) -> Option<&mut Child> {
        self.children.iter_mut().find(|c| c.inbound == inbound)
    }

    /// No longer sends by a child SA; what the peer sent by it before is still received for a while.
    pub(crate) fn drain(&mut self, base: &mut Base, cx: &mut Cx<'_>, inbound: u32) {
        let Some(child) = self.child_mut(inbound) else { return };
        if child.fate == Fate::Draining {
            return;
        }
        child.fate = Fate::Draining;
        let (path, lane) = (child.path, child.lane);
        if matches!(std::mem::replace(&mut child.sending, Sending::Spent), Sending::Live) {
            cx.notes.push(Note::Removed { path, lane, inbound });
        }
        for timer in [Timer::RekeyChild(inbound), Timer::ExpireChild(inbound), Timer::Confirm(inbound)] {
            base.timers.stop(timer);
        }
        self.jobs.retain(|job| !matches!(job, Job::RekeyChild(i) | Job::DeleteChild(i) if *i == inbound));
        base.timers.set(Timer::Drained(inbound), cx.now + DRAIN);
        if self.kept().next().is_none() && self.closing.is_none() {
            base.timers.set_if_stopped(Timer::Childless, cx.now + CHILDLESS);
        }
    }

    /// No longer receives by a deleted child SA.
    pub(crate) fn drained(&mut self, base: &mut Base, cx: &mut Cx<'_>, inbound: u32) {
        let awaited = |c: &Channel| {
            c.request
                .as_ref()
                .is_some_and(|r| matches!(r.task, Task::RekeyChild { old, .. } if old == inbound))
        };
        if self.channels.iter().any(awaited) {
            // What collided with our request is known of it until the answer is there.
            base.timers.set(Timer::Drained(inbound), cx.now + DRAIN);
            return;
        }
        let before = self.children.len();
        self.children.retain(|c| c.inbound != inbound);
        if self.children.len() != before {
            cx.event(Event::RemoveInbound { spi: inbound });
        }
    }

    /// A session has had no child SA for too long.
    pub(crate) fn childless(&self, cx: &mut Cx<'_>) {
        if self.kept().next().is_none() && self.closing.is_none() {
            cx.notes.push(Note::Leaving(Failure::Deleted));
        }
    }
}

/// A lifetime, up to a tenth shorter: so that the two ends of an SA seldom replace it at the same moment.
pub(crate) fn jittered(cx: &mut Cx<'_>, lifetime: Duration) -> Duration {
    let tenth = u64::try_from(lifetime.as_millis() / 10).unwrap_or(u64::MAX);
    lifetime.saturating_sub(Duration::from_millis(cx.rng.random_range(0..=tenth)))
}

/// A fresh SPI to receive by, with its owner in the lowest bits. Below 256 they are reserved (RFC 4303 §2.1).
pub(crate) fn new_spi(cx: &mut Cx<'_>, lane: u16) -> u32 {
    let owners = u32::from(cx.settings.config.workers.max(1)).next_power_of_two();
    loop {
        let spi = cx.rng.random::<u32>() & !(owners - 1) | (u32::from(lane) & (owners - 1));
        if spi >= 256 && !cx.spis.contains_key(&spi) {
            return spi;
        }
    }
}
