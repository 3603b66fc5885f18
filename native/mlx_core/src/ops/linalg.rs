//! Products of matrices, triangular systems and factorizations.
//!
//! A matrix is the last two axes; the axes before them are a batch. Factorizations take
//! f32, f64 and c64 and run on the CPU, see [`crate::beside`]. LAPACK's answers to a
//! matrix that it can't factorize differ and may end the process, so it sees none: where
//! the input is not finite, all that would depend on it is NaN. Where one is singular or
//! not positive-definite, the operation fails.

mod cholesky;
mod determinant;
mod integer;
mod lu;
mod matrix;
mod matvec;
mod qr;
mod spectral;
mod triangular;

use mlx_rs::ops as mlx;
use mlx_rs::{Array, Dtype, Stream};

use super::ops;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::simd;

ops! {
    /// The product of matrices of a float type.
    matmul(a, b) |s| => matmul(a, b, s);

    /// The products of a vector, as a matrix of one row, with the rows of another, of a float type.
    matvec(x, a) |s| => matvec::matvec(matrix(x)?, matrix(a)?, s);

    /// The product of matrices of integers, which wraps as their type does.
    integer_matmul(a, b) |s| => integer::matmul(matrix(a)?, matrix(b)?, s);

    /// X of A X = B, where A is triangular; what is in its other triangle is not read.
    triangular_solve(a, b) { lower: bool } |s| looks => triangular::solve(square(a)?, right(a, b)?, lower, s);

    /// The lower triangular L of A = L L*, from the lower triangle of A.
    cholesky(a) |s| looks => cholesky::cholesky(square(a)?, s);

    /// P, L and U of A = P L U with partial pivoting; P is of booleans.
    lu(a) |s| -> 3 => lu::lu(square(a)?, s);

    /// X of A X = B.
    solve(a, b) |s| looks => lu::solve(square(a)?, right(a, b)?, s);

    /// The determinant.
    determinant(a) |s| => determinant::determinant(square(a)?, s);

    /// Q and R of A = Q R, either K = min(M, N) columns and rows or all. Like the
    /// Householder reflections that leave alone a column whose part below the diagonal
    /// has a squared norm below `eps`, and make the diagonal of R positive elsewhere.
    qr(a) { complete: bool, eps: f64 } |s| -> 2 => qr::qr(matrix(a)?, complete, eps, s);

    /// The eigenvalues of a Hermitian matrix, the largest magnitude first, and the
    /// eigenvectors as columns, whose largest element is positive.
    eigh(a) |s| -> 2 => spectral::eigh(square(a)?, s);

    /// U, S and V* of A = U S V*, either K = min(M, N) singular vectors or all. The
    /// largest element of a vector on the shorter side is positive.
    svd(a) { full: bool } |s| -> 3 => spectral::svd(matrix(a)?, full, s);
}

fn matrix(a: &Array) -> Result<&Array> {
    match a.ndim() {
        0 | 1 => Err(Error::Rank {
            expected: 2,
            given: a.ndim(),
        }),
        _ => Ok(a),
    }
}

/// The right-hand side of a system, which has a row for each of the matrix.
fn right<'a>(a: &Array, b: &'a Array) -> Result<&'a Array> {
    let (rows, _) = matrix::size(matrix(b)?);
    let expected = a.dim(-1);
    if rows != expected {
        let given = rows;
        return Err(Error::RightHandSide { expected, given });
    }
    Ok(b)
}

fn square(a: &Array) -> Result<&Array> {
    let (rows, columns) = matrix::size(matrix(a)?);
    if rows != columns {
        return Err(Error::NotSquare { rows, columns });
    }
    Ok(a)
}

fn matmul(a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    if a.size() == 0 || b.size() == 0 {
        // MLX, which frees its copy of a strided operand too early then, says only what comes of it.
        let product = mlx::matmul(a, b)?;
        return Ok(mlx::zeros_dtype(product.shape(), product.dtype())?);
    }
    // On Linux, MLX's own loops for half precision are many times slower than BLAS.
    let dtype = a.dtype();
    let half = matches!(dtype, Dtype::Float16 | Dtype::Bfloat16);
    if half && dtype == b.dtype() && cfg!(target_os = "linux") && Device::of(s) == Device::Cpu {
        let wide = |x: &Array| x.as_dtype(Dtype::Float32);
        return Ok(mlx::matmul(&wide(a)?, &wide(b)?)?.as_dtype(dtype)?);
    }
    simd::product(a, b, s)?.map_or_else(|| Ok(mlx::matmul(a, b)?), Ok)
}
