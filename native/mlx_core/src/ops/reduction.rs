//! Fewer elements: sums, products, extremes and where they are.

mod position;
mod rows;

use mlx_rs::error::Exception;
use mlx_rs::ops::{concatenate, maximum, minimum};
use mlx_rs::{Array, Dtype, Stream};

use self::position::{LARGEST, SMALLEST};
use super::elementwise::truth;
use super::ops;
use super::slicing::Part;
use crate::attribute::Shape;
use crate::error::Result;
use crate::ffi::{c_op, on_gpu};

ops! {
    /// The sum over axes, which stay with size 1 if they are kept.
    sum(x) { axes: Shape, keep: bool } |s| => without(sum(x, &axes, s)?, &axes, keep);
    /// The product over axes, which stay with size 1 if they are kept.
    product(x) { axes: Shape, keep: bool } |s| =>
        without(widened(x, |x| reduce(x, &axes, &PRODUCT, s))?, &axes, keep);
    /// The largest over axes, which stay with size 1 if they are kept; NaN if there is one.
    reduce_max(x) { axes: Shape, keep: bool } |s| =>
        without(reduce(x, &axes, &MAX, s)?, &axes, keep);
    /// The smallest over axes, which stay with size 1 if they are kept; NaN if there is one.
    reduce_min(x) { axes: Shape, keep: bool } |s| =>
        without(reduce(x, &axes, &MIN, s)?, &axes, keep);
    /// Whether all are true over axes, which stay with size 1 if they are kept.
    all(x) { axes: Shape, keep: bool } => truth(x)?.all_axes(&axes, keep);
    /// Whether any is true over axes, which stay with size 1 if they are kept.
    any(x) { axes: Shape, keep: bool } => truth(x)?.any_axes(&axes, keep);
    /// Where the first largest is along an axis, which stays with size 1, or the last
    /// one. NaN is larger than any number, and of several the last one counts.
    argmax(x) { axis: i32, last: bool } |s| => LARGEST.position(x, axis, last, s);
    /// Where the first smallest is along an axis, which stays with size 1, or the last
    /// one. NaN is smaller than any number, and of several the last one counts.
    argmin(x) { axis: i32, last: bool } |s| => SMALLEST.position(x, axis, last, s);

    /// The sums of all elements up to each along an axis, or from each if reversed.
    cumulative_sum(x) { axis: i32, reverse: bool } |s| =>
        cumulative(x, |x| c_op!(mlx_cumsum_axis(x.as_ptr(), axis, reverse, true, SAME_TYPE), s));
    /// The products of all elements up to each along an axis, or from each.
    cumulative_product(x) { axis: i32, reverse: bool } |s| =>
        cumulative(x, |x| c_op!(mlx_cumprod_axis(x.as_ptr(), axis, reverse, true, SAME_TYPE), s));
    /// The largest of all elements up to each along an axis, or from each.
    cumulative_max(x) { axis: i32, reverse: bool } |s| =>
        cumulative(x, |x| c_op!(mlx_cummax_axis(x.as_ptr(), axis, reverse, true), s));
    /// The smallest of all elements up to each along an axis, or from each.
    cumulative_min(x) { axis: i32, reverse: bool } |s| =>
        cumulative(x, |x| c_op!(mlx_cummin_axis(x.as_ptr(), axis, reverse, true), s));
}

fn sum(x: &Array, axes: &[i32], s: &Stream) -> Result<Array> {
    match rows::are(x, axes, s) {
        true => rows::sums(x, s),
        false => widened(x, |x| reduce(x, axes, &SUM, s)),
    }
}

const SAME_TYPE: mlx_sys::mlx_optional_dtype = mlx_sys::mlx_optional_dtype {
    value: mlx_sys::mlx_dtype__MLX_FLOAT32,
    has_value: false,
};

/// Half-precision floats are folded in single precision.
pub(super) fn widened(x: &Array, fold: impl FnOnce(&Array) -> Result<Array>) -> Result<Array> {
    match x.dtype() {
        Dtype::Float16 | Dtype::Bfloat16 => {
            let folded = fold(&x.as_dtype(Dtype::Float32)?)?;
            Ok(folded.as_dtype(x.dtype())?)
        }
        _ => fold(x),
    }
}

/// Along an empty axis MLX would divide by its size.
fn cumulative(x: &Array, fold: impl FnOnce(&Array) -> Result<Array, Exception>) -> Result<Array> {
    if x.size() == 0 {
        return Ok(x.clone());
    }
    widened(x, |x| Ok(fold(x)?))
}

type Pairwise = fn(&Array, &Array) -> Result<Array, Exception>;

/// An associative operation on two arrays, and the same along axes of one.
pub(super) struct Operation {
    pub(super) pair: Pairwise,
    pub(super) reduce: fn(&Array, &[i32]) -> Result<Array, Exception>,
    /// Whether an element may count twice.
    pub(super) idempotent: bool,
}

pub(super) const SUM: Operation = Operation {
    pair: |a, b| a.add(b),
    reduce: |x, axes| x.sum_axes(axes, true),
    idempotent: false,
};
pub(super) const PRODUCT: Operation = Operation {
    pair: |a, b| a.multiply(b),
    reduce: |x, axes| x.prod_axes(axes, true),
    idempotent: false,
};
pub(super) const MAX: Operation = Operation {
    pair: |a, b| maximum(a, b),
    reduce: |x, axes| x.max_axes(axes, true),
    idempotent: true,
};
pub(super) const MIN: Operation = Operation {
    pair: |a, b| minimum(a, b),
    reduce: |x, axes| x.min_axes(axes, true),
    idempotent: true,
};

fn without(x: Array, axes: &[i32], keep: bool) -> Result<Array, Exception> {
    if keep || axes.is_empty() {
        return Ok(x);
    }
    x.squeeze_axes(axes)
}

/// A last axis of this size is worth folding into lanes.
const LANES: i32 = 512;

/// Sums of more floats than this, one after the other, lose digits.
const LONG: i32 = 1024;

/// On the CPU, long axes are folded to about the square root of their size first: the
/// last one across, which adds vectors instead of numbers, others in blocks.
pub(super) fn reduce(x: &Array, axes: &[i32], operation: &Operation, s: &Stream) -> Result<Array> {
    let last = x.ndim() as i32 - 1;
    let rounds = !operation.idempotent && (x.dtype().is_float() || x.dtype().is_complex());
    let mut x = x.clone();
    for &axis in axes {
        let size = x.shape().get(axis as usize).copied().unwrap_or(0);
        let folded = if axis == last && size >= LANES {
            axis
        } else if rounds && size > LONG {
            axis + 1
        } else {
            continue;
        };
        if on_gpu(s) {
            break;
        }
        x = shorten(&x, axis, folded, operation, s)?;
    }
    Ok((operation.reduce)(&x, axes)?)
}

/// Splits an axis into two, folds one of them, and appends what was left over.
fn shorten(x: &Array, axis: i32, folded: i32, operation: &Operation, s: &Stream) -> Result<Array> {
    let size = x.dim(axis);
    let block = 1 << (size.ilog2() / 2).max(6);
    let blocks = size / block;
    let at = axis as usize;
    let part = |start, count| Part::whole(x.shape()).along(at, start, count, 1).of(x, s);
    let mut shape = x.shape().to_vec();
    shape.splice(at..=at, [blocks, block]);
    let split = part(0, blocks * block)?.reshape(&shape)?;
    let shorter = (operation.reduce)(&split, &[folded])?.squeeze_axes(&[folded])?;
    match size % block {
        0 => Ok(shorter),
        rest => Ok(concatenate(&[shorter, part(blocks * block, rest)?], axis)?),
    }
}
