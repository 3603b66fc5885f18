//! Products of a matrix and a vector.

use mlx_rs::ops as mlx;
use mlx_rs::{Array, Dtype, Stream};

use super::matmul;
use crate::error::Result;
use crate::ffi::on_gpu;

/// Elements of a matrix up to which OpenBLAS multiplies it with a vector as it is. It rearranges
/// larger ones first, which takes longer than the product.
const AS_IT_IS: i32 = 1 << 19;

/// MLX has no such product on the CPU, where it takes a vector for a matrix.
pub(super) fn matvec(x: &Array, a: &Array, s: &Stream) -> Result<Array> {
    let (rows, columns) = (a.dim(-2), a.dim(-1));
    if on_gpu(s) || a.size() == 0 || half(a.dtype()) {
        return matmul(x, &a.transpose()?, s);
    }
    let product = match block(rows, columns) {
        Some(block) => {
            let blocks = a.reshape(&[rows / block, block, columns])?;
            // With fewer axes MLX would join the blocks again.
            mlx::matmul(&blocks, &x.reshape(&[1, columns, 1])?)?
        }
        None => mlx::matmul(a, x.reshape(&[columns, 1])?)?,
    };
    Ok(product.reshape(&[1, rows])?)
}

fn half(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float16 | Dtype::Bfloat16)
}

/// How many rows to take at a time, if not all of them.
fn block(rows: i32, columns: i32) -> Option<i32> {
    let most = (AS_IT_IS / columns).max(1);
    let fits = |block: &i32| rows % block == 0;
    let block = (1..=most.min(rows)).rev().find(fits)?;
    // A few rows at a time are no gain.
    (block < rows && block >= 8).then_some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_no_matrices_gives_nothing() {
        crate::init();
        let stream = Stream::cpu();
        let x = Array::from_slice(&[1f32, 2., 3.], &[1, 3]);
        let x = x.as_dtype(Dtype::Float16).unwrap();
        let none = mlx::zeros_dtype(&[0, 3, 3], Dtype::Uint32).unwrap();
        let y = matvec(&x, &none, &stream).unwrap();
        crate::ffi::eval(&[&y]).unwrap();
        assert_eq!(y.size(), 0);
    }

    #[test]
    fn blocks_divide_the_rows() {
        assert_eq!(block(8192, 512), Some(1024));
        assert_eq!(block(512, 512), None);
        assert_eq!(block(4099, 512), None);
        assert_eq!(block(151_936, 1024), Some(128));
        assert_eq!(block(4096, 1 << 20), None);
    }
}
