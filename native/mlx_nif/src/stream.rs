use std::panic::RefUnwindSafe;
use std::sync::Arc;

use mlx_core::{Error, Instruction, Program, Stream};
use rustler::types::atom;
use rustler::{Atom, Encoder, Env, NifTaggedEnum, NifUntaggedEnum, Resource, ResourceArc, Term};

use crate::device::DeviceAtom;
use crate::error::ErrorMap;
use crate::instruction::InstructionTuple;
use crate::reply::{Letter, Outcome, Reply};
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

pub type Tensors = Vec<ResourceArc<Tensor>>;

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
    instructions: Vec<InstructionTuple>,
    inputs: Tensors,
    outputs: Vec<usize>,
) -> Submitted<Tensors> {
    submit(device, instructions, inputs, outputs).into()
}

fn submit(
    device: DeviceAtom,
    instructions: Vec<InstructionTuple>,
    inputs: Tensors,
    outputs: Vec<usize>,
) -> Result<Option<Tensors>, Error> {
    let instructions = instructions
        .into_iter()
        .map(Instruction::try_from)
        .collect::<Result<_, _>>()?;
    let program = Program::new(inputs.len(), instructions, outputs)?;
    let inputs = inputs
        .iter()
        .map(|tensor| tensor.slot())
        .collect::<Result<_, _>>()?;
    let slots = Stream::of(device.into())?.run(Arc::new(program), inputs);
    Ok(slots.map(|slots| slots.into_iter().map(Tensor::new).collect()))
}

/// Sets how many bytes MLX may hold in all.
#[rustler::nif]
fn memory_set_limit(bytes: usize) -> Atom {
    mlx_core::set_memory_limit(bytes);
    atom::ok()
}

/// How many bytes MLX may hold in all.
#[rustler::nif]
fn memory_limit() -> usize {
    mlx_core::memory_limit()
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
    let outcome = Stream::of(device.into()).map(|stream| {
        let reply = Reply::new(env, tag);
        stream.synchronize(move |outcome| {
            reply.send(|env| Outcome::from(outcome.map(|()| atom::ok())).encode(env));
        });
        pending()
    });
    outcome.into()
}
