//! How much memory results take, how much they may, and how much is kept for the next.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use once_cell::sync::OnceCell;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::garbage;
use crate::worker;

/// Results smaller than this are not held against the limit.
const SMALL: usize = 1 << 20;

/// Which part of the limit freed memory may take that is kept.
const CACHE_SHARE: usize = 8;

/// Blocks up to this size stay with the C library when they are freed: the most it allows,
/// and what it comes to by itself once it has freed a block as large.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const STAYING: i32 = 32 << 20;

/// A worker that is busy for longer keeps what it has to free.
const TIDYING: Duration = Duration::from_millis(500);

/// Both are `UNSET` until they are set.
static LIMIT: AtomicUsize = AtomicUsize::new(UNSET);
static CACHE_LIMIT: AtomicUsize = AtomicUsize::new(UNSET);
const UNSET: usize = usize::MAX;

/// Whether MLX knows the limits. It must not wake the GPU before there is work.
static PREPARED: AtomicBool = AtomicBool::new(false);

/// Sets how many bytes MLX may hold in all.
pub fn set_memory_limit(bytes: usize) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
    if PREPARED.load(Ordering::Acquire) {
        tell_limit();
    }
}

/// How many bytes MLX may hold in all: what was set, else the memory there is.
pub fn memory_limit() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        UNSET => available(),
        limit => limit,
    }
}

/// How many freed bytes are kept for the next arrays: what was set, else a part of the
/// limit.
pub fn cache_limit() -> usize {
    match CACHE_LIMIT.load(Ordering::Relaxed) {
        UNSET => memory_limit() / CACHE_SHARE,
        limit => limit,
    }
}

/// Sets how many freed bytes are kept, and calls `done` when there are no more.
pub fn set_cache_limit(bytes: usize, done: impl FnOnce() + Send + 'static) -> Result<()> {
    CACHE_LIMIT.store(bytes.min(UNSET - 1), Ordering::Relaxed);
    beside(move || {
        if PREPARED.load(Ordering::Acquire) {
            tell_cache_limit();
            if memory_cached() > bytes {
                release();
            }
        }
        done();
    })
}

/// Frees what the workers have to free, gives all freed memory back to the system and
/// calls `done`.
pub fn clear_cache(done: impl FnOnce() + Send + 'static) -> Result<()> {
    beside(move || {
        worker::tidy(TIDYING);
        release();
        done();
    })
}

/// Runs on a thread of its own what the system takes its time for.
fn beside(work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name("mlx-memory".to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| Error::Spawn {
            message: error.to_string(),
        })
}

fn release() {
    // It empties a list; a failure leaves what is kept where it is.
    let _ = mlx_rs::memory::clear_cache();
    trim();
}

/// Small blocks stay with the C library until it is told.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // Safety: it takes a number and gives free pages back.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the C library keep what operations need for as long as they run, which Fourier
/// transforms, say, else get from the system page by page each time: that takes as long as
/// the transform.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_blocks() {
    use std::env::var;
    // Who has set it in the environment knows better.
    let chosen = var("MALLOC_MMAP_THRESHOLD_").is_ok()
        || var("GLIBC_TUNABLES").is_ok_and(|tunables| tunables.contains("mmap_threshold"));
    if !chosen {
        // Safety: both set a number.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, STAYING);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * STAYING);
        }
    }
}

/// Tells MLX the limits, before the first worker makes an array.
pub(crate) fn prepare() {
    static ONCE: OnceCell<()> = OnceCell::new();
    ONCE.get_or_init(|| {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        keep_freed_blocks();
        if LIMIT.load(Ordering::Relaxed) != UNSET {
            tell_limit();
        }
        tell_cache_limit();
        PREPARED.store(true, Ordering::Release);
    });
}

// Each sets a number; a failure leaves MLX's own, and results are checked here as well.
fn tell_limit() {
    let _ = mlx_rs::memory::set_memory_limit(memory_limit());
}

fn tell_cache_limit() {
    let _ = mlx_rs::memory::set_cache_limit(cache_limit());
}

/// How many bytes MLX holds for arrays.
pub fn memory_held() -> usize {
    mlx_rs::memory::active_memory().unwrap_or(0)
}

/// The most that MLX has held for arrays since the start or the last reset.
pub fn memory_peak() -> usize {
    mlx_rs::memory::peak_memory().unwrap_or(0)
}

/// Makes what MLX holds now the most that it has held.
pub fn reset_memory_peak() {
    // It sets a number; a failure leaves the old one.
    let _ = mlx_rs::memory::reset_peak_memory();
}

/// How many freed bytes MLX keeps for the next arrays.
pub fn memory_cached() -> usize {
    mlx_rs::memory::cache_memory().unwrap_or(0)
}

/// Refuses a result for which there is no room, even when garbage is collected. On the
/// CPU MLX would end the process.
pub(crate) fn check(bytes: usize) -> Result<()> {
    if fits(bytes) {
        return Ok(());
    }
    if bytes <= memory_limit() && garbage::make_room(|| has_room(bytes))? {
        return Ok(());
    }
    Err(Error::Memory {
        bytes,
        held: memory_held(),
        limit: memory_limit(),
    })
}

/// Whether results of so many bytes are small or have room.
pub(crate) fn fits(bytes: usize) -> bool {
    bytes < SMALL || has_room(bytes)
}

/// Whether so many bytes fit. What is kept of freed memory makes room.
fn has_room(bytes: usize) -> bool {
    let room = memory_limit().saturating_sub(memory_held());
    let fits = bytes <= room;
    if fits && memory_cached() > room - bytes {
        shrink_cache(room - bytes);
    }
    fits
}

/// Before results of so many bytes are computed. On CPUs MLX frees nothing of what it
/// keeps once that is as much as it may be, so what has the wrong size would stay for
/// ever, and the right sizes would come anew from the system each time.
pub(crate) fn expect(bytes: usize) {
    let limit = cache_limit();
    if bytes > 0 && memory_cached() > limit.saturating_sub(bytes) {
        shrink_cache(limit.saturating_sub(bytes));
    }
}

/// Frees what was kept for the longest time.
fn shrink_cache(bytes: usize) {
    // On GPUs this is only a number, and MLX makes room by itself.
    let _ = mlx_rs::memory::set_cache_limit(bytes);
    tell_cache_limit();
}

/// The memory of the GPU where there is one, else nine tenths of that of the machine or
/// of the control group that the process is in.
fn available() -> usize {
    static AVAILABLE: OnceCell<usize> = OnceCell::new();
    *AVAILABLE.get_or_init(|| {
        if Device::Gpu.is_available() {
            return mlx_rs::memory::memory_limit().unwrap_or(usize::MAX - 1);
        }
        let limits = [
            read("/sys/fs/cgroup/memory.max", 1),
            read("/sys/fs/cgroup/memory/memory.limit_in_bytes", 1),
            read("/proc/meminfo", 1024),
        ];
        match limits.into_iter().flatten().min() {
            Some(machine) => machine / 10 * 9,
            None => mlx_rs::memory::memory_limit().unwrap_or(usize::MAX - 1),
        }
    })
}

/// The first number in a file, in units of so many bytes.
fn read(path: &str, unit: usize) -> Option<usize> {
    let text = std::fs::read_to_string(path).ok()?;
    let number = text
        .split_whitespace()
        .find_map(|word| word.parse::<usize>().ok())?;
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(memory_limit() > 1 << 20);
        assert!(check(1 << 20).is_ok());
        let error = check(usize::MAX).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }));
        assert!(error.to_string().contains("memory_limit"), "{error}");
    }

    #[test]
    fn a_part_of_the_limit_is_kept() {
        assert_eq!(cache_limit(), memory_limit() / CACHE_SHARE);
    }
}
