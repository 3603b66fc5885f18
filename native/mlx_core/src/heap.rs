//! The C library's heap, from which MLX takes the memory of arrays on the CPU.

/// The Erlang VM makes the heap return all that is freed to the system at once, so
/// that an array of some megabytes takes longer to get than to compute.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_freed_memory() {
    const KEPT: libc::c_int = 1 << 29;
    // Safety: mallopt may be called at any time; refusal changes nothing but speed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed_memory() {}
