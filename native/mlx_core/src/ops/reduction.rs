//! Fewer elements: sums, products, extremes and where they are.

use mlx_rs::ops::indexing::{argmax_axis, argmin_axis};

use mlx_rs::{Array, Dtype, Stream};

use super::ops;
use crate::attribute::Shape;
use crate::error::Result;
use crate::ffi::c_op;

ops! {
    /// The sum over axes, which stay with size 1.
    sum(x) { axes: Shape } |s| => sum(x, &axes, s);
    /// The product over axes, which stay with size 1.
    product(x) { axes: Shape } => widened(x, |x| Ok(x.prod_axes(&axes, true)?));
    /// The largest over axes, which stay with size 1; NaN if there is one.
    reduce_max(x) { axes: Shape } => x.max_axes(&axes, true);
    /// The smallest over axes, which stay with size 1; NaN if there is one.
    reduce_min(x) { axes: Shape } => x.min_axes(&axes, true);
    /// Whether all are true over axes, which stay with size 1.
    all(x) { axes: Shape } => x.all_axes(&axes, true);
    /// Whether any is true over axes, which stay with size 1.
    any(x) { axes: Shape } => x.any_axes(&axes, true);
    /// Where the first largest is along an axis, which stays with size 1.
    argmax(x) { axis: i32 } => argmax_axis(x, axis, true);
    /// Where the first smallest is along an axis, which stays with size 1.
    argmin(x) { axis: i32 } => argmin_axis(x, axis, true);

    /// The sums of all elements up to each along an axis, or from each if reversed.
    cumulative_sum(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cumsum_axis(x.as_ptr(), axis, reverse, true, SAME_TYPE), s);
    /// The products of all elements up to each along an axis, or from each.
    cumulative_product(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cumprod_axis(x.as_ptr(), axis, reverse, true, SAME_TYPE), s);
    /// The largest of all elements up to each along an axis, or from each.
    cumulative_max(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cummax_axis(x.as_ptr(), axis, reverse, true), s);
    /// The smallest of all elements up to each along an axis, or from each.
    cumulative_min(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cummin_axis(x.as_ptr(), axis, reverse, true), s);
}

const SAME_TYPE: mlx_sys::mlx_optional_dtype = mlx_sys::mlx_optional_dtype {
    value: mlx_sys::mlx_dtype__MLX_FLOAT32,
    has_value: false,
};

/// More elements than this are added up in blocks: MLX adds one after the other, so
/// that the error grows with their number.
const MANY: i32 = 4096;

/// The size of a block.
const BLOCK: i32 = 256;

/// Half-precision floats are folded in single precision.
fn widened(x: &Array, fold: impl FnOnce(&Array) -> Result<Array>) -> Result<Array> {
    match x.dtype() {
        Dtype::Float16 | Dtype::Bfloat16 => {
            let folded = fold(&x.as_dtype(Dtype::Float32)?)?;
            Ok(folded.as_dtype(x.dtype())?)
        }
        _ => fold(x),
    }
}

fn sum(x: &Array, axes: &[i32], s: &Stream) -> Result<Array> {
    if !(x.dtype().is_float() || x.dtype().is_complex()) {
        return Ok(x.sum_axes(axes, true)?);
    }
    widened(x, |x| {
        let count: i64 = axes.iter().map(|&axis| i64::from(x.dim(axis))).product();
        if count <= i64::from(MANY) {
            Ok(x.sum_axes(axes, true)?)
        } else if axes.len() == x.ndim() && x.size() <= i32::MAX as usize {
            let ones = vec![1; x.ndim()];
            Ok(sum_axis(&x.reshape(&[-1])?, 0, s)?.reshape(&ones)?)
        } else {
            axes.iter()
                .try_fold(x.clone(), |x, &axis| sum_axis(&x, axis, s))
        }
    })
}

/// The sum along an axis: of its blocks first, then of their sums.
fn sum_axis(x: &Array, axis: i32, s: &Stream) -> Result<Array> {
    let size = x.dim(axis);
    if size <= MANY {
        return Ok(x.sum_axes(&[axis], true)?);
    }
    let whole = size / BLOCK * BLOCK;
    let mut blocks = x.shape().to_vec();
    blocks[axis as usize] = size / BLOCK;
    blocks.insert(axis as usize + 1, BLOCK);
    let sums = part(x, axis, 0, whole, s)?
        .reshape(&blocks)?
        .sum_axes(&[axis + 1], false)?;
    let sum = sum_axis(&sums, axis, s)?;
    if whole == size {
        return Ok(sum);
    }
    let rest = part(x, axis, whole, size, s)?.sum_axes(&[axis], true)?;
    Ok(sum.add(&rest)?)
}

/// The elements from `start` up to `stop` along an axis.
fn part(x: &Array, axis: i32, start: i32, stop: i32, s: &Stream) -> Result<Array> {
    if start == 0 && stop == x.dim(axis) {
        return Ok(x.clone());
    }
    let mut starts = vec![0; x.ndim()];
    let mut stops = x.shape().to_vec();
    let strides = vec![1; x.ndim()];
    starts[axis as usize] = start;
    stops[axis as usize] = stop;
    Ok(c_op!(
        mlx_slice(
            x.as_ptr(),
            starts.as_ptr(),
            starts.len(),
            stops.as_ptr(),
            stops.len(),
            strides.as_ptr(),
            strides.len(),
        ),
        s
    )?)
}
