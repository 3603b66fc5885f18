//! Positions that are inside of an array. MLX checks none, and reads or writes wherever
//! one points to.

use std::slice;

use mlx_rs::ops::{maximum, minimum};
use mlx_rs::{Array, Dtype, Stream};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluation;
use crate::ffi::{self, on_gpu};
use crate::host::readable_in_place;
use crate::ops::number;

/// Positions of which two passes of MLX take longer than a look at each.
const MANY: usize = 4096;

/// Positions that are looked at before the answer so far counts, so that it is found for
/// several at once.
const STRETCH: usize = 1024;

/// Moves positions into `0..=limit`. One limit is for all of them, more are for those
/// along the last axis.
pub(super) fn inside(positions: &Array, limits: &[i32], s: &Stream) -> Result<Array> {
    let dtype = positions.dtype();
    if dtype.is_float() || dtype.is_complex() {
        return Err(Error::PositionType { dtype });
    }
    if are_inside(positions, limits, s) {
        return unsigned(positions, s);
    }
    // A narrow type may not hold the limit.
    let dtype = match positions.dtype() {
        Dtype::Bool | Dtype::Uint8 | Dtype::Uint16 => Dtype::Uint32,
        Dtype::Int8 | Dtype::Int16 => Dtype::Int32,
        wide => wide,
    };
    let positions = positions.as_dtype(dtype)?;
    let limits = match limits {
        [limit] => number(i64::from(*limit), dtype)?,
        _ => Array::from_slice(limits, &[limits.len() as i32]).as_dtype(dtype)?,
    };
    let inside = match dtype {
        Dtype::Uint32 | Dtype::Uint64 => minimum(&positions, &limits)?,
        _ => minimum(maximum(&positions, number(0, dtype)?)?, &limits)?,
    };
    unsigned(&inside, s)
}

/// GPUs have no kernels for unsigned 64-bit positions, and save time without signs.
pub(super) fn unsigned(inside: &Array, s: &Stream) -> Result<Array> {
    match inside.dtype() {
        Dtype::Int32 if on_gpu(s) => without_sign(inside),
        Dtype::Uint64 => Ok(inside.as_dtype(Dtype::Uint32)?),
        _ => Ok(inside.clone()),
    }
}

/// Where there can be no negative positions, MLX does not look for them.
pub(super) fn without_sign(inside: &Array) -> Result<Array> {
    Ok(match inside.dtype() {
        Dtype::Int32 => inside.view_dtype(Dtype::Uint32)?,
        _ => inside.clone(),
    })
}

/// Whether the positions are computed, and a look at them finds none that is outside.
pub(super) fn are_inside(positions: &Array, limits: &[i32], s: &Stream) -> bool {
    let readable = positions.size() >= MANY
        && !evaluation::is_tracing()
        && readable_in_place(Device::of(s))
        && ffi::is_available(positions)
        && ffi::is_row_contiguous(positions);
    // A negative position is a large one without its sign.
    readable
        && match positions.dtype() {
            Dtype::Int32 | Dtype::Uint32 => all(positions, limits, |limit| limit as u32),
            Dtype::Int64 | Dtype::Uint64 => all(positions, limits, |limit| limit as u64),
            _ => false,
        }
}

fn all<T: Copy + PartialOrd>(positions: &Array, limits: &[i32], of: fn(i32) -> T) -> bool {
    let Some(values) = values::<T>(positions) else {
        return false;
    };
    match limits {
        [limit] => {
            let limit = of(*limit);
            let mut stretches = values.chunks(STRETCH);
            stretches.all(|stretch| {
                stretch
                    .iter()
                    .fold(true, |all, &value| all & (value <= limit))
            })
        }
        _ => {
            let limits: Vec<T> = limits.iter().copied().map(of).collect();
            let mut rows = values.chunks(limits.len().max(1));
            rows.all(|row| row.iter().zip(&limits).all(|(value, limit)| value <= limit))
        }
    }
}

/// The values of a computed array in row order, of an integer type of that size; none
/// for a view of other values that begins in the midst of one.
fn values<T>(array: &Array) -> Option<&[T]> {
    let data = ffi::data(array).cast::<T>();
    // Safety: the array is computed, in row order and as large as it says, and every
    // pattern of bits is a number.
    data.is_aligned()
        .then(|| unsafe { slice::from_raw_parts(data, array.size()) })
}
