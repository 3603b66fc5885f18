//! Types narrower than MLX's: their values in wider arrays, and their bits in bytes.
//! And f64 where a device lacks it: values in f32, bits in integers.

use mlx_rs::ops::{self as mlx, select};
use mlx_rs::{Array, Dtype, Stream};

use super::{number, ops};
use crate::beside::on_cpu;
use crate::error::{Error, Result};
use crate::ffi::c_op;

ops! {
    /// The values of integers of 2 or 4 bits, packed from the highest bits of each byte.
    unpack_bits(x) { bits: i32, count: i32, signed: bool } |s| =>
        unpack_bits(x, narrow("unpack_bits", bits)?, count, signed, s);
    /// Integers of 2 or 4 bits in bytes, from the highest bits of each on.
    pack_bits(x) { bits: i32 } |s| => pack_bits(x, narrow("pack_bits", bits)?, s);
    /// Integers wrapped to 2 or 4 bits.
    wrap_bits(x) { bits: i32 } |s| => wrap_bits(x, narrow("wrap_bits", bits)?, s);

    /// The values of bytes in the format E5M2.
    f8_values(x) |s| => {
        let wide = shift(&x.as_dtype(Dtype::Uint16)?, 8, Direction::Left, s)?;
        wide.view_dtype(Dtype::Float16)
    };
    /// Bytes in the format E5M2, whose last digits are cut off.
    f8_bits(x) |s| => {
        let bits = x.view_dtype(Dtype::Uint16)?;
        shift(&bits, 8, Direction::Right, s)?.as_dtype(Dtype::Uint8)
    };
    /// Numbers cut to the format E5M2.
    round_f8(x) |s| => {
        let bits = x.view_dtype(Dtype::Uint16)?;
        mask(&bits, 0xFF00, s)?.view_dtype(Dtype::Float16)
    };

    /// The values of bytes in the format E4M3FN.
    f8_e4m3fn_values(x) |s| => {
        let nan = mask(x, 0x7F, s)?.eq(number(0x7F, Dtype::Uint8)?)?;
        select(&nan, Array::from_f32(f32::NAN), mlx::from_fp8(x, Dtype::Float32)?)
    };
    /// Bytes in the format E4M3FN of numbers that have one.
    f8_e4m3fn_bits(x) => {
        let nan = Array::from_slice(&[0x7Fu8], &[]);
        select(mlx::is_nan(x)?, &nan, mlx::to_fp8(x)?)
    };
    /// Numbers rounded to the format E4M3FN, which has no infinity.
    round_f8_e4m3fn(x) |s| => round_f8_e4m3fn(x, s);

    /// The nearest f32 of each f64, given by its bits.
    f64_values(x) |s| => on_cpu([x], s, |[x], _| {
        Ok(x.view_dtype(Dtype::Float64)?.as_dtype(Dtype::Float32)?)
    });
    /// The bits of numbers as f64.
    f64_bits(x) |s| => on_cpu([x], s, |[x], _| {
        Ok(x.as_dtype(Dtype::Float64)?.view_dtype(Dtype::Uint64)?)
    });
}

enum Direction {
    Left,
    Right,
}

fn shift(x: &Array, count: i64, direction: Direction, s: &Stream) -> Result<Array> {
    let count = number(count, x.dtype())?;
    Ok(match direction {
        Direction::Left => c_op!(mlx_left_shift(x.as_ptr(), count.as_ptr()), s)?,
        Direction::Right => c_op!(mlx_right_shift(x.as_ptr(), count.as_ptr()), s)?,
    })
}

fn mask(x: &Array, mask: i64, s: &Stream) -> Result<Array> {
    let mask = number(mask, x.dtype())?;
    Ok(c_op!(mlx_bitwise_and(x.as_ptr(), mask.as_ptr()), s)?)
}

fn narrow(op: &'static str, bits: i32) -> Result<i32> {
    match bits {
        2 | 4 => Ok(bits),
        _ => Err(Error::Attribute {
            op,
            name: "bits",
            expected: "2 or 4",
        }),
    }
}

/// How far each integer of a byte is from its lowest bit.
fn places(bits: i32) -> Array {
    let places: Vec<u8> = (1..=8 / bits).map(|i| (8 - bits * i) as u8).collect();
    Array::from_slice(&places, &[8 / bits])
}

fn unpack_bits(x: &Array, bits: i32, count: i32, signed: bool, s: &Stream) -> Result<Array> {
    let bytes = x.reshape(&[-1, 1])?;
    let places = places(bits);
    let shifted = c_op!(mlx_right_shift(bytes.as_ptr(), places.as_ptr()), s)?;
    let all = shifted.reshape(&[-1])?;
    let (start, stop, stride) = (0, count, 1);
    let some = c_op!(mlx_slice(all.as_ptr(), &start, 1, &stop, 1, &stride, 1), s)?;
    let kind = if signed { Dtype::Int8 } else { Dtype::Uint8 };
    wrap_bits(&some.view_dtype(kind)?, bits, s)
}

fn pack_bits(x: &Array, bits: i32, s: &Stream) -> Result<Array> {
    let per_byte = 8 / bits;
    let low = mask(
        &x.view_dtype(Dtype::Uint8)?.reshape(&[-1])?,
        (1 << bits) - 1,
        s,
    )?;
    let missing = (per_byte - low.dim(0) % per_byte) % per_byte;
    let filler = mlx_rs::Array::from_slice(&vec![0u8; missing as usize], &[missing]);
    let filled = mlx::concatenate(&[&low, &filler], 0)?;
    let groups = filled.reshape(&[-1, per_byte])?;
    let places = places(bits);
    let placed = c_op!(mlx_left_shift(groups.as_ptr(), places.as_ptr()), s)?;
    Ok(placed.sum_axes(&[1], false)?.as_dtype(Dtype::Uint8)?)
}

fn wrap_bits(x: &Array, bits: i32, s: &Stream) -> Result<Array> {
    if x.dtype() == Dtype::Uint8 {
        return mask(x, (1 << bits) - 1, s);
    }
    let count = i64::from(8 - bits);
    let high = shift(x, count, Direction::Left, s)?;
    shift(&high, count, Direction::Right, s)
}

/// As Nx rounds: halves of the last digit away from zero, never into the next exponent.
fn round_f8_e4m3fn(x: &Array, s: &Stream) -> Result<Array> {
    let real = |value: f32| Array::from_f32(value);
    let magnitude = mlx::minimum(x.abs()?, real(448.0))?;
    // The exponent, with a fraction of zero, is the largest power of two that fits.
    let power = mask(&magnitude.view_dtype(Dtype::Int32)?, 0x7F80_0000, s)?;
    let power = mlx::maximum(power.view_dtype(Dtype::Float32)?, real(1.0 / 64.0))?;
    let normal = magnitude.ge(&power)?;
    let whole = select(&normal, &power, real(0.0))?;
    let digits = magnitude
        .subtract(&whole)?
        .divide(&power)?
        .multiply(real(8.0))?;
    let digits = digits.add(real(0.5))?.floor()?;
    let digits = mlx::minimum(digits, real(7.0))?;
    let rounded = whole.add(digits.multiply(&power)?.divide(real(8.0))?)?;
    let rounded = mlx::minimum(&rounded, real(448.0))?;
    // The reciprocal of -0.0 is negative, too, but that of an infinity is not.
    let negative = x
        .reciprocal()?
        .lt(real(0.0))?
        .logical_or(x.lt(real(0.0))?)?;
    let signed = select(&negative, rounded.negative()?, &rounded)?;
    Ok(select(mlx::is_nan(x)?, x, &signed)?)
}
