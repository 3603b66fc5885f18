//! How much memory results take, and how much they may.

use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::OnceCell;

use crate::device::Device;
use crate::error::{Error, Result};

/// Bytes of results after which a host with a garbage collector had better run it.
const COLLECT_AFTER: usize = 256 << 20;

/// Results smaller than this are not held against the limit.
const SMALL: usize = 1 << 20;

static PRODUCED: AtomicUsize = AtomicUsize::new(0);

/// Zero until it is set.
static LIMIT: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn produced(bytes: usize) {
    PRODUCED.fetch_add(bytes, Ordering::Relaxed);
}

/// True once for every 256 MiB of results.
pub fn collect_advised() -> bool {
    PRODUCED.load(Ordering::Relaxed) >= COLLECT_AFTER
        && PRODUCED.swap(0, Ordering::Relaxed) >= COLLECT_AFTER
}

/// Sets how many bytes MLX may hold in all.
pub fn set_memory_limit(bytes: usize) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
}

/// How many bytes MLX may hold in all: what was set, else the memory there is.
pub fn memory_limit() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        0 => available(),
        limit => limit,
    }
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

/// Refuses a result for which there is no room. On the CPU MLX would end the process.
pub(crate) fn check(bytes: usize) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    let limit = memory_limit();
    let held = memory_held();
    if bytes > limit.saturating_sub(held) {
        return Err(Error::Memory { bytes, held, limit });
    }
    Ok(())
}

/// The memory of the GPU where there is one, else that of the machine or of the
/// control group that the process is in.
fn available() -> usize {
    static AVAILABLE: OnceCell<usize> = OnceCell::new();
    *AVAILABLE.get_or_init(|| {
        if Device::Gpu.is_available() {
            return mlx_rs::memory::memory_limit().unwrap_or(usize::MAX);
        }
        let limits = [
            read("/sys/fs/cgroup/memory.max", 1),
            read("/sys/fs/cgroup/memory/memory.limit_in_bytes", 1),
            read("/proc/meminfo", 1024),
        ];
        let machine = limits.into_iter().flatten().min();
        machine.unwrap_or_else(|| mlx_rs::memory::memory_limit().unwrap_or(usize::MAX))
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
    fn advice_is_given_once() {
        produced(COLLECT_AFTER);
        assert!(collect_advised());
        assert!(!collect_advised());
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(memory_limit() > 1 << 20);
        assert!(check(1 << 20).is_ok());
        let error = check(usize::MAX).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }));
        assert!(error.to_string().contains("memory_limit"), "{error}");
    }
}
