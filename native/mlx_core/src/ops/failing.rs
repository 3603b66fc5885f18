//! An op for tests of failures, which is not in the table.

use mlx_rs::linalg;

use super::ops;

ops! {
    /// The inverse of a matrix, which MLX fails to compute of a singular one.
    inverse(a) => linalg::inv(a);
}
