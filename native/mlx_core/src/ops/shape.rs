//! Other shapes and types for the same elements.

use mlx_rs::ops::{broadcast_to, is_nan, is_neg_inf, is_pos_inf, real, select};
use mlx_rs::{Array, Dtype};

use super::pad::pad;
use super::{number, ops};
use crate::attribute::Shape;
use crate::error::Result;
use crate::ffi::{c_op, Arrays};

ops! {
    /// The same elements in row order under another shape.
    reshape(x) { shape: Shape } => x.reshape(&shape);

    /// Repeats dimensions of size 1 and adds leading ones.
    broadcast_to(x) { shape: Shape } => broadcast_to(x, &shape);

    /// Permutes the axes.
    transpose(x) { axes: Shape } => x.transpose_axes(&axes);

    /// Reverses the order along the axes.
    reverse(x) { axes: Shape } |s| =>
        c_op!(mlx_flip_axes(x.as_ptr(), axes.as_ptr(), axes.len()), s);

    /// Joins arrays along an axis.
    concatenate[arrays] { axis: i32 } |s| =>
        c_op!(mlx_concatenate_axis(Arrays::new(arrays).as_ptr(), axis), s);

    /// Joins arrays along a new axis.
    stack[arrays] { axis: i32 } |s| =>
        c_op!(mlx_stack_axis(Arrays::new(arrays).as_ptr(), axis), s);

    /// Puts `interior` values between elements, then `low` before and `high` after
    /// them along each axis; negative `low` and `high` cut off.
    pad(x, value) { low: Shape, high: Shape, interior: Shape } |s| =>
        pad(x, value, [&low, &high, &interior], s);

    /// Converts to another type. Floats become integers as in Nx: NaN gives 0,
    /// infinities saturate, the rest is truncated.
    cast(x) { dtype: Dtype } => cast(x, dtype);

    /// The same bits as another type of the same width.
    bitcast(x) { dtype: Dtype } => x.view_dtype(dtype);
}

pub(super) fn cast(x: &Array, dtype: Dtype) -> Result<Array> {
    let from = x.dtype();
    if from == dtype {
        Ok(x.clone())
    } else if from.is_complex() {
        cast(&real(x)?, dtype)
    } else if from.is_float() && integer_bounds(dtype).is_some() {
        float_to_integer(x, dtype)
    } else if from == Dtype::Bool && dtype.is_complex() {
        // MLX for CUDA makes 1 + i of what is true.
        Ok(x.as_dtype(Dtype::Float32)?.as_dtype(dtype)?)
    } else {
        Ok(x.as_dtype(dtype)?)
    }
}

/// Finite values outside the type wrap, as two's complement does; what the
/// processor makes of NaN and infinities is undefined and is replaced.
fn float_to_integer(x: &Array, dtype: Dtype) -> Result<Array> {
    let wide = match dtype {
        Dtype::Uint64 => unsigned_64(x)?,
        _ => x.as_dtype(Dtype::Int64)?.as_dtype(dtype)?,
    };
    let (low, high) = integer_bounds(dtype).unwrap_or_default();
    let saturated = select(is_pos_inf(x)?, number(high, dtype)?, &wide)?;
    let saturated = select(is_neg_inf(x)?, number(low, dtype)?, &saturated)?;
    Ok(select(is_nan(x)?, number(0, dtype)?, &saturated)?)
}

/// Signed conversion reaches the lower half; the upper half is shifted into it.
fn unsigned_64(x: &Array) -> Result<Array> {
    let half = Array::from_f32(9_223_372_036_854_775_808.0).as_dtype(x.dtype())?;
    let upper = x.ge(&half)?;
    let shifted = select(&upper, x.subtract(&half)?, x)?;
    let low = shifted.as_dtype(Dtype::Int64)?.as_dtype(Dtype::Uint64)?;
    let offset = number(i64::MIN, Dtype::Uint64)?;
    Ok(select(&upper, low.add(&offset)?, &low)?)
}

/// Smallest and largest value, as the 64 bits that `number` turns into the type.
fn integer_bounds(dtype: Dtype) -> Option<(i64, i64)> {
    Some(match dtype {
        Dtype::Uint8 => (0, u8::MAX.into()),
        Dtype::Uint16 => (0, u16::MAX.into()),
        Dtype::Uint32 => (0, u32::MAX.into()),
        Dtype::Uint64 => (0, -1),
        Dtype::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Dtype::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Dtype::Int32 => (i32::MIN.into(), i32::MAX.into()),
        Dtype::Int64 => (i64::MIN, i64::MAX),
        _ => return None,
    })
}
