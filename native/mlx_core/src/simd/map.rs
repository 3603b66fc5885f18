//! One result for each element.

use std::ffi::CStr;
use std::marker::PhantomData;

use mlx_rs::{Array, Dtype, Stream};

use super::level::{Kernel, Level};
use super::number::{Bf16, Number, F16};
use super::primitive::{elements, Call};
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
    match x.dtype() {
        Dtype::Float32 => elements::<Map<F, f32>>(F::NAME, x, s),
        Dtype::Float16 => elements::<Map<F, F16>>(F::NAME, x, s),
        Dtype::Bfloat16 => elements::<Map<F, Bf16>>(F::NAME, x, s),
        _ => Ok(None),
    }
}

pub(super) struct Map<F, T>(PhantomData<(F, T)>);

/// Elements at once: some vectors, so that the processor has several formulas to work at.
const CHUNK: usize = 16;

impl<F: Function, T: Number> Kernel for Map<F, T> {
    #[inline(always)]
    unsafe fn run<L: Level>(call: &Call) {
        let from = call.inputs[0].cast::<T>();
        let to = call.output.cast::<T>();
        let mut at = 0;
        while at < call.length {
            let count = CHUNK.min(call.length - at);
            let mut chunk = [T::ZERO; CHUNK];
            // Safety: `count` elements are left on either side, and the chunk holds them.
            unsafe {
                if count == CHUNK {
                    chunk = from.add(at).cast::<[T; CHUNK]>().read_unaligned();
                    to.add(at)
                        .cast::<[T; CHUNK]>()
                        .write_unaligned(values::<F, T, L>(chunk));
                } else {
                    from.add(at)
                        .copy_to_nonoverlapping(chunk.as_mut_ptr(), count);
                    chunk = values::<F, T, L>(chunk);
                    to.add(at).copy_from_nonoverlapping(chunk.as_ptr(), count);
                }
            }
            at += count;
        }
    }
}

#[inline(always)]
fn values<F: Function, T: Number, L: Level>(chunk: [T; CHUNK]) -> [T; CHUNK] {
    let wide = chunk.map(T::widen);
    let mut values = wide.map(F::value::<L>);
    if F::LIMIT.is_finite() && wide.iter().any(|x| x.abs() > F::LIMIT) {
        for (value, x) in values.iter_mut().zip(wide) {
            if x.abs() > F::LIMIT {
                *value = F::beyond(x);
            }
        }
    }
    values.map(T::narrow)
}
