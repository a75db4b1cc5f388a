//! What happens when: a queue of moments, in order, ties broken by who came first.

use packet::Instant;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A queue of events. Taking them out in order is what makes the clock go.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), next: 0 }
    }

    /// Something will happen at `at`.
    pub(crate) fn push(&mut self, at: Instant, event: E) {
        self.heap.push(Entry { at, number: self.next, event });
        self.next += 1;
    }

    /// What happens next, if it is no later than `until`.
    pub(crate) fn pop(&mut self, until: Instant) -> Option<(Instant, E)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest is the greatest, so that the heap gives it first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_ties_in_the_order_they_were_pushed() {
        let mut queue = Queue::new();
        let at = Instant::from_nanos;
        queue.push(at(2), 'c');
        queue.push(at(1), 'a');
        queue.push(at(1), 'b');
        assert_eq!(queue.pop(at(1)), Some((at(1), 'a')));
        assert_eq!(queue.pop(at(1)), Some((at(1), 'b')));
        assert_eq!(queue.pop(at(1)), None);
        assert_eq!(queue.pop(at(9)), Some((at(2), 'c')));
    }
}
