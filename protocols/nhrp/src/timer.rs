//! The one enum of what a station waits for.

use crate::config::NhsId;
use crate::event::ResolutionId;
use crate::packet::Protocol;
use ipnet::IpNet;
use packet::Instant;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What happens when its moment comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Timer {
    /// When to register with a server: again because no answer came, or to refresh.
    Register(NhsId, Protocol),
    /// When to repeat a resolution request, or give it up.
    Resolve(ResolutionId),
    /// (Server) when a registration ends.
    Unregister(IpNet),
    /// When an answer that we got ends.
    Forget(IpNet),
    /// When to repeat a purge request, or give it up.
    Purge(u32),
    /// When to look through the tables whose entries end without anybody noticing.
    Sweep,
}

/// The moments that are set, at most one for each [`Timer`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Timers {
    order: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.stop(timer);
        self.order.insert((at, timer));
        self.at.insert(timer, at);
    }

    /// Sets it unless it is set.
    pub(crate) fn start(&mut self, timer: Timer, at: Instant) {
        if !self.at.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    /// The next moment.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first of those whose moment has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }
}
