//! One result for each element, of one operand or of two that broadcast.

use mlx_rs::error::Exception;
use mlx_rs::ops::{self, select};
use mlx_rs::{Array, Dtype, Stream};

use super::functions::{self, fast};
use super::{number, ops};
use crate::beside::on_cpu;
use crate::error::Result;
use crate::evaluation;
use crate::ffi::{self, c_op, on_gpu};
use crate::simd::{Cos, Erf, Erfc, Exp, Expm1, Log, Log1p, Rsqrt, Sigmoid, Sin, Sqrt, Tanh};

ops! {
    /// The sum.
    add(a, b) => a.add(b);
    /// The difference.
    subtract(a, b) => a.subtract(b);
    /// The product.
    multiply(a, b) => a.multiply(b);
    /// The quotient of floats.
    divide(a, b) => a.divide(b);
    /// The power.
    power(a, b) |s| => power(a, b, s);
    /// The power of integers. A negative exponent gives the truncated value.
    integer_power(a, b) => integer_power(a, b);
    /// The angle of the point (b, a).
    atan2(a, b) => ops::atan2(a, b);
    /// The larger one; NaN if either is.
    max(a, b) => ops::maximum(a, b);
    /// The smaller one; NaN if either is.
    min(a, b) => ops::minimum(a, b);
    /// The integer quotient, truncated. Dividing by zero gives all bits set.
    quotient(a, b) => quotient(a, b);
    /// What division leaves, with the dividend's sign. For integers a zero
    /// divisor leaves the dividend.
    remainder(a, b) => remainder(a, b);

    /// Bits set in both.
    bitwise_and(a, b) |s| => c_op!(mlx_bitwise_and(a.as_ptr(), b.as_ptr()), s);
    /// Bits set in either.
    bitwise_or(a, b) |s| => c_op!(mlx_bitwise_or(a.as_ptr(), b.as_ptr()), s);
    /// Bits set in just one.
    bitwise_xor(a, b) |s| => bitwise_xor(a, b, s);
    /// Bits flipped.
    bitwise_not(x) |s| => c_op!(mlx_bitwise_invert(x.as_ptr()), s);
    /// Shifts left by counts of 0 to the width less one.
    left_shift(a, b) |s| => c_op!(mlx_left_shift(a.as_ptr(), b.as_ptr()), s);
    /// Shifts right by counts of 0 to the width less one, keeping the sign.
    right_shift(a, b) |s| => c_op!(mlx_right_shift(a.as_ptr(), b.as_ptr()), s);
    /// The number of bits set.
    population_count(x) => population_count(x);
    /// The number of zero bits above the highest bit set.
    count_leading_zeros(x) => count_leading_zeros(x);

    /// Whether both are equal.
    equal(a, b) => a.eq(b);
    /// Whether they differ.
    not_equal(a, b) => a.ne(b);
    /// Whether the first is greater.
    greater(a, b) => a.gt(b);
    /// Whether the first is less.
    less(a, b) => a.lt(b);
    /// Whether the first is greater or equal.
    greater_equal(a, b) => a.ge(b);
    /// Whether the first is less or equal.
    less_equal(a, b) => a.le(b);
    /// Whether both are true, that is, not zero.
    logical_and(a, b) => truth(a)?.logical_and(truth(b)?);
    /// Whether either is true.
    logical_or(a, b) => truth(a)?.logical_or(truth(b)?);
    /// Whether just one is true.
    logical_xor(a, b) => truth(a)?.ne(truth(b)?);

    /// Whether it is false, that is, zero.
    logical_not(x) => truth(x)?.logical_not();

    /// The first value where the condition is true, else the second.
    select(condition, a, b) => select(truth(condition)?, a, b);

    /// Whether integers are at most `atol` and `rtol` times those of `b`, as f64.
    within(distance, b) { rtol: f64, atol: f64 } |s| => within(distance, b, rtol, atol, s);

    /// The absolute value.
    abs(x) => x.abs();
    /// The negative.
    negate(x) |s| => negate(x, s);
    /// -1, 0 or 1 by the sign.
    sign(x) => ops::sign(x);
    /// The next integer below.
    floor(x) => x.floor();
    /// The next integer above.
    ceil(x) => ops::ceil(x);
    /// The nearest integer; halves go away from zero.
    round(x) => round(x);
    /// The exponential.
    exp(x) |s| => fast::<Exp>(x, s, functions::exp);
    /// The exponential less one.
    expm1(x) |s| => fast::<Expm1>(x, s, functions::expm1);
    /// The natural logarithm.
    log(x) |s| => fast::<Log>(x, s, |x| Ok(x.log()?));
    /// The natural logarithm of one more.
    log1p(x) |s| => fast::<Log1p>(x, s, |x| Ok(x.log1p()?));
    /// The logistic function.
    sigmoid(x) |s| => fast::<Sigmoid>(x, s, functions::sigmoid);
    /// The sine.
    sin(x) |s| => fast::<Sin>(x, s, functions::sin);
    /// The cosine.
    cos(x) |s| => fast::<Cos>(x, s, functions::cos);
    /// The tangent.
    tan(x) => ops::tan(x);
    /// The inverse sine.
    asin(x) => ops::asin(x);
    /// The inverse cosine.
    acos(x) => ops::acos(x);
    /// The inverse tangent.
    atan(x) => ops::atan(x);
    /// The hyperbolic sine.
    sinh(x) => ops::sinh(x);
    /// The hyperbolic cosine.
    cosh(x) => ops::cosh(x);
    /// The hyperbolic tangent.
    tanh(x) |s| => fast::<Tanh>(x, s, |x| Ok(ops::tanh(x)?));
    /// The inverse hyperbolic sine.
    asinh(x) |s| => complex_on_cpu(x, s, |x| ops::asinh(x));
    /// The inverse hyperbolic cosine.
    acosh(x) |s| => complex_on_cpu(x, s, |x| ops::acosh(x));
    /// The inverse hyperbolic tangent.
    atanh(x) |s| => complex_on_cpu(x, s, |x| ops::atanh(x));
    /// The square root.
    sqrt(x) |s| => fast::<Sqrt>(x, s, |x| Ok(x.sqrt()?));
    /// One over the square root.
    rsqrt(x) |s| => fast::<Rsqrt>(x, s, |x| Ok(x.rsqrt()?));
    /// The real cube root, negative for negatives.
    cbrt(x) => functions::cbrt(x);
    /// The error function.
    erf(x) |s| => fast::<Erf>(x, s, functions::erf);
    /// One less the error function.
    erfc(x) |s| => fast::<Erfc>(x, s, functions::erfc);
    /// The inverse of the error function.
    erf_inv(x) => functions::erf_inv(x);
    /// The complex conjugate.
    conjugate(x) |s| => c_op!(mlx_conjugate(x.as_ptr()), s);
    /// The real part.
    real(x) => ops::real(x);
    /// The imaginary part.
    imag(x) => ops::imag(x);
    /// Whether it is NaN.
    is_nan(x) => ops::is_nan(x);
    /// Whether it is an infinity.
    is_infinity(x) => ops::is_inf(x);
}

fn within(distance: &Array, b: &Array, rtol: f64, atol: f64, s: &Stream) -> Result<Array> {
    // The bounds are numbers, of which Nx makes f32.
    let wide = |x: f64| Array::from_f32(x as f32).as_dtype(Dtype::Float64);
    on_cpu([distance, b], s, |[distance, b], _| {
        let size = b.as_dtype(Dtype::Float64)?.abs()?;
        let bound = size.multiply(wide(rtol)?)?.add(wide(atol)?)?;
        Ok(distance.as_dtype(Dtype::Float64)?.le(bound)?)
    })
}

/// MLX for CUDA subtracts a complex number from zero, and -0.0 from that is 0.0.
fn negate(x: &Array, s: &Stream) -> Result<Array> {
    if !x.dtype().is_complex() || !on_gpu(s) {
        return Ok(x.negative()?);
    }
    let parts = x.reshape(&[-1])?.view_dtype(Dtype::Float32)?;
    let parts = parts.negative()?.view_dtype(x.dtype())?;
    Ok(parts.reshape(x.shape())?)
}

/// On booleans that it computes in place, MLX's own gives an operand.
fn bitwise_xor(a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    if a.dtype() == Dtype::Bool && b.dtype() == Dtype::Bool {
        return Ok(a.ne(b)?);
    }
    Ok(c_op!(mlx_bitwise_xor(a.as_ptr(), b.as_ptr()), s)?)
}

/// Whether the elements are not zero. MLX asks a complex number only for its real part.
pub(super) fn truth(x: &Array) -> Result<Array> {
    Ok(match x.dtype() {
        Dtype::Bool => x.clone(),
        Dtype::Complex64 => x.ne(number(0, Dtype::Complex64)?)?,
        _ => x.as_dtype(Dtype::Bool)?,
    })
}

/// The processor traps on division by zero and on the smallest integer divided
/// by -1, so MLX sees neither.
fn quotient(a: &Array, b: &Array) -> Result<Array> {
    let dtype = b.dtype();
    let zero = b.eq(number(0, dtype)?)?;
    let one = number(1, dtype)?;
    let all_bits = number(-1, dtype)?;
    if is_unsigned(dtype) {
        let quotient = ops::floor_divide(a, select(&zero, &one, b)?)?;
        return Ok(select(&zero, &all_bits, &quotient)?);
    }
    let negating = b.eq(&all_bits)?;
    let unsafe_divisor = zero.logical_or(&negating)?;
    let quotient = ops::floor_divide(a, select(&unsafe_divisor, &one, b)?)?;
    let quotient = select(&negating, a.negative()?, &quotient)?;
    Ok(select(&zero, &all_bits, &quotient)?)
}

fn remainder(a: &Array, b: &Array) -> Result<Array> {
    if a.dtype().is_float() {
        // With both made positive, MLX's floored remainder is C's.
        let magnitude = a.abs()?.remainder(b.abs()?)?;
        // The reciprocal of -0.0 is negative, too.
        let negative = a.reciprocal()?.lt(number(0, a.dtype())?)?;
        return Ok(select(&negative, magnitude.negative()?, &magnitude)?);
    }
    let zero = b.eq(number(0, b.dtype())?)?;
    let rest = a.subtract(quotient(a, b)?.multiply(b)?)?;
    Ok(select(&zero, a, &rest)?)
}

/// MLX has these of complex numbers for the CPU only.
fn complex_on_cpu(
    x: &Array,
    s: &Stream,
    function: impl Fn(&Array) -> std::result::Result<Array, Exception>,
) -> Result<Array> {
    if x.dtype().is_complex() {
        return on_cpu([x], s, |[x], _| Ok(function(x)?));
    }
    Ok(function(x)?)
}

/// Elements of which a power takes longer than finding out which one it is.
const MANY: usize = 4096;

/// On the CPU MLX takes ten times as long for a power as for a product.
fn power(a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    let floats = a.dtype().is_float() && b.dtype().is_float();
    if a.size() < MANY || b.size() != 1 || !floats || evaluation::is_tracing() || on_gpu(s) {
        return Ok(a.power(b)?);
    }
    let exponent = b.as_dtype(Dtype::Float64)?;
    evaluation::eval(&[&exponent])?;
    let square = || a.square();
    let product = match ffi::item_f64(&exponent)? {
        2.0 => square()?,
        3.0 => square()?.multiply(a)?,
        4.0 => square()?.square()?,
        _ => return Ok(a.power(b)?),
    };
    // The exponent may have more axes.
    let ones = vec![1; b.ndim().saturating_sub(a.ndim())];
    Ok(product.reshape(&[ones, product.shape().to_vec()].concat())?)
}

fn integer_power(a: &Array, b: &Array) -> Result<Array> {
    let dtype = b.dtype();
    if is_unsigned(dtype) {
        return Ok(a.power(b)?);
    }
    let zero = number(0, dtype)?;
    let one = number(1, dtype)?;
    let power = a.power(ops::maximum(b, &zero)?)?;
    // Only 1 and -1 have an inverse that is an integer, themselves.
    let own_inverse = a.abs()?.eq(&one)?;
    let odd = and(b, &one)?;
    let inverse = select(&odd, a, &one)?;
    let inverse = select(&own_inverse, &inverse, &zero)?;
    Ok(select(b.lt(&zero)?, &inverse, &power)?)
}

/// Adding one half before truncating would round 0.49999997 up.
fn round(x: &Array) -> Result<Array> {
    if !x.dtype().is_float() {
        return Ok(x.clone());
    }
    let whole = x.trunc()?;
    let half = Array::from_f32(0.5).as_dtype(x.dtype())?;
    let away = x.subtract(&whole)?.abs()?.ge(&half)?;
    let rounded = select(&away, whole.add(ops::sign(x)?)?, &whole)?;
    // Turns -0.0 into 0.0, which is what rounding to an integer gives.
    Ok(rounded.add(number(0, x.dtype())?)?)
}

/// Adds neighbouring groups of bits, each step twice as wide as the one before
/// (Warren, Hacker's Delight, 5-1).
fn population_count(x: &Array) -> Result<Array> {
    let (dtype, bits) = unsigned_of(x.dtype());
    let mut counts = x.view_dtype(dtype)?;
    let mut width = 1;
    while width < bits {
        let mask = number(group_mask(width), dtype)?;
        let low = and(&counts, &mask)?;
        let high = and(&shift_right(&counts, width, dtype)?, &mask)?;
        counts = low.add(&high)?;
        width *= 2;
    }
    Ok(counts)
}

/// Smears the highest bit downwards and counts what is left above it.
fn count_leading_zeros(x: &Array) -> Result<Array> {
    let (dtype, bits) = unsigned_of(x.dtype());
    let mut smeared = x.view_dtype(dtype)?;
    let mut width = 1;
    while width < bits {
        let shifted = shift_right(&smeared, width, dtype)?;
        smeared = or(&smeared, &shifted)?;
        width *= 2;
    }
    Ok(number(bits, dtype)?.subtract(population_count(&smeared)?)?)
}

/// Every other group of `width` bits set, from the lowest.
fn group_mask(width: i64) -> i64 {
    let group = (1u64 << width) - 1;
    (0..64 / (2 * width)).fold(0, |mask, i| mask | group << (2 * width * i)) as i64
}

fn and(a: &Array, b: &Array) -> Result<Array> {
    let s = mlx_rs::Stream::thread_local_or_default();
    Ok(c_op!(mlx_bitwise_and(a.as_ptr(), b.as_ptr()), s)?)
}

fn or(a: &Array, b: &Array) -> Result<Array> {
    let s = mlx_rs::Stream::thread_local_or_default();
    Ok(c_op!(mlx_bitwise_or(a.as_ptr(), b.as_ptr()), s)?)
}

fn shift_right(a: &Array, count: i64, dtype: Dtype) -> Result<Array> {
    let s = mlx_rs::Stream::thread_local_or_default();
    let count = number(count, dtype)?;
    Ok(c_op!(mlx_right_shift(a.as_ptr(), count.as_ptr()), s)?)
}

fn is_unsigned(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Uint64
    )
}

/// The unsigned type of the same width, and the width in bits.
pub(super) fn unsigned_of(dtype: Dtype) -> (Dtype, i64) {
    match crate::dtype::dtype_size(dtype) {
        1 => (Dtype::Uint8, 8),
        2 => (Dtype::Uint16, 16),
        4 => (Dtype::Uint32, 32),
        _ => (Dtype::Uint64, 64),
    }
}
