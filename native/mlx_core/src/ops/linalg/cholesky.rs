//! Cholesky's factor.

use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{at, diagonal, resized, size, spoil, taint, to_complex, to_real};
use crate::beside::on_cpu;
use crate::error::{Error, Result};
use crate::evaluation::truth;
use crate::ops::number;

pub(super) fn cholesky(a: &Array, s: &Stream) -> Result<Array> {
    if a.size() == 0 {
        return Ok(a.clone());
    }
    on_cpu([a], s, |[a], s| match a.dtype() {
        Dtype::Complex64 => complex(a, s),
        _ => real(a),
    })
}

/// LAPACK stops at the first pivot that is not positive and leaves it in the diagonal.
fn real(a: &Array) -> Result<Array> {
    let factor = linalg::cholesky(a, None)?;
    let positive = diagonal(&factor)?.gt(number(0, a.dtype())?)?;
    if truth(&positive.all(false)?)? {
        return Ok(factor);
    }
    // A matrix with a NaN has a factor of NaN.
    let taint = taint(a)?;
    let unknown = taint.ne(number(0, a.dtype())?)?.squeeze_axes(&[-1])?;
    if truth(&positive.logical_or(unknown)?.all(false)?)? {
        return spoil(&factor, &taint);
    }
    Err(Error::NotPositiveDefinite)
}

/// The factor with a positive diagonal is unique, so that of the real matrix is the
/// real matrix of the factor.
fn complex(a: &Array, s: &Stream) -> Result<Array> {
    let (n, _) = size(a);
    let factor = real(&to_real(a)?)?;
    let mut pairs = resized(a, 2 * n, n);
    pairs.push(2);
    to_complex(&at(&factor.reshape(&pairs)?, 0, -1, s)?)
}
