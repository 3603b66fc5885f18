//! Products with matrices that indices choose, as the experts of a model have them.

use mlx_rs::ops as mlx;
use mlx_rs::{Array, Dtype, Stream};

use super::parts::{self, Format, Parts};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ffi::{c_op, no_array};
use crate::ops::indexing::along;

pub(super) fn matmul(x: &Array, w: &Array, indices: &Array, s: &Stream) -> Result<Array> {
    let indices = along(w, 0, indices, s)?.as_dtype(Dtype::Uint32)?;
    if x.size() == 0 || w.size() == 0 || indices.size() == 0 {
        return empty(x, &indices, w.dim(-1));
    }
    // On a CPU MLX multiplies f32 only.
    let dtype = x.dtype();
    let wide = |x: &Array| match Device::of(s) {
        Device::Cpu => x.as_dtype(Dtype::Float32),
        Device::Gpu => Ok(x.clone()),
    };
    let (x, w) = (wide(x)?, aligned(&wide(w)?, s)?);
    let product = c_op!(
        mlx_gather_mm(x.as_ptr(), w.as_ptr(), no_array(), indices.as_ptr(), false),
        s
    )?;
    Ok(product.as_dtype(dtype)?)
}

/// MLX for CUDA reads eight numbers at a time if the rows of `x` can be read like that, and
/// then those of matrices, too.
fn aligned(w: &Array, s: &Stream) -> Result<Array> {
    let at_once = |size: i32| size % 8 == 0;
    if Device::of(s) == Device::Cpu || !at_once(w.dim(-2)) || at_once(w.dim(-1)) {
        return Ok(w.clone());
    }
    let columns = w.swap_axes(-1, -2)?;
    let columns = c_op!(mlx_contiguous(columns.as_ptr(), false), s)?;
    Ok(columns.swap_axes(-1, -2)?)
}

pub(super) fn quantized(
    op: &'static str,
    operands: &[&Array],
    format: Format,
    transpose: bool,
    s: &Stream,
) -> Result<Array> {
    let (x, rest) = parts::split(op, operands)?;
    let (indices, rest) = parts::split(op, rest)?;
    let w = Parts::of(op, rest, format)?;
    let indices = along(&w.packed, 0, indices, s)?.as_dtype(Dtype::Uint32)?;
    let columns = if transpose {
        w.packed.dim(-2)
    } else {
        w.columns()
    };
    if x.size() == 0 || w.is_empty() || indices.size() == 0 {
        return empty(x, &indices, columns);
    }
    match Device::of(s) {
        Device::Cpu => {
            let wide = x.as_dtype(Dtype::Float32)?;
            let result = product(&wide, &indices, &w.cast(Dtype::Float32)?, transpose, s)?;
            Ok(result.as_dtype(x.dtype())?)
        }
        Device::Gpu if parts::has_kernel(x, transpose) => product(x, &indices, &w, transpose, s),
        Device::Gpu => matmul(x, &w.unpacked(x.dtype(), transpose, s)?, &indices, s),
    }
}

fn product(x: &Array, indices: &Array, w: &Parts, transpose: bool, s: &Stream) -> Result<Array> {
    let Format {
        mode,
        group_size,
        bits,
    } = w.format;
    let w = w.in_order(s)?;
    Ok(c_op!(
        mlx_gather_qmm(
            x.as_ptr(),
            w.packed.as_ptr(),
            w.scales.as_ptr(),
            w.biases_ptr(),
            no_array(),
            indices.as_ptr(),
            transpose,
            parts::some(group_size),
            parts::some(bits),
            mode.name().as_ptr(),
            false
        ),
        s
    )?)
}

/// Zeros of the shape of the product.
fn empty(x: &Array, indices: &Array, columns: i32) -> Result<Array> {
    let rank = x.ndim();
    if rank < 2 {
        return Err(Error::Rank {
            expected: 2,
            given: rank,
        });
    }
    let batch = Array::from_int(0).as_dtype(x.dtype())?;
    let batch = mlx::broadcast_to(batch, &x.shape()[..rank - 2])?;
    let batch = batch.add(mlx::zeros_dtype(indices.shape(), x.dtype())?)?;
    let shape = [batch.shape(), &[x.dim(-2), columns]].concat();
    Ok(mlx::zeros_dtype(&shape, x.dtype())?)
}
