//! When a host with a garbage collector had better run it. To the collector a tensor is a
//! few words, however much memory is behind it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::evaluation;
use crate::memory;
use crate::worker;

/// Live bytes may grow by this part of what they were after the last collection ...
const GROWTH_SHARE: usize = 8;

/// ... or by this part of the limit, if that is more.
const LIMIT_SHARE: usize = 256;

/// How long a worker waits for room at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was collected is freed by its workers within this time, unless they are busy.
const FREEING: Duration = Duration::from_millis(50);

/// How often a worker that waits for room looks.
const LOOK: Duration = Duration::from_millis(1);

/// What the host is asked to do, without waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Collect that of those who have called lately.
    OfCallers,
    /// Collect all there is, and give the number to [`garbage_collected`] then.
    OfAll(u64),
}

type Host = Box<dyn Fn(Garbage) -> bool + Send + Sync>;

static HOST: OnceCell<Host> = OnceCell::new();

/// The least that was live since the last advice.
static FLOOR: AtomicUsize = AtomicUsize::new(0);

static ADVISED: AtomicBool = AtomicBool::new(false);

/// Collections of everything that have been asked for and have ended.
struct Rounds {
    asked: u64,
    ended: u64,
}

static ROUNDS: Mutex<Rounds> = Mutex::new(Rounds { asked: 0, ended: 0 });
static ENDED: Condvar = Condvar::new();

/// Names whom to ask; `ask` gives false if there is nobody.
pub fn set_garbage_host(ask: impl Fn(Garbage) -> bool + Send + Sync + 'static) {
    // The first one stays: there is one host in a process.
    let _ = HOST.set(Box::new(ask));
}

/// True once after live bytes have grown by much: who calls then had better collect.
pub fn collect_advised() -> bool {
    ADVISED.load(Ordering::Relaxed) && ADVISED.swap(false, Ordering::Relaxed)
}

/// Everything that [`Garbage::OfAll`] asked for has been collected.
pub fn garbage_collected(round: u64) {
    let mut rounds = ROUNDS.lock();
    rounds.ended = rounds.ended.max(round);
    ENDED.notify_all();
}

/// Looks at what is live, now and then.
pub(crate) fn watch() {
    let live = memory::memory_held();
    let floor = FLOOR.fetch_min(live, Ordering::Relaxed).min(live);
    if live - floor >= growth(floor, memory::memory_limit()) {
        FLOOR.store(live, Ordering::Relaxed);
        ADVISED.store(true, Ordering::Relaxed);
        ask(Garbage::OfCallers);
    }
}

fn growth(floor: usize, limit: usize) -> usize {
    (floor / GROWTH_SHARE).max(limit / LIMIT_SHARE).max(1)
}

fn ask(garbage: Garbage) -> bool {
    HOST.get().is_some_and(|host| host(garbage))
}

/// Has all garbage collected and waits, on a worker, until there is room or no hope.
pub(crate) fn make_room(has_room: impl Fn() -> bool) -> Result<bool> {
    let Some(round) = begin() else {
        return Ok(false);
    };
    await_end(round, &has_room)?;
    // What is being computed holds its operands.
    evaluation::synchronize()?;
    let deadline = Instant::now() + FREEING;
    while !freed_enough(&has_room) {
        worker::check_wanted()?;
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

/// Waits for the end of the collection, or until there is room.
fn await_end(round: u64, has_room: &impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !freed_enough(has_room) && Instant::now() < deadline {
        worker::check_wanted()?;
        let mut rounds = ROUNDS.lock();
        if rounds.ended >= round {
            break;
        }
        ENDED.wait_for(&mut rounds, LOOK);
    }
    Ok(())
}

fn freed_enough(has_room: &impl Fn() -> bool) -> bool {
    worker::free_trash();
    has_room()
}

/// The number of the collection that is asked for, if there is somebody to ask.
fn begin() -> Option<u64> {
    let round = {
        let mut rounds = ROUNDS.lock();
        rounds.asked += 1;
        rounds.asked
    };
    ask(Garbage::OfAll(round)).then_some(round)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_grow_depends_on_what_is_live_and_on_the_limit() {
        assert_eq!(growth(0, 256 << 20), 1 << 20);
        assert_eq!(growth(80 << 20, 256 << 20), 10 << 20);
        assert_eq!(growth(0, 1), 1);
    }

    #[test]
    fn advice_is_given_once() {
        ADVISED.store(true, Ordering::Relaxed);
        assert!(collect_advised());
        assert!(!collect_advised());
    }

    #[test]
    fn without_a_host_there_is_no_waiting() {
        assert!(!make_room(|| panic!("there is nobody to make room")).unwrap());
    }
}
