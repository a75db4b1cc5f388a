//! Threads that stay on one CPU.
//!
//! A packet sent by a thread waits in a queue of the CPU the thread runs on. When the kernel moves a busy thread to
//! another CPU between two packets, the second may overtake the first: reordering that no network did.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keeps the calling thread on one of the CPUs it may use, each thread on the next. Where that is not possible it
/// goes on unpinned.
pub(crate) fn this_thread() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let turn = NEXT.fetch_add(1, Ordering::Relaxed);
    if let Some(cpu) = turn.checked_rem(cpus.len()).and_then(|i| cpus.get(i)) {
        let mut one = CpuSet::new();
        one.set(*cpu);
        let _ = sched_setaffinity(None, &one);
    }
}
