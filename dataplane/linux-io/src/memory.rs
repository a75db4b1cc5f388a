//! What the process's allocator does with large blocks.

/// Gives large blocks back to the kernel when they are freed, for as long as the process lives. Left alone, glibc keeps
/// ever larger ones once it has seen some freed (mallopt(3), "dynamic mmap threshold"): checkpoints of thousands of peers,
/// which come seldom, would be held as if they were needed.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: libc::c_int = 128 << 10;
        // SAFETY: `mallopt` changes a setting of the allocator under its own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        }
    }
}
