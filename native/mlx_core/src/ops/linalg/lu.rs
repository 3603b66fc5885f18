//! LU factors with partial pivoting, and what is solved with them.

use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::ops::{argsort_axis, select, tril, triu};
use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{
    arange, at, diagonal, eye, size, sound, taint, to_complex, to_real, to_real_columns,
};
use super::triangular;
use crate::beside::on_cpu;
use crate::error::Result;
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
            let Pivoted { factors, order, .. } = pivoted(&a, s)?;
            let eye = eye(a.dim(-2), a.dim(-1), 0, a.dtype(), s)?;
            let p = index.expand_dims(-1)?.eq(order.expand_dims(-2)?)?;
            (p, tril(&factors, -1)?.add(eye)?, triu(&factors, 0)?)
        } else {
            let (places, l, u) = linalg::lu(&a)?;
            (places.expand_dims(-1)?.eq(&index)?, l, u)
        };
        Ok([p, l.add(&taint)?, u.add(&taint)?])
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
    let (places, l, u) = linalg::lu(sound(a, &taint, s)?)?;
    let order = argsort_axis(&places, -1)?.expand_dims(-1)?;
    let y = triangular::solve_on_cpu(&l, &b.take_along_axis(&order, -2)?, true, s)?;
    let x = triangular::solve_on_cpu(&u, &y, false, s)?;
    Ok(x.add(&taint)?)
}

/// The factors of a matrix whose rows are in another order, one in each triangle.
pub(super) struct Pivoted {
    pub factors: Array,
    /// The rows of the matrix, as the factors have them.
    pub order: Array,
    /// How many of the exchanges were of different rows.
    pub exchanges: Array,
}

/// Gaussian elimination column by column, for the type that LAPACK's is not bound for.
pub(super) fn pivoted(a: &Array, s: &Stream) -> Result<Pivoted> {
    let (n, _) = size(a);
    let index = arange(n, s)?;
    let zero = number(0, a.dtype())?;
    let mut factors = a.clone();
    let mut order = mlx_rs::ops::broadcast_to(&index, &a.shape()[..a.ndim() - 1])?;
    let mut exchanges = number(0, Dtype::Int32)?;
    for k in 0..n {
        let here = Array::from_int(k);
        let below = index.gt(&here)?;
        let candidates = select(
            index.lt(&here)?,
            Array::from_f32(-1.0),
            at(&factors, k, -1, s)?.abs()?,
        )?;
        let pivot = argmax_axis(&candidates, -1, true)?.as_dtype(Dtype::Int32)?;
        exchanges = exchanges.add(pivot.ne(&here)?.as_dtype(Dtype::Int32)?)?;
        let swapped = select(index.eq(&pivot)?, &here, &index)?;
        let swapped = select(index.eq(&here)?, &pivot, &swapped)?;
        order = order.take_along_axis(&swapped, -1)?;
        factors = factors.take_along_axis(swapped.expand_dims(-1)?, -2)?;

        let row = at(&factors, k, -2, s)?;
        let column = at(&factors, k, -1, s)?;
        let diagonal = diagonal_element(&row, k, s)?;
        // A pivot of zero has nothing but zeros below it.
        let divisor = select(diagonal.eq(&zero)?, number(1, a.dtype())?, &diagonal)?;
        let multipliers = select(&below, column.divide(&divisor)?, &zero)?.expand_dims(-1)?;
        let right = select(&below, &row, &zero)?.expand_dims(-2)?;
        let reduced = factors.subtract(multipliers.multiply(&right)?)?;
        let stored = below.expand_dims(-1)?.logical_and(index.eq(&here)?)?;
        factors = select(&stored, &multipliers, &reduced)?;
    }
    Ok(Pivoted {
        factors,
        order,
        exchanges: exchanges.squeeze_axes(&[-1])?,
    })
}

fn diagonal_element(row: &Array, k: i32, s: &Stream) -> Result<Array> {
    Ok(at(row, k, -1, s)?.expand_dims(-1)?)
}

/// The diagonal of U, and how many exchanges of rows led to it.
pub(super) fn pivots(a: &Array, s: &Stream) -> Result<(Array, Array)> {
    if a.dtype() == Dtype::Complex64 {
        let Pivoted {
            factors, exchanges, ..
        } = pivoted(a, s)?;
        return Ok((diagonal(&factors)?, exchanges));
    }
    let (factors, pivots) = linalg::lu_factor(a)?;
    let moved = pivots.as_dtype(Dtype::Int32)?.ne(arange(a.dim(-1), s)?)?;
    let exchanges = moved.as_dtype(Dtype::Int32)?.sum_axis(-1, false)?;
    Ok((diagonal(&factors)?, exchanges))
}
