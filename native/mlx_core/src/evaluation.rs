//! Starting MLX's computation from wherever on a worker's thread it is needed.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};

use crate::beside;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ffi;
use crate::halt;
use crate::placement::{Placement, LITTLE, STAY};
use crate::worker;

/// What a thread knows of the computations it has started.
struct State {
    placement: Placement,
    /// Computations that are taken for large ones, because a program has read much.
    large: u32,
    has_evaluated: bool,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State {
        placement: Placement::new(),
        large: 0,
        has_evaluated: false,
    });
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

/// Whether MLX is learning a graph, in which nothing has a value.
pub(crate) fn is_tracing() -> bool {
    TRACING.get()
}

/// Runs what MLX learns a graph from.
pub(crate) fn tracing<T>(run: impl FnOnce() -> T) -> T {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            TRACING.set(false);
        }
    }
    TRACING.set(true);
    let _end = End;
    run()
}

/// For how long it is asked whether a GPU is done: MLX has the system wake the thread, which
/// takes longer than many a result.
const WATCH: Duration = Duration::from_millis(1);

/// Computes the arrays and waits for them.
pub(crate) fn eval(arrays: &[&Array]) -> Result<()> {
    wait(bytes(arrays), arrays)
}

/// Computes the arrays, whose graphs make results of so many bytes, and waits for them.
pub(crate) fn wait(bytes: usize, arrays: &[&Array]) -> Result<()> {
    run(bytes, || {
        if on_gpu() {
            ffi::async_eval(arrays)?;
            watch(arrays);
        }
        ffi::eval(arrays)
    })
}

fn on_gpu() -> bool {
    worker::current().is_some_and(|worker| worker.device() == Device::Gpu)
}

fn watch(arrays: &[&Array]) {
    let start = Instant::now();
    while start.elapsed() < WATCH && !arrays.iter().all(|array| ffi::is_available(array)) {
        std::hint::spin_loop();
    }
}

/// Waits for all that this thread has started.
pub(crate) fn synchronize() -> Result<()> {
    ffi::synchronize(&mlx_rs::Stream::thread_local_or_default()).map_err(of_evaluation)?;
    beside::synchronize()
}

/// Starts computing the arrays.
pub(crate) fn async_eval(arrays: &[&Array]) -> Result<()> {
    run(bytes(arrays), || ffi::async_eval(arrays))
}

/// Whether a scalar is not zero, once it is computed.
pub(crate) fn truth(scalar: &Array) -> Result<bool> {
    let boolean = scalar.as_dtype(Dtype::Bool)?;
    eval(&[&boolean])?;
    Ok(ffi::item_bool(&boolean)?)
}

fn bytes(arrays: &[&Array]) -> usize {
    arrays.iter().map(|array| array.nbytes()).sum()
}

/// Takes note of what a program reads: a small result of large weights is much to compute,
/// and so is what is asked for while that goes on.
pub(crate) fn reads(bytes: usize) {
    if bytes >= LITTLE {
        STATE.with_borrow_mut(|state| state.large = STAY);
    }
}

/// Lets MLX compute, where that is best for results of so many bytes.
pub(crate) fn run(bytes: usize, evaluate: impl FnOnce() -> Result<(), Exception>) -> Result<()> {
    let outcome = STATE.with_borrow_mut(|state| {
        let on_gpu = on_gpu();
        let large = state.large > 0;
        state.large = state.large.saturating_sub(1);
        if std::mem::replace(&mut state.has_evaluated, true) {
            // A driver's threads have their own ways of sharing processors.
            if !on_gpu {
                let bytes = if large { bytes.max(LITTLE) } else { bytes };
                state.placement.choose(bytes);
            }
            return evaluate();
        }
        let outcome = if on_gpu {
            evaluate()
        } else {
            state.placement.adopt(evaluate)
        };
        // By now the device's libraries have registered their own handlers.
        halt::install();
        outcome
    });
    outcome.map_err(of_evaluation)
}

fn of_evaluation(exception: Exception) -> Error {
    Error::Evaluation {
        message: Error::from(exception).to_string(),
    }
}

/// Before the thread sleeps.
pub(crate) fn rest() {
    STATE.with_borrow_mut(|state| state.placement.free());
}
