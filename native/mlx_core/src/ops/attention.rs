//! Sums of values, weighted by how well their keys match queries.

use mlx_rs::ops::select;
use mlx_rs::{Array, Dtype, Stream};

use super::cached::{in_stretches, STRETCH};
use super::fast::places;
use super::number;
use crate::dtype::dtype_size;
use crate::error::{Error, Result};
use crate::ffi::{c_op, on_gpu, optional};
use crate::memory;
use crate::simd::{self, Scores};

#[derive(Clone, Copy)]
pub(super) struct Attention {
    pub scale: f64,
    pub causal: bool,
    pub mask: bool,
    pub sinks: bool,
}

pub(super) fn attention(operands: &[&Array], options: Attention, s: &Stream) -> Result<Array> {
    let present = [true, true, true, options.mask, options.sinks];
    let [Some(q), Some(k), Some(v), mask, sinks] = places("attention", operands, present)? else {
        unreachable!()
    };
    check_axes([q, k, v])?;
    if !on_gpu(s) && matches!(q.dtype(), Dtype::Float16 | Dtype::Bfloat16) {
        return in_single(operands, options, s);
    }
    let added = match mask {
        Some(mask) if on_gpu(s) || sinks.is_none() => Some(numbers(mask, q.dtype())?),
        _ => None,
    };
    if !on_gpu(s) && sinks.is_none() {
        let (scale, causal) = (options.scale, options.causal);
        if let Some(attended) = simd::attention([q, k, v], added.as_ref(), scale, causal, s)? {
            return Ok(attended);
        }
    }
    let (queries, keys) = (q.dim(-2), k.dim(-2));
    if options.causal && !on_gpu(s) && (STRETCH + 1..=keys).contains(&queries) {
        return in_stretches([q, k, v], sinks, options, s);
    }
    check_scores(q, k, s)?;
    if !on_gpu(s) && sinks.is_none() {
        if let Some(attended) = composed([q, k, v], added.as_ref(), options, s)? {
            return Ok(attended);
        }
    }
    let mask = if on_gpu(s) { added.as_ref() } else { mask };
    let mode = match (options.causal, mask) {
        (true, _) => c"causal",
        (false, Some(_)) => c"array",
        (false, None) => c"",
    };
    let force_fused = false;
    Ok(c_op!(
        mlx_fast_scaled_dot_product_attention(
            q.as_ptr(),
            k.as_ptr(),
            v.as_ptr(),
            options.scale as f32,
            mode.as_ptr(),
            optional(mask),
            optional(sinks),
            force_fused
        ),
        s
    )?)
}

/// Batch, heads, positions and the numbers of each.
pub(super) fn check_axes(operands: [&Array; 3]) -> Result<()> {
    let expected = 4;
    match operands.iter().find(|x| x.ndim() != expected) {
        Some(x) => Err(Error::Rank {
            expected,
            given: x.ndim(),
        }),
        None => Ok(()),
    }
}

/// On the CPU, of products and a softmax that knows masks; nothing if it doesn't know this one.
fn composed(
    [q, k, v]: [&Array; 3],
    mask: Option<&Array>,
    options: Attention,
    s: &Stream,
) -> Result<Option<Array>> {
    let (&[batch, heads, queries, size], &[_, groups, _, _]) = (q.shape(), k.shape()) else {
        return Ok(None);
    };
    if [k, v].iter().any(|x| x.dtype() != q.dtype()) || groups == 0 || q.size() == 0 {
        return Ok(None);
    }
    if mask.is_some() && options.causal {
        return Ok(None);
    }
    // Heads that share keys are more queries of one product.
    let together = queries * (heads / groups);
    let shared = q.reshape(&[batch, groups, together, size])?;
    let scores = shared.matmul(k.transpose_axes(&[0, 1, 3, 2])?)?;
    let shares = simd::softmax(
        &scores,
        mask,
        Scores {
            scale: options.scale,
            heads: heads as usize,
            queries: queries as usize,
            causal: options.causal,
        },
        s,
    )?;
    let Some(shares) = shares else {
        return Ok(None);
    };
    let attended = shares.matmul(v)?;
    let width = v.shape()[3];
    Ok(Some(attended.reshape(&[batch, heads, queries, width])?))
}

/// On the CPU products of halves take many times as long as those of single precision.
fn in_single(operands: &[&Array], options: Attention, s: &Stream) -> Result<Array> {
    let wide: Result<Vec<Array>> = operands
        .iter()
        .map(|&x| match x.dtype() {
            Dtype::Bool => Ok(x.clone()),
            _ => Ok(x.as_dtype(Dtype::Float32)?),
        })
        .collect();
    let attended = attention(&wide?.iter().collect::<Vec<_>>(), options, s)?;
    Ok(attended.as_dtype(operands[0].dtype())?)
}

/// Where no kernel does it all there is an array of what each query makes of each key,
/// which no one sees.
fn check_scores(q: &Array, k: &Array, s: &Stream) -> Result<()> {
    if let ([batch, heads, queries, size], [_, _, keys, _]) = (q.shape(), k.shape()) {
        if !on_gpu(s) || !has_kernel(*queries, *size, q.dtype()) {
            let sizes = [batch, heads, queries, keys].map(|&size| size as usize);
            let count = sizes
                .into_iter()
                .fold(dtype_size(q.dtype()), usize::saturating_mul);
            memory::check(count)?;
        }
    }
    Ok(())
}

/// Whether MLX has a kernel of a GPU for so many queries with vectors of that size.
fn has_kernel(queries: i32, size: i32, dtype: Dtype) -> bool {
    let half = matches!(dtype, Dtype::Float16 | Dtype::Bfloat16);
    let few = queries <= 8 && matches!(size, 64 | 96 | 128 | 256);
    if cfg!(target_os = "macos") {
        few || matches!(size, 64 | 80 | 128)
    } else {
        few || half && size % 8 == 0 && size <= 128
    }
}

/// The mask as numbers to add.
fn numbers(mask: &Array, dtype: Dtype) -> Result<Array> {
    match mask.dtype() {
        Dtype::Bool => added(mask, dtype),
        _ => Ok(mask.clone()),
    }
}

/// The numbers that a mask of booleans stands for. They are finite, because of a query that
/// sees no key the kernels of GPUs would make NaN.
fn added(mask: &Array, dtype: Dtype) -> Result<Array> {
    let least = match dtype {
        Dtype::Float16 => -32768.0f32,
        _ => f32::MIN / 2.0,
    };
    let least = Array::from_f32(least).as_dtype(dtype)?;
    Ok(select(mask, number(0, dtype)?, least)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi;

    #[test]
    fn hidden_keys_are_finite_in_every_type() {
        let mask = Array::from_slice(&[true, false], &[2]);
        for dtype in [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32] {
            let numbers = added(&mask, dtype).unwrap();
            assert_eq!(numbers.dtype(), dtype);
            let numbers = numbers.as_dtype(Dtype::Float32).unwrap();
            ffi::eval(&[&numbers]).unwrap();
            let [seen, hidden] = numbers.as_slice::<f32>() else {
                unreachable!()
            };
            assert_eq!(*seen, 0.0);
            assert!(*hidden <= -32768.0 && hidden.is_finite());
        }
    }
}
