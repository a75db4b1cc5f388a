//! Slots of the datapath's peer table: which index names which peer.
//!
//! A slot that was given back rests for a while before it is used again, and comes back with another generation: a
//! frame or a message that still names the old peer then never reaches the new one.

use packet::{Instant, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a freed slot rests.
pub(crate) const REST: Duration = Duration::from_secs(60);

/// Allocates [`PeerId`]s.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Slots {
    /// Slots from here on were never used.
    fresh: u32,
    /// Freed slots, in the order they were freed, with the generation of their last use.
    freed: VecDeque<(Instant, PeerId)>,
}

impl Slots {
    /// A slot that nobody has; `None` when all are taken or resting.
    pub(crate) fn allocate(&mut self, now: Instant) -> Option<PeerId> {
        if self.freed.front().is_some_and(|(at, _)| now.since(*at) >= REST) {
            let (_, old) = self.freed.pop_front()?;
            return Some(PeerId { index: old.index, generation: old.generation.wrapping_add(1) });
        }
        // The two highest indices would collide with the special MACs when the generation is 0xff.
        if self.fresh >= PeerId::MAX_INDEX - 2 {
            return None;
        }
        let id = PeerId { index: self.fresh, generation: 0 };
        self.fresh += 1;
        Some(id)
    }

    /// Gives a slot back.
    pub(crate) fn free(&mut self, now: Instant, id: PeerId) {
        self.freed.push_back((now, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_rests_and_comes_back_as_another() {
        let (mut slots, start) = (Slots::default(), Instant::ZERO);
        let first = slots.allocate(start).unwrap();
        slots.free(start, first);
        let second = slots.allocate(start + REST - Duration::from_millis(1)).unwrap();
        assert_ne!(first.index, second.index);
        let third = slots.allocate(start + REST).unwrap();
        assert_eq!(third.index, first.index);
        assert_ne!(third, first);
        assert_ne!(third.mac(), first.mac());
    }
}
