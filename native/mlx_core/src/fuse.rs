//! Parts of programs that MLX compiles, so that chains of element-wise operations
//! become single kernels.

use std::cell::RefCell;
use std::collections::hash_map::{Entry, HashMap};
use std::ffi::{c_int, c_void};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use mlx_rs::{Array, Stream};
use parking_lot::Mutex;

use crate::error::{catch, Error, Result};
use crate::evaluation;
use crate::ffi::{self, Arrays, Closure};
use crate::known::Numbers;
use crate::memory;
use crate::program::Program;
use crate::worker::{self, Worker};

/// A program that MLX compiles on each worker that runs it.
pub struct Fused {
    /// Never used again, because MLX's cache goes by it.
    id: usize,
    part: Arc<Part>,
    workers: Mutex<Vec<&'static Worker>>,
}

struct Part {
    program: Program,
    /// Bytes of the largest result, which only a trace sees.
    largest: AtomicUsize,
    /// Whether a trace has met an array without elements.
    hollow: AtomicBool,
}

thread_local! {
    static COMPILED: RefCell<HashMap<usize, Closure>> = RefCell::default();
    /// Why the last trace failed.
    static FAILURE: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Forgets what is compiled for the streams of this thread.
pub(crate) fn forget_compiled() {
    COMPILED.take();
}

impl Fused {
    pub(crate) fn new(program: Program) -> Fused {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let part = Part {
            program,
            largest: AtomicUsize::new(0),
            hollow: AtomicBool::new(false),
        };
        Fused {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            part: Arc::new(part),
            workers: Mutex::default(),
        }
    }

    pub(crate) fn program(&self) -> &Program {
        &self.part.program
    }

    pub(crate) fn run(&self, inputs: &[&Array], stream: &Stream) -> Result<Vec<Array>> {
        memory::check(self.part.largest.load(Ordering::Relaxed))?;
        let empty = inputs.iter().any(|input| input.size() == 0);
        if !empty && !self.is_hollow() {
            let outputs = self.run_compiled(inputs, stream)?;
            if !self.is_hollow() {
                return Ok(outputs);
            }
        }
        // A kernel that MLX makes for CUDA divides by the number of elements. Rows are to do what
        // they do in a trace: they may have been what asks for this.
        let inputs = inputs.iter().copied().cloned().collect();
        evaluation::tracing(|| self.part.program.run(inputs, stream))
    }

    fn is_hollow(&self) -> bool {
        self.part.hollow.load(Ordering::Relaxed)
    }

    fn run_compiled(&self, inputs: &[&Array], stream: &Stream) -> Result<Vec<Array>> {
        let outputs = COMPILED.with_borrow_mut(|compiled| {
            let closure = match compiled.entry(self.id) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.compile(stream)?),
            };
            Ok::<_, Error>(closure.apply(inputs))
        })?;
        outputs.map_err(|exception| FAILURE.take().unwrap_or_else(|| exception.into()))
    }

    fn compile(&self, stream: &Stream) -> Result<Closure> {
        let trace = Box::new(Trace {
            part: self.part.clone(),
            stream: stream.clone(),
        });
        let closure = Closure::compiled(trace_inputs, trace, self.id)?;
        let mut workers = self.workers.lock();
        let is_known = |current: &&Worker| workers.iter().any(|it| std::ptr::eq(*it, *current));
        if let Some(worker) = worker::current().filter(|worker| !is_known(worker)) {
            workers.push(worker);
        }
        Ok(closure)
    }
}

impl Drop for Fused {
    fn drop(&mut self) {
        let id = self.id;
        // What rests has forgotten.
        let is_awake = |worker: &&Worker| !worker.queue().is_resting();
        for worker in self.workers.get_mut().drain(..).filter(is_awake) {
            worker.call(move |_| {
                COMPILED.with_borrow_mut(|compiled| compiled.remove(&id));
                ffi::forget_compiled(id);
            });
        }
    }
}

impl PartialEq for Fused {
    fn eq(&self, other: &Fused) -> bool {
        self.id == other.id
    }
}

impl fmt::Debug for Fused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part.program.fmt(f)
    }
}

/// What MLX calls to learn the graph.
struct Trace {
    part: Arc<Part>,
    stream: Stream,
}

impl Trace {
    fn run(&self, inputs: Vec<Array>) -> Result<Vec<Array>> {
        self.part
            .program
            .run_watched(inputs, &Numbers::new(), &self.stream, &mut |bytes| {
                self.part.largest.fetch_max(bytes, Ordering::Relaxed);
                self.part.hollow.fetch_or(bytes == 0, Ordering::Relaxed);
            })
    }
}

extern "C" fn trace_inputs(
    outputs: *mut mlx_sys::mlx_vector_array,
    inputs: mlx_sys::mlx_vector_array,
    trace: *mut c_void,
) -> c_int {
    // Safety: MLX hands back the pointer that it was given, to a trace that it owns.
    let trace = unsafe { &*trace.cast::<Trace>() };
    let outcome = catch(|| evaluation::tracing(|| trace.run(ffi::arrays_of(inputs)?)));
    match outcome {
        Ok(arrays) => {
            let arrays = Arrays::new(&arrays.iter().collect::<Vec<_>>());
            // Safety: both vectors are alive, and MLX copies the handles.
            unsafe { mlx_sys::mlx_vector_array_set(outputs, arrays.as_ptr()) }
        }
        Err(error) => {
            FAILURE.set(Some(error));
            1
        }
    }
}
