use std::panic::RefUnwindSafe;
use std::sync::Arc;

use mlx_core::{Error, Program, Slot};
use rustler::{Resource, ResourceArc};

use crate::instruction::ProgramTuple;
use crate::reply::Outcome;
use crate::stream::{Submitted, Target, Tensors};
use crate::tensor::Tensor;

/// A program with the tensors that are its last inputs whenever it runs.
pub struct Compiled {
    program: Arc<Program>,
    constants: Vec<Arc<Slot>>,
}

#[rustler::resource_impl]
impl Resource for Compiled {}

// Nothing in it is left half-changed by a panic: only the engine writes, behind its locks.
impl RefUnwindSafe for Compiled {}

/// Makes a program that runs any number of times, fused if asked for.
#[rustler::nif(schedule = "DirtyCpu")]
fn program_new(
    program: ProgramTuple,
    constants: Tensors,
    fuse: bool,
) -> Outcome<ResourceArc<Compiled>> {
    compile(program, constants, fuse).into()
}

fn compile(
    program: ProgramTuple,
    constants: Tensors,
    fuse: bool,
) -> Result<ResourceArc<Compiled>, Error> {
    let program = Program::try_from(program)?;
    let program = if fuse { program.fused()? } else { program };
    Ok(ResourceArc::new(Compiled {
        program: Arc::new(program),
        constants: slots(&constants)?,
    }))
}

/// Queues the program and gives the tensors of its outputs, not computed yet. The
/// tensors to donate are let go of, so that their memory can become that of results.
#[rustler::nif]
fn program_run(
    target: Target,
    compiled: ResourceArc<Compiled>,
    inputs: Tensors,
    donated: Tensors,
) -> Submitted<Tensors> {
    run(target, &compiled, inputs, donated).into()
}

fn run(
    target: Target,
    compiled: &Compiled,
    inputs: Tensors,
    donated: Tensors,
) -> Result<Option<Tensors>, Error> {
    let mut inputs = slots(&inputs)?;
    inputs.extend(compiled.constants.iter().cloned());
    let results = target.stream()?.run(compiled.program.clone(), inputs);
    if results.is_some() {
        donated.iter().for_each(|tensor| drop(tensor.take()));
    }
    Ok(results.map(|slots| slots.into_iter().map(Tensor::new).collect()))
}

fn slots(tensors: &Tensors) -> Result<Vec<Arc<Slot>>, Error> {
    tensors.iter().map(|tensor| tensor.slot()).collect()
}
