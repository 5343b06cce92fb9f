//! mallopt(3).
#![allow(unsafe_code, reason = "no library sets the allocator of libc")]

/// Has the allocator give memory back to the kernel early: for a process that lives long, is idle most of the
/// time, and now and then needs a buffer. Where libc has no such setting, nothing happens.
pub fn give_memory_back_early() {
    /// Larger pieces are mapped on their own and unmapped when freed; so much at the heap's end is kept.
    #[cfg(target_env = "gnu")]
    const KEPT: libc::c_int = 32 * 1024;
    // SAFETY: takes numbers only. There is one thread yet, and these settings concern allocations to come.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
