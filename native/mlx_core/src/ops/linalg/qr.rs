//! QR factors, with the signs of `Nx.LinAlg.qr/2`.

use mlx_rs::ops::{broadcast_to, concatenate, cumprod, matmul, select, sqrt, tril, triu};
use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{
    add_outer, arange, at, columns, diagonal, eye, resized, rows, size, sound, spoil, taint,
    transpose,
};
use super::triangular::substitute;
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
        let (q, r) = if a.dtype() == Dtype::Complex64 || complete && m > n {
            reflected(&a, complete, eps, s)?
        } else {
            factored(&a, eps, s)?
        };
        Ok([spoil(&q, &taint)?, spoil(&r, &taint)?])
    })
}

fn factored(a: &Array, eps: f64, s: &Stream) -> Result<(Array, Array)> {
    let (q, r) = linalg::qr(a)?;
    let signs = signs(a, &diagonal(&r)?, eps, s)?;
    let q = q.multiply(signs.expand_dims(-2)?)?;
    Ok((q, r.multiply(signs.expand_dims(-1)?)?))
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

/// Householder's reflections one by one, for what LAPACK's binding lacks: complex
/// numbers, and columns of Q beyond those of the matrix.
fn reflected(a: &Array, complete: bool, eps: f64, s: &Stream) -> Result<(Array, Array)> {
    let (m, n) = size(a);
    let k = m.min(n);
    // The last column of a square matrix has nothing below it to reflect.
    let count = if m == n { n - 1 } else { k };
    let index = arange(m, s)?.expand_dims(-1)?;
    let zero = number(0, a.dtype())?;
    let mut r = a.clone();
    let mut vectors = Vec::new();
    for i in 0..count {
        let from_here = index.ge(Array::from_int(i))?;
        let x = select(&from_here, columns(&r, i..i + 1, s)?, &zero)?;
        let v = reflector(&x, i, &index, eps, s)?;
        let across = matmul(&adjoint(&v, s)?, &r)?;
        r = add_outer(&r, &v, &across, -2.0)?;
        vectors.push(v);
    }
    let width = if complete { m } else { k };
    let r = rows(&triu(&r, 0)?, 0..width, s)?;
    Ok((product_of_reflections(a, &vectors, width, s)?, r))
}

/// The first columns of the product of I - 2 v v* for unit vectors v, or zero ones.
/// That is I - V T V*, where the inverse of T is the upper triangle of V* V with 1/2
/// on the diagonal (Joffrain et al., Accumulating Householder transformations, 2006).
fn product_of_reflections(a: &Array, vectors: &[Array], width: i32, s: &Stream) -> Result<Array> {
    let m = a.dim(-2);
    let eye = |rows, columns| eye(rows, columns, 0, a.dtype(), s);
    if vectors.is_empty() {
        return Ok(broadcast_to(eye(m, width)?, &resized(a, m, width))?);
    }
    let v = concatenate(vectors, -1)?;
    let conjugate = adjoint(&v, s)?;
    let count = vectors.len() as i32;
    let halves = eye(count, count)?.divide(number(2, a.dtype())?)?;
    let inverse = triu(matmul(&conjugate, &v)?, 1)?.add(halves)?;
    let t = substitute(&inverse, &columns(&conjugate, 0..width, s)?, false, s)?;
    Ok(eye(m, width)?.subtract(matmul(&v, &t)?)?)
}

/// The unit vector across whose plane x falls on element i, or zero for an x that is
/// left alone.
fn reflector(x: &Array, i: i32, index: &Array, eps: f64, s: &Stream) -> Result<Array> {
    let here = index.eq(Array::from_int(i))?;
    let element = at(x, i, -2, s)?.expand_dims(-2)?;
    let length = norm(x)?;
    let eps = Array::from_f64(eps).as_dtype(length.dtype())?;
    let zero = number(0, length.dtype())?;
    let (u, still) = if x.dtype() == Dtype::Complex64 {
        let magnitude = element.abs()?;
        let one = number(1, x.dtype())?;
        let phase = select(magnitude.gt(&zero)?, element.divide(&magnitude)?, &one)?;
        let turned = element.add(phase.multiply(&length)?)?;
        let u = select(&here, turned, x)?;
        let still = norm(&u)?.square()?.lt(eps)?;
        (u, still)
    } else {
        let rest = select(&here, &zero, x)?.square()?.sum_axis(-2, true)?;
        // Of x - |x|, without cancellation.
        let positive = rest.negative()?.divide(element.add(&length)?)?;
        let first = select(element.gt(&zero)?, positive, element.subtract(&length)?)?;
        (select(&here, first, x)?, rest.lt(eps)?)
    };
    let unit = u.divide(norm(&u)?)?;
    Ok(select(&still, number(0, x.dtype())?, unit)?)
}

fn adjoint(x: &Array, s: &Stream) -> Result<Array> {
    match x.dtype() {
        Dtype::Complex64 => conjugate(&transpose(x)?, s),
        _ => transpose(x),
    }
}

fn norm(x: &Array) -> Result<Array> {
    Ok(sqrt(&x.abs()?.square()?.sum_axis(-2, true)?)?)
}

pub(super) fn conjugate(x: &Array, s: &Stream) -> Result<Array> {
    Ok(crate::ffi::c_op!(mlx_conjugate(x.as_ptr()), s)?)
}
