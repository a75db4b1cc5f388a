//! What a session waits for.

use packet::Instant;
use serde::{Deserialize, Serialize};

/// Timers of a session. Those of one IKE SA bear its SPI, those of a child the SPI that we receive by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Timer {
    /// When to send an unanswered request again, or to give up.
    Retransmit(u64),
    /// When to forget a session that its initiator began and did not authenticate.
    HalfOpen,
    /// When to believe an error that came in the clear, nothing better having come.
    Hint,
    /// When to ask whether the peer lives, if it has been silent.
    Liveness,
    /// When to keep a NAT's mapping.
    Keepalive,
    /// When to replace the IKE SA.
    RekeyIke,
    /// When to replace a child SA.
    RekeyChild(u32),
    /// When to delete a child SA that could not be replaced.
    ExpireChild(u32),
    /// When to send by a child SA although its initiator has not shown that it receives by it.
    Confirm(u32),
    /// When to stop receiving by a deleted child SA: what was under way has come by then.
    Drained(u32),
    /// When to make a replacement of the IKE SA the one we use, though its initiator has not.
    Switch(u64),
    /// When to forget an IKE SA that was replaced.
    Forget(u64),
    /// When to look again at what is to be done: a refusal was temporary.
    Retry,
    /// When to close a session that has no child SA.
    Childless,
}

/// Running timers of one session: few, so a list.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Timers(Vec<(Timer, Instant)>);

impl Timers {
    /// Starts a timer, or moves it.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        match self.0.iter_mut().find(|(t, _)| *t == timer) {
            Some((_, when)) => *when = at,
            None => self.0.push((timer, at)),
        }
    }

    /// Starts a timer, unless it runs already.
    pub(crate) fn set_if_stopped(&mut self, timer: Timer, at: Instant) {
        if !self.runs(timer) {
            self.set(timer, at);
        }
    }

    /// Stops a timer.
    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0.retain(|(t, _)| *t != timer);
    }

    /// Stops all timers.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Does it run?
    pub(crate) fn runs(&self, timer: Timer) -> bool {
        self.0.iter().any(|(t, _)| *t == timer)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(_, at)| *at).min()
    }

    /// Takes the one that is due, and was due first.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let (index, _) =
            self.0.iter().enumerate().filter(|(_, (_, at))| *at <= now).min_by_key(|(_, (_, at))| *at)?;
        Some(self.0.swap_remove(index).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn timers_expire_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Liveness, at(5));
        timers.set(Timer::RekeyChild(7), at(3));
        timers.set(Timer::RekeyChild(8), at(9));
        assert_eq!(timers.next(), Some(at(3)));
        assert_eq!(timers.expired(at(6)), Some(Timer::RekeyChild(7)));
        assert_eq!(timers.expired(at(6)), Some(Timer::Liveness));
        assert_eq!(timers.expired(at(6)), None);
    }

    #[test]
    fn setting_a_timer_again_moves_it() {
        let mut timers = Timers::default();
        timers.set(Timer::Liveness, at(5));
        timers.set(Timer::Liveness, at(8));
        timers.set_if_stopped(Timer::Liveness, at(1));
        assert_eq!(timers.next(), Some(at(8)));
        timers.stop(Timer::Liveness);
        assert_eq!(timers.next(), None);
    }
}
