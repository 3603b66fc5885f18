//! LU factors with partial pivoting, and what is solved with them.

use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::ops::{argsort_axis, concatenate, ones_like, select, triu, zeros_dtype};
use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{
    add_outer, arange, at, diagonal, eye, size, sound, spoil, taint, to_complex, to_real,
    to_real_columns,
};
use super::triangular::{has_zero, substitute};
use crate::beside::on_cpu;
use crate::error::{Error, Result};
use crate::evaluation::truth;
use crate::ops::number;

pub(super) fn lu(a: &Array, s: &Stream) -> Result<[Array; 3]> {
    if a.size() == 0 {
        return Ok([a.as_dtype(Dtype::Bool)?, a.clone(), a.clone()]);
    }
    on_cpu([a], s, |[a], s| {
        let taint = taint(a)?;
        let a = sound(a, &taint, s)?;
        let index = arange(a.dim(-1), s)?;
        let (p, l, u) = if a.dtype() == Dtype::Complex64 {
            let Pivoted { l, u, order } = pivoted(&a, s)?;
            (index.expand_dims(-1)?.eq(order.expand_dims(-2)?)?, l, u)
        } else {
            let (places, l, u) = factors(&a)?;
            (places.expand_dims(-1)?.eq(&index)?, l, u)
        };
        Ok([p, spoil(&l, &taint)?, spoil(&u, &taint)?])
    })
}

pub(super) fn solve(a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    if b.size() == 0 {
        return Ok(b.clone());
    }
    on_cpu([a, b], s, |[a, b], s| match a.dtype() {
        Dtype::Complex64 => to_complex(&solve_real(&to_real(a)?, &to_real_columns(b)?, s)?),
        _ => solve_real(a, b, s),
    })
}

fn solve_real(a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    let taint = taint(a)?;
    let finite = taint.eq(number(0, a.dtype())?)?;
    if truth(&finite.all(false)?)? {
        return solve_finite(a, b, s);
    }
    // The systems that have NaN for a solution may as well be others, which have one.
    let one = eye(a.dim(-1), a.dim(-1), 0, a.dtype(), s)?;
    let other = one.multiply(finite.logical_not()?)?;
    let x = solve_finite(&sound(a, &taint, s)?.add(other)?, b, s)?;
    spoil(&x, &taint)
}

fn solve_finite(a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    let (places, l, u) = factors(a)?;
    if truth(&has_zero(&diagonal(&u)?)?)? {
        return Err(Error::Singular);
    }
    let order = argsort_axis(&places, -1)?.expand_dims(-1)?;
    let y = substitute(&l, &b.take_along_axis(&order, -2)?, true, s)?;
    substitute(&u, &y, false, s)
}

/// Where each row of the product of L and U is in the matrix, L and U.
fn factors(a: &Array) -> Result<(Array, Array, Array)> {
    if a.dim(-1) == 1 {
        // MLX takes its own factor of one element for larger than it is.
        let places = zeros_dtype(&a.shape()[..a.ndim() - 1], Dtype::Uint32)?;
        return Ok((places, ones_like(a)?, a.clone()));
    }
    Ok(linalg::lu(a)?)
}

/// The factors of a matrix whose rows are in another order.
struct Pivoted {
    l: Array,
    u: Array,
    /// The rows of the matrix, as the factors have them.
    order: Array,
}

/// Gaussian elimination column by column, for the type that LAPACK's is not bound for.
/// Rows stay where they are until the end.
fn pivoted(a: &Array, s: &Stream) -> Result<Pivoted> {
    let (n, _) = size(a);
    let index = arange(n, s)?;
    let (zero, one) = (number(0, a.dtype())?, number(1, a.dtype())?);
    let mut rest = a.clone();
    let mut used = index.lt(Array::from_int(0))?;
    let (mut multipliers, mut rows, mut order) = (Vec::new(), Vec::new(), Vec::new());
    for k in 0..n {
        let column = at(&rest, k, -1, s)?;
        let candidates = select(&used, Array::from_f32(-1.0), column.abs()?)?;
        let pivot = argmax_axis(&candidates, -1, true)?;
        let here = index.eq(&pivot)?;
        used = used.logical_or(&here)?;

        let row = rest.take_along_axis(pivot.expand_dims(-1)?, -2)?;
        let row = select(index.ge(Array::from_int(k))?, row, &zero)?;
        let diagonal = at(&row, k, -1, s)?;
        // A pivot of zero has nothing but zeros below it.
        let divisor = select(diagonal.eq(&zero)?, &one, &diagonal)?;
        let below = select(&used, &zero, column.divide(divisor)?)?.expand_dims(-1)?;
        rest = add_outer(&rest, &below, &row, -1.0)?;
        multipliers.push(below.add(here.expand_dims(-1)?.as_dtype(a.dtype())?)?);
        rows.push(row);
        order.push(pivot);
    }
    let order = concatenate(&order, -1)?.as_dtype(Dtype::Int32)?;
    let l = concatenate(&multipliers, -1)?;
    Ok(Pivoted {
        l: l.take_along_axis(order.expand_dims(-1)?, -2)?,
        u: concatenate(&rows, -2)?,
        order,
    })
}

/// How many pairs of a permutation are the wrong way round.
fn inversions(order: &Array) -> Result<Array> {
    let wrong = order.expand_dims(-1)?.gt(order.expand_dims(-2)?)?;
    let count = triu(wrong.as_dtype(Dtype::Int32)?, 1)?;
    Ok(count.sum_axes(&[-2, -1], false)?)
}

/// The diagonal of U, and how many exchanges of rows led to it, but for pairs of them.
pub(super) fn pivots(a: &Array, s: &Stream) -> Result<(Array, Array)> {
    if a.dtype() == Dtype::Complex64 {
        let Pivoted { u, order, .. } = pivoted(a, s)?;
        return Ok((diagonal(&u)?, inversions(&order)?));
    }
    if a.dim(-1) == 1 {
        let none = zeros_dtype(&a.shape()[..a.ndim() - 2], Dtype::Int32)?;
        return Ok((a.squeeze_axes(&[-1])?, none));
    }
    let (factors, pivots) = linalg::lu_factor(a)?;
    let moved = pivots.as_dtype(Dtype::Int32)?.ne(arange(a.dim(-1), s)?)?;
    let exchanges = moved.as_dtype(Dtype::Int32)?.sum_axis(-1, false)?;
    Ok((diagonal(&factors)?, exchanges))
}
