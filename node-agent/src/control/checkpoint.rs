//! When to leave a checkpoint at the datapath: before any step that others rely on, and else not too often. Pure.

use packet::Instant;
use std::time::Duration;

/// At least this long between checkpoints that nothing urgent asks for.
const INTERVAL: Duration = Duration::from_millis(100);

/// Writing checkpoints may take one part in so many of the time.
const SHARE: u32 = 10;

/// A megabyte keeps the next one away for a second at most: a process that had to wait for the CPU while it wrote a short
/// one is not to leave others out for that.
const NANOS_PER_OCTET: u64 = 1000;

/// Decides when a checkpoint is due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    dirty: bool,
    /// Not before this moment, however urgent: a hub with many peers has a long checkpoint.
    not_before: Instant,
    last: Instant,
}

impl Schedule {
    /// Something changed that a successor should know.
    pub(super) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Should one be written now, before steps that others rely on (`urgent`), or at leisure?
    #[must_use]
    pub(super) fn is_due(&self, now: Instant, urgent: bool) -> bool {
        self.dirty && now >= if urgent { self.not_before } else { self.leisurely() }
    }

    /// When to ask again.
    #[must_use]
    pub(super) fn next(&self) -> Option<Instant> {
        self.dirty.then(|| self.leisurely())
    }

    /// One of this many octets was written, and took so long.
    pub(super) fn written(&mut self, now: Instant, octets: usize, took: Duration) {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        let most = Duration::from_nanos(octets.saturating_mul(NANOS_PER_OCTET));
        self.dirty = false;
        self.last = now;
        self.not_before = now + most.min(took.saturating_mul(SHARE - 1));
    }

    fn leisurely(&self) -> Instant {
        self.not_before.max(self.last + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(1_000 + millis)
    }

    #[test]
    fn an_urgent_one_is_written_at_once() {
        let mut schedule = Schedule::default();
        schedule.touch();
        schedule.written(at(0), 1000, Duration::from_millis(50));
        schedule.touch();
        assert!(!schedule.is_due(at(1), false));
        assert!(schedule.is_due(at(2), true));
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        assert!(!Schedule::default().is_due(at(500), true));
        assert_eq!(Schedule::default().next(), None);
    }

    #[test]
    fn a_long_checkpoint_keeps_the_next_one_away() {
        let mut schedule = Schedule::default();
        schedule.written(at(0), 16 << 20, Duration::from_millis(200));
        schedule.touch();
        assert!(!schedule.is_due(at(1700), true));
        assert!(schedule.is_due(at(1800), true));
    }
}
