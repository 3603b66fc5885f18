//! Determinants.

use mlx_rs::ops::select;
use mlx_rs::{Array, Dtype, Stream};

use super::lu::pivots;
use super::matrix::{at, size, sound, taint};
use crate::beside::on_cpu;
use crate::error::Result;
use crate::ops::number;

/// By the closed formulas up to three rows, of any type, then by elimination.
pub(super) fn determinant(a: &Array, s: &Stream) -> Result<Array> {
    match size(a).0 {
        2 => closed(a, &[[0, 1]], &[[1, 0]], s),
        3 => closed(
            a,
            &[[0, 1, 2], [1, 2, 0], [2, 0, 1]],
            &[[2, 1, 0], [1, 0, 2], [0, 2, 1]],
            s,
        ),
        _ if a.size() == 0 => {
            let batch = &a.shape()[..a.ndim() - 2];
            Ok(mlx_rs::ops::ones_dtype(batch, a.dtype())?)
        }
        _ => on_cpu([a], s, |[a], s| eliminated(a, s)),
    }
}

/// Sums products of an element a row, in the columns given, and subtracts others.
fn closed<const N: usize>(
    a: &Array,
    plus: &[[i32; N]],
    minus: &[[i32; N]],
    s: &Stream,
) -> Result<Array> {
    let dtype = a.dtype();
    // Products are rounded once, as if there were no intermediate results.
    let wide = match dtype {
        Dtype::Float16 | Dtype::Bfloat16 => Dtype::Float32,
        other => other,
    };
    let rows: Vec<Array> = (0..N as i32)
        .map(|row| at(&a.as_dtype(wide)?, row, -2, s))
        .collect::<Result<_>>()?;
    let product = |columns: &[i32; N]| -> Result<Array> {
        let mut product = at(&rows[0], columns[0], -1, s)?;
        for (row, &column) in rows.iter().zip(columns).skip(1) {
            product = product.multiply(at(row, column, -1, s)?)?;
        }
        Ok(product.as_dtype(dtype)?)
    };
    let mut sum = product(&plus[0])?;
    for columns in &plus[1..] {
        sum = sum.add(product(columns)?)?;
    }
    for columns in minus {
        sum = sum.subtract(product(columns)?)?;
    }
    Ok(sum)
}

fn eliminated(a: &Array, s: &Stream) -> Result<Array> {
    let dtype = a.dtype();
    let taint = taint(a)?;
    let (diagonal, exchanges) = pivots(&sound(a, &taint, s)?, s)?;
    // The product of some elements may be out of range where that of all is not.
    let wide = match dtype {
        Dtype::Float32 => Dtype::Float64,
        other => other,
    };
    let two = number(2, Dtype::Int32)?;
    let odd = exchanges.remainder(&two)?.as_dtype(wide)?;
    let sign = number(1, wide)?.subtract(odd.multiply(number(2, wide)?)?)?;
    let product = diagonal
        .as_dtype(wide)?
        .prod_axis(-1, false)?
        .multiply(sign)?;
    let singular = diagonal.eq(number(0, dtype)?)?.any_axis(-1, false)?;
    let determinant = select(&singular, number(0, wide)?, &product)?.as_dtype(dtype)?;
    let taint = taint.squeeze_axes(&[-2, -1])?;
    let sound = taint.eq(number(0, taint.dtype())?)?;
    Ok(select(sound, &determinant, taint.as_dtype(dtype)?)?)
}
