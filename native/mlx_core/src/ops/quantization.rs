//! Matrices in few bits, and products with them.
//!
//! A quantized matrix is an array of packed integers, one of the scales of groups along
//! the last axis, and for the mode `affine` one of their biases. Leading axes are a batch.

mod gather;
mod parts;

use mlx_rs::ops as mlx;
use mlx_rs::{Array, Dtype, Stream};

use self::parts::{Format, Mode, Parts};
use super::ops;
use crate::device::Device;
use crate::error::Result;
use crate::ffi::c_op;

ops! {
    /// The packed integers, scales and biases of a matrix.
    quantize_affine(w) { group_size: i32, bits: i32 } |s| -> 3 =>
        parts::quantize(w, Format { mode: Mode::Affine, group_size, bits }, s);

    /// The packed floats of few bits and the scales of a matrix.
    quantize_float(w) { mode: Mode, group_size: i32, bits: i32 } |s| -> 2 =>
        parts::quantize(w, Format { mode, group_size, bits }, s);

    /// The matrix of which those are the parts, in a float type.
    dequantize[parts] { mode: Mode, group_size: i32, bits: i32, dtype: Dtype } |s| =>
        Parts::of("dequantize", parts, Format { mode, group_size, bits })?.dequantize(dtype, s);

    /// The product of a matrix and a quantized one, or the transpose of that.
    quantized_matmul[operands] { mode: Mode, group_size: i32, bits: i32, transpose: bool } |s| => {
        let (x, parts) = parts::split("quantized_matmul", operands)?;
        let parts = Parts::of("quantized_matmul", parts, Format { mode, group_size, bits })?;
        multiply(x, &parts, transpose, s)
    };

    /// The products of matrices with those of `w` that the indices name. Indices outside
    /// are moved to the edge.
    gather_mm(x, w, indices) |s| => gather::matmul(x, w, indices, s);

    /// The same for quantized matrices, which come after the indices.
    gather_qmm[operands] { mode: Mode, group_size: i32, bits: i32, transpose: bool } |s| =>
        gather::quantized("gather_qmm", operands, Format { mode, group_size, bits }, transpose, s);
}

/// With so many rows MLX's loops on a CPU, which unpack each number once a row, take longer
/// than unpacking all and leaving the product to the BLAS.
const MANY_ROWS: usize = 3;

fn multiply(x: &Array, w: &Parts, transpose: bool, s: &Stream) -> Result<Array> {
    if x.size() == 0 || w.is_empty() {
        return w.empty_product(x, transpose);
    }
    match Device::of(s) {
        Device::Cpu => {
            // The loops for halves add up in halves, and are many times slower.
            let wide = x.as_dtype(Dtype::Float32)?;
            let rows = x.size() / x.dim(-1).max(1) as usize;
            let result = if rows < MANY_ROWS {
                product(&wide, &w.cast(Dtype::Float32)?, transpose, s)?
            } else {
                mlx::matmul(&wide, w.unpacked(Dtype::Float32, transpose, s)?)?
            };
            Ok(result.as_dtype(x.dtype())?)
        }
        Device::Gpu if parts::has_kernel(x, transpose) => product(x, w, transpose, s),
        Device::Gpu => Ok(mlx::matmul(x, w.unpacked(x.dtype(), transpose, s)?)?),
    }
}

fn product(x: &Array, w: &Parts, transpose: bool, s: &Stream) -> Result<Array> {
    let Format {
        mode,
        group_size,
        bits,
    } = w.format;
    let w = w.in_order(s)?;
    Ok(c_op!(
        mlx_quantized_matmul(
            x.as_ptr(),
            w.packed.as_ptr(),
            w.scales.as_ptr(),
            w.biases_ptr(),
            transpose,
            parts::some(group_size),
            parts::some(bits),
            mode.name().as_ptr()
        ),
        s
    )?)
}
