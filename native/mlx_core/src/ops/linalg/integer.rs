//! Products of matrices of integers.
//!
//! MLX multiplies matrices of floats only. Operands are cut into limbs so narrow that
//! a float holds a sum of products of them exactly; the products of limbs, each shifted
//! to its place, add up to the product in the arithmetic of the type, which wraps.

use mlx_rs::ops::{addmm, matmul as product, pad};
use mlx_rs::{Array, Dtype, Stream};

use super::matrix::{part, resized, rows, size, transpose};
use crate::device::Device;
use crate::dtype::dtype_size;
use crate::error::Result;
use crate::ffi::c_op;
use crate::ops::number;

/// Products of single elements up to which there is nothing to win.
const SMALL: i64 = 1 << 16;

pub(super) fn matmul(a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    let (m, inner) = size(a);
    let n = b.dim(-1);
    let products = a.size() as i64 * i64::from(n);
    if m.min(n) <= 1 || products <= SMALL || inner == 0 {
        return elementwise(a, b);
    }
    multiply(a, b, &Plan::new(a.dtype(), inner, Device::of(s)), s)
}

fn multiply(a: &Array, b: &Array, plan: &Plan, s: &Stream) -> Result<Array> {
    let wide = if plan.bits == 64 {
        Dtype::Uint64
    } else {
        Dtype::Uint32
    };
    let a = limbs(a, plan, s)?;
    let b = limbs(b, plan, s)?;
    let mut sum: Option<Array> = None;
    for place in 0..plan.limbs {
        let pairs: Vec<_> = (0..=place).map(|i| (&a[i], &b[place - i])).collect();
        let digit = digit(&pairs, plan, wide, s)?;
        let shift = number((place as i64) * i64::from(plan.width), wide)?;
        let shifted = c_op!(mlx_left_shift(digit.as_ptr(), shift.as_ptr()), s)?;
        sum = Some(match sum {
            Some(sum) => sum.add(shifted)?,
            None => shifted,
        });
    }
    let sum = sum.unwrap_or(number(0, wide)?);
    Ok(sum.as_dtype(plan.dtype)?)
}

/// Multiplies and sums, which makes as many products as the larger operand has elements.
fn elementwise(a: &Array, b: &Array) -> Result<Array> {
    let dtype = a.dtype();
    let (m, n) = (a.dim(-2), b.dim(-1));
    let sum = if n == 1 {
        a.multiply(transpose(b)?)?.sum_axis(-1, true)?
    } else if m == 1 {
        transpose(a)?.multiply(b)?.sum_axis(-2, true)?
    } else {
        let a = a.expand_dims(-2)?;
        let b = transpose(b)?.expand_dims(-3)?;
        a.multiply(b)?.sum_axis(-1, false)?
    };
    Ok(sum.as_dtype(dtype)?)
}

/// How the elements of a type are cut.
struct Plan {
    dtype: Dtype,
    bits: u32,
    limbs: usize,
    /// Bits of a limb.
    width: u32,
    float: Dtype,
    /// Products that a float can sum exactly.
    block: i32,
    /// Elements of partial products that exist at a time, where one block has fewer.
    partial: i64,
    /// Whether products of several pairs of limbs fit a sum, too.
    joint: bool,
}

impl Plan {
    /// GPUs have no f64, and may round operands of a product to eleven bits.
    fn new(dtype: Dtype, inner: i32, device: Device) -> Plan {
        let bits = 8 * dtype_size(dtype) as u32;
        let (float, width, block, joint) = match device {
            Device::Cpu if bits > 8 || inner > 1 << 8 => {
                (Dtype::Float64, bits.min(16), 1 << 19, true)
            }
            _ => (Dtype::Float32, 8, 1 << 8, false),
        };
        Plan {
            dtype,
            bits,
            limbs: (bits / width) as usize,
            width,
            float,
            block,
            partial: 1 << 24,
            joint,
        }
    }
}

/// From the lowest to the highest, as floats.
fn limbs(x: &Array, plan: &Plan, s: &Stream) -> Result<Vec<Array>> {
    let unsigned = match plan.bits {
        8 => Dtype::Uint8,
        16 => Dtype::Uint16,
        32 => Dtype::Uint32,
        _ => Dtype::Uint64,
    };
    let x = x.view_dtype(unsigned)?;
    let mask = number((1 << plan.width) - 1, unsigned)?;
    (0..plan.limbs)
        .map(|i| {
            let shift = number(i as i64 * i64::from(plan.width), unsigned)?;
            let shifted = c_op!(mlx_right_shift(x.as_ptr(), shift.as_ptr()), s)?;
            let limb = c_op!(mlx_bitwise_and(shifted.as_ptr(), mask.as_ptr()), s)?;
            Ok(limb.as_dtype(plan.float)?)
        })
        .collect()
}

/// The sum of the products of pairs of limbs.
fn digit(pairs: &[(&Array, &Array)], plan: &Plan, wide: Dtype, s: &Stream) -> Result<Array> {
    let (m, inner) = size(pairs[0].0);
    let n = pairs[0].1.dim(-1);
    let batch: i64 = pairs[0]
        .0
        .shape()
        .iter()
        .rev()
        .skip(2)
        .map(|&d| i64::from(d))
        .product();
    let each = (batch * i64::from(m) * i64::from(n)).max(1);
    let blocks = (plan.partial / each).clamp(1, i64::from(inner)) as i32;
    let step = plan.block.saturating_mul(blocks);
    let mut sum: Option<Array> = None;
    let mut add = |partial: Array| -> Result<()> {
        sum = Some(match sum.take() {
            Some(sum) => sum.add(partial)?,
            None => partial,
        });
        Ok(())
    };
    let mut start = 0;
    while start < inner {
        let stop = inner.min(start.saturating_add(step));
        let chunk = |&(a, b): &(&Array, &Array)| -> Result<(Array, Array)> {
            Ok((part(a, 0..m, start..stop, s)?, rows(b, start..stop, s)?))
        };
        let chunks: Vec<_> = pairs.iter().map(chunk).collect::<Result<_>>()?;
        if plan.joint && stop - start <= plan.block {
            add(joint(&chunks, wide)?)?;
        } else {
            for (a, b) in &chunks {
                add(blockwise(a, b, plan.block, wide)?)?;
            }
        }
        start = stop;
    }
    Ok(sum.unwrap_or(number(0, wide)?))
}

/// Sums the products of all pairs as floats.
fn joint(pairs: &[(Array, Array)], wide: Dtype) -> Result<Array> {
    let mut sum = product(&pairs[0].0, &pairs[0].1)?;
    for (a, b) in &pairs[1..] {
        sum = addmm(&sum, a, b, None, None)?;
    }
    to_integer(&sum, wide)
}

/// The product of one pair, summed as floats in blocks and as integers over the blocks.
fn blockwise(a: &Array, b: &Array, block: i32, wide: Dtype) -> Result<Array> {
    let (m, inner) = size(a);
    let n = b.dim(-1);
    if inner <= block {
        return to_integer(&product(a, b)?, wide);
    }
    let padding = (block - inner % block) % block;
    let mut widths = vec![(0, 0); a.ndim()];
    widths[a.ndim() - 1].1 = padding;
    let a = pad(a, &widths[..], None, None)?;
    widths[a.ndim() - 1].1 = 0;
    widths[a.ndim() - 2].1 = padding;
    let b = pad(b, &widths[..], None, None)?;
    let blocks = (inner + padding) / block;
    let mut shape = resized(&a, m, blocks);
    shape.push(block);
    let a = a.reshape(&shape)?.swap_axes(-2, -3)?;
    let mut shape = resized(&b, blocks, block);
    shape.push(n);
    let partial = to_integer(&product(&a, b.reshape(&shape)?)?, wide)?;
    Ok(partial.sum_axis(-3, false)?)
}

/// Through 64 bits, as the partial product may have more than 32.
fn to_integer(x: &Array, wide: Dtype) -> Result<Array> {
    match x.dtype() {
        Dtype::Float64 => Ok(x.as_dtype(Dtype::Uint64)?.as_dtype(wide)?),
        _ => Ok(x.as_dtype(wide)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: i32, seed: u64) -> Vec<i64> {
        // Knuth's generator; its upper bits are the better ones.
        let next = |x: &mut u64| {
            *x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            Some(*x as i64 ^ (*x >> 29) as i64)
        };
        std::iter::repeat_with({
            let mut x = seed;
            move || next(&mut x).unwrap_or(0)
        })
        .take(count as usize)
        .collect()
    }

    /// The plans of both devices, on the CPU, against plain loops.
    #[test]
    fn limbs_keep_every_bit() {
        crate::init();
        let s = Stream::new_with_device(&Device::Cpu.handle());
        let (m, inner, n) = (3, 700, 2);
        let (a, b) = (numbers(m * inner, 1), numbers(inner * n, 2));
        let expected: Vec<i64> = (0..m * n)
            .map(|i| {
                let (row, column) = (i / n, i % n);
                (0..inner).fold(0i64, |sum, k| {
                    let (x, y) = (a[(row * inner + k) as usize], b[(k * n + column) as usize]);
                    sum.wrapping_add(x.wrapping_mul(y))
                })
            })
            .collect();
        let (a, b) = (
            Array::from_slice(&a, &[m, inner]),
            Array::from_slice(&b, &[inner, n]),
        );
        mlx_rs::with_stream(&s, || {
            for dtype in [Dtype::Uint64, Dtype::Int64, Dtype::Uint32, Dtype::Int32]
                .into_iter()
                .chain([Dtype::Uint16, Dtype::Int16, Dtype::Uint8, Dtype::Int8])
            {
                let expected = Array::from_slice(&expected, &[m, n])
                    .as_dtype(dtype)
                    .unwrap();
                let (a, b) = (a.as_dtype(dtype).unwrap(), b.as_dtype(dtype).unwrap());
                let plans = Device::ALL.map(|device| Plan::new(dtype, inner, device));
                let blocks = |block, partial| Plan {
                    block,
                    partial,
                    ..Plan::new(dtype, inner, Device::Cpu)
                };
                for plan in plans.into_iter().chain([blocks(16, 1), blocks(16, 64)]) {
                    let product = multiply(&a, &b, &plan, &s).unwrap();
                    assert_eq!(product.dtype(), dtype);
                    assert!(product.eq_values(&expected).unwrap());
                }
            }
        });
    }
}
