//! When to try again what failed: per object, later and later, and not all at once.

use rand::RngExt as _;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The first delay.
const FIRST: Duration = Duration::from_millis(500);
/// The longest, unless said otherwise.
const LONGEST: Duration = Duration::from_secs(120);

/// What failed, and when it is tried again.
#[derive(Debug)]
pub struct Retries {
    failed: BTreeMap<String, (u32, Instant)>,
    longest: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self::within(LONGEST)
    }
}

impl Retries {
    /// With no delay longer than this.
    pub const fn within(longest: Duration) -> Self {
        Self { failed: BTreeMap::new(), longest }
    }

    /// May it be tried now?
    pub fn is_due(&self, object: &str) -> bool {
        self.failed.get(object).is_none_or(|(_, due)| *due <= Instant::now())
    }

    /// It failed.
    pub fn failed(&mut self, object: &str) {
        let attempts = self.failed.get(object).map_or(0, |(attempts, _)| *attempts);
        let due = Instant::now() + jittered(delay(attempts, self.longest));
        self.failed.insert(object.to_owned(), (attempts.saturating_add(1), due));
    }

    /// It succeeded, or is gone.
    pub fn forget(&mut self, object: &str) {
        self.failed.remove(object);
    }

    /// Forgets what is not among these.
    pub fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.failed.retain(|object, _| exists(object));
    }

    /// Returns when something is due; never, if nothing failed.
    pub async fn next_due(&self) {
        match self.failed.values().map(|(_, due)| *due).min() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }
}

fn delay(attempts: u32, longest: Duration) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(attempts)).min(longest)
}

/// Between half and the whole of it.
pub fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_two_minutes() {
        assert_eq!([0, 1, 2].map(|attempts| delay(attempts, LONGEST).as_millis()), [500, 1000, 2000]);
        assert_eq!(delay(40, LONGEST), Duration::from_secs(120));
    }

    #[test]
    fn what_failed_is_not_tried_at_once_and_another_is() {
        let mut retries = Retries::default();
        retries.failed("a");
        assert!(!retries.is_due("a"));
        assert!(retries.is_due("b"));
        retries.forget("a");
        assert!(retries.is_due("a"));
    }
}
