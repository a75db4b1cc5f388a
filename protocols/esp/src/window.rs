//! The replay window (RFC 4303 §3.4.3): which of the last 4,096 sequence numbers have been received.
//!
//! A ring of 64-bit words, as in RFC 6479: the word of a number never moves, and moving the window means to clear the
//! words it enters. One word more than the window has, so that the oldest word can be partly left behind.

use serde::{Deserialize, Serialize};

/// Sequence numbers that the window spans: the newest received, and those just before it.
pub const WINDOW: u64 = 4096;

const WORD: u64 = u64::BITS as u64;
const WORDS: u64 = WINDOW / WORD + 1;

/// Which sequence numbers have been received. It outlives a process by serde: see [`crate::Opener::resume`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct ReplayWindow {
    highest: u64,
    words: [u64; WORDS as usize],
}

/// What the window says about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    Seen,
    TooOld,
}

impl Default for ReplayWindow {
    /// Nothing received, and 0 never will be: the first number is 1.
    fn default() -> Self {
        let mut window = Self { highest: 0, words: [0; WORDS as usize] };
        window.mark(0);
        window
    }
}

impl ReplayWindow {
    /// The highest sequence number received; 0 before the first.
    #[inline]
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// The whole number of a packet that brings only the low half (RFC 4303 appendix A2.2).
    ///
    /// The window reaches from `WINDOW - 1` below the highest number to 2^32 numbers above, and there is exactly one in it
    /// with these low bits. `None` if that one is below 0 or beyond all numbers.
    //= rfc4303#A2.2
    // If the low half is at or above the bottom of the window it belongs to the window, else to the subspace above it.
    #[inline]
    pub(crate) fn infer(&self, low: u32) -> Option<u64> {
        const SUBSPACE: u128 = 1 << 32;
        // A subspace higher than it is, since it may lie below 0.
        let bottom = u128::from(self.highest) + SUBSPACE - u128::from(WINDOW - 1);
        let above = low.wrapping_sub(bottom as u32);
        (bottom + u128::from(above)).checked_sub(SUBSPACE)?.try_into().ok()
    }

    /// Would this number be accepted? Changes nothing: that is for after the packet turned out to be authentic.
    #[inline]
    pub(crate) fn check(&self, sequence: u64) -> Verdict {
        if sequence > self.highest {
            Verdict::New
        } else if self.highest - sequence >= WINDOW {
            Verdict::TooOld
        } else if self.words.get(word(sequence)).is_some_and(|word| word & bit(sequence) != 0) {
            Verdict::Seen
        } else {
            Verdict::New
        }
    }

    /// Notes a number that [`check`](Self::check) calls new, of a packet that is authentic.
    #[inline]
    pub(crate) fn accept(&mut self, sequence: u64) {
        if sequence > self.highest {
            let (from, to) = (self.highest / WORD, sequence / WORD);
            for index in from + 1..=to.min(from + WORDS) {
                if let Some(word) = self.words.get_mut((index % WORDS) as usize) {
                    *word = 0;
                }
            }
            self.highest = sequence;
        }
        self.mark(sequence);
    }

    #[inline]
    fn mark(&mut self, sequence: u64) {
        if let Some(word) = self.words.get_mut(word(sequence)) {
            *word |= bit(sequence);
        }
    }
}

#[inline]
const fn word(sequence: u64) -> usize {
    (sequence / WORD % WORDS) as usize
}

#[inline]
const fn bit(sequence: u64) -> u64 {
    1 << (sequence % WORD)
}

/// As it travels between processes.
#[derive(Serialize, Deserialize)]
struct Stored {
    highest: u64,
    words: Vec<u64>,
}

impl From<ReplayWindow> for Stored {
    fn from(window: ReplayWindow) -> Self {
        Self { highest: window.highest, words: window.words.to_vec() }
    }
}

impl TryFrom<Stored> for ReplayWindow {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let words = stored.words.try_into().map_err(|_| "a replay window of another size")?;
        Ok(Self { highest: stored.highest, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(highest: u64) -> ReplayWindow {
        let mut window = ReplayWindow::default();
        window.accept(highest);
        window
    }

    #[test]
    fn number_zero_was_never_sent() {
        assert_eq!(ReplayWindow::default().check(0), Verdict::Seen);
    }

    #[test]
    fn the_window_ends_exactly_4096_numbers_back() {
        for highest in [4097, 5000, 8191, 8192, 1 << 32, (1 << 40) + 63] {
            let mut window = at(highest);
            assert_eq!(window.check(highest), Verdict::Seen);
            assert_eq!(
                window.check(highest - 4095),
                if highest == 4095 { Verdict::Seen } else { Verdict::New }
            );
            assert_eq!(window.check(highest - 4096), Verdict::TooOld);
            window.accept(highest - 4095);
            assert_eq!(window.check(highest - 4095), Verdict::Seen);
            window.accept(highest + 1);
            assert_eq!(window.check(highest - 4095), Verdict::TooOld);
        }
    }

    #[test]
    fn a_jump_over_the_whole_window_forgets_all() {
        let mut window = ReplayWindow::default();
        (1..=5000).for_each(|sequence| window.accept(sequence));
        window.accept(1_000_000);
        let seen = (1_000_000 - 4095..=1_000_000).filter(|n| window.check(*n) == Verdict::Seen);
        assert_eq!(seen.collect::<Vec<_>>(), [1_000_000]);
    }

    //= rfc4303#A2.2
    // If the low half is at or above the bottom of the window it belongs to the window, else to the subspace above it.
    #[test]
    fn the_high_half_is_inferred_as_the_appendix_says() {
        const TOP: u64 = 1 << 32;
        for (highest, low, wanted) in [
            // The window is within a subspace (case A).
            (5000, 905, Some(905)),
            (5000, 904, Some(TOP + 904)),
            (5000, u32::MAX, Some(TOP - 1)),
            (7 * TOP + 4095, 0, Some(7 * TOP)),
            (7 * TOP + 4095, 4096, Some(7 * TOP + 4096)),
            (7 * TOP + 4096, 0, Some(8 * TOP)),
            // It spans two (case B).
            (7 * TOP + 4094, u32::MAX, Some(7 * TOP - 1)),
            (7 * TOP + 4094, u32::MAX - 1, Some(8 * TOP - 2)),
            (7 * TOP, u32::MAX - 4094, Some(7 * TOP - 4095)),
            (7 * TOP, u32::MAX - 4095, Some(8 * TOP - 4096)),
            (7 * TOP, 1, Some(7 * TOP + 1)),
            // It would reach below the first number.
            (0, 1, Some(1)),
            (0, u32::MAX - 4095, Some(TOP - 4096)),
            (0, u32::MAX - 4094, None),
            (4094, u32::MAX, None),
            // It would reach beyond the last.
            (u64::MAX, u32::MAX, Some(u64::MAX)),
            (u64::MAX, 0, None),
        ] {
            assert_eq!(at(highest).infer(low), wanted, "{highest:#x} {low:#x}");
        }
    }

    #[test]
    fn a_stored_window_of_another_size_is_refused() {
        let stored = postcard::to_stdvec(&Stored { highest: 9, words: vec![0; 64] }).unwrap();
        assert!(postcard::from_bytes::<ReplayWindow>(&stored).is_err());
    }

    proptest! {
        /// Against the plainest possible one: a set of all numbers ever accepted.
        #[test]
        fn it_says_what_a_set_would_say(
            start in prop_oneof![Just(0), Just((1u64 << 32) - 3000), 0..u64::MAX / 2],
            steps in proptest::collection::vec((any::<bool>(), 0..9000u64), 1..300),
        ) {
            let (mut window, mut set) = (ReplayWindow::default(), BTreeSet::from([0]));
            if start > 0 {
                window.accept(start);
                set.insert(start);
            }
            for (ahead, distance) in steps {
                let highest = *set.last().unwrap();
                let sequence = if ahead { highest + distance / 8 } else { highest.saturating_sub(distance / 2) };
                let wanted = match highest.checked_sub(sequence) {
                    Some(behind) if behind >= WINDOW => Verdict::TooOld,
                    _ if set.contains(&sequence) => Verdict::Seen,
                    _ => Verdict::New,
                };
                prop_assert_eq!(window.check(sequence), wanted);
                if wanted == Verdict::New {
                    prop_assert_eq!(window.infer(sequence as u32), Some(sequence));
                    window.accept(sequence);
                    set.insert(sequence);
                }
                prop_assert_eq!(window.highest(), *set.last().unwrap());
            }
        }
    }
}
