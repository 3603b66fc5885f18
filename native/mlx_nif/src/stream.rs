use std::panic::RefUnwindSafe;
use std::sync::Arc;

use mlx_core::{Error, Few, Slot, Stream};
use rustler::types::atom;
use rustler::{
    Atom, Encoder, Env, NifResult, NifTaggedEnum, NifUntaggedEnum, Resource, ResourceArc, Term,
};

use crate::device::DeviceAtom;
use crate::error::ErrorMap;
use crate::instruction::{each, program, Refusal};
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

/// A stream that Elixir holds.
pub struct StreamHandle(Stream);

#[rustler::resource_impl]
impl Resource for StreamHandle {}

// Nothing in it is left half-changed by a panic: only the engine writes, behind its locks.
impl RefUnwindSafe for StreamHandle {}

/// Where work goes: to the stream that all share on a device, or to one.
#[derive(NifUntaggedEnum)]
#[rustler(decode)]
pub enum Target {
    Device(DeviceAtom),
    Stream(ResourceArc<StreamHandle>),
}

impl Target {
    pub fn stream(&self) -> Result<Stream, Error> {
        match self {
            Target::Device(device) => Stream::of((*device).into()).cloned(),
            Target::Stream(handle) => Ok(handle.0.clone()),
        }
    }
}

/// Makes a stream of its own on a device.
#[rustler::nif]
fn stream_new(device: DeviceAtom) -> Outcome<ResourceArc<StreamHandle>> {
    let stream = Stream::new(device.into());
    stream
        .map(|stream| ResourceArc::new(StreamHandle(stream)))
        .into()
}

/// Queues instructions and gives the tensors of the named registers, not computed yet.
#[rustler::nif]
fn stream_submit(
    device: DeviceAtom,
    instructions: Term,
    inputs: Term,
    outputs: Term,
) -> NifResult<Submitted<Vec<ResourceArc<Tensor>>>> {
    match submit(device, instructions, inputs, outputs) {
        Ok(tensors) => Ok(Ok(tensors).into()),
        Err(Refusal::Engine(error)) => Ok(Submitted::Error(error.into())),
        Err(Refusal::Term(error)) => Err(error),
    }
}

fn submit(
    device: DeviceAtom,
    instructions: Term,
    inputs: Term,
    outputs: Term,
) -> Result<Option<Vec<ResourceArc<Tensor>>>, Refusal> {
    let inputs: Few<Arc<Slot>> = each(inputs, slot)?;
    let program = program(inputs.len(), instructions, outputs)?;
    let slots = Stream::of(device.into())?.run(Arc::new(program), inputs);
    Ok(slots.map(|slots| slots.into_iter().map(Tensor::new).collect()))
}

pub fn slot(tensor: Term) -> Result<Arc<Slot>, Refusal> {
    Ok(tensor.decode::<ResourceArc<Tensor>>()?.slot()?)
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
fn stream_synchronize(env: Env, device: DeviceAtom, tag: Term) -> Outcome<Atom> {
    let asked = Stream::of(device.into()).map(|stream| {
        stream.synchronize(Reply::new(env, tag, |env, done| {
            outcome(env, done, |()| atom::ok())
        }));
        pending()
    });
    asked.into()
}
