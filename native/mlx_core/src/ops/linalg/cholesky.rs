//! Cholesky's factor.

use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{at, diagonal, resized, size, spoil, taint_unless, to_complex, to_real};
use crate::beside::on_cpu;
use crate::error::Result;
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
    let definite = positive.all_axis(-1, true)?.expand_dims(-1)?;
    spoil(&factor, &taint_unless(&definite, a.dtype())?)
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
