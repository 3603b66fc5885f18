//! Functions that MLX computes with less precision than their type has.

// Coefficients stand as they were published.
#![allow(clippy::excessive_precision)]

use mlx_rs::ops::{self as mlx, select};
use mlx_rs::{Array, Dtype, Stream};

use super::number;
use crate::error::Result;
use crate::simd;

pub(super) fn real(value: f64, dtype: Dtype) -> Result<Array> {
    Ok(match dtype {
        // GPUs have no f64 to start from.
        Dtype::Float32 => Array::from_f32(value as f32),
        _ => Array::from_f64(value).as_dtype(dtype)?,
    })
}

/// The polynomial with these coefficients, the lowest first.
fn polynomial(coefficients: &[f64], x: &Array) -> Result<Array> {
    let mut sum = real(0.0, x.dtype())?;
    for &coefficient in coefficients.iter().rev() {
        sum = sum.multiply(x)?.add(real(coefficient, x.dtype())?)?;
    }
    Ok(sum)
}

/// The function by a kernel of this crate's own where there is one, else by MLX's.
pub(super) fn fast<F: simd::Function>(
    x: &Array,
    s: &Stream,
    otherwise: impl FnOnce(&Array) -> Result<Array>,
) -> Result<Array> {
    simd::map::<F>(x, s)?.map_or_else(|| otherwise(x), Ok)
}

/// MLX's is a single-precision one; `expm1` is not.
pub(super) fn exp(x: &Array) -> Result<Array> {
    if x.dtype() != Dtype::Float64 {
        return Ok(x.exp()?);
    }
    let one = number(1, Dtype::Float64)?;
    let grown = mlx::expm1(x.abs()?)?.add(&one)?;
    let negative = x.lt(number(0, Dtype::Float64)?)?;
    Ok(select(&negative, one.divide(&grown)?, &grown)?)
}

pub(super) fn expm1(x: &Array) -> Result<Array> {
    if x.dtype().is_complex() {
        return Ok(x.exp()?.subtract(number(1, x.dtype())?)?);
    }
    Ok(mlx::expm1(x)?)
}

pub(super) fn sigmoid(x: &Array) -> Result<Array> {
    if !matches!(x.dtype(), Dtype::Float64 | Dtype::Complex64) {
        return Ok(mlx::sigmoid(x)?);
    }
    let one = number(1, x.dtype())?;
    Ok(one.divide(exp(&x.negative()?)?.add(&one)?)?)
}

/// By the tangent of half the angle in double precision, where MLX's sine is a
/// single-precision one and its tangent is not.
pub(super) fn sin(x: &Array) -> Result<Array> {
    if x.dtype() != Dtype::Float64 {
        return Ok(x.sin()?);
    }
    let (tangent, square) = half_tangent(x)?;
    let one = number(1, Dtype::Float64)?;
    Ok(tangent.add(&tangent)?.divide(square.add(&one)?)?)
}

pub(super) fn cos(x: &Array) -> Result<Array> {
    if x.dtype() != Dtype::Float64 {
        return Ok(x.cos()?);
    }
    let (_, square) = half_tangent(x)?;
    let one = number(1, Dtype::Float64)?;
    Ok(one.subtract(&square)?.divide(square.add(&one)?)?)
}

fn half_tangent(x: &Array) -> Result<(Array, Array)> {
    let tangent = mlx::tan(x.multiply(real(0.5, Dtype::Float64)?)?)?;
    let square = tangent.square()?;
    Ok((tangent, square))
}

/// A power gets within a few units of the last place, one Newton step the rest.
pub(super) fn cbrt(x: &Array) -> Result<Array> {
    let dtype = x.dtype();
    let three = number(3, dtype)?;
    let third = number(1, dtype)?.divide(&three)?;
    if dtype.is_complex() {
        return Ok(x.power(&third)?);
    }
    let magnitude = x.abs()?;
    let guess = magnitude.power(&third)?;
    let error = guess.subtract(magnitude.divide(guess.square()?)?)?;
    let better = guess.subtract(error.divide(&three)?)?;
    let root = select(better.is_finite()?, &better, &guess)?;
    let negative = x.lt(number(0, dtype)?)?;
    Ok(select(&negative, root.negative()?, &root)?)
}

/// Runs `function` in single precision for the types below.
pub(super) fn widened(x: &Array, function: impl FnOnce(&Array) -> Result<Array>) -> Result<Array> {
    match x.dtype() {
        Dtype::Float32 | Dtype::Float64 => function(x),
        dtype => Ok(function(&x.as_dtype(Dtype::Float32)?)?.as_dtype(dtype)?),
    }
}

pub(super) fn erf(x: &Array) -> Result<Array> {
    if x.dtype() != Dtype::Float64 {
        // MLX has a zero of its own sign.
        let zero = x.eq(number(0, x.dtype())?)?;
        return Ok(select(&zero, x, mlx::erf(x)?)?);
    }
    let magnitude = x.abs()?;
    let one = number(1, Dtype::Float64)?;
    let outer = one.subtract(complement_of_positive(&magnitude)?)?;
    let negative = x.lt(number(0, Dtype::Float64)?)?;
    let outer = select(&negative, outer.negative()?, &outer)?;
    let square = x.square()?;
    let ratio = polynomial(&SMALL.0, &square)?.divide(polynomial(&SMALL.1, &square)?)?;
    let inner = x.add(x.multiply(&ratio)?)?;
    Ok(select(
        magnitude.lt(real(0.84375, Dtype::Float64)?)?,
        &inner,
        &outer,
    )?)
}

/// One less the error function cancels where it is close to one.
pub(super) fn erfc(x: &Array) -> Result<Array> {
    widened(x, |x| {
        let dtype = x.dtype();
        let magnitude = x.abs()?;
        let outer = complement_of_positive(&magnitude)?;
        let negative = x.lt(number(0, dtype)?)?;
        let outer = select(&negative, number(2, dtype)?.subtract(&outer)?, &outer)?;
        let inner = number(1, dtype)?.subtract(erf(x)?)?;
        Ok(select(
            magnitude.lt(real(0.84375, dtype)?)?,
            &inner,
            &outer,
        )?)
    })
}

/// In double precision as Nx defines it: by the approximation of M. Giles
/// (Approximating the erfinv function, 2012), which has single precision.
pub(super) fn erf_inv(x: &Array) -> Result<Array> {
    if x.dtype() != Dtype::Float64 {
        return Ok(mlx::erfinv(x)?);
    }
    let one = number(1, Dtype::Float64)?;
    let w = one.subtract(x)?.multiply(one.add(x)?)?.log()?.negative()?;
    let central = polynomial(&CENTRAL, &w.subtract(real(2.5, Dtype::Float64)?)?)?;
    let outer = polynomial(&OUTER, &w.sqrt()?.subtract(number(3, Dtype::Float64)?)?)?;
    let factor = select(w.lt(number(5, Dtype::Float64)?)?, &central, &outer)?;
    let root = factor.multiply(x)?;
    // At one and minus one the polynomial of infinity is not a number.
    let infinity = x.divide(number(0, Dtype::Float64)?)?;
    Ok(select(x.abs()?.eq(&one)?, &infinity, &root)?)
}

const CENTRAL: [f64; 9] = [
    1.50140941,
    0.246640727,
    -0.00417768164,
    -0.00125372503,
    0.00021858087,
    -4.39150654e-06,
    -3.5233877e-06,
    3.43273939e-07,
    2.81022636e-08,
];

const OUTER: [f64; 9] = [
    2.83297682,
    1.00167406,
    0.00943887047,
    -0.0076224613,
    0.00573950773,
    -0.00367342844,
    0.00134934322,
    0.000100950558,
    -0.000200214257,
];

type Ratio = (&'static [f64], &'static [f64]);

/// The complement for numbers of at least 0.84375, by the rational approximations of
/// FreeBSD's msun (s_erf.c), on three intervals.
fn complement_of_positive(x: &Array) -> Result<Array> {
    let dtype = x.dtype();
    let ratio = |(above, below): Ratio, at: &Array| -> Result<Array> {
        Ok(polynomial(above, at)?.divide(polynomial(below, at)?)?)
    };
    let one = number(1, dtype)?;
    let middle = ratio(MIDDLE, &x.subtract(&one)?)?;
    let middle = real(1.0 - MIDDLE_VALUE, dtype)?.subtract(&middle)?;

    let inverse_square = one.divide(x.square()?)?;
    let near = ratio(NEAR, &inverse_square)?;
    let far = ratio(FAR, &inverse_square)?;
    let is_near = x.lt(real(1.0 / 0.35, dtype)?)?;
    let correction = select(&is_near, &near, &far)?;
    // Squaring a short number is exact, so that the exponents keep their last digits.
    let short = shortened(x)?;
    let rest = short
        .subtract(x)?
        .multiply(short.add(x)?)?
        .add(&correction)?;
    let exponent = short.square()?.negative()?.subtract(real(0.5625, dtype)?)?;
    let tail = exp(&exponent)?.multiply(exp(&rest)?)?.divide(x)?;
    let tail = select(x.lt(real(28.0, dtype)?)?, &tail, number(0, dtype)?)?;
    let complement = select(x.lt(real(1.25, dtype)?)?, &middle, &tail)?;
    Ok(select(mlx::is_nan(x)?, x, &complement)?)
}

/// The number without the lower half of its digits.
fn shortened(x: &Array) -> Result<Array> {
    let short = match x.dtype() {
        Dtype::Float64 => Dtype::Float32,
        _ => Dtype::Bfloat16,
    };
    Ok(x.as_dtype(short)?.as_dtype(x.dtype())?)
}

const SMALL: ([f64; 5], [f64; 6]) = (
    [
        1.28379167095512558561e-01,
        -3.25042107247001499370e-01,
        -2.84817495755985104766e-02,
        -5.77027029648944159157e-03,
        -2.37630166566501626084e-05,
    ],
    [
        1.0,
        3.97917223959155352819e-01,
        6.50222499887672944485e-02,
        5.08130628187576562776e-03,
        1.32494738004321644526e-04,
        -3.96022827877536812320e-06,
    ],
);

const MIDDLE_VALUE: f64 = 8.45062911510467529297e-01;

const MIDDLE: Ratio = (
    &[
        -2.36211856075265944077e-03,
        4.14856118683748331666e-01,
        -3.72207876035701323847e-01,
        3.18346619901161753674e-01,
        -1.10894694282396677476e-01,
        3.54783043256182359371e-02,
        -2.16637559486879084300e-03,
    ],
    &[
        1.0,
        1.06420880400844228286e-01,
        5.40397917702171048937e-01,
        7.18286544141962662868e-02,
        1.26171219808761642112e-01,
        1.36370839120290507362e-02,
        1.19844998467991074170e-02,
    ],
);

const NEAR: Ratio = (
    &[
        -9.86494403484714822705e-03,
        -6.93858572707181764372e-01,
        -1.05586262253232909814e+01,
        -6.23753324503260060396e+01,
        -1.62396669462573470355e+02,
        -1.84605092906711035994e+02,
        -8.12874355063065934246e+01,
        -9.81432934416914548592e+00,
    ],
    &[
        1.0,
        1.96512716674392571292e+01,
        1.37657754143519042600e+02,
        4.34565877475229228821e+02,
        6.45387271733267880336e+02,
        4.29008140027567833386e+02,
        1.08635005541779435134e+02,
        6.57024977031928170135e+00,
        -6.04244152148580987438e-02,
    ],
);

const FAR: Ratio = (
    &[
        -9.86494292470009928597e-03,
        -7.99283237680523006574e-01,
        -1.77579549177547519889e+01,
        -1.60636384855821916062e+02,
        -6.37566443368389627722e+02,
        -1.02509513161107724954e+03,
        -4.83519191608651397019e+02,
    ],
    &[
        1.0,
        3.03380607434824582924e+01,
        3.25792512996573918826e+02,
        1.53672958608443695994e+03,
        3.19985821950859553908e+03,
        2.55305040643316442583e+03,
        4.74528541206955367215e+02,
        -2.24409524465858183362e+01,
    ],
);
