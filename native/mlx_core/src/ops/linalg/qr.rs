//! QR factors, with the signs of `Nx.LinAlg.qr/2`.

use mlx_rs::ops::{broadcast_to, concatenate, cumprod, matmul, select, sqrt, tril};
use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{
    arange, at, beside, columns, diagonal, eye, resized, rows, size, sound, taint, transpose,
};
use crate::beside::on_cpu;
use crate::error::Result;
use crate::ops::number;

pub(super) fn qr(a: &Array, complete: bool, eps: f64, s: &Stream) -> Result<[Array; 2]> {
    let (m, n) = size(a);
    if a.size() == 0 {
        let k = if complete { m } else { m.min(n) };
        let q = eye(m, k, 0, a.dtype(), s)?;
        let r = mlx_rs::ops::zeros_dtype(&resized(a, k, n), a.dtype())?;
        return Ok([broadcast_to(&q, &resized(a, m, k))?, r]);
    }
    on_cpu([a], s, |[a], s| {
        let taint = taint(a)?;
        let a = sound(a, &taint, s)?;
        let (q, r) = if a.dtype() == Dtype::Complex64 {
            complex(&a, complete, eps, s)?
        } else {
            real(&a, complete, eps, s)?
        };
        Ok([q.add(&taint)?, r.add(&taint)?])
    })
}

fn real(a: &Array, complete: bool, eps: f64, s: &Stream) -> Result<(Array, Array)> {
    let (m, n) = size(a);
    let (q, r) = if complete && m > n {
        // Reflections of further columns turn none of the first, and complete Q.
        let more = eye(m, m - n, n - m, a.dtype(), s)?;
        let more = broadcast_to(&more, &resized(a, m, m - n))?;
        let (q, r) = linalg::qr(beside(a, &more)?)?;
        (q, columns(&r, 0..n, s)?)
    } else {
        linalg::qr(a)?
    };
    let signs = signs(a, &diagonal(&r)?, eps, s)?;
    let k = q.dim(-1);
    let ones = mlx_rs::ops::ones_dtype(&resized(a, 1, k - m.min(n)), a.dtype())?;
    let signs = concatenate(&[signs.expand_dims(-2)?, ones], -1)?;
    let (q, r) = (q.multiply(&signs)?, r.multiply(transpose(&signs)?)?);
    Ok((q, r))
}

/// What Q's columns and R's rows are multiplied by. Nx turns a column to the positive
/// side, unless all up to it are zero below the diagonal. The last column of a matrix
/// that is not tall has nothing below it, so it keeps the sign that the others, of
/// which each changed the determinant's, leave to it.
fn signs(a: &Array, diagonal: &Array, eps: f64, s: &Stream) -> Result<Array> {
    let dtype = a.dtype();
    let (m, n) = size(a);
    let k = m.min(n);
    let (zero, one) = (number(0, dtype)?, number(1, dtype)?);
    let below = columns(&tril(a, -1)?, 0..k, s)?.square()?;
    let done = below
        .sum_axis(-2, false)?
        .lt(Array::from_f64(eps).as_dtype(dtype)?)?;
    let done = cumprod(done.as_dtype(dtype)?, -1, None, None)?.gt(&zero)?;
    let negative =
        |x: &Array| -> Result<Array> { Ok(select(x.lt(&zero)?, number(-1, dtype)?, &one)?) };
    let side = negative(diagonal)?;
    let kept = negative(&super::matrix::diagonal(a)?)?;
    let signs = select(&done, side.multiply(&kept)?, &side)?;
    if m > n {
        return Ok(signs);
    }
    let others = select(&done, &one, &signs)?;
    let others = last_axis(&others, 0..k - 1, s)?;
    let last = others.prod_axis(-1, true)?;
    let last = select(
        last_axis(&done, k - 1..k, s)?,
        last_axis(&signs, k - 1..k, s)?,
        &last,
    )?;
    Ok(concatenate(&[last_axis(&signs, 0..k - 1, s)?, last], -1)?)
}

fn last_axis(x: &Array, range: std::ops::Range<i32>, s: &Stream) -> Result<Array> {
    Ok(rows(&x.expand_dims(-1)?, range, s)?.squeeze_axes(&[-1])?)
}

/// Householder's reflections one by one, for the type that LAPACK's are not bound for.
fn complex(a: &Array, complete: bool, eps: f64, s: &Stream) -> Result<(Array, Array)> {
    let (m, n) = size(a);
    let index = arange(m, s)?.expand_dims(-1)?;
    let zero = number(0, a.dtype())?;
    let identity = eye(m, m, 0, a.dtype(), s)?;
    let mut q = broadcast_to(&identity, &resized(a, m, m))?;
    let mut r = a.clone();
    // The last column of a square matrix has nothing below it to reflect.
    let count = if m == n { n - 1 } else { m.min(n) };
    for i in 0..count {
        let below = index.ge(Array::from_int(i))?;
        let x = select(&below, columns(&r, i..i + 1, s)?, &zero)?;
        let v = reflector(&x, i, &index, eps, s)?;
        let two = number(2, a.dtype())?;
        let adjoint = conjugate(&transpose(&v)?, s)?;
        r = r.subtract(v.multiply(matmul(&adjoint, &r)?)?.multiply(&two)?)?;
        q = q.subtract(matmul(&q, &v)?.multiply(&adjoint)?.multiply(&two)?)?;
    }
    let r = mlx_rs::ops::triu(&r, 0)?;
    if complete {
        return Ok((q, r));
    }
    let k = m.min(n);
    Ok((columns(&q, 0..k, s)?, rows(&r, 0..k, s)?))
}

/// The unit vector across whose plane x falls on element i, or zero for a zero x.
fn reflector(x: &Array, i: i32, index: &Array, eps: f64, s: &Stream) -> Result<Array> {
    let element = at(x, i, -2, s)?.expand_dims(-2)?;
    let size = element.abs()?;
    let zero = number(0, Dtype::Float32)?;
    let one = number(1, Dtype::Complex64)?;
    let phase = select(size.gt(&zero)?, element.divide(&size)?, &one)?;
    let alpha = phase.multiply(norm(x)?)?;
    let here = index.eq(Array::from_int(i))?.as_dtype(Dtype::Complex64)?;
    let u = x.add(alpha.multiply(here)?)?;
    let length = norm(&u)?;
    let short = length.square()?.lt(Array::from_f32(eps as f32))?;
    let unit = u.divide(select(&short, number(1, Dtype::Float32)?, &length)?)?;
    Ok(select(&short, number(0, Dtype::Complex64)?, unit)?)
}

fn norm(x: &Array) -> Result<Array> {
    Ok(sqrt(&x.abs()?.square()?.sum_axis(-2, true)?)?)
}

pub(super) fn conjugate(x: &Array, s: &Stream) -> Result<Array> {
    Ok(crate::ffi::c_op!(mlx_conjugate(x.as_ptr()), s)?)
}
