//! Eigenvalues and singular values.

use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::ops::{argsort_axis, broadcast_to, matmul, select};
use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{arange, columns, eye, resized, rows, size, sound, spoil, taint, transpose};
use super::qr::conjugate;
use crate::beside::on_cpu;
use crate::error::Result;
use crate::ops::number;

pub(super) fn eigh(a: &Array, s: &Stream) -> Result<[Array; 2]> {
    if a.size() == 0 {
        return Ok([a.real()?.sum_axis(-1, false)?, a.clone()]);
    }
    on_cpu([a], s, |[a], s| {
        let taint = taint(a)?;
        let (values, vectors) = linalg::eigh(sound(a, &taint, s)?, None)?;
        let order = argsort_axis(values.abs()?.negative()?, -1)?;
        let values = values.take_along_axis(&order, -1)?;
        // LAPACK's columns are rows in memory.
        let rows = in_order(&transpose(&vectors)?, &order, s)?;
        let rows = spoil(&rows.multiply(turn(&rows, s)?)?, &taint)?;
        let values = spoil(&values, &taint.squeeze_axes(&[-1])?)?;
        Ok([values, transpose(&rows)?])
    })
}

pub(super) fn svd(a: &Array, full: bool, s: &Stream) -> Result<[Array; 3]> {
    let (m, n) = size(a);
    if a.size() == 0 {
        return empty_svd(a, full, s);
    }
    on_cpu([a], s, |[a], s| {
        let taint = taint(a)?;
        let a = sound(a, &taint, s)?;
        let (u, values, vt) = if m >= n {
            tall(&a, full, s)?
        } else {
            let (u, values, vt) = tall(&transpose(&a)?, full, s)?;
            (transpose(&vt)?, values, transpose(&u)?)
        };
        let values = spoil(&values, &taint.squeeze_axes(&[-1])?)?;
        Ok([spoil(&u, &taint)?, values, spoil(&vt, &taint)?])
    })
}

fn tall(a: &Array, full: bool, s: &Stream) -> Result<(Array, Array, Array)> {
    let (m, n) = size(a);
    let (u, values, vt) = if full || m == n {
        linalg::svd(a)?
    } else {
        // LAPACK's binding has no thin mode; R has the singular values of Q R.
        let (q, r) = linalg::qr(a)?;
        let (u, values, vt) = linalg::svd(&r)?;
        (matmul(&q, &u)?, values, vt)
    };
    let turn = turn(&vt, s)?;
    let turned = columns(&u, 0..n, s)?.multiply(transpose(&turn)?)?;
    let u = super::matrix::beside(&turned, &columns(&u, n..u.dim(-1), s)?)?;
    Ok((u, values, vt.multiply(&turn)?))
}

/// The rows of each matrix as `order` has them.
fn in_order(a: &Array, order: &Array, s: &Stream) -> Result<Array> {
    let (m, n) = size(a);
    let count = a.shape()[..a.ndim() - 2].iter().product::<i32>();
    let starts = arange(count, s)?.multiply(Array::from_int(m))?;
    let order = order.reshape(&[count, m])?.as_dtype(Dtype::Int32)?;
    let places = order.add(starts.expand_dims(-1)?)?.reshape(&[-1])?;
    let rows = a.reshape(&[count * m, n])?.take_axis(places, 0)?;
    Ok(rows.reshape(a.shape())?)
}

/// What each row is multiplied by so that its largest element is positive; of those
/// that are as large but for rounding, the first.
fn turn(vectors: &Array, s: &Stream) -> Result<Array> {
    let sizes = vectors.abs()?;
    let nearly = Array::from_f32(0.999).as_dtype(sizes.dtype())?;
    let bound = sizes.max_axis(-1, true)?.multiply(nearly)?;
    let first = argmax_axis(sizes.ge(bound)?, -1, true)?;
    let largest = vectors.take_along_axis(&first, -1)?;
    if vectors.dtype() == Dtype::Complex64 {
        return Ok(conjugate(&largest, s)?.divide(largest.abs()?)?);
    }
    let (one, zero) = (number(1, largest.dtype())?, number(0, largest.dtype())?);
    Ok(select(largest.lt(zero)?, one.negative()?, &one)?)
}

fn empty_svd(a: &Array, full: bool, s: &Stream) -> Result<[Array; 3]> {
    let (m, n) = size(a);
    let k = m.min(n);
    let (left, right) = if full { (m, n) } else { (k, k) };
    let orthonormal = |rows, columns| -> Result<Array> {
        let eye = eye(rows, columns, 0, a.dtype(), s)?;
        Ok(broadcast_to(&eye, &resized(a, rows, columns))?)
    };
    let values = rows(a, 0..k, s)?.reshape(&{
        let mut shape = a.shape()[..a.ndim() - 2].to_vec();
        shape.push(k);
        shape
    })?;
    Ok([orthonormal(m, left)?, values, orthonormal(right, n)?])
}
