//! Freed memory is kept for the next arrays.

/// Makes the C library keep blocks that are freed, up to the largest that it ever
/// keeps. By itself it learns to, but not where a host such as the BEAM has set any of
/// its parameters, and then the kernel hands out each block anew, page by page. The
/// numbers are those that it would arrive at (mallopt(3), M_MMAP_THRESHOLD).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_freed_blocks() {
    const LARGEST: i32 = 32 << 20;
    // Safety: the calls take numbers and change parameters.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * LARGEST);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed_blocks() {}
