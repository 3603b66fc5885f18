//! Gaussian error linear units: numbers times the share of a normal distribution below them.

use mlx_rs::ops as mlx;
use mlx_rs::{Array, Stream};
use once_cell::sync::OnceCell;

use super::functions::{fast, real, sigmoid, widened};
use super::row;
use crate::error::Result;
use crate::evaluation;
use crate::ffi::on_gpu;
use crate::fuse::Fused;
use crate::program::Program;
use crate::simd::{Gelu, GeluSigmoid, GeluTanh};

pub(super) fn gelu(x: &Array, s: &Stream) -> Result<Array> {
    static FUSED: OnceCell<Fused> = OnceCell::new();
    fast::<Gelu>(x, s, |x| kernel(&FUSED, "gelu", x, s, by_erf))
}

pub(super) fn gelu_tanh(x: &Array, s: &Stream) -> Result<Array> {
    static FUSED: OnceCell<Fused> = OnceCell::new();
    fast::<GeluTanh>(x, s, |x| kernel(&FUSED, "gelu_tanh", x, s, by_tanh))
}

pub(super) fn gelu_sigmoid(x: &Array, s: &Stream) -> Result<Array> {
    static FUSED: OnceCell<Fused> = OnceCell::new();
    fast::<GeluSigmoid>(x, s, |x| kernel(&FUSED, "gelu_sigmoid", x, s, by_sigmoid))
}

/// One kernel on a GPU, which MLX compiles of the row itself. On a CPU it would need a C++
/// compiler for that.
fn kernel(
    fused: &OnceCell<Fused>,
    name: &str,
    x: &Array,
    s: &Stream,
    composed: fn(&Array) -> Result<Array>,
) -> Result<Array> {
    if !on_gpu(s) || evaluation::is_tracing() {
        return widened(x, composed);
    }
    let program = || Program::single(row(name)?, 1, vec![]);
    let fused = fused.get_or_try_init(|| program().map(Fused::new))?;
    Ok(fused.run(&[x], s)?.remove(0))
}

fn by_erf(x: &Array) -> Result<Array> {
    let scaled = x.multiply(real(std::f64::consts::FRAC_1_SQRT_2, x.dtype())?)?;
    let twice = mlx::erf(scaled)?.add(real(1.0, x.dtype())?)?;
    Ok(x.multiply(twice)?.multiply(real(0.5, x.dtype())?)?)
}

fn by_tanh(x: &Array) -> Result<Array> {
    let cubic = x
        .multiply(x.square()?)?
        .multiply(real(0.044715, x.dtype())?)?;
    let scale = real((8.0 / std::f64::consts::PI).sqrt(), x.dtype())?;
    Ok(x.multiply(sigmoid(&x.add(cubic)?.multiply(scale)?)?)?)
}

fn by_sigmoid(x: &Array) -> Result<Array> {
    Ok(x.multiply(sigmoid(&x.multiply(real(1.702, x.dtype())?)?)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi;
    use mlx_rs::Dtype;

    /// What GPUs compute agrees with the kernels of CPUs, up to the digits that cancel.
    #[test]
    fn compositions_are_the_rows() {
        let stream = Stream::cpu();
        let x: Vec<f32> = (-80..=80).map(|at| at as f32 / 8.0).collect();
        let x = Array::from_slice(&x, &[x.len() as i32]);
        for (row, composed) in [
            (gelu(&x, &stream), by_erf(&x)),
            (gelu_tanh(&x, &stream), by_tanh(&x)),
            (gelu_sigmoid(&x, &stream), by_sigmoid(&x)),
        ] {
            let (row, composed) = (row.unwrap(), composed.unwrap());
            ffi::eval(&[&row, &composed]).unwrap();
            for (row, composed) in row.as_slice::<f32>().iter().zip(composed.as_slice::<f32>()) {
                assert!((row - composed).abs() <= 1e-6, "{row} {composed}");
            }
        }
    }

    #[test]
    fn halves_are_computed_in_single_precision() {
        let x = Array::from_slice(&[-3.0f32], &[1])
            .as_dtype(Dtype::Bfloat16)
            .unwrap();
        let y = widened(&x, by_erf).unwrap();
        assert_eq!(y.dtype(), Dtype::Bfloat16);
        let y = y.as_dtype(Dtype::Float32).unwrap();
        ffi::eval(&[&y]).unwrap();
        assert_eq!(y.as_slice::<f32>(), [-0.004_058_838_f32]);
    }
}
