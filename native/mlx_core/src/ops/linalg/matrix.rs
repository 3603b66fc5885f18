//! What the factorizations share: parts of matrices, and which of them are sound.

use std::ops::Range;

use mlx_rs::ops::{addmm, concatenate, stack};
use mlx_rs::{Array, Dtype, Stream};

use crate::dtype::dtype_size;
use crate::error::Result;
use crate::ffi::c_op;
use crate::ops::number;

/// Rows and columns.
pub(super) fn size(a: &Array) -> (i32, i32) {
    (a.dim(-2), a.dim(-1))
}

/// The shape with other rows and columns.
pub(super) fn resized(a: &Array, rows: i32, columns: i32) -> Vec<i32> {
    let mut shape = a.shape().to_vec();
    shape.truncate(shape.len() - 2);
    shape.extend([rows, columns]);
    shape
}

pub(super) fn part(a: &Array, rows: Range<i32>, columns: Range<i32>, s: &Stream) -> Result<Array> {
    slice(a, &[(-2, rows), (-1, columns)], s)
}

/// One place of an axis, counted from the end, which goes.
pub(super) fn at(a: &Array, index: i32, axis: i32, s: &Stream) -> Result<Array> {
    Ok(slice(a, &[(axis, index..index + 1)], s)?.squeeze_axes(&[axis])?)
}

fn slice(a: &Array, ranges: &[(i32, Range<i32>)], s: &Stream) -> Result<Array> {
    let strides = vec![1; a.ndim()];
    let mut starts = vec![0; a.ndim()];
    let mut stops = a.shape().to_vec();
    for (axis, range) in ranges {
        let axis = (a.ndim() as i32 + axis) as usize;
        starts[axis] = range.start;
        stops[axis] = range.end;
    }
    Ok(c_op!(
        mlx_slice(
            a.as_ptr(),
            starts.as_ptr(),
            starts.len(),
            stops.as_ptr(),
            stops.len(),
            strides.as_ptr(),
            strides.len()
        ),
        s
    )?)
}

pub(super) fn rows(a: &Array, rows: Range<i32>, s: &Stream) -> Result<Array> {
    part(a, rows, 0..a.dim(-1), s)
}

pub(super) fn columns(a: &Array, columns: Range<i32>, s: &Stream) -> Result<Array> {
    part(a, 0..a.dim(-2), columns, s)
}

pub(super) fn above(top: &Array, bottom: &Array) -> Result<Array> {
    Ok(concatenate(&[top, bottom], -2)?)
}

pub(super) fn beside(left: &Array, right: &Array) -> Result<Array> {
    Ok(concatenate(&[left, right], -1)?)
}

pub(super) fn transpose(a: &Array) -> Result<Array> {
    Ok(a.swap_axes(-1, -2)?)
}

pub(super) fn diagonal(a: &Array) -> Result<Array> {
    Ok(a.diagonal(0, -2, -1)?)
}

/// Ones on the diagonal that starts in column `k`.
pub(super) fn eye(rows: i32, columns: i32, k: i32, dtype: Dtype, s: &Stream) -> Result<Array> {
    Ok(c_op!(mlx_eye(rows, columns, k, dtype.into()), s)?)
}

pub(super) fn arange(size: i32, s: &Stream) -> Result<Array> {
    let dtype = Dtype::Int32;
    Ok(c_op!(
        mlx_arange(0.0, f64::from(size), 1.0, dtype.into()),
        s
    )?)
}

/// Zero for each matrix of finite numbers, else NaN, real for complex numbers, too.
/// Both axes stay with size 1.
pub(super) fn taint(a: &Array) -> Result<Array> {
    let a = parts(a)?;
    let zeros = a.multiply(number(0, a.dtype())?)?;
    Ok(zeros.sum_axis(-2, true)?.sum_axis(-1, true)?)
}

/// The same where the taint is zero, else NaN.
pub(super) fn spoil(x: &Array, taint: &Array) -> Result<Array> {
    let spoiled = parts(x)?.add(taint)?;
    Ok(spoiled.view_dtype(x.dtype())?)
}

/// The array plus `scale` times the product of a column and a row.
pub(super) fn add_outer(a: &Array, column: &Array, row: &Array, scale: f32) -> Result<Array> {
    if a.dtype() != Dtype::Complex64 {
        return Ok(addmm(a, column, row, scale, None)?);
    }
    // (x + yi) r is x times the parts of r and y times those of i r.
    let i = Array::from_complex(mlx_rs::complex64::new(0.0, 1.0));
    let rows = concatenate(&[parts(row)?, parts(&row.multiply(i)?)?], -2)?;
    let sum = addmm(parts(a)?, parts(column)?, rows, scale, None)?;
    Ok(sum.view_dtype(Dtype::Complex64)?)
}

/// Real and imaginary parts side by side: MLX's loops over complex numbers are slow.
fn parts(x: &Array) -> Result<Array> {
    if x.dtype() != Dtype::Complex64 {
        return Ok(x.clone());
    }
    // MLX trusts the stride of a last axis of size 1, which may be any; that of a
    // vector is right.
    let vector = x.reshape(&[-1])?.view_dtype(Dtype::Float32)?;
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last *= 2;
    }
    Ok(vector.reshape(&shape)?)
}

/// The matrices that have no taint, and zeros in the place of the others.
pub(super) fn sound(a: &Array, taint: &Array, s: &Stream) -> Result<Array> {
    let bits = match dtype_size(a.dtype()) {
        4 => Dtype::Uint32,
        _ => Dtype::Uint64,
    };
    let finite = taint.eq(number(0, taint.dtype())?)?.as_dtype(bits)?;
    let mask = number(0, bits)?.subtract(finite)?;
    let a_bits = a.view_dtype(bits)?;
    let sound = c_op!(mlx_bitwise_and(a_bits.as_ptr(), mask.as_ptr()), s)?;
    Ok(sound.view_dtype(a.dtype())?)
}

/// Each complex element x + yi as the real matrix [x -y; y x], in the order in which
/// triangles stay triangles. Products and inverses of such matrices are such matrices.
pub(super) fn to_real(a: &Array) -> Result<Array> {
    let (x, y) = (a.real()?, a.imag()?);
    let (m, n) = size(a);
    let top = stack(&[&x, &y.negative()?], -1)?;
    let bottom = stack(&[&y, &x], -1)?;
    Ok(stack(&[top, bottom], -3)?.reshape(&resized(a, 2 * m, 2 * n))?)
}

/// Each complex element x + yi as the real column [x; y], the first of `to_real`.
pub(super) fn to_real_columns(a: &Array) -> Result<Array> {
    let (m, n) = size(a);
    Ok(stack(&[a.real()?, a.imag()?], -2)?.reshape(&resized(a, 2 * m, n))?)
}

/// The complex matrix of which `to_real_columns` made this one.
pub(super) fn to_complex(a: &Array) -> Result<Array> {
    let (m, n) = (a.dim(-2) / 2, a.dim(-1));
    let mut pairs = resized(a, m, 2);
    pairs.push(n);
    let pairs = a.reshape(&pairs)?.swap_axes(-1, -2)?.contiguous()?;
    Ok(pairs
        .view_dtype(Dtype::Complex64)?
        .reshape(&resized(a, m, n))?)
}
