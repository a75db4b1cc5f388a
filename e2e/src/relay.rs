//! Links with delay, jitter, loss, a rate and a frame limit, carried in user space.
//!
//! A link is two TAP interfaces, one in each of two namespaces, and this module's thread that carries frames from
//! one to the other. One thread serves all links of a lab: it reads what has arrived, works out when each frame is
//! to come out at the far end, and sleeps until then with nanosecond deadlines.
//!
//! **A direction keeps its order unless `reorder` is set.** Jitter is weather, not noise: a direction's extra delay
//! drifts between zero and [`Shape::jitter`] slower than frames can overtake each other. So a packet that arrives
//! out of order at a host was overtaken on *another path* through the overlay, and a story may count such packets
//! and say why. With `reorder` each frame draws its own jitter, as on a link that is made of many.

mod direction;

use crate::error::{Error, Result};
use crate::netns::Namespace;
use direction::Direction;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read, write};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a direction of a link does to frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// How long every frame takes at least.
    pub delay: Duration,
    /// How much longer it may take.
    pub jitter: Duration,
    /// The part of the frames that is lost, 0 to 1.
    pub loss: f64,
    /// The part of the frames that arrives twice, 0 to 1.
    pub duplicate: f64,
    /// Bits a second; `None`: no limit.
    pub rate: Option<u64>,
    /// Octets that may wait for the rate; more are lost (drop tail).
    pub queue: usize,
    /// Frames longer than this, Ethernet header included, vanish without an ICMP error.
    pub frame_limit: usize,
    /// Nothing passes.
    pub blackhole: bool,
    /// Frames may overtake each other within the jitter.
    pub reorder: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            rate: None,
            queue: 1 << 20,
            frame_limit: usize::MAX,
            blackhole: false,
            reorder: false,
        }
    }
}

impl Shape {
    /// A link that takes so long each way.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// And up to so much longer.
    #[must_use]
    pub fn jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// And loses this part of the frames.
    #[must_use]
    pub fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// And carries so many bits a second.
    #[must_use]
    pub fn rate(self, bits_per_second: u64) -> Self {
        Self { rate: Some(bits_per_second), ..self }
    }
}

/// What a direction has done so far, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Read from the sending side.
    pub received: u64,
    /// Written to the far side.
    pub delivered: u64,
    /// Lost on purpose: loss, black hole, frame limit, full queue.
    pub dropped: u64,
    /// Delivered a second time, on purpose.
    pub duplicated: u64,
    /// Lost because the far side refused them: always an error of the machine, never part of a story.
    pub refused: u64,
}

/// What a story holds of one direction.
pub struct Lane {
    shape: Mutex<Shape>,
    counters: AtomicCounters,
}

#[derive(Default)]
struct AtomicCounters {
    received: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
    duplicated: AtomicU64,
    refused: AtomicU64,
}

impl Lane {
    fn new(shape: Shape) -> Self {
        Self { shape: Mutex::new(shape), counters: AtomicCounters::default() }
    }

    /// Changes the shape; frames under way keep the time they were given.
    pub fn set(&self, change: impl FnOnce(&mut Shape)) {
        change(&mut lock(&self.shape));
    }

    /// The shape now.
    #[must_use]
    pub fn shape(&self) -> Shape {
        lock(&self.shape).clone()
    }

    /// What was carried so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let c = &self.counters;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counters {
            received: get(&c.received),
            delivered: get(&c.delivered),
            dropped: get(&c.dropped),
            duplicated: get(&c.duplicated),
            refused: get(&c.refused),
        }
    }
}

/// A relayed link. Clones are the same link.
#[derive(Clone)]
pub struct Link {
    /// From the first namespace to the second.
    pub up: Arc<Lane>,
    /// From the second to the first.
    pub down: Arc<Lane>,
}

impl Link {
    /// Changes both directions.
    pub fn set(&self, change: impl Fn(&mut Shape)) {
        self.up.set(&change);
        self.down.set(&change);
    }

    /// Lets nothing pass, or everything again.
    pub fn blackhole(&self, yes: bool) {
        self.set(|shape| shape.blackhole = yes);
    }
}

/// The thread that carries frames, and the way to give it more links.
pub struct Relay {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// All links, by what they connect.
    links: Mutex<Vec<(String, Link)>>,
    /// Links the thread has not taken over yet.
    arrivals: Mutex<Vec<[Direction; 2]>>,
    wake: OwnedFd,
    stop: AtomicBool,
}

impl Relay {
    /// A relay without links; its thread starts with the first.
    pub fn new() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(Error::sys("make an eventfd"))?;
        let shared = Shared {
            links: Mutex::default(),
            arrivals: Mutex::default(),
            wake,
            stop: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    /// Makes a TAP in each namespace and carries frames between them, both ways by `shape`.
    pub fn connect(&self, a: (&Namespace, &str), b: (&Namespace, &str), shape: &Shape) -> Result<Link> {
        let near = Arc::new(open_tap(a.0, a.1)?);
        let far = Arc::new(open_tap(b.0, b.1)?);
        let link = Link { up: Arc::new(Lane::new(shape.clone())), down: Arc::new(Lane::new(shape.clone())) };
        let name = format!("{} {} -- {} {}", a.0.name(), a.1, b.0.name(), b.1);
        lock(&self.shared.links).push((name, link.clone()));
        lock(&self.shared.arrivals).push([
            Direction::new(Arc::clone(&near), Arc::clone(&far), Arc::clone(&link.up)),
            Direction::new(far, near, Arc::clone(&link.down)),
        ]);
        self.wake()?;
        lock(&self.thread).get_or_insert_with(|| {
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || carry(&shared))
        });
        Ok(link)
    }

    /// The links that lost frames, in words.
    #[must_use]
    pub fn losses(&self) -> Vec<String> {
        let links = lock(&self.shared.links);
        let lanes =
            links.iter().flat_map(|(name, link)| [(name, "up", &link.up), (name, "down", &link.down)]);
        let lost = |(name, direction, lane): (&String, _, &Arc<Lane>)| {
            let Counters { dropped, refused, .. } = lane.counters();
            let told =
                format!("link {name}, {direction}: {dropped} as told, {refused} refused by the far side");
            (dropped + refused > 0).then_some(told)
        };
        lanes.filter_map(lost).collect()
    }

    /// Stops the thread and closes the TAPs, which removes them.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.wake();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }

    fn wake(&self) -> Result {
        write(&self.shared.wake, &1u64.to_ne_bytes()).map(drop).map_err(Error::sys("wake the relay"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread: deliver what is due, sleep until the next is or something arrives, read what has arrived.
fn carry(shared: &Shared) {
    // The kernel may round our sleep up by this; its default of 50 us would show as delay.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    let mut directions: Vec<Direction> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        directions.extend(lock(&shared.arrivals).drain(..).flatten());
        // The descriptors stay the same until the next link arrives: build the poll set once for all rounds.
        let inputs: Vec<Arc<OwnedFd>> = directions.iter().map(|d| Arc::clone(&d.input)).collect();
        let mut set: Vec<PollFd<'_>> =
            inputs.iter().map(|fd| PollFd::new(fd.as_ref(), PollFlags::IN)).collect();
        set.push(PollFd::new(&shared.wake, PollFlags::IN));
        while rounds(&mut directions, &mut set) {}
        let _ = read(shared.wake.as_fd(), &mut [0u8; 8]);
    }
}

/// One round; false when the relay was woken for something else than frames.
fn rounds(directions: &mut [Direction], set: &mut [PollFd<'_>]) -> bool {
    let now = Instant::now();
    let mut next: Option<Instant> = None;
    for direction in directions.iter_mut() {
        let due = direction.deliver(now);
        next = [next, due].into_iter().flatten().min();
    }
    let timeout = next.map(|at| {
        let wait = at.saturating_duration_since(Instant::now());
        Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        }
    });
    match poll(set, timeout.as_ref()) {
        Ok(0) | Err(Errno::INTR) => return true,
        Ok(_) => {}
        Err(e) => panic!("the relay can't poll: {e}"),
    }
    let now = Instant::now();
    for (direction, polled) in directions.iter_mut().zip(set.iter()) {
        if polled.revents().contains(PollFlags::IN) {
            direction.accept(now);
        }
    }
    set.last().is_none_or(|wake| wake.revents().is_empty())
}

/// Makes a TAP in a namespace. It is there as long as the descriptor is.
///
/// The device has no offloads, so the kernel hands us whole frames of the wire: segmented, checksums filled in.
fn open_tap(ns: &Namespace, name: &str) -> Result<OwnedFd> {
    let doing = || format!("make the TAP {name} in {}", ns.name());
    let device = ns.enter(|| {
        let mut config = tun::Configuration::default();
        config.tun_name(name).layer(tun::Layer::L2);
        tun::Device::new(&config)
    })?;
    let device = device.map_err(|e| Error::other(format!("{}: {e}", doing())))?;
    device.set_nonblock().map_err(Error::io(doing()))?;
    // The crate lends its descriptor as a number only; this takes a duplicate with an owner, without unsafe code.
    let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(Error::sys("open our own pidfd"))?;
    let fd = pidfd_getfd(own, device.as_raw_fd(), PidfdGetfdFlags::empty()).map_err(Error::sys(doing()))?;
    // A burst must not be lost because the relay slept for a moment on a busy machine.
    ns.ip(&[&format!("link set {name} txqueuelen 20000")])?;
    Ok(fd)
}

/// A panic elsewhere leaves nothing half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
