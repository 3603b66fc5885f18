//! Products of matrices.

use mlx_rs::ops as mlx;

use super::ops;

ops! {
    /// The product of matrices, or of batches of them, of a float type.
    matmul(a, b) => mlx::matmul(a, b);
}
