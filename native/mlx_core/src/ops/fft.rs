//! Discrete Fourier transforms.

use mlx_rs::ops::{abs, select};
use mlx_rs::{Array, Dtype};

use super::{number, ops};
use crate::error::Result;
use crate::ffi::c_op;

ops! {
    /// The transform along an axis that is first cut or padded with zeros to `length`.
    /// Parts of numbers no larger than `eps` become zero.
    fft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_fft(x.as_ptr(), length, axis, BACKWARD), s)?, eps);

    /// The inverse of the transform, along an axis first cut or padded to `length`.
    /// Parts of numbers no larger than `eps` become zero.
    ifft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_ifft(x.as_ptr(), length, axis, BACKWARD), s)?, eps);

    /// The half of the transform of real numbers that is not the mirror of the other.
    rfft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_rfft(x.as_ptr(), length, axis, BACKWARD), s)?, eps);

    /// The `length` real numbers that half a transform is of.
    irfft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_irfft(x.as_ptr(), length, axis, BACKWARD), s)?, eps);
}

/// The inverse is divided by the length, the transform is not.
const BACKWARD: mlx_sys::mlx_fft_norm = mlx_sys::mlx_fft_norm__MLX_FFT_NORM_BACKWARD;

fn without_noise(x: &Array, eps: f64) -> Result<Array> {
    let parts = x.view_dtype(Dtype::Float32)?;
    let noise = abs(&parts)?.le(Array::from_f32(eps as f32))?;
    let kept = select(&noise, number(0, Dtype::Float32)?, &parts)?;
    Ok(kept.view_dtype(x.dtype())?)
}
