//! The one clock: `CLOCK_BOOTTIME`, which outlives processes and counts sleep. Read by the loops only: control's, and BGP's.

use packet::Instant;
use std::time::Duration;

/// The moment it is.
#[must_use]
pub fn now() -> Instant {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither part is negative: this clock begins when the machine does.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Instant::ZERO + Duration::new(seconds, nanos)
}

/// How long ago, in milliseconds, as the API tells moments.
#[must_use]
pub fn millis_since(now: Instant, moment: Instant) -> u64 {
    u64::try_from(now.since(moment).as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch, for events that people read.
#[must_use]
pub fn unix_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// How far the time of day is ahead of [`now`]; it changes when somebody sets the clock.
#[must_use]
pub fn unix_offset() -> Duration {
    Duration::from_millis(unix_millis()).saturating_sub(now().since(Instant::ZERO))
}
