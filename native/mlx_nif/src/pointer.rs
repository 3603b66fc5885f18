use mlx_core::{Dtype, Error, SegmentName, Stream};
use rustler::{Atom, Binary, Env, NifTuple, Term};

use crate::handle::Handle;
use crate::instruction::{List, TypeTuple};
use crate::reply::{outcome, Outcome, Reply};
use crate::stream::{pending, Target};
use crate::tensor::{tensor_of, Tensor};

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
    let asked = tensor.slot().map(|slot| {
        slot.address(Reply::new(env, tag, |env, found| {
            outcome(env, found, |(address, len)| AddressTuple(address, len))
        }));
        pending()
    });
    asked.into()
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
        let reply = Reply::new(env, tag, |env, segment| {
            outcome(env, segment, SegmentTuple::from)
        });
        slot.publish(&values, permissions, reply);
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
    dims: List<i64>,
    dtype: TypeTuple,
    tag: Term,
) -> Outcome<Atom> {
    let (address, len) = source;
    from(target, dtype, |stream, dtype| {
        let reply = Reply::new(env, tag, tensor_of);
        stream.copy_address(address, len, dims.0, dtype, reply);
    })
}

/// Sends `{tag, outcome}` with a tensor of the bytes in shared memory.
#[rustler::nif]
fn pointer_from_ipc(
    env: Env,
    target: Target,
    source: (Binary, usize),
    dims: List<i64>,
    dtype: TypeTuple,
    tag: Term,
) -> Outcome<Atom> {
    let (name, len) = (source.0.as_slice().to_vec(), source.1);
    from(target, dtype, |stream, dtype| {
        let reply = Reply::new(env, tag, tensor_of);
        stream.copy_segment(name, len, dims.0, dtype, reply);
    })
}

fn from(target: Target, dtype: TypeTuple, copy: impl FnOnce(&Stream, Dtype)) -> Outcome<Atom> {
    let start = || {
        let stream = target.stream()?;
        copy(&stream, dtype.try_into()?);
        Ok::<_, Error>(pending())
    };
    start().into()
}
