//! Keeps what peers or the kernel can provoke to a bounded rate, in fixed memory.

use packet::Instant;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

/// Lets each key pass `burst` times in each `interval`. Keys share a fixed number of places by their hash: two of
/// them at one place are held back more than each would be alone, never less.
pub struct Limiter {
    hasher: RandomState,
    places: Vec<(Instant, u32)>,
    interval: Duration,
    burst: u32,
}

impl Limiter {
    /// `places` is how many keys can be told apart.
    #[must_use]
    pub fn new(places: usize, burst: u32, interval: Duration) -> Self {
        Self { hasher: RandomState::new(), places: vec![(Instant::ZERO, 0); places], interval, burst }
    }

    /// May this one pass now?
    pub fn pass(&mut self, now: Instant, key: impl Hash) -> bool {
        let places = self.places.len().max(1);
        let place = self.hasher.hash_one(key) as usize % places;
        let Some((since, passed)) = self.places.get_mut(place) else { return false };
        if *passed == 0 || now.since(*since) >= self.interval {
            (*since, *passed) = (now, 0);
        }
        *passed = passed.saturating_add(1);
        *passed <= self.burst
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
}
