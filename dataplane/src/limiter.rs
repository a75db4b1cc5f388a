//! Keeps what peers or the kernel can provoke to a bounded rate, in fixed memory.

use packet::Instant;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

/// Lets each key pass `burst` times in each `interval`. Keys share a fixed number of places by their hash: two of
/// them at one place are held back more than each would be alone, never less. The hash is another in each interval,
/// so that two keys that meet in one are apart in the next, and none is held back for good by a busy neighbour.
pub struct Limiter {
    hasher: RandomState,
    /// In which interval a place was last used, and how often.
    places: Vec<(u64, u32)>,
    interval: Duration,
    burst: u32,
}

impl Limiter {
    /// `places` is about how many keys can be told apart.
    #[must_use]
    pub fn new(places: usize, burst: u32, interval: Duration) -> Self {
        Self { hasher: RandomState::new(), places: vec![(0, 0); places], interval, burst }
    }

    /// May this one pass now?
    pub fn pass(&mut self, now: Instant, key: impl Hash) -> bool {
        let interval = self.number_of_interval(now);
        let places = self.places.len().max(1);
        let place = self.hasher.hash_one((interval, key)) as usize % places;
        let Some((used_in, passed)) = self.places.get_mut(place) else { return false };
        if *used_in != interval {
            (*used_in, *passed) = (interval, 0);
        }
        *passed = passed.saturating_add(1);
        *passed <= self.burst
    }

    /// Intervals are counted from the clock's zero.
    fn number_of_interval(&self, now: Instant) -> u64 {
        let nanos = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        now.as_nanos() / nanos.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_passes_again_after_the_interval() {
        let mut limiter = Limiter::new(64, 2, Duration::from_millis(100));
        let start = Instant::from_nanos(1);
        let pass = |limiter: &mut Limiter, ms| limiter.pass(start + Duration::from_millis(ms), 7u8);
        let passed: Vec<bool> = [0, 1, 2, 99, 101, 102, 103].map(|ms| pass(&mut limiter, ms)).into();
        assert_eq!(passed, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn keys_that_meet_at_a_place_are_apart_later() {
        let mut limiter = Limiter::new(4, 1, Duration::from_secs(1));
        // Each second all of them ask, in the same order; without another hash each second the same ones would win.
        let mut passed = [0; 8];
        for second in 0..100 {
            for (key, times) in passed.iter_mut().enumerate() {
                *times += u32::from(limiter.pass(Instant::from_nanos(second * 1_000_000_000), key));
            }
        }
        // At most 4 of 8 pass each second, the last one when none before it stands at its place: (3/4)^7 = 13 %.
        assert!(passed.iter().all(|times| *times > 0), "{passed:?}");
        assert!(passed.iter().sum::<u32>() <= 400, "{passed:?}");
    }
}
