use rustler::types::atom;
use rustler::{Atom, Encoder, Env, NifMap, Term};

use crate::reply::{Letter, Outcome};
use crate::stream::pending;

/// Bytes that MLX holds, has held at most and may hold, those of freed arrays that it
/// keeps for the next, and how many of these it may keep.
#[derive(NifMap)]
struct Stats {
    active: usize,
    peak: usize,
    limit: usize,
    cache: usize,
    cache_limit: usize,
}

#[rustler::nif]
fn memory_stats() -> Stats {
    Stats {
        active: mlx_core::memory_held(),
        peak: mlx_core::memory_peak(),
        limit: mlx_core::memory_limit(),
        cache: mlx_core::memory_cached(),
        cache_limit: mlx_core::cache_limit(),
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

/// Sets how many freed bytes are kept. Sends `{tag, outcome}` when there are no more.
#[rustler::nif]
fn memory_set_cache_limit(env: Env, bytes: usize, tag: Term) -> Outcome<Atom> {
    let outcome = mlx_core::set_cache_limit(bytes, done(env, tag));
    outcome.map(|()| pending()).into()
}

/// Gives freed memory back to the system. Sends `{tag, outcome}` when that is done.
#[rustler::nif]
fn memory_clear_cache(env: Env, tag: Term) -> Outcome<Atom> {
    let outcome = mlx_core::clear_cache(done(env, tag));
    outcome.map(|()| pending()).into()
}

fn done(env: Env, tag: Term) -> impl FnOnce() + Send + 'static {
    let letter = Letter::new(env, tag);
    move || letter.send(|env| Outcome::Ok(atom::ok()).encode(env))
}
