//! How much an SA has carried, and when that was enough.

use crate::Suite;

/// When control wants to be told that an SA should be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets.
    pub packets: u64,
    /// Octets of payload.
    pub octets: u64,
}

impl Limits {
    /// Never.
    pub const NONE: Self = Self { packets: u64::MAX, octets: u64::MAX };

    /// These, but early enough for what the SA itself can carry: without ESN there are 2^32 sequence numbers; with CBC,
    /// blocks begin to collide at 2^64 of them, and 2^32 are carried before the chance is 2^-65.
    #[must_use]
    pub fn within(self, suite: Suite, esn: bool) -> Self {
        // Three quarters leave a quarter for the rekeying itself.
        let packets = if esn { u64::MAX } else { (1 << 32) / 4 * 3 };
        let octets = if suite.is_aead() { u64::MAX } else { (16 << 32) / 4 * 3 };
        Self { packets: self.packets.min(packets), octets: self.octets.min(octets) }
    }
}

/// Counts what an SA carries, and says once that a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    limits: Limits,
    packets: u64,
    octets: u64,
    said: bool,
}

impl Lifetime {
    /// Of a new SA.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, packets: 0, octets: 0, said: false }
    }

    /// Counts a packet with this many octets of payload. True once: when that reached a limit.
    #[inline]
    #[must_use = "true is said only once"]
    pub fn count(&mut self, octets: usize) -> bool {
        self.packets = self.packets.saturating_add(1);
        self.octets = self.octets.saturating_add(octets as u64);
        let reached = self.packets >= self.limits.packets || self.octets >= self.limits.octets;
        reached && !std::mem::replace(&mut self.said, true)
    }

    /// Packets so far.
    #[inline]
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Octets of payload so far.
    #[inline]
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_said_once() {
        for limits in [Limits { packets: 3, ..Limits::NONE }, Limits { octets: 2800, ..Limits::NONE }] {
            let mut life = Lifetime::new(limits);
            let said: Vec<bool> = (0..5).map(|_| life.count(1000)).collect();
            assert_eq!(said, [false, false, true, false, false], "{limits:?}");
            assert_eq!((life.packets(), life.octets()), (5, 5000));
        }
    }

    #[test]
    fn without_esn_an_sa_is_replaced_before_its_numbers_end() {
        let limits = Limits::NONE.within(Suite::Aes128Gcm16, false);
        assert_eq!(limits, Limits { packets: 3 << 30, octets: u64::MAX });
        assert_eq!(Limits::NONE.within(Suite::Aes128Gcm16, true), Limits::NONE);
    }

    #[test]
    fn cbc_is_replaced_before_its_blocks_collide() {
        let limits = Limits::NONE.within(Suite::Aes256CbcSha256, true);
        assert_eq!(limits, Limits { packets: u64::MAX, octets: 48 << 30 });
    }

    #[test]
    fn a_configured_limit_stays_when_it_is_lower() {
        let limits = Limits { packets: 9, octets: 9 };
        assert_eq!(limits.within(Suite::Aes128CbcSha256, false), limits);
    }
}
