//! Arrays from nothing but attributes.

use mlx_rs::{Array, Dtype, Stream};

use super::ops;
use crate::attribute::Shape;
use crate::dtype::dtype_size;
use crate::error::{Error, Result, Signature};
use crate::ffi::{self, c_op};
use crate::memory;

ops! {
    /// An array filled with the value whose bytes are given.
    full() { value: &[u8], shape: Shape, dtype: Dtype } => full(value, shape, dtype);

    /// The numbers from 0 to `size - 1`.
    arange() { size: i64, dtype: Dtype } |s| => arange(size, dtype, s);

    /// Ones on the main diagonal, zeros elsewhere.
    eye() { rows: i32, columns: i32, dtype: Dtype } |s| =>
        c_op!(mlx_eye(rows, columns, 0, dtype.into()), s);
}

/// The size is checked first: of a size beyond its own MLX makes something else.
pub(super) fn arange(size: i64, dtype: Dtype, s: &Stream) -> Result<Array> {
    memory::check((size.max(0) as usize).saturating_mul(dtype_size(dtype)))?;
    if i32::try_from(size).is_err() {
        return Err(Error::Dimension { dims: vec![size] });
    }
    Ok(c_op!(mlx_arange(0.0, size as f64, 1.0, dtype.into()), s)?)
}

fn full(value: &[u8], shape: Shape, dtype: Dtype) -> Result<Array> {
    let scalar_shape = vec![];
    if value.len() != dtype_size(dtype) {
        return Err(Error::ByteSize {
            signature: Signature {
                dtype,
                shape: scalar_shape,
            },
            expected: dtype_size(dtype),
            given: value.len(),
        });
    }
    let scalar = ffi::from_bytes(value, &scalar_shape, dtype);
    if shape.is_empty() {
        return Ok(scalar);
    }
    Ok(mlx_rs::ops::broadcast_to(&scalar, &shape)?)
}
