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
