//! A bound on a rate: what strangers can make us do.

use packet::Instant;

/// Tokens that come back at a steady rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Tokens a second, and at most held.
    rate: u32,
    tokens: u32,
    filled: Instant,
}

impl Bucket {
    /// A full bucket of one second's tokens.
    pub(crate) const fn new(rate: u32, now: Instant) -> Self {
        Self { rate, tokens: rate, filled: now }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.since(self.filled).as_nanos();
        let come = elapsed.saturating_mul(u128::from(self.rate)) / 1_000_000_000;
        if come > 0 {
            self.tokens = u32::try_from(come).unwrap_or(u32::MAX).saturating_add(self.tokens).min(self.rate);
            self.filled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let start = Instant::from_nanos(7);
        let mut bucket = Bucket::new(10, start);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 10);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 5);
    }
}
