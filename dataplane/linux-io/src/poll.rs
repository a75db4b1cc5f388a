//! Waiting for descriptors, and waking a thread that waits.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What a descriptor is ready for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Something can be read.
    pub readable: bool,
    /// Its error queue has something, or it is broken.
    pub error: bool,
}

/// The most descriptors one [`wait`] takes.
pub const MAX_DESCRIPTORS: usize = 40;

/// Waits until one of `descriptors` is readable or `timeout` has passed; `None` waits for ever. What is found is
/// written to `ready`, one for each descriptor.
///
/// # Errors
/// What `ppoll(2)` says, but not EINTR: that returns with nothing ready.
pub fn wait(
    descriptors: &[BorrowedFd<'_>],
    ready: &mut [Ready],
    timeout: Option<Duration>,
) -> io::Result<()> {
    let count = descriptors.len().min(ready.len());
    let Some(first) = descriptors.first() else { return Ok(()) };
    let mut sets: [PollFd<'_>; MAX_DESCRIPTORS] = std::array::from_fn(|i| {
        // Unused entries name a descriptor too, for want of an empty one, and are not passed on.
        PollFd::from_borrowed_fd(*descriptors.get(i).unwrap_or(first), PollFlags::IN)
    });
    let timeout = timeout.map(|t| Timespec {
        tv_sec: t.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let count = count.min(MAX_DESCRIPTORS);
    ready.fill(Ready::default());
    match rustix::event::poll(&mut sets[..count], timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(()),
        Err(e) => return Err(e.into()),
    }
    for (set, ready) in sets.iter().zip(ready.iter_mut()).take(count) {
        let events = set.revents();
        ready.readable = events.contains(PollFlags::IN);
        ready.error = events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
    }
    Ok(())
}

/// Nanoseconds of the monotonic clock.
#[must_use]
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Wakes a thread that waits for it in [`wait`] (an `eventfd`).
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// A waker nobody has rung yet.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it readable.
    pub fn wake(&self) {
        // The only error is a counter that is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it quiet again.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_wakes_once() {
        let waker = Waker::new().unwrap();
        let mut ready = [Ready::default()];
        let now = Some(Duration::ZERO);
        wait(&[waker.as_fd()], &mut ready, now).unwrap();
        assert!(!ready[0].readable);
        waker.wake();
        waker.wake();
        wait(&[waker.as_fd()], &mut ready, now).unwrap();
        assert!(ready[0].readable);
        waker.clear();
        wait(&[waker.as_fd()], &mut ready, now).unwrap();
        assert!(!ready[0].readable);
    }
}
