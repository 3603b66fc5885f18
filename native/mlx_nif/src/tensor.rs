use std::sync::{Arc, Mutex, PoisonError};

use mlx_core::{Error, HostView, Payload, Slot};
use rustler::types::atom;
use rustler::{
    Atom, Binary, Encoder, Env, NewBinary, NifResult, OwnedEnv, Resource, ResourceArc, Term,
};

use crate::error::SignatureTuple;
use crate::garbage::note_caller;
use crate::handle::{Handle, Named};
use crate::instruction::{List, TypeTuple};
use crate::reply::{outcome, Outcome, Reply};
use crate::stream::{pending, Submitted, Target};

/// Up to this size a copy is cheaper than keeping the original alive.
const SMALL: usize = 1024;

/// A tensor as Elixir holds it; empty once it was deallocated.
pub struct Tensor(Mutex<Option<Arc<Slot>>>);

/// Keeps the array of a binary that was made without a copy.
struct View(HostView);

#[rustler::resource_impl]
impl Resource for Tensor {}

impl Named for Tensor {
    const NAME: &'static str = "tensor";
}

impl Handle<'_, Tensor> {
    pub fn slot(&self) -> Result<Arc<Slot>, Error> {
        self.get()?.slot()
    }
}

#[rustler::resource_impl]
impl Resource for View {}

impl Tensor {
    pub fn new(slot: Arc<Slot>) -> ResourceArc<Tensor> {
        ResourceArc::new(Tensor(Mutex::new(Some(slot))))
    }

    pub fn slot(&self) -> Result<Arc<Slot>, Error> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().ok_or(Error::Deallocated)
    }

    /// Empties the tensor; false if it was empty.
    pub fn let_go(&self) -> bool {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        slot.map(Slot::let_go).is_some()
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// What is sent for a new tensor.
pub fn tensor_of(env: Env, slot: Result<Arc<Slot>, Arc<Error>>) -> Term {
    outcome(env, slot, Tensor::new)
}

/// A binary's bytes on their way to a worker.
enum Bytes {
    Copied(Vec<u8>),
    /// Kept alive by an environment of its own, so that no scheduler copies them.
    Held {
        _env: OwnedEnv,
        data: *const u8,
        len: usize,
    },
}

// Safety: the environment owns a reference to the binary, whose bytes never change.
unsafe impl Send for Bytes {}

impl Bytes {
    fn of(term: Term) -> NifResult<Bytes> {
        let binary: Binary = term.decode()?;
        if binary.len() <= SMALL {
            return Ok(Bytes::Copied(binary.as_slice().to_vec()));
        }
        let env = OwnedEnv::new();
        let saved = env.save(term);
        let (data, len) = env.run(|env| {
            let held: Binary = saved.load(env).decode()?;
            Ok::<_, rustler::Error>((held.as_slice().as_ptr(), held.len()))
        })?;
        Ok(Bytes::Held {
            _env: env,
            data,
            len,
        })
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Copied(bytes) => bytes,
            // Safety: the environment in the same variant keeps the bytes alive.
            Bytes::Held { data, len, .. } => unsafe { std::slice::from_raw_parts(*data, *len) },
        }
    }
}

/// Queues the copy of a binary to a device.
#[rustler::nif]
fn tensor_from_binary(
    env: Env,
    target: Target,
    binary: Term,
    dims: List<i64>,
    dtype: TypeTuple,
) -> NifResult<Submitted<ResourceArc<Tensor>>> {
    note_caller(env);
    let bytes = Bytes::of(binary)?;
    let load = || {
        let payload = Payload::new(bytes, &dims.0, dtype.try_into()?)?;
        Ok(target.stream()?.load(payload).map(Tensor::new))
    };
    Ok(load().into())
}

/// `{:ok, binary}` if the values are at hand; else `{:ok, :pending}`, and `{tag, outcome}`
/// comes later.
#[rustler::nif]
fn tensor_read<'a>(env: Env<'a>, tensor: Handle<Tensor>, tag: Term<'a>) -> Term<'a> {
    note_caller(env);
    let slot = match tensor.slot() {
        Ok(slot) => slot,
        Err(error) => return Outcome::<()>::Error(error.into()).encode(env),
    };
    if let Some(view) = slot.host_view() {
        return Outcome::Ok(binary(env, view)).encode(env);
    }
    slot.read(Reply::new(env, tag, |env, view| {
        outcome(env, view, |view| binary(env, view))
    }));
    Outcome::Ok(pending()).encode(env)
}

fn binary(env: Env, view: HostView) -> Term {
    if view.bytes().len() <= SMALL {
        let mut copy = NewBinary::new(env, view.bytes().len());
        copy.as_mut_slice().copy_from_slice(view.bytes());
        return copy.into();
    }
    let view = ResourceArc::new(View(view));
    view.make_binary(env, |view| view.0.bytes()).to_term(env)
}

/// Sends `{tag, outcome}` once the tensors are computed, if there are any.
#[rustler::nif]
fn tensor_eval(env: Env, tensors: List<Handle<Tensor>>, tag: Term) -> Outcome<Atom> {
    note_caller(env);
    let slots: Result<Vec<_>, Error> = tensors.0.iter().map(|tensor| tensor.slot()).collect();
    let asked = slots.map(|mut slots| {
        let Some(first) = slots.pop() else {
            return atom::ok();
        };
        let reply = Reply::new(env, tag, |env, done| outcome(env, done, |()| atom::ok()));
        Slot::eval_all(first, slots, reply);
        pending()
    });
    asked.into()
}

/// Starts computing the tensor.
#[rustler::nif]
fn tensor_async_eval(tensor: Handle<Tensor>) -> Outcome<Atom> {
    let outcome = tensor.slot().map(|slot| {
        slot.async_eval();
        atom::ok()
    });
    outcome.into()
}

/// Sends `{tag, outcome}` with the array's type and shape.
#[rustler::nif]
fn tensor_signature(env: Env, tensor: Handle<Tensor>, tag: Term) -> Outcome<Atom> {
    let asked = tensor.slot().map(|slot| {
        slot.signature(Reply::new(env, tag, |env, found| {
            outcome(env, found, |found| SignatureTuple::from(&found))
        }));
        pending()
    });
    asked.into()
}

/// Whether the tensor's values are known to be there, so that reading them waits for nothing.
#[rustler::nif]
fn tensor_is_computed(tensor: Handle<Tensor>) -> Outcome<bool> {
    tensor.slot().map(|slot| slot.is_settled()).into()
}

/// Lets go of the tensor's memory; false if it had been let go before.
#[rustler::nif]
fn tensor_deallocate(tensor: Handle<Tensor>) -> Outcome<bool> {
    tensor.get().map(|tensor| tensor.let_go()).into()
}
