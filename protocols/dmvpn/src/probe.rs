//! The schedule of probes over one path: when to send, how long an answer takes, when the path is lost.

use packet::Instant;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Between two probes of a path that is to be proven, or that carries traffic and must be known good.
pub(crate) const FAST: Duration = Duration::from_millis(200);
/// Between two probes while a path is first tried: hole punching needs both sides to send about the same time.
pub(crate) const FORMING: Duration = Duration::from_millis(100);
/// Between two probes of a hub's idle path.
pub(crate) const IDLE_HUB: Duration = Duration::from_secs(5);
/// Between two probes of an idle direct path: rare, and often enough for a NAT to keep its mapping.
pub(crate) const IDLE_DIRECT: Duration = Duration::from_secs(10);
/// This many unanswered in a row, and the path is lost.
pub(crate) const LOST: usize = 3;

/// This many unanswered in a row, and a registered peer that said nothing else either is gone. More, since it does not
/// come back by itself: it must register again.
pub(crate) const SILENT: usize = 12;

/// Probes that are out; older ones are forgotten.
const MAX_OUT: usize = 16;
/// An answer may take this long even on a short path: schedulers are not perfect.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// An answer may take this long before a round trip was ever measured.
const FIRST_TIMEOUT: Duration = Duration::from_millis(500);

/// How often to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Between two.
    interval: Duration,
    /// One that is overdue is followed by the next at [`FAST`]: has the path died, or was it that one?
    eager: bool,
}

impl Pace {
    pub(crate) const fn steady(interval: Duration) -> Self {
        Self { interval, eager: false }
    }

    pub(crate) const fn eager(interval: Duration) -> Self {
        Self { interval, eager: true }
    }
}

/// The probes of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prober {
    /// Sent and not answered, nor followed by one that was; oldest first.
    out: Vec<Sent>,
    /// Smoothed round trip.
    rtt: Option<Duration>,
    /// When the last answer came.
    answered: Option<Instant>,
    /// Answered in a row, without a loss in between.
    run: u32,
    /// When the last one was sent.
    sent: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    opaque: u64,
    at: Instant,
}

impl Prober {
    /// A probe is being sent now, with this opaque number.
    pub(crate) fn sent(&mut self, now: Instant, opaque: u64) {
        if self.out.len() >= MAX_OUT {
            self.out.remove(0);
        }
        self.out.push(Sent { opaque, at: now });
        self.sent = Some(now);
    }

    /// The answer to `opaque` came. False when that was never sent over this path, or was answered already.
    pub(crate) fn answered(&mut self, now: Instant, opaque: u64) -> bool {
        let Some((at, sent)) = self.out.iter().enumerate().find(|(_, s)| s.opaque == opaque) else {
            return false;
        };
        let sample = now.since(sent.at);
        // Those before it may be lost, but the path is not.
        self.out.drain(..=at);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.answered = Some(now);
        self.run = self.run.saturating_add(1);
        true
    }

    /// How many in a row are overdue.
    pub(crate) fn overdue(&self, now: Instant) -> usize {
        let timeout = self.timeout();
        self.out.iter().take_while(|s| now.since(s.at) >= timeout).count()
    }

    /// When so many will be overdue, if no answer comes and they are out already.
    pub(crate) fn overdue_at(&self, count: usize) -> Instant {
        count.checked_sub(1).and_then(|i| self.out.get(i)).map_or(Instant::NEVER, |s| s.at + self.timeout())
    }

    /// When the next probe is to be sent, at this pace. Never sent: at once.
    pub(crate) fn next(&self, now: Instant, pace: Pace) -> Instant {
        let Some(sent) = self.sent else { return now };
        let regular = sent + pace.interval;
        match self.out.first() {
            Some(first) if pace.eager => regular.min((first.at + self.timeout()).max(sent + FAST)),
            _ => regular,
        }
    }

    /// Was anything answered since then?
    pub(crate) fn answered_since(&self, since: Instant) -> bool {
        self.answered.is_some_and(|at| at >= since)
    }

    /// Was nothing ever sent?
    pub(crate) fn is_new(&self) -> bool {
        self.sent.is_none() && self.answered.is_none()
    }

    /// Was anything ever answered?
    pub(crate) fn ever_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Answered in a row.
    pub(crate) fn run(&self) -> u32 {
        self.run
    }

    /// A loss was noticed: the run ends.
    pub(crate) fn end_run(&mut self) {
        self.run = 0;
    }

    /// Smoothed round trip.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Forgets what is out: nobody was there to hear the answers, or they mean nothing any more.
    pub(crate) fn forget(&mut self) {
        self.out.clear();
        self.sent = None;
        self.run = 0;
    }

    fn timeout(&self) -> Duration {
        match self.rtt {
            Some(rtt) => (rtt * 2).max(MIN_TIMEOUT),
            None => FIRST_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_path_that_dies_under_traffic_is_lost_within_700_ms() {
        let mut prober = Prober::default();
        let mut now = Instant::from_nanos(1);
        prober.sent(now, 0);
        assert!(prober.answered(now + 20 * MS, 0));
        // The path dies now; probes go on every 200 ms.
        let died = now + 20 * MS;
        for opaque in 1..=3 {
            now = prober.next(now, Pace::eager(FAST));
            prober.sent(now, opaque);
        }
        let lost = prober.overdue_at(LOST);
        assert!(lost.since(died) <= 700 * MS, "{:?}", lost.since(died));
        assert_eq!(prober.overdue(lost), LOST);
        assert_eq!(prober.overdue(lost - MS), LOST - 1);
    }

    #[test]
    fn a_later_answer_forgives_the_earlier_loss() {
        let mut prober = Prober::default();
        let start = Instant::from_nanos(1);
        prober.sent(start, 1);
        prober.sent(start + 200 * MS, 2);
        assert!(prober.answered(start + 220 * MS, 2));
        assert_eq!(prober.overdue(start + 900 * MS), 0);
        assert!(!prober.answered(start + 230 * MS, 1));
    }

    #[test]
    fn an_idle_path_is_asked_faster_once_an_answer_is_missing() {
        let mut prober = Prober::default();
        let start = Instant::from_nanos(1);
        prober.sent(start, 1);
        prober.answered(start + 10 * MS, 1);
        assert_eq!(prober.next(start, Pace::eager(IDLE_HUB)), start + IDLE_HUB);
        let second = start + IDLE_HUB;
        prober.sent(second, 2);
        assert_eq!(prober.next(second, Pace::eager(IDLE_HUB)), second + FAST);
    }

    #[test]
    fn a_long_path_is_given_the_time_it_needs() {
        let mut prober = Prober::default();
        let start = Instant::from_nanos(1);
        prober.sent(start, 1);
        prober.answered(start + 600 * MS, 1);
        prober.sent(start + 800 * MS, 2);
        assert_eq!(prober.overdue(start + 1900 * MS), 0);
        assert_eq!(prober.overdue(start + 2000 * MS), 1);
    }

    #[test]
    fn what_is_out_is_bounded() {
        let mut prober = Prober::default();
        for opaque in 0..100 {
            prober.sent(Instant::from_nanos(opaque), opaque);
        }
        assert_eq!(prober.out.len(), MAX_OUT);
    }
}
