//! How much a peer may ask of us: token buckets, in tables that can't grow without bound.

use packet::{Instant, Path};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What peers may ask of us, and how often we say certain things.
pub(crate) struct Limits {
    /// Messages from one path of a peer that is registered with us.
    pub(crate) peers: Buckets<Path>,
    /// Messages from one path of anybody else: many of them can't crowd out our peers.
    pub(crate) strangers: Buckets<Path>,
    /// Error Indications to one path.
    pub(crate) errors: Buckets<Path>,
    /// Traffic Indications to one path.
    pub(crate) indications: Buckets<Path>,
    /// Traffic Indications about one pair of source and destination.
    pub(crate) indicated_pairs: Buckets<(IpAddr, IpAddr)>,
}

impl Limits {
    pub(crate) fn new(max_entries: usize) -> Self {
        let most = max_entries.saturating_mul(2).max(256);
        let rate = |burst, millis| Rate { burst, interval: Duration::from_millis(millis) };
        Self {
            peers: Buckets::new(rate(128, 20), most),
            strangers: Buckets::new(rate(128, 20), most),
            errors: Buckets::new(rate(8, 1000), most),
            indications: Buckets::new(rate(32, 50), most),
            indicated_pairs: Buckets::new(rate(2, 4000), most.saturating_mul(4)),
        }
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        self.peers.sweep(now);
        self.strangers.sweep(now);
        self.errors.sweep(now);
        self.indications.sweep(now);
        self.indicated_pairs.sweep(now);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
            && self.strangers.is_empty()
            && self.errors.is_empty()
            && self.indications.is_empty()
            && self.indicated_pairs.is_empty()
    }
}

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Most tokens at once.
    pub(crate) burst: u32,
    /// Time to earn one.
    pub(crate) interval: Duration,
}

/// A token bucket, kept as the moment at which it will be full again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Is there a token?
    fn has(self, now: Instant, rate: Rate) -> bool {
        (self.full_at.max(now) + rate.interval).since(now) <= rate.interval * rate.burst
    }

    /// Takes a token, unless there is none.
    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let allowed = self.has(now, rate);
        if allowed {
            self.full_at = self.full_at.max(now) + rate.interval;
        }
        allowed
    }
}

/// One bucket for each key. When the table is full, those that are full again go; if none is, the newcomer is
/// refused.
#[derive(Clone, Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    most: usize,
    buckets: BTreeMap<K, Bucket>,
}

impl<K: Ord> Buckets<K> {
    pub(crate) const fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, buckets: BTreeMap::new() }
    }

    /// May this one do it once more? It has not done it yet.
    pub(crate) fn has(&self, now: Instant, key: &K) -> bool {
        self.buckets.get(key).is_none_or(|bucket| bucket.has(now, self.rate))
    }

    /// May this one do it once more?
    pub(crate) fn take(&mut self, now: Instant, key: K) -> bool {
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&key) {
            self.sweep(now);
            if self.buckets.len() >= self.most {
                return false;
            }
        }
        self.buckets.entry(key).or_insert(Bucket { full_at: now }).take(now, self.rate)
    }

    /// Forgets those that are full: they say nothing.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| bucket.full_at > now);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 2, interval: Duration::from_secs(1) };

    #[test]
    fn a_burst_then_one_an_interval() {
        let mut buckets = Buckets::new(RATE, 10);
        let t = Instant::ZERO + Duration::from_secs(5);
        let taken: Vec<bool> = (0..3).map(|_| buckets.take(t, 1)).collect();
        assert_eq!(taken, [true, true, false]);
        assert!(buckets.take(t + Duration::from_secs(1), 1));
        assert!(!buckets.take(t + Duration::from_secs(1), 1));
        assert!(buckets.take(t + Duration::from_secs(1), 2), "others have their own");
    }

    #[test]
    fn the_table_is_bounded_and_recovers() {
        let mut buckets = Buckets::new(RATE, 2);
        let t = Instant::ZERO;
        assert!(buckets.take(t, 1) && buckets.take(t, 2));
        assert!(!buckets.take(t, 3));
        assert!(buckets.take(t + Duration::from_secs(2), 3));
    }
}
