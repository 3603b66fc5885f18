//! Elements in order. NaN is larger than infinity; equal elements keep their order.

use mlx_rs::ops::{is_nan, maximum, zeros_dtype};
use mlx_rs::{Array, Dtype, Stream};

use super::elementwise::unsigned_of;
use super::indexing::{size, take_along_axis};
use super::slicing::Part;
use super::{number, ops};
use crate::dtype::dtype_size;
use crate::error::Result;
use crate::ffi::{c_op, on_gpu};

ops! {
    /// The elements along an axis, the smallest or the largest first.
    sort(x) { axis: i32, descending: bool } |s| => sort(x, axis, descending, s);

    /// Where the elements in order are along an axis.
    argsort(x) { axis: i32, descending: bool } |s| => argsort(x, axis, descending, s);

    /// The `k` largest elements along the last axis, in falling order, and where they are.
    top_k(x) { k: i32 } |s| -> 2 => top_k(x, k, s);
}

fn sort(x: &Array, axis: i32, descending: bool, s: &Stream) -> Result<Array> {
    // MLX divides by the size of the axis.
    if x.size() == 0 {
        return Ok(x.clone());
    }
    let ascending = |x: &Array| c_op!(mlx_sort_axis(x.as_ptr(), axis), s);
    if descending {
        // Turned round before and after, equal elements keep their order.
        Ok(reverse(&ascending(&reverse(x, axis, s)?)?, axis, s)?)
    } else {
        Ok(ascending(x)?)
    }
}

fn argsort(x: &Array, axis: i32, descending: bool, s: &Stream) -> Result<Array> {
    if x.size() == 0 {
        return Ok(zeros_dtype(x.shape(), Dtype::Uint32)?);
    }
    let ascending = |x: &Array| c_op!(mlx_argsort_axis(x.as_ptr(), axis), s);
    if descending {
        let order = reverse(&ascending(&reverse(x, axis, s)?)?, axis, s)?;
        turned(&order, x.dim(axis))
    } else {
        Ok(ascending(x)?)
    }
}

fn reverse(x: &Array, axis: i32, s: &Stream) -> Result<Array> {
    Ok(c_op!(mlx_flip_axes(x.as_ptr(), &axis, 1), s)?)
}

/// Positions in a reversed axis as positions in the axis.
fn turned(positions: &Array, size: i32) -> Result<Array> {
    Ok(number(i64::from(size) - 1, positions.dtype())?.subtract(positions)?)
}

fn top_k(x: &Array, k: i32, s: &Stream) -> Result<[Array; 2]> {
    let axis = x.ndim() as i32 - 1;
    let size = size(x, axis)?;
    // Choosing before sorting pays when few are chosen. A GPU sorts to choose.
    let order = if on_gpu(s) || k > size / 8 {
        last(&argsort(&reverse(x, axis, s)?, axis, false, s)?, k, s)?
    } else {
        largest(&reverse(&ranks(x, s)?, axis, s)?, axis, k, s)?
    };
    let order = turned(&reverse(&order, axis, s)?, size)?;
    let values = take_along_axis(x, &order, axis, s)?;
    Ok([values, order])
}

/// Where the `k` largest are, in rising order. MLX chooses by value and position,
/// and gives those that it chooses in no order.
fn largest(x: &Array, axis: i32, k: i32, s: &Stream) -> Result<Array> {
    let first = size(x, axis)? - k;
    let chosen = c_op!(mlx_argpartition_axis(x.as_ptr(), first, axis), s)?;
    let chosen = sort(&last(&chosen, k, s)?, axis, false, s)?;
    let order = argsort(&take_along_axis(x, &chosen, axis, s)?, axis, false, s)?;
    take_along_axis(&chosen, &order, axis, s)
}

/// The last `k` along the last axis.
fn last(x: &Array, k: i32, s: &Stream) -> Result<Array> {
    let axis = x.ndim() as i32 - 1;
    let start = size(x, axis)? - k;
    Part::whole(x.shape())
        .along(axis as usize, start, k, 1)
        .of(x, s)
}

/// Integers in the order of the numbers, equal for those that are equal. Without the
/// sign bit the bits of floats are in order of magnitude.
fn ranks(x: &Array, s: &Stream) -> Result<Array> {
    let x = match x.dtype() {
        Dtype::Float16 | Dtype::Bfloat16 => x.as_dtype(Dtype::Float32)?,
        dtype if dtype.is_float() => x.clone(),
        _ => return Ok(x.clone()),
    };
    let (signed, bits) = match dtype_size(x.dtype()) {
        4 => (Dtype::Int32, 32),
        _ => (Dtype::Int64, 64),
    };
    // Turns -0.0 into 0.0.
    let bits_of_x = x.add(number(0, x.dtype())?)?.view_dtype(signed)?;
    let sign = number(bits - 1, signed)?;
    let negative = c_op!(mlx_right_shift(bits_of_x.as_ptr(), sign.as_ptr()), s)?;
    let magnitude = number(i64::MAX >> (64 - bits), signed)?;
    let flips = c_op!(mlx_bitwise_and(negative.as_ptr(), magnitude.as_ptr()), s)?;
    let ranks = c_op!(mlx_bitwise_xor(bits_of_x.as_ptr(), flips.as_ptr()), s)?;
    // The largest rank where there is a NaN, else the smallest: the difference wraps.
    let (unsigned, _) = unsigned_of(signed);
    let smallest = number(i64::MIN >> (64 - bits), unsigned)?;
    let of_nan = smallest.subtract(is_nan(&x)?.as_dtype(unsigned)?)?;
    Ok(maximum(&ranks, of_nan.view_dtype(signed)?)?)
}
