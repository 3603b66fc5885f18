use std::borrow::Cow;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use mlx_core::{Error, Few, Program, Slot, Stream};
use rustler::types::atom;
use rustler::{
    Atom, Encoder, Env, NifResult, NifTaggedEnum, NifTuple, NifUntaggedEnum, Resource, ResourceArc,
    Term,
};

use crate::device::DeviceAtom;
use crate::error::ErrorMap;
use crate::garbage::note_caller;
use crate::handle::{Handle, Named};
use crate::instruction::{each, program, single, Refusal};
use crate::reply::{outcome, Letter, Outcome, Reply};
use crate::tensor::Tensor;

rustler::atoms! { room, pending }

/// `{:ok, value}`, `{:collect, value}` when garbage had better be collected, `:full`
/// or `{:error, fields}`.
#[derive(NifTaggedEnum)]
#[rustler(encode)]
pub enum Submitted<T> {
    Ok(T),
    Collect(T),
    Full,
    Error(ErrorMap),
}

impl<T> From<Result<Option<T>, Error>> for Submitted<T> {
    fn from(result: Result<Option<T>, Error>) -> Self {
        match result {
            Ok(Some(value)) if mlx_core::collect_advised() => Submitted::Collect(value),
            Ok(Some(value)) => Submitted::Ok(value),
            Ok(None) => Submitted::Full,
            Err(error) => Submitted::Error(error.into()),
        }
    }
}

/// A stream that Elixir holds; empty once it was closed.
pub struct StreamHandle(Mutex<Option<Stream>>);

#[rustler::resource_impl]
impl Resource for StreamHandle {}

impl Named for StreamHandle {
    const NAME: &'static str = "stream";
}

// Nothing in it is left half-changed by a panic: only the engine writes, behind its locks.
impl RefUnwindSafe for StreamHandle {}

/// Where work goes: to the stream that all share on a device, or to one.
#[derive(NifUntaggedEnum)]
#[rustler(decode)]
pub enum Target<'a> {
    Device(DeviceAtom),
    Stream(Handle<'a, StreamHandle>),
}

impl Target<'_> {
    pub fn stream(&self) -> Result<Cow<'static, Stream>, Error> {
        match self {
            Target::Device(device) => Ok(Cow::Borrowed(Stream::of((*device).into())?)),
            Target::Stream(handle) => handle.get()?.stream().map(Cow::Owned),
        }
    }
}

impl StreamHandle {
    fn stream(&self) -> Result<Stream, Error> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.clone().ok_or(Error::Closed)
    }

    fn close(&self) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(stream.take());
    }
}

/// Makes a stream of its own on a device.
#[rustler::nif]
fn stream_new(device: DeviceAtom) -> Outcome<ResourceArc<StreamHandle>> {
    let stream = Stream::new(device.into());
    stream
        .map(|stream| ResourceArc::new(StreamHandle(Mutex::new(Some(stream)))))
        .into()
}

/// Takes no more work for the stream; what is queued is done.
#[rustler::nif]
fn stream_close(stream: Handle<StreamHandle>) -> Outcome<Atom> {
    let closed = stream.get().map(|stream| {
        stream.close();
        atom::ok()
    });
    closed.into()
}

/// Queues instructions and gives the tensors of the named registers, not computed yet.
#[rustler::nif]
fn stream_submit(
    env: Env,
    target: Target,
    instructions: Term,
    inputs: Term,
    outputs: Term,
) -> NifResult<Submitted<Vec<ResourceArc<Tensor>>>> {
    let program = |inputs| program(inputs, instructions, outputs);
    submit(env, target, inputs, program, |slots| {
        slots.into_iter().map(Tensor::new).collect()
    })
}

/// Queues one row of the op table on tensors and gives the tensor of its result.
#[rustler::nif]
fn stream_run(
    env: Env,
    target: Target,
    row: Term,
    inputs: Term,
    attributes: Term,
) -> NifResult<Submitted<ResourceArc<Tensor>>> {
    let program = |inputs| single(inputs, row, attributes);
    submit(env, target, inputs, program, |mut slots| {
        Tensor::new(slots.remove(0))
    })
}

fn submit<T>(
    env: Env,
    target: Target,
    inputs: Term,
    program: impl FnOnce(usize) -> Result<Program, Refusal>,
    tensors: impl FnOnce(Few<Arc<Slot>>) -> T,
) -> NifResult<Submitted<T>> {
    note_caller(env);
    let queue = || {
        let inputs: Few<Arc<Slot>> = each(inputs, slot)?;
        let program = program(inputs.len())?;
        Ok(target.stream()?.run(Arc::new(program), inputs))
    };
    match queue() {
        Ok(slots) => Ok(Ok(slots.map(tensors)).into()),
        Err(Refusal::Engine(error)) => Ok(Submitted::Error(error.into())),
        Err(Refusal::Term(error)) => Err(error),
    }
}

pub fn slot(tensor: Term) -> Result<Arc<Slot>, Refusal> {
    Ok(tensor.decode::<Handle<Tensor>>()?.get()?.slot()?)
}

/// Sets how many jobs the queue of each stream holds.
#[rustler::nif]
fn stream_set_queue_limit(jobs: usize) -> Atom {
    mlx_core::set_queue_limit(jobs);
    atom::ok()
}

/// Sets whether each instruction is computed before the next.
#[rustler::nif]
fn stream_set_stepwise(stepwise: bool) -> Atom {
    mlx_core::set_stepwise(stepwise);
    atom::ok()
}

/// As many jobs the queue of each stream holds.
#[rustler::nif]
fn stream_queue_limit() -> usize {
    mlx_core::queue_limit()
}

/// `:room` if the queue has some; else `:pending`, and `{tag, :room}` comes later.
#[rustler::nif]
fn stream_await_room(env: Env, target: Target, tag: Term) -> Outcome<Atom> {
    let letter = Letter::new(env, tag);
    let outcome = target.stream().map(|stream| {
        if stream.when_room(move || letter.send(|env| room().encode(env))) {
            room()
        } else {
            pending()
        }
    });
    outcome.into()
}

/// Sends `{tag, outcome}` once all work queued so far is done.
#[rustler::nif]
fn stream_synchronize(env: Env, target: Target, tag: Term) -> Outcome<Atom> {
    let asked = target.stream().map(|stream| {
        stream.synchronize(Reply::new(env, tag, |env, done| {
            outcome(env, done, |()| atom::ok())
        }));
        pending()
    });
    asked.into()
}

/// The name of a stream's thread, its device, and how many jobs are not done.
#[derive(NifTuple)]
#[rustler(encode)]
struct DepthTuple(String, DeviceAtom, usize);

/// Of each stream that someone holds.
#[rustler::nif]
fn stream_queue_depths() -> Vec<DepthTuple> {
    let depths = mlx_core::queue_depths().into_iter();
    depths
        .map(|depth| DepthTuple(depth.stream, depth.device.into(), depth.jobs))
        .collect()
}
