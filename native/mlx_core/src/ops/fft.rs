//! Discrete Fourier transforms.

use mlx_rs::{Array, Dtype, Stream};

use super::{number, ops};
use crate::error::Result;
use crate::ffi::c_op;

ops! {
    /// The transform along an axis that is first cut or padded with zeros to `length`.
    /// Parts of numbers no larger than `eps` become zero.
    fft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_fft(x.as_ptr(), length, axis, BACKWARD), s)?, eps, s);

    /// The inverse of the transform, along an axis first cut or padded to `length`.
    /// Parts of numbers no larger than `eps` become zero.
    ifft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_ifft(x.as_ptr(), length, axis, BACKWARD), s)?, eps, s);

    /// The half of the transform of real numbers that is not the mirror of the other.
    rfft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_rfft(x.as_ptr(), length, axis, BACKWARD), s)?, eps, s);

    /// The `length` real numbers that half a transform is of.
    irfft(x) { length: i32, axis: i32, eps: f64 } |s| =>
        without_noise(&c_op!(mlx_fft_irfft(x.as_ptr(), length, axis, BACKWARD), s)?, eps, s);
}

/// The inverse is divided by the length, the transform is not.
const BACKWARD: mlx_sys::mlx_fft_norm = mlx_sys::mlx_fft_norm__MLX_FFT_NORM_BACKWARD;

/// Nx lets a backend choose what to do about noise. Up to Nx's own threshold there is
/// none in single precision but of signals as faint, which are then better kept: looking
/// for it takes as long as many a transform. Negative zeros go in any case.
const FAINT: f64 = 1.0e-10;

/// Works on the bits, which without the sign are in order of magnitude: that takes two
/// thirds of the time of comparing and selecting floats.
fn without_noise(x: &Array, eps: f64, s: &Stream) -> Result<Array> {
    if eps <= FAINT {
        return Ok(x.add(number(0, x.dtype())?)?);
    }
    let integer = |bits: i32| Array::from_slice(&[bits], &[]);
    let (eps, magnitude, sign) = (
        integer((eps as f32).to_bits() as i32),
        integer(i32::MAX),
        integer(31),
    );
    let parts = x.view_dtype(Dtype::Int32)?;
    let sizes = c_op!(mlx_bitwise_and(parts.as_ptr(), magnitude.as_ptr()), s)?;
    // All bits where the part is larger, none elsewhere.
    let below = eps.subtract(&sizes)?;
    let kept = c_op!(mlx_right_shift(below.as_ptr(), sign.as_ptr()), s)?;
    let kept = c_op!(mlx_bitwise_and(parts.as_ptr(), kept.as_ptr()), s)?;
    Ok(kept.view_dtype(x.dtype())?)
}
