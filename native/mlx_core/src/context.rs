//! What a worker thread does with its stream.

use std::iter::repeat_n;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use mlx_rs::{Array, Dtype, Stream};

use crate::beside;
use crate::cuda;
use crate::error::{Error, Operation, Result, Signature};
use crate::evaluation;
use crate::ffi;
use crate::garbage;
use crate::host::{readable_in_place, HostView};
use crate::memory;
use crate::profile::{self, Profile};
use crate::program::{Few, Program};
use crate::rest;
use crate::slot::{Look, Slot, Wanted};
use crate::worker::{self, Worker, LOOK};

mod load;

/// Ops built before evaluation starts without being asked for.
///
/// Small enough for the device to work while the host is still queueing.
const MAX_PENDING_OPS: usize = 32;

/// Slots in flight before those that are done are looked for.
const MAX_IN_FLIGHT: usize = 4096;

/// Bytes of results built before evaluation starts without being asked for.
const MAX_PENDING_BYTES: usize = 64 << 20;

/// Whether each instruction is computed before the next, so that a failure has a culprit.
static STEPWISE: AtomicBool = AtomicBool::new(false);

/// Sets whether workers compute each instruction by itself.
pub fn set_stepwise(stepwise: bool) {
    STEPWISE.store(stepwise, Ordering::Relaxed);
}

/// A result whose values nobody has waited for, and what makes it.
struct Made {
    slot: Weak<Slot>,
    program: Arc<Program>,
}

/// The state of a worker that only its own thread sees.
pub struct Context {
    worker: &'static Worker,
    stream: Stream,
    /// Filled since the last evaluation started.
    pending: Vec<Made>,
    pending_ops: usize,
    pending_bytes: usize,
    /// Being computed, for all this thread knows.
    in_flight: Vec<Made>,
    /// Wanted by other workers before the job that fills them has run.
    wanted: Vec<Wanted>,
    /// Whether the stream may be let go of before the process ends.
    rests: bool,
    /// What was left to those who use it, and they may never have been computed. Only if the
    /// stream rests, because it must be by then.
    left: Vec<Weak<Slot>>,
    /// Whether all was to be computed and something has failed, and nothing has run since.
    has_failed: bool,
    /// Why there is no stream.
    failure: Option<String>,
}

impl Context {
    pub(crate) fn new(worker: &'static Worker) -> Context {
        let stream = Stream::new_with_device(&worker.device().handle());
        let failure = if stream.as_ptr().ctx.is_null() {
            Some(ffi::take_error().unwrap_or_default())
        } else {
            // A failure shows at the first op, which then names its cause.
            let _ = ffi::set_default_stream(&stream);
            None
        };
        Context {
            worker,
            stream,
            pending: Vec::new(),
            pending_ops: 0,
            pending_bytes: 0,
            in_flight: Vec::new(),
            wanted: Vec::new(),
            rests: rest::is_usual(worker.device()),
            left: Vec::new(),
            has_failed: false,
            failure,
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether the device has made a stream.
    pub(crate) fn has_stream(&self) -> bool {
        self.failure.is_none()
    }

    /// Runs a program and fills the outputs, or says why it could not.
    pub(crate) fn run(
        &mut self,
        program: Arc<Program>,
        mut inputs: Few<Arc<Slot>>,
        outputs: &[Arc<Slot>],
    ) -> Result<(), Arc<Error>> {
        if let Some(message) = self.failure.clone() {
            return Err(Arc::new(Error::NoStream { message }));
        }
        self.has_failed = false;
        let results = self.build(&program, &inputs)?;
        let bytes = results.iter().map(|array| array.nbytes()).sum();
        if let Err(error) = self.reserve(bytes, &mut inputs, &results) {
            return Err(Arc::new(error.among(program.operations(results.first()))));
        }
        inputs.iter().for_each(|slot| slot.mark_used());
        // What is evaluated below may reuse the memory of inputs that nobody holds.
        drop(inputs);
        self.pending_ops += program.instructions();
        self.pending_bytes += bytes;
        let programs = repeat_n(program, outputs.len());
        for ((slot, array), program) in outputs.iter().zip(results).zip(programs) {
            slot.fill(array);
            let slot = Arc::downgrade(slot);
            self.pending.push(Made { slot, program });
        }
        if self.pending_ops >= MAX_PENDING_OPS || self.pending_bytes >= MAX_PENDING_BYTES {
            self.flush();
        }
        Ok(())
    }

    /// The results of a program, which are not computed yet.
    fn build(
        &mut self,
        program: &Arc<Program>,
        inputs: &[Arc<Slot>],
    ) -> Result<Vec<Array>, Arc<Error>> {
        let arrays = inputs
            .iter()
            .map(|slot| self.array_of(slot))
            .collect::<Result<Vec<_>, _>>()?;
        evaluation::reads(arrays.iter().map(|array| array.nbytes()).sum());
        let numbers = inputs.iter().enumerate();
        let numbers = numbers.filter_map(|(register, slot)| Some((register, slot.number()?)));
        let numbers = numbers.collect();
        let run = || program.run_knowing(arrays, &numbers, &self.stream);
        let results = if STEPWISE.load(Ordering::Relaxed) && !profile::is_recording() {
            profile::of(program, run).0
        } else {
            run()
        };
        results.map_err(|error| {
            if error.is_of_evaluation() {
                self.poison(error)
            } else {
                Arc::new(error)
            }
        })
    }

    /// Refuses results, of so many bytes in all, for which there is no room beside what is
    /// pending, which is not made yet either.
    fn reserve(
        &mut self,
        bytes: usize,
        inputs: &mut Few<Arc<Slot>>,
        results: &[Array],
    ) -> Result<()> {
        if self.pending_bytes == 0 || memory::fits(self.pending_bytes + bytes) {
            return Ok(());
        }
        // What nobody else holds is computed with the results, and may give them its memory.
        inputs.retain(|slot| slot.is_reachable());
        self.flush();
        let made = results.iter().filter(|array| !ffi::is_available(array));
        memory::check(made.map(|array| array.nbytes()).max().unwrap_or(0))
    }

    /// Runs a program instruction by instruction and says what each took.
    pub(crate) fn profile(
        &mut self,
        program: &Arc<Program>,
        inputs: Few<Arc<Slot>>,
        outputs: &[Arc<Slot>],
    ) -> Result<Profile, Arc<Error>> {
        // What the instructions wait for is then their own.
        self.eval(&inputs)?;
        self.synchronize()?;
        let run = || self.run(program.clone(), inputs, outputs);
        let (outcome, profile) = profile::of(program, run);
        outcome.map(|()| profile)
    }

    /// Starts computing what is pending and still wanted by someone.
    pub(crate) fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.pending_bytes);
        self.pending_ops = 0;
        let arrays: Vec<Array> = self
            .pending
            .iter()
            .filter_map(|made| made.slot.upgrade())
            .filter(|slot| !slot.is_used())
            .filter_map(|slot| slot.unsettled_array())
            .filter(|array| !ffi::is_available(array))
            .collect();
        self.in_flight.append(&mut self.pending);
        memory::expect(bytes);
        if !arrays.is_empty() {
            let references: Vec<&Array> = arrays.iter().collect();
            if let Err(error) = evaluation::run(bytes, || ffi::async_eval(&references)) {
                self.poison(error);
            }
        }
        garbage::watch();
        if self.in_flight.len() > MAX_IN_FLIGHT {
            self.forget_done();
        }
    }

    fn forget_done(&mut self) {
        self.in_flight
            .retain(|made| made.slot.upgrade().is_some_and(|slot| is_lazy(&slot)));
    }

    /// Starts what is pending before the thread sleeps.
    pub(crate) fn rest(&mut self) {
        self.flush();
        evaluation::rest();
    }

    /// Computes the slots' arrays and waits for them.
    pub(crate) fn eval(&mut self, slots: &[Arc<Slot>]) -> Result<(), Arc<Error>> {
        let arrays = slots
            .iter()
            .map(|slot| self.array_of(slot))
            .collect::<Result<Vec<_>, _>>()?;
        self.eval_arrays(&arrays)?;
        slots
            .iter()
            .filter(|slot| self.owns(slot))
            .for_each(|slot| slot.settle());
        Ok(())
    }

    /// Starts computing the slot's array.
    pub(crate) fn async_eval(&mut self, slot: &Arc<Slot>) {
        self.flush();
        let array = slot
            .unsettled_array()
            .filter(|array| !ffi::is_available(array));
        if let Some(Err(error)) = array.map(|array| evaluation::async_eval(&[&array])) {
            self.poison(error);
        }
    }

    /// The values of a slot of this worker, once they are computed.
    pub(crate) fn read(&mut self, slot: &Arc<Slot>) -> Result<HostView, Arc<Error>> {
        self.eval(std::slice::from_ref(slot))?;
        let mut array = self.array_of(slot)?;
        if array.size() == 0 {
            return Ok(HostView::new(array, self.worker));
        }
        if !ffi::is_row_contiguous(&array) {
            array = self.compute(ffi::c_op!(
                mlx_contiguous(array.as_ptr(), false),
                self.stream
            ))?;
            slot.replace(ffi::share(&array));
        }
        if readable_in_place(self.worker.device()) {
            return Ok(HostView::new(array, self.worker));
        }
        match cuda::copy(&array) {
            Some(bytes) => Ok(HostView::of_copy(bytes, self.worker)),
            None => Ok(HostView::new(self.host_copy(&array)?, self.worker)),
        }
    }

    /// Whether anything may be left to compute.
    pub(crate) fn has_work(&self) -> bool {
        !(self.pending.is_empty() && self.in_flight.is_empty())
    }

    /// Waits for everything this stream computes.
    pub(crate) fn synchronize(&mut self) -> Result<(), Arc<Error>> {
        self.flush();
        let outcome = ffi::synchronize(&self.stream).map_err(Error::from);
        let outcome = outcome.and_then(|()| beside::synchronize());
        match outcome {
            Ok(()) => {
                self.forget_in_flight();
                Ok(())
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Computes all that there is, so that nothing needs the stream any more. False if the device
    /// has failed, whose streams can't be let go of.
    pub(crate) fn complete(&mut self) -> bool {
        self.flush();
        let in_flight = self.in_flight.iter().map(|made| &made.slot);
        let slots: Vec<Arc<Slot>> = in_flight
            .chain(&self.left)
            .filter_map(Weak::upgrade)
            .collect();
        // Failures stand in the slots.
        let _ = self.synchronize();
        for slot in slots {
            if !is_lazy(&slot) {
                slot.settle();
            } else if let Err(error) = self.eval(std::slice::from_ref(&slot)) {
                slot.fail(&error);
            }
        }
        self.left.clear();
        self.has_failed = self.synchronize().is_err();
        !self.has_failed
    }

    /// Whether the device has failed when all was to be computed.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// What is in flight has been computed, but for what was left to those who use it.
    fn forget_in_flight(&mut self) {
        if !self.rests {
            return self.in_flight.clear();
        }
        let made = self.in_flight.drain(..).map(|made| made.slot);
        let is_left = |slot: &Weak<Slot>| slot.upgrade().is_some_and(|slot| slot.is_used());
        self.left.extend(made.filter(is_left));
        if self.left.len() > MAX_IN_FLIGHT {
            let is_lazy = |slot: &Weak<Slot>| slot.upgrade().is_some_and(|slot| is_lazy(&slot));
            self.left.retain(is_lazy);
        }
    }

    /// Settles slots that other workers wait for, as far as they are filled.
    pub(crate) fn settle_wanted(&mut self, wanted: Vec<Wanted>) {
        if wanted.is_empty() && self.wanted.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.wanted);
        waiting.extend(wanted);
        for request in waiting {
            let Some(slot) = request.slot.upgrade() else {
                continue;
            };
            if let Look::Empty = slot.look(self.worker) {
                self.wanted.push(request);
                continue;
            }
            // A failure stands in the slot, where the other worker finds it.
            if let Err(error) = self.eval(std::slice::from_ref(&slot)) {
                slot.fail(&error);
            }
            request.by.queue().poke();
        }
    }

    /// Lets go of what is lazy and waits for the device, before the thread ends.
    pub(crate) fn finish(mut self) {
        self.pending.clear();
        // The process is ending: there is nobody left to tell.
        let _ = ffi::synchronize(&self.stream);
    }

    fn owns(&self, slot: &Slot) -> bool {
        std::ptr::eq(slot.owner(), self.worker)
    }

    fn array_of(&mut self, slot: &Arc<Slot>) -> Result<Array, Arc<Error>> {
        loop {
            match slot.look(self.worker) {
                Look::Array(array) => return Ok(array),
                Look::Failed(error) => return Err(error),
                // Jobs run in order, so only a job of another worker can be missing.
                Look::Unsettled | Look::Empty => self.await_owner(slot)?,
            }
        }
    }

    /// Asks the slot's worker for its array and serves other workers meanwhile,
    /// so that two workers that want each other's slots both go on.
    fn await_owner(&mut self, slot: &Arc<Slot>) -> Result<(), Arc<Error>> {
        slot.owner().queue().want(Wanted {
            slot: Arc::downgrade(slot),
            by: self.worker,
        });
        while !slot.is_resolved() {
            self.worker.queue().park_for_others(LOOK);
            worker::check_wanted()?;
            let wanted = self.worker.queue().take_wanted();
            self.settle_wanted(wanted);
        }
        Ok(())
    }

    fn compute(
        &mut self,
        array: std::result::Result<Array, mlx_rs::error::Exception>,
    ) -> Result<Array, Arc<Error>> {
        let array = array.map_err(Error::from)?;
        self.eval_arrays(std::slice::from_ref(&array))?;
        Ok(array)
    }

    fn eval_arrays(&mut self, arrays: &[Array]) -> Result<(), Arc<Error>> {
        let references: Vec<&Array> = arrays.iter().collect();
        // A stream computes in order, so what was started before is done as well.
        match evaluation::wait(self.pending_bytes, &references) {
            Ok(()) => {
                self.forget_in_flight();
                // MLX lets go of an array's event when it is first asked for this, which
                // two workers must not do at once.
                arrays.iter().for_each(|array| {
                    ffi::is_available(array);
                });
                Ok(())
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    /// A buffer of its own for the host, so that the device keeps the original.
    fn host_copy(&mut self, array: &Array) -> Result<Array, Arc<Error>> {
        let zero = Array::from_slice(&[0u8], &[1]);
        let copy = array
            .reshape(&[-1])
            .and_then(|flat| flat.view_dtype(Dtype::Uint8))
            .and_then(|bytes| bytes.add(&zero));
        self.compute(copy)
    }

    /// Type and shape of a slot's array, computed or not.
    pub(crate) fn signature(&mut self, slot: &Arc<Slot>) -> Result<Signature, Arc<Error>> {
        self.array_of(slot).map(|array| Signature::from(&array))
    }

    /// MLX reports a failure once and blames any of the arrays in flight, so all
    /// that is not yet known to be good is marked.
    fn poison(&mut self, error: Error) -> Arc<Error> {
        let mut suspects = std::mem::take(&mut self.in_flight);
        suspects.append(&mut self.pending);
        let error = Arc::new(error.among(operations(&suspects)));
        let slots = suspects.iter().filter_map(|made| made.slot.upgrade());
        slots.for_each(|slot| slot.fail(&error));
        error
    }
}

/// What the results are made by, once for each program that was run.
fn operations(results: &[Made]) -> Vec<Operation> {
    let of_one = |made: &[Made]| {
        let array = made[0].slot.upgrade();
        let array = array.and_then(|slot| slot.unsettled_array());
        made[0].program.operations(array.as_ref())
    };
    let jobs = results.chunk_by(|one, next| Arc::ptr_eq(&one.program, &next.program));
    jobs.flat_map(of_one).collect()
}

/// Whether the values of the slot's array are not known to be there.
fn is_lazy(slot: &Slot) -> bool {
    slot.unsettled_array()
        .is_some_and(|array| !ffi::is_available(&array))
}

#[cfg(test)]
mod tests;
