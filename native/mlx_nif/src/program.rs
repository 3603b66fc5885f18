use std::panic::RefUnwindSafe;
use std::sync::Arc;

use mlx_core::{Few, Program, Slot};
use rustler::{Env, NifResult, Resource, ResourceArc, Term};

use crate::garbage::note_caller;
use crate::handle::{Handle, Named};
use crate::instruction::{each, nested, List, Refusal};
use crate::reply::Outcome;
use crate::stream::{slot, Submitted, Target};
use crate::tensor::Tensor;

/// A program with the tensors that are its last inputs whenever it runs.
pub struct Compiled {
    program: Arc<Program>,
    constants: Vec<Arc<Slot>>,
}

#[rustler::resource_impl]
impl Resource for Compiled {}

impl Named for Compiled {
    const NAME: &'static str = "compiled function";
}

// Nothing in it is left half-changed by a panic: only the engine writes, behind its locks.
impl RefUnwindSafe for Compiled {}

impl Compiled {
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    pub fn constants(&self) -> &[Arc<Slot>] {
        &self.constants
    }
}

/// Makes a program that runs any number of times, fused if asked for.
#[rustler::nif(schedule = "DirtyCpu")]
fn program_new(
    program: Term,
    constants: Term,
    fuse: bool,
) -> NifResult<Outcome<ResourceArc<Compiled>>> {
    match compile(program, constants, fuse) {
        Ok(compiled) => Ok(Outcome::Ok(ResourceArc::new(compiled))),
        Err(Refusal::Engine(error)) => Ok(Outcome::Error(error.into())),
        Err(Refusal::Term(error)) => Err(error),
    }
}

fn compile(program: Term, constants: Term, fuse: bool) -> Result<Compiled, Refusal> {
    let program = nested(0, program)?;
    let program = if fuse { program.fused()? } else { program };
    Ok(Compiled {
        program: Arc::new(program),
        constants: each(constants, slot)?,
    })
}

/// Queues the program and gives the tensors of its outputs, not computed yet. The
/// tensors to donate are let go of, so that their memory can become that of results.
#[rustler::nif]
fn program_run(
    env: Env,
    target: Target,
    compiled: Handle<Compiled>,
    inputs: Term,
    donated: List<Handle<Tensor>>,
) -> NifResult<Submitted<Vec<ResourceArc<Tensor>>>> {
    note_caller(env);
    match run(target, &compiled, inputs, &donated.0) {
        Ok(tensors) => Ok(Ok(tensors).into()),
        Err(Refusal::Engine(error)) => Ok(Submitted::Error(error.into())),
        Err(Refusal::Term(error)) => Err(error),
    }
}

fn run(
    target: Target,
    compiled: &Handle<Compiled>,
    inputs: Term,
    donated: &[Handle<Tensor>],
) -> Result<Option<Vec<ResourceArc<Tensor>>>, Refusal> {
    let compiled = compiled.get()?;
    let mut inputs: Few<Arc<Slot>> = each(inputs, slot)?;
    inputs.extend(compiled.constants.iter().cloned());
    let results = target.stream()?.run(compiled.program.clone(), inputs);
    if results.is_some() {
        let tensors = donated.iter().flat_map(Handle::get);
        tensors.for_each(|tensor| {
            tensor.let_go();
        });
    }
    Ok(results.map(|slots| slots.into_iter().map(Tensor::new).collect()))
}
