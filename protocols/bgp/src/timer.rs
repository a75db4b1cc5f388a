//! When things are due.

use crate::event::ConnectionId;
use packet::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything a speaker waits for. Each kind runs at most once per neighbour or connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// When to try to connect again (RFC 4271 §8, ConnectRetryTimer).
    ConnectRetry(IpAddr),
    /// When to give up on a peer that says nothing (HoldTimer).
    Hold(ConnectionId),
    /// When to say something (KeepaliveTimer).
    Keepalive(ConnectionId),
    /// When to give up on a peer that reads nothing (RFC 9687, SendHoldTimer).
    SendHold(ConnectionId),
    /// When to forget the routes of a neighbour that did not come back (RFC 4724, Restart Time).
    Restart(IpAddr),
    /// When to forget routes that a neighbour that came back did not announce again.
    Stale(IpAddr),
    /// When to stop waiting for neighbours after our own restart (RFC 4724, Selection_Deferral_Timer).
    Deferral,
    /// When to send the changes that were collected (RFC 4271, MinRouteAdvertisementIntervalTimer).
    Advertise,
}

#[derive(Default, Debug)]
pub(crate) struct Timers {
    due: BTreeMap<Timer, Instant>,
    order: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Starts a timer, or moves it.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.stop(timer);
        self.due.insert(timer, at);
        self.order.insert((at, timer));
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    pub(crate) fn is_running(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moved_timer_fires_once_and_in_order() {
        let mut timers = Timers::default();
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        timers.set(Timer::Deferral, at(5));
        timers.set(Timer::Advertise, at(1));
        timers.set(Timer::Deferral, at(3));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop(at(9)), Some(Timer::Advertise));
        assert_eq!(timers.pop(at(2)), None);
        assert_eq!(timers.pop(at(9)), Some(Timer::Deferral));
        assert_eq!(timers.pop(at(9)), None);
        assert!(!timers.is_running(Timer::Deferral));
    }
}
