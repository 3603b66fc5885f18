//! Handles that give work to a worker.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use mlx_rs::Dtype;
use once_cell::sync::OnceCell;

use crate::context::Context;
use crate::device::Device;
use crate::dtype::dtype_size;
use crate::error::{Error, Result, Signature};
use crate::host::HostView;
use crate::job::{self, Awaited, Job, Task};
use crate::profile::Profile;
use crate::program::{Few, Program};
use crate::slot::Slot;
use crate::worker::{self, Worker};

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

    /// Runs a program instruction by instruction, and answers on the worker with the slots
    /// of its outputs and what each instruction took.
    pub fn profile(
        &self,
        program: Arc<Program>,
        inputs: impl Into<Few<Arc<Slot>>>,
        answer: impl Answer<(Few<Arc<Slot>>, Profile)>,
    ) {
        let inputs = inputs.into();
        let outputs: Few<_> = (0..program.outputs()).map(|_| self.slot()).collect();
        let work = move |context: &mut Context| {
            let profile = context.profile(&program, inputs, &outputs)?;
            Ok((outputs, profile))
        };
        self.worker().request(Request { answer, work });
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
        let job = Job::Task(Box::new(Load { payload, output }));
        self.worker().queue().try_push(job).ok().map(|()| slot)
    }

    pub(crate) fn slot(&self) -> Arc<Slot> {
        Slot::new(self.worker())
    }

    /// Waits for all work queued before, and answers on the worker.
    pub fn synchronize(&self, answer: impl Answer<()>) {
        let work = |context: &mut Context| context.synchronize();
        self.worker().request(Request { answer, work });
    }
}

/// Where the outcome of a request goes, which any function can be.
pub trait Answer<T>: Send + 'static {
    /// False once nobody waits for the outcome; then the request is skipped.
    fn is_awaited(&self) -> bool {
        true
    }

    fn send(self, outcome: Result<T, Arc<Error>>);
}

impl<T, F: FnOnce(Result<T, Arc<Error>>) + Send + 'static> Answer<T> for F {
    fn send(self, outcome: Result<T, Arc<Error>>) {
        self(outcome)
    }
}

/// Work whose outcome someone waits for.
pub(crate) struct Request<A, W> {
    pub answer: A,
    pub work: W,
}

struct Asker<A, T>(A, PhantomData<fn(T)>);

impl<T, A: Answer<T>> Awaited for Asker<A, T> {
    fn is_awaited(&self) -> bool {
        self.0.is_awaited()
    }
}

impl<T, A, W> Task for Request<A, W>
where
    T: 'static,
    A: Answer<T>,
    W: FnOnce(&mut Context) -> Result<T, Arc<Error>> + Send,
{
    fn is_wanted(&self) -> bool {
        self.answer.is_awaited()
    }

    fn run(self: Box<Self>, context: &mut Context) {
        let Request { answer, work } = *self;
        let asker = Rc::new(Asker(answer, PhantomData));
        let outcome = job::asked(asker.clone(), || work(context));
        if let Some(Asker(answer, _)) = Rc::into_inner(asker) {
            answer.send(outcome);
        }
    }
}

/// The copy of bytes into a slot.
struct Load<B> {
    payload: Payload<B>,
    output: Arc<Slot>,
}

impl<B: AsRef<[u8]> + Send + 'static> Task for Load<B> {
    fn is_wanted(&self) -> bool {
        self.output.is_reachable()
    }

    fn run(self: Box<Self>, context: &mut Context) {
        self.payload.load(&self.output, context);
    }
}

impl Slot {
    /// Computes this slot and answers on its worker with its values.
    pub fn read(self: &Arc<Self>, answer: impl Answer<HostView>) {
        self.read_as(Ok, answer);
    }

    /// The same, with what `see` makes of the values.
    pub(crate) fn read_as<T: 'static>(
        self: &Arc<Self>,
        see: impl FnOnce(HostView) -> Result<T> + Send + 'static,
        answer: impl Answer<T>,
    ) {
        let slot = self.clone();
        let work = move |context: &mut Context| Ok(see(context.read(&slot)?)?);
        self.owner().request(Request { answer, work });
    }

    /// Computes the slots, waits for them and answers on a worker.
    pub fn eval_all(first: Arc<Self>, mut slots: Vec<Arc<Self>>, answer: impl Answer<()>) {
        let worker = first.owner();
        slots.push(first);
        let work = move |context: &mut Context| context.eval(&slots);
        worker.request(Request { answer, work });
    }

    /// Starts computing this slot.
    pub fn async_eval(self: &Arc<Self>) {
        // Nobody waits for it, so it is for those who hold the slot.
        let slot = Arc::downgrade(self);
        self.owner().call(move |context| {
            if let Some(slot) = slot.upgrade() {
                context.async_eval(&slot);
            }
        });
    }

    /// Answers on the worker with the array's type and shape, uncomputed.
    pub fn signature(self: &Arc<Self>, answer: impl Answer<Signature>) {
        let slot = self.clone();
        let work = move |context: &mut Context| context.signature(&slot);
        self.owner().request(Request { answer, work });
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
