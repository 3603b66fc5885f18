use std::sync::Arc;

use mlx_core::{Dtype, Error, SegmentName, Slot, Stream};
use rustler::{Atom, Binary, Encoder, Env, NifTuple, Term};

use crate::handle::Handle;
use crate::instruction::TypeTuple;
use crate::reply::{Outcome, Reply};
use crate::stream::{pending, Target};
use crate::tensor::Tensor;

/// Where a tensor's values are and how many bytes they have.
#[derive(NifTuple)]
#[rustler(encode)]
struct AddressTuple(usize, usize);

/// The name of shared memory and how many bytes it has.
#[derive(NifTuple)]
#[rustler(encode)]
struct SegmentTuple(String, usize);

impl From<SegmentName> for SegmentTuple {
    fn from(segment: SegmentName) -> Self {
        SegmentTuple(segment.name, segment.len)
    }
}

/// Sends `{tag, outcome}` with the address of the tensor's values.
#[rustler::nif]
fn pointer_to_local(env: Env, tensor: Handle<Tensor>, tag: Term) -> Outcome<Atom> {
    let outcome = tensor.slot().map(|slot| {
        let reply = Reply::new(env, tag);
        slot.address(move |found| {
            let found = found.map(|(address, len)| AddressTuple(address, len));
            reply.send(|env| Outcome::from(found).encode(env));
        });
        pending()
    });
    outcome.into()
}

/// Sends `{tag, outcome}` with the name of shared memory that holds `values` as long as
/// `tensor` lives.
#[rustler::nif]
fn pointer_to_ipc(
    env: Env,
    tensor: Handle<Tensor>,
    values: Handle<Tensor>,
    permissions: u32,
    tag: Term,
) -> Outcome<Atom> {
    let publish = || {
        let (slot, values) = (tensor.slot()?, values.slot()?);
        let reply = Reply::new(env, tag);
        slot.publish(&values, permissions, move |segment| {
            let segment = segment.map(SegmentTuple::from);
            reply.send(|env| Outcome::from(segment).encode(env));
        });
        Ok::<_, Error>(pending())
    };
    publish().into()
}

/// Sends `{tag, outcome}` with a tensor of the bytes at an address.
#[rustler::nif]
fn pointer_from_local(
    env: Env,
    target: Target,
    source: (usize, usize),
    dims: Vec<i64>,
    dtype: TypeTuple,
    tag: Term,
) -> Outcome<Atom> {
    let (address, len) = source;
    from(env, target, dtype, tag, |stream, dtype, reply| {
        stream.copy_address(address, len, dims, dtype, reply);
    })
}

/// Sends `{tag, outcome}` with a tensor of the bytes in shared memory.
#[rustler::nif]
fn pointer_from_ipc(
    env: Env,
    target: Target,
    source: (Binary, usize),
    dims: Vec<i64>,
    dtype: TypeTuple,
    tag: Term,
) -> Outcome<Atom> {
    let (name, len) = (source.0.as_slice().to_vec(), source.1);
    from(env, target, dtype, tag, |stream, dtype, reply| {
        stream.copy_segment(name, len, dims, dtype, reply);
    })
}

type Answer = Box<dyn FnOnce(Result<Arc<Slot>, Arc<Error>>) + Send>;

fn from(
    env: Env,
    target: Target,
    dtype: TypeTuple,
    tag: Term,
    copy: impl FnOnce(&Stream, Dtype, Answer),
) -> Outcome<Atom> {
    let start = || {
        let stream = target.stream()?;
        let dtype = dtype.try_into()?;
        let reply = Reply::new(env, tag);
        let answer = move |slot: Result<Arc<Slot>, Arc<Error>>| {
            reply.send(|env| Outcome::from(slot.map(Tensor::new)).encode(env));
        };
        copy(&stream, dtype, Box::new(answer));
        Ok::<_, Error>(pending())
    };
    start().into()
}
