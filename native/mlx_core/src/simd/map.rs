//! One result for each element.

use std::ffi::CStr;
use std::marker::PhantomData;

use mlx_rs::{Array, Stream};

use super::chunk::{chunks, load, store, Chunk};
use super::level::{Kernel, Level};
use super::number::Number;
use super::primitive::{array, Call, Order, NO_PARAMETERS};
use crate::error::Result;

/// A function of one number.
pub(crate) trait Function {
    const NAME: &'static CStr;

    /// The largest magnitude for which the formula holds.
    const LIMIT: f64 = f64::INFINITY;

    /// The value at a number that a float of at most 32 bits can be.
    fn value<L: Level>(x: f64) -> f64;

    /// The value beyond the limit.
    fn beyond(x: f64) -> f64 {
        x
    }
}

/// The function of each element, or nothing where this has no kernel: on GPUs, and for other
/// types than floats of at most 32 bits.
pub(crate) fn map<F: Function>(x: &Array, s: &Stream) -> Result<Option<Array>> {
    array::<Map<F>>(F::NAME, Order::Any, NO_PARAMETERS, &[x], s)
}

pub(super) struct Map<F>(PhantomData<F>);

impl<F: Function> Kernel for Map<F> {
    #[inline(always)]
    unsafe fn run<L: Level, T: Number>(call: &Call) {
        let (from, to) = (call.inputs[0].cast::<T>(), call.output.cast::<T>());
        for (at, count) in chunks(call.length) {
            // Safety: so many elements are left on either side.
            unsafe {
                let chunk = load(from.add(at), count, 0.0);
                store(to.add(at), count, values::<F, L>(chunk));
            }
        }
    }
}

#[inline(always)]
fn values<F: Function, L: Level>(chunk: Chunk) -> Chunk {
    let mut values = chunk.map(F::value::<L>);
    if F::LIMIT.is_finite() && chunk.iter().any(|x| x.abs() > F::LIMIT) {
        for (value, x) in values.iter_mut().zip(chunk) {
            if x.abs() > F::LIMIT {
                *value = F::beyond(x);
            }
        }
    }
    values
}
