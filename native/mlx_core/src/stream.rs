//! Handles that give work to a worker.

use std::sync::Arc;

use mlx_rs::Dtype;
use once_cell::sync::OnceCell;

use crate::context::Context;
use crate::device::Device;
use crate::dtype::dtype_size;
use crate::error::{Error, Result, Signature};
use crate::host::HostView;
use crate::profile::Profile;
use crate::program::{Few, Program};
use crate::slot::Slot;
use crate::worker::{self, Job, Worker};

/// A queue of work on a device. Clones share it; when the last one goes, the
/// worker behind it serves another stream.
#[derive(Clone)]
pub struct Stream(Arc<Lease>);

struct Lease(&'static Worker);

impl Drop for Lease {
    fn drop(&mut self) {
        worker::release(self.0);
    }
}

/// One stream per device, made when it is first asked for.
struct Shared {
    cpu: OnceCell<Stream>,
    gpu: OnceCell<Stream>,
}

impl Shared {
    const fn new() -> Shared {
        Shared {
            cpu: OnceCell::new(),
            gpu: OnceCell::new(),
        }
    }

    fn on(&self, device: Device) -> Result<&Stream> {
        let cell = match device {
            Device::Cpu => &self.cpu,
            Device::Gpu => &self.gpu,
        };
        cell.get_or_try_init(|| Stream::new(device))
    }
}

/// Bytes for a new tensor and what they mean, checked against each other.
pub struct Payload<B> {
    bytes: B,
    shape: Vec<i32>,
    dtype: Dtype,
}

impl Stream {
    /// The stream that everyone shares on a device.
    pub fn of(device: Device) -> Result<&'static Stream> {
        static SHARED: Shared = Shared::new();
        SHARED.on(device)
    }

    /// The stream on which files are read, so that the others go on meanwhile.
    pub fn of_files(device: Device) -> Result<&'static Stream> {
        static SHARED: Shared = Shared::new();
        SHARED.on(device)
    }

    /// A stream of its own.
    pub fn new(device: Device) -> Result<Stream> {
        Ok(Stream(Arc::new(Lease(worker::acquire(device)?))))
    }

    pub fn device(&self) -> Device {
        self.worker().device()
    }

    fn worker(&self) -> &'static Worker {
        self.0 .0
    }

    /// Queues a program and returns the slots of its outputs, or `None` when
    /// the queue is full.
    pub fn run(
        &self,
        program: Arc<Program>,
        inputs: impl Into<Few<Arc<Slot>>>,
    ) -> Option<Few<Arc<Slot>>> {
        let outputs: Few<_> = (0..program.outputs())
            .map(|_| Slot::new(self.worker()))
            .collect();
        let job = Job::Run {
            program,
            inputs: inputs.into(),
            outputs: outputs.clone(),
        };
        self.worker().queue().try_push(job).ok().map(|()| outputs)
    }

    /// Runs a program instruction by instruction, and calls `reply` on the worker with the
    /// slots of its outputs and what each instruction took.
    pub fn profile(
        &self,
        program: Arc<Program>,
        inputs: impl Into<Few<Arc<Slot>>>,
        reply: impl FnOnce(Result<(Few<Arc<Slot>>, Profile), Arc<Error>>) + Send + 'static,
    ) {
        let inputs = inputs.into();
        let outputs: Few<_> = (0..program.outputs()).map(|_| self.slot()).collect();
        self.worker().call(move |context| {
            let profile = context.profile(&program, inputs, &outputs);
            reply(profile.map(|profile| (outputs, profile)));
        });
    }

    /// True if the queue has room; if not, calls `notice` on the worker once it has.
    pub fn when_room(&self, notice: impl FnOnce() + Send + 'static) -> bool {
        self.worker().when_room(Box::new(notice))
    }

    /// Queues the copy of bytes from the host into a new slot, or returns
    /// `None` when the queue is full.
    pub fn load<B>(&self, payload: Payload<B>) -> Option<Arc<Slot>>
    where
        B: AsRef<[u8]> + Send + 'static,
    {
        let slot = self.slot();
        let output = slot.clone();
        let load = move |context: &mut Context| payload.load(&output, context);
        let job = Job::Call(Box::new(load));
        self.worker().queue().try_push(job).ok().map(|()| slot)
    }

    pub(crate) fn slot(&self) -> Arc<Slot> {
        Slot::new(self.worker())
    }

    /// Waits for all work queued before, and calls `reply` on the worker.
    pub fn synchronize(&self, reply: impl FnOnce(Result<(), Arc<Error>>) + Send + 'static) {
        self.worker()
            .call(move |context| reply(context.synchronize()));
    }
}

impl Slot {
    /// Computes this slot and calls `reply` on its worker with its values.
    pub fn read(
        self: &Arc<Self>,
        reply: impl FnOnce(Result<HostView, Arc<Error>>) + Send + 'static,
    ) {
        let slot = self.clone();
        self.owner().call(move |context| reply(context.read(&slot)));
    }

    /// Computes the slots, waits for them and calls `reply` on a worker.
    pub fn eval_all(
        first: Arc<Self>,
        mut slots: Vec<Arc<Self>>,
        reply: impl FnOnce(Result<(), Arc<Error>>) + Send + 'static,
    ) {
        let worker = first.owner();
        slots.push(first);
        worker.call(move |context| reply(context.eval(&slots)));
    }

    /// Starts computing this slot.
    pub fn async_eval(self: &Arc<Self>) {
        let slot = self.clone();
        self.owner().call(move |context| context.async_eval(&slot));
    }

    /// Calls `reply` on the worker with the array's type and shape, uncomputed.
    pub fn signature(
        self: &Arc<Self>,
        reply: impl FnOnce(Result<Signature, Arc<Error>>) + Send + 'static,
    ) {
        let slot = self.clone();
        self.owner()
            .call(move |context| reply(context.signature(&slot)));
    }
}

impl<B: AsRef<[u8]>> Payload<B> {
    pub fn new(bytes: B, dims: &[i64], dtype: Dtype) -> Result<Payload<B>> {
        let shape = shape_of(dims, dtype, bytes.as_ref().len())?;
        Ok(Payload {
            bytes,
            shape,
            dtype,
        })
    }
}

impl<B: AsRef<[u8]> + Send + 'static> Payload<B> {
    pub(crate) fn load(self, slot: &Slot, context: &mut Context) {
        context.load(slot, Box::new(self.bytes), &self.shape, self.dtype);
    }
}

/// The shape of an array of `given` bytes.
pub(crate) fn shape_of(dims: &[i64], dtype: Dtype, given: usize) -> Result<Vec<i32>> {
    let shape: Vec<i32> = dims
        .iter()
        .map(|&dim| i32::try_from(dim).ok().filter(|dim| *dim >= 0))
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Dimension {
            dims: dims.to_vec(),
        })?;
    let bytes = shape.iter().try_fold(dtype_size(dtype), |bytes, &dim| {
        bytes.checked_mul(dim as usize)
    });
    match bytes {
        Some(expected) if expected == given => Ok(shape),
        _ => Err(Error::ByteSize {
            signature: Signature { dtype, shape },
            expected: bytes.unwrap_or(usize::MAX),
            given,
        }),
    }
}
