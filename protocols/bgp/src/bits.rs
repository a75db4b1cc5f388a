//! A growing set of small numbers. What was announced to whom is one bit per prefix and neighbour: a hub with
//! thousands of spokes would otherwise spend most of its memory on that.

#[derive(Clone, Default, Debug)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(crate) const EMPTY: Self = Self { words: Vec::new() };

    /// Is it new?
    pub(crate) fn insert(&mut self, bit: u32) -> bool {
        let (word, mask) = split(bit);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let Some(w) = self.words.get_mut(word) else { return false };
        let new = *w & mask == 0;
        *w |= mask;
        new
    }

    /// Was it there?
    pub(crate) fn remove(&mut self, bit: u32) -> bool {
        let (word, mask) = split(bit);
        let Some(w) = self.words.get_mut(word) else { return false };
        let was = *w & mask != 0;
        *w &= !mask;
        was
    }

    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let bits = |(word, bits): (u32, u64)| {
            (0..64).filter(move |i| bits & (1 << i) != 0).map(move |i| word * 64 + i)
        };
        (0..).zip(self.words.iter().copied()).flat_map(bits)
    }
}

const fn split(bit: u32) -> (usize, u64) {
    ((bit / 64) as usize, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_numbers() {
        let mut bits = Bits::default();
        assert!(!bits.remove(700));
        assert!(bits.insert(700));
        assert!(bits.insert(0));
        assert!(!bits.insert(0));
        assert_eq!(bits.len(), 2);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 700]);
        assert!(bits.remove(700));
        assert!(!bits.remove(700));
    }
}
