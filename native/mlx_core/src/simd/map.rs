//! One result for each element.

use std::ffi::CStr;
use std::marker::PhantomData;

use mlx_rs::{Array, Stream};

use super::chunk::{chunks, load, store, Chunk, CHUNK};
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
    fn beyond<L: Level>(x: f64) -> f64 {
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
    type Call = Call;

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
    if F::LIMIT.is_finite() && reaches_beyond::<F>(&chunk) {
        let beyond = chunk.map(F::beyond::<L>);
        for (lane, x) in chunk.into_iter().enumerate() {
            if x.abs() > F::LIMIT {
                values[lane] = beyond[lane];
            }
        }
    }
    values
}

/// Whether the formula holds not for all of them, by halves, as vectors find it.
#[inline(always)]
fn reaches_beyond<F: Function>(chunk: &Chunk) -> bool {
    let mut counts = [0.0; CHUNK];
    for (count, x) in counts.iter_mut().zip(chunk) {
        *count = if x.abs() > F::LIMIT { 1.0 } else { 0.0 };
    }
    let mut half = CHUNK / 2;
    while half > 0 {
        for lane in 0..half {
            counts[lane] += counts[lane + half];
        }
        half /= 2;
    }
    counts[0] > 0.0
}
