use rustler::types::atom;
use rustler::{Atom, NifMap};

/// Bytes that MLX holds, has held at most, keeps for the next arrays, and may hold.
#[derive(NifMap)]
struct Stats {
    active: usize,
    peak: usize,
    cache: usize,
    limit: usize,
}

#[rustler::nif]
fn memory_stats() -> Stats {
    Stats {
        active: mlx_core::memory_held(),
        peak: mlx_core::memory_peak(),
        cache: mlx_core::memory_cached(),
        limit: mlx_core::memory_limit(),
    }
}

#[rustler::nif]
fn memory_reset_peak() -> Atom {
    mlx_core::reset_memory_peak();
    atom::ok()
}

/// Sets how many bytes MLX may hold in all.
#[rustler::nif]
fn memory_set_limit(bytes: usize) -> Atom {
    mlx_core::set_memory_limit(bytes);
    atom::ok()
}
