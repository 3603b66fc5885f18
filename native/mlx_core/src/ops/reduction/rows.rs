//! Sums of the rows of halves on an NVIDIA GPU, as products with ones.
//!
//! MLX's own sums of halves lose digits there, because they are halves on the way, and casts
//! to single precision and back are two kernels more. Its products of a matrix and a vector
//! add in single precision.

use std::cell::RefCell;
use std::collections::HashMap;

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype, Stream};

use crate::ffi::{self, on_gpu};

/// A row is added up by 32 threads, so few or long ones are best left to others.
const MANY: usize = 256;
const LONGEST: i32 = 16_384;

/// Lengths of rows for which a vector of ones is kept.
const KEPT: usize = 64;

thread_local! {
    static ONES: RefCell<HashMap<(i32, Dtype), Array>> = RefCell::default();
}

/// Whether the sum over the axes is one of rows that are best multiplied with ones.
pub(super) fn are(x: &Array, axes: &[i32], s: &Stream) -> bool {
    let last = x.ndim() as i32 - 1;
    let size = x.shape().last().copied().unwrap_or(0);
    matches!(x.dtype(), Dtype::Float16 | Dtype::Bfloat16)
        && axes == [last]
        && (1..=LONGEST).contains(&size)
        && x.size() / size as usize >= MANY
        && !cfg!(target_os = "macos")
        && on_gpu(s)
}

/// The sums of the rows, with a last axis of one.
pub(super) fn sums(x: &Array) -> Result<Array, Exception> {
    let mut shape = x.shape().to_vec();
    let size = shape.pop().unwrap_or(1);
    shape.push(1);
    let sums = x.reshape(&[-1, size])?.matmul(ones(size, x.dtype()))?;
    sums.reshape(&shape)
}

/// A column of ones. It has values from the start, as constants of what MLX compiles do.
fn ones(size: i32, dtype: Dtype) -> Array {
    ONES.with_borrow_mut(|kept| {
        if kept.len() >= KEPT && !kept.contains_key(&(size, dtype)) {
            kept.clear();
        }
        let column = kept.entry((size, dtype)).or_insert_with(|| {
            let one: u16 = match dtype {
                Dtype::Float16 => 0x3C00,
                _ => 0x3F80,
            };
            ffi::from_bytes(&one.to_ne_bytes().repeat(size as usize), &[size, 1], dtype)
        });
        ffi::share(column)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_times_ones_are_their_sums() {
        crate::init();
        let x = mlx_rs::ops::arange::<_, f32>(None, 24, None).unwrap();
        let x = x
            .reshape(&[2, 3, 4])
            .unwrap()
            .as_dtype(Dtype::Bfloat16)
            .unwrap();
        let sums = sums(&x).unwrap();
        assert_eq!(sums.shape(), [2, 3, 1]);
        let sums = sums.as_dtype(Dtype::Float32).unwrap();
        crate::ffi::eval(&[&sums]).unwrap();
        assert_eq!(sums.as_slice::<f32>(), [6., 22., 38., 54., 70., 86.]);
    }
}
