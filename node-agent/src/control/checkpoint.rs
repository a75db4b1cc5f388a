//! When to leave a checkpoint at the datapath: before any step that others rely on, and else not too often. Pure.

use packet::Instant;
use std::time::Duration;

/// At least this long between checkpoints that nothing urgent asks for.
const INTERVAL: Duration = Duration::from_millis(100);

/// Writing checkpoints may take one part in so many of the time.
const SHARE: u32 = 10;

/// What an octet should take, and the most that is believed: a process that waited for the CPU while it wrote is not to
/// leave others out for that.
const NANOS_PER_OCTET: (u64, u64) = (10, 100);

/// Short ones are never measured: a successor must know of each handshake, and those come in quick succession.
const SHORT: usize = 64 << 10;

/// Decides when a checkpoint is due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    dirty: bool,
    /// Others rely on what changed.
    urgent: bool,
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
    pub(super) fn is_due(&mut self, now: Instant, urgent: bool) -> bool {
        self.urgent |= urgent && self.dirty;
        self.next().is_some_and(|next| now >= next)
    }

    /// When to ask again.
    #[must_use]
    pub(super) fn next(&self) -> Option<Instant> {
        let leisurely = self.not_before.max(self.last + INTERVAL);
        self.dirty.then_some(if self.urgent { self.not_before } else { leisurely })
    }

    /// One of this many octets was written, and took so long.
    pub(super) fn written(&mut self, now: Instant, octets: usize, took: Duration) {
        let (least, most) = NANOS_PER_OCTET;
        let length = u64::try_from(octets).unwrap_or(u64::MAX);
        let should = Duration::from_nanos(length.saturating_mul(least));
        let believed = Duration::from_nanos(length.saturating_mul(most));
        let took = if octets < SHORT { should } else { took.clamp(should, believed) };
        self.dirty = false;
        self.urgent = false;
        self.last = now;
        self.not_before = now + took.saturating_mul(SHARE);
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
        // However long it waited for the CPU.
        schedule.written(at(0), 1000, Duration::from_millis(50));
        schedule.touch();
        assert!(!schedule.is_due(at(1), false));
        assert!(schedule.is_due(at(1), true));
    }

    #[test]
    fn what_was_urgent_and_came_too_soon_does_not_wait_for_leisure() {
        let mut schedule = Schedule::default();
        schedule.written(at(0), 16 << 10, Duration::ZERO);
        schedule.touch();
        assert!(!schedule.is_due(at(1), true));
        assert!(schedule.is_due(at(2), false), "1.6 ms for its length");
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
        assert!(!schedule.is_due(at(1900), true));
        assert!(schedule.is_due(at(2000), true));
    }
}
