//! One result for each element.

use std::ffi::CStr;
use std::marker::PhantomData;

use mlx_rs::{Array, Stream};

use super::chunk::{each_chunk, load, store, Chunk};
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
        each_chunk!(call.length, |at, count| {
            // Safety: so many elements are left on either side.
            unsafe {
                let chunk = load(from.add(at), count, 0.0);
                store(to.add(at), count, values::<F, L>(chunk));
            }
        });
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

/// Whether the formula holds not for all, by the bits of magnitudes, of which NaN has more than
/// any number.
#[inline(always)]
fn reaches_beyond<F: Function>(chunk: &Chunk) -> bool {
    let largest = chunk
        .iter()
        .fold(0, |largest, x| x.abs().to_bits().cast_signed().max(largest));
    largest > F::LIMIT.to_bits().cast_signed()
}
