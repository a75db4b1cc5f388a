//! A link between two sites: what it does to datagrams, and to the order of them.

use packet::Instant;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;

/// What a link does, in each direction alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Time that every datagram takes.
    pub latency: Duration,
    /// Time up to which a datagram may take longer. Order is kept.
    pub jitter: Duration,
    /// Part of the datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// Part that arrives twice.
    pub duplication: f64,
    /// Part that is held back long enough for later ones to overtake it.
    pub reordering: f64,
    /// Octets of the largest IP packet. What is larger is dropped: every outer packet has DF set.
    pub mtu: usize,
    /// Nothing passes.
    pub down: bool,
}

impl Default for Link {
    /// 10 ms, and nothing else.
    fn default() -> Self {
        Self::latency_ms(10)
    }
}

impl Link {
    /// A link that only takes its time.
    #[must_use]
    pub const fn latency_ms(ms: u64) -> Self {
        Self {
            latency: Duration::from_millis(ms),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            mtu: 1500,
            down: false,
        }
    }

    /// The same with jitter.
    #[must_use]
    pub const fn jitter_ms(self, ms: u64) -> Self {
        Self { jitter: Duration::from_millis(ms), ..self }
    }

    /// The same with loss, 0 to 1.
    #[must_use]
    pub const fn loss(self, part: f64) -> Self {
        Self { loss: part, ..self }
    }

    /// The same, but nothing passes.
    #[must_use]
    pub const fn cut(self) -> Self {
        Self { down: true, ..self }
    }

    /// The same with another MTU.
    #[must_use]
    pub const fn mtu(self, octets: usize) -> Self {
        Self { mtu: octets, ..self }
    }

    /// When copies of a datagram of `size` octets arrive: none, one, or two. `last` is when the one before it did.
    pub(crate) fn fate(&self, now: Instant, size: usize, last: &mut Instant, rng: &mut StdRng) -> Fate {
        if size > self.mtu {
            return Fate::TooBig;
        }
        if self.down || rng.random_bool(self.loss.clamp(0.0, 1.0)) {
            return Fate::Lost;
        }
        let jitter = Duration::from_nanos(match self.jitter.as_nanos() as u64 {
            0 => 0,
            most => rng.random_range(0..most),
        });
        let mut at = now + self.latency + jitter;
        if rng.random_bool(self.reordering.clamp(0.0, 1.0)) {
            at += self.latency / 2 + Duration::from_millis(1);
        } else {
            at = at.max(*last);
            *last = at;
        }
        let again = rng.random_bool(self.duplication.clamp(0.0, 1.0));
        Fate::Arrives(at, again.then(|| at + Duration::from_micros(rng.random_range(1..5000))))
    }
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives, and perhaps once more.
    Arrives(Instant, Option<Instant>),
    Lost,
    TooBig,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn fates(link: Link, count: u64) -> Vec<Fate> {
        let (mut rng, mut last) = (StdRng::seed_from_u64(1), Instant::ZERO);
        (0..count).map(|i| link.fate(Instant::from_nanos(i * 1000), 100, &mut last, &mut rng)).collect()
    }

    #[test]
    fn jitter_keeps_the_order() {
        let times: Vec<_> = fates(Link::latency_ms(5).jitter_ms(5), 1000)
            .into_iter()
            .map(|f| if let Fate::Arrives(at, None) = f { at } else { panic!("{f:?}") })
            .collect();
        assert!(times.is_sorted());
        assert!(times[0] >= Instant::ZERO + Duration::from_millis(5));
    }

    #[test]
    fn loss_duplication_and_reordering_happen_as_often_as_said() {
        let link = Link { loss: 0.3, duplication: 0.2, reordering: 0.1, ..Link::default() };
        let fates = fates(link, 10_000);
        let lost = fates.iter().filter(|f| **f == Fate::Lost).count();
        let twice = fates.iter().filter(|f| matches!(f, Fate::Arrives(_, Some(_)))).count();
        assert!((2800..3200).contains(&lost), "{lost}");
        assert!((1250..1550).contains(&twice), "{twice}");
        let times: Vec<_> = fates
            .iter()
            .filter_map(|f| if let Fate::Arrives(at, _) = f { Some(*at) } else { None })
            .collect();
        assert!(!times.is_sorted());
    }

    #[test]
    fn what_is_too_big_is_dropped() {
        let (mut rng, mut last) = (StdRng::seed_from_u64(1), Instant::ZERO);
        let link = Link::default().mtu(1280);
        assert_eq!(link.fate(Instant::ZERO, 1281, &mut last, &mut rng), Fate::TooBig);
        assert!(matches!(link.fate(Instant::ZERO, 1280, &mut last, &mut rng), Fate::Arrives(..)));
    }
}
