//! Whom to ask to collect garbage, and who may have some.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mlx_core::Garbage;
use once_cell::sync::Lazy;
use rustler::types::atom;
use rustler::{Atom, Encoder, Env, LocalPid, OwnedEnv};

rustler::atoms! { collect, callers }

/// The process that has garbage collected.
static COLLECTOR: Mutex<Option<LocalPid>> = Mutex::new(None);

/// Processes that have called since they were last asked for.
#[derive(Default)]
struct Callers {
    pids: HashSet<LocalPid>,
    /// As many there may be before those that have ended are left out.
    room: usize,
}

static CALLERS: Lazy<Mutex<Callers>> = Lazy::new(Mutex::default);

/// How often the callers have been asked for.
static ROUND: AtomicUsize = AtomicUsize::new(0);

const ROOM: usize = 1024;

thread_local! {
    /// Who called last on this scheduler, and in which round: mostly it calls again.
    static LAST: Cell<Option<(LocalPid, usize)>> = const { Cell::new(None) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that the process calls, so that garbage of tensors may be its.
pub fn note_caller(env: Env) {
    let caller = (env.pid(), ROUND.load(Ordering::Relaxed));
    if LAST.replace(Some(caller)) == Some(caller) {
        return;
    }
    let mut callers = locked(&CALLERS);
    callers.pids.insert(caller.0);
    if callers.pids.len() > callers.room.max(ROOM) {
        callers.pids.retain(|pid| pid.is_alive(env));
        callers.room = 2 * callers.pids.len();
    }
}

/// The caller is sent `{:collect, :callers}` when those had better collect, and
/// `{:collect, number}` when all had, which is to be answered with the number.
#[rustler::nif]
fn garbage_collector(env: Env) -> Atom {
    *locked(&COLLECTOR) = Some(env.pid());
    mlx_core::set_garbage_host(ask);
    atom::ok()
}

/// From a worker's thread.
fn ask(garbage: Garbage) -> bool {
    let Some(pid) = *locked(&COLLECTOR) else {
        return false;
    };
    OwnedEnv::new()
        .send_and_clear(&pid, |env| match garbage {
            Garbage::OfCallers => (collect(), callers()).encode(env),
            Garbage::OfAll(round) => (collect(), round).encode(env),
        })
        .is_ok()
}

/// The processes that have called since this was asked last.
#[rustler::nif]
fn garbage_callers() -> Vec<LocalPid> {
    ROUND.fetch_add(1, Ordering::Relaxed);
    locked(&CALLERS).pids.drain().collect()
}

/// Everything has been collected.
#[rustler::nif]
fn garbage_collected(round: u64) -> Atom {
    mlx_core::garbage_collected(round);
    atom::ok()
}
