//! One direction of a link: frames in, a time for each, frames out.

use super::{Lane, Shape, lock};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read, write};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The longest frame a TAP without offloads gives.
const FRAME: usize = 1 << 16;
/// Frames read from one side before the others have their turn.
const BURST: usize = 256;
/// The weather of a link changes this often.
const WEATHER: Duration = Duration::from_millis(40);

/// One direction, owned by the relay's thread.
pub(super) struct Direction {
    pub(super) input: Arc<OwnedFd>,
    output: Arc<OwnedFd>,
    lane: Arc<Lane>,
    pending: BinaryHeap<Reverse<Pending>>,
    /// Buffers of frames that have been delivered, for the next ones.
    spare: Vec<Vec<u8>>,
    buffer: Box<[u8]>,
    random: SmallRng,
    weather: Weather,
    /// When the line is free, for the rate.
    free: Instant,
    /// No frame leaves before this one did, unless reordering is asked for.
    last_release: Instant,
    /// Numbers frames, so that those of the same moment stay in order.
    count: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    release: Instant,
    number: u64,
    frame: Vec<u8>,
}

impl Direction {
    pub(super) fn new(input: Arc<OwnedFd>, output: Arc<OwnedFd>, lane: Arc<Lane>) -> Self {
        let now = Instant::now();
        Self {
            input,
            output,
            lane,
            pending: BinaryHeap::new(),
            spare: Vec::new(),
            buffer: vec![0; FRAME].into_boxed_slice(),
            // Which frames are lost should not differ between two runs more than their timing does.
            random: SmallRng::seed_from_u64(0x6b64_6d76_706e),
            weather: Weather { from: 0.0, to: 0.0, since: now },
            free: now,
            last_release: now,
            count: 0,
        }
    }

    /// Writes the frames that are due; returns when the next one is.
    pub(super) fn deliver(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse(first)) = self.pending.peek() {
            if first.release > now {
                return Some(first.release);
            }
            let Some(Reverse(due)) = self.pending.pop() else { break };
            let outcome = match write(&*self.output, &due.frame) {
                Ok(_) => &self.lane.counters.delivered,
                // An interface that is down refuses frames, as a wire without a far end loses them.
                Err(Errno::IO) => &self.lane.counters.dropped,
                Err(_) => &self.lane.counters.refused,
            };
            count(outcome);
            self.spare.push(due.frame);
        }
        None
    }

    /// Reads what has arrived and decides the fate of each frame.
    pub(super) fn accept(&mut self, now: Instant) {
        let shape = lock(&self.lane.shape).clone();
        for _ in 0..BURST {
            let Ok(length) = read(&*self.input, &mut self.buffer[..]) else { return };
            count(&self.lane.counters.received);
            let Some(release) = self.release(&shape, length, now) else {
                count(&self.lane.counters.dropped);
                continue;
            };
            self.schedule(length, release);
            if shape.duplicate > 0.0 && self.random.random_bool(shape.duplicate) {
                count(&self.lane.counters.duplicated);
                self.schedule(length, release);
            }
        }
    }

    /// When a frame comes out at the far end; `None` when it does not.
    fn release(&mut self, shape: &Shape, length: usize, now: Instant) -> Option<Instant> {
        let lost = shape.loss > 0.0 && self.random.random_bool(shape.loss);
        if shape.blackhole || lost || length > shape.frame_limit {
            return None;
        }
        let sent = match shape.rate {
            None => now,
            Some(rate) => self.serialise(rate, shape.queue, length, now)?,
        };
        if shape.reorder {
            return Some(sent + shape.delay + shape.jitter.mul_f64(self.random.random()));
        }
        let extra = shape.jitter.mul_f64(self.weather.now(now, &mut self.random));
        self.last_release = self.last_release.max(sent + shape.delay + extra);
        Some(self.last_release)
    }

    /// When the last bit of the frame has left, at this rate; `None` when the queue is full.
    fn serialise(&mut self, rate: u64, queue: usize, length: usize, now: Instant) -> Option<Instant> {
        let time = |octets: usize| Duration::from_secs_f64(octets as f64 * 8.0 / rate.max(1) as f64);
        let start = self.free.max(now);
        if start - now > time(queue) {
            return None;
        }
        self.free = start + time(length);
        Some(self.free)
    }

    fn schedule(&mut self, length: usize, release: Instant) {
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(&self.buffer[..length]);
        self.count += 1;
        self.pending.push(Reverse(Pending { release, number: self.count, frame }));
    }
}

/// A number between 0 and 1 that drifts from one random value to the next within [`WEATHER`].
///
/// It falls by at most 1 in 40 ms, so a jitter of up to 40 ms shortens the delay by less than time passes: a later
/// frame is never due before an earlier one, and the delays are spread evenly, which clamping independent draws to
/// keep the order would not do.
struct Weather {
    from: f64,
    to: f64,
    since: Instant,
}

impl Weather {
    fn now(&mut self, now: Instant, random: &mut SmallRng) -> f64 {
        let mut passed = now.saturating_duration_since(self.since);
        if passed >= WEATHER {
            self.from = self.to;
            self.to = random.random();
            self.since = now;
            passed = Duration::ZERO;
        }
        self.from + (self.to - self.from) * passed.as_secs_f64() / WEATHER.as_secs_f64()
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
