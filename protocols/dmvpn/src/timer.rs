//! When the engine wants to be called again.

use ipnet::IpNet;
use packet::{Instant, PeerId};
use std::collections::{BTreeSet, HashMap};

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// When to send a peer its next probe, judge those that are out, end an attempt or a drain.
    Peer(PeerId),
    /// When to renew, expire or forget a shortcut.
    Shortcut(IpNet),
    /// When a hub that returned has been up long enough to carry again.
    Hubs,
    /// When to look for sessions that nobody needs.
    Sessions,
    /// When to tell the datapath the multicast list that has changed meanwhile.
    Multicast,
}

/// The timers that are set: at most one moment each.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    set: HashMap<Timer, Instant>,
}

impl Timers {
    /// Sets `timer` to `at`, whatever it was before; [`Instant::NEVER`] stops it.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        if at == Instant::NEVER {
            return self.stop(timer);
        }
        match self.set.insert(timer, at) {
            Some(old) if old == at => return,
            Some(old) => {
                self.due.remove(&(old, timer));
            }
            None => {}
        }
        self.due.insert((at, timer));
    }

    /// Stops `timer`.
    pub(crate) fn stop(&mut self, timer: Timer) {
        if let Some(old) = self.set.remove(&timer) {
            self.due.remove(&(old, timer));
        }
    }

    /// Is `timer` set?
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.set.contains_key(&timer)
    }

    /// When `timer` is due, if it is set.
    pub(crate) fn when(&self, timer: Timer) -> Option<Instant> {
        self.set.get(&timer).copied()
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.due.first()?;
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
    fn timers_come_due_in_order_and_once() {
        let (mut timers, start) = (Timers::default(), Instant::ZERO);
        let peer = Timer::Peer(PeerId { index: 1, generation: 0 });
        timers.set(Timer::Multicast, start + Duration::from_secs(2));
        timers.set(peer, start + Duration::from_secs(3));
        timers.set(peer, start + Duration::from_secs(1));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.expired(start), None);
        let late = start + Duration::from_secs(9);
        assert_eq!(timers.expired(late), Some(peer));
        assert_eq!(timers.expired(late), Some(Timer::Multicast));
        assert_eq!((timers.expired(late), timers.next()), (None, None));
    }

    #[test]
    fn never_stops_a_timer() {
        let mut timers = Timers::default();
        timers.set(Timer::Multicast, Instant::ZERO);
        timers.set(Timer::Multicast, Instant::NEVER);
        assert!(!timers.is_set(Timer::Multicast));
        assert_eq!(timers.next(), None);
    }
}
