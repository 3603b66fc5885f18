//! One result for each element by all those of its row, that is, along the last axis.

use mlx_rs::{Array, Stream};

use super::chunk::{chunks, load, store, CHUNK};
use super::functions::sigmoid;
use super::level::{Kernel, Level};
use super::number::Number;
use super::primitive::{array, Call, Order, NO_PARAMETERS};
use crate::error::Result;

/// Elements less their mean, divided by the root of their variance and `eps`, or nothing
/// where this has no kernel. A weight and a bias may follow the array.
pub(crate) fn layer_norm(operands: &[&Array], eps: f64, s: &Stream) -> Result<Option<Array>> {
    if !are_rows(operands) {
        return Ok(None);
    }
    array::<Norm<true>>(
        c"LayerNorm",
        Order::Rows,
        [eps, 0.0, 0.0, 0.0, 0.0, 0.0],
        operands,
        s,
    )
}

/// Elements divided by the root of the mean of their squares and `eps`, or nothing where this
/// has no kernel. A weight may follow the array.
pub(crate) fn rms_norm(operands: &[&Array], eps: f64, s: &Stream) -> Result<Option<Array>> {
    if !are_rows(operands) {
        return Ok(None);
    }
    array::<Norm<false>>(
        c"RmsNorm",
        Order::Rows,
        [eps, 0.0, 0.0, 0.0, 0.0, 0.0],
        operands,
        s,
    )
}

/// Whether the first operand has rows, and what follows are each one of them.
fn are_rows(operands: &[&Array]) -> bool {
    let [x, rest @ ..] = operands else {
        return false;
    };
    let Some(size) = x.shape().last() else {
        return false;
    };
    rest.iter()
        .all(|operand| operand.dtype() == x.dtype() && operand.shape() == [*size])
}

/// The product of a gate, itself times its sigmoid, and an array; nothing where this has no
/// kernel.
pub(crate) fn swiglu(gate: &Array, up: &Array, s: &Stream) -> Result<Option<Array>> {
    if gate.dtype() != up.dtype() || gate.shape() != up.shape() {
        return Ok(None);
    }
    array::<SwiGlu>(c"SwiGlu", Order::Rows, NO_PARAMETERS, &[gate, up], s)
}

struct SwiGlu;

impl Kernel for SwiGlu {
    type Call = Call;

    #[inline(always)]
    unsafe fn run<L: Level, T: Number>(call: &Call) {
        let [gate, up] = [0, 1].map(|input: usize| call.inputs[input].cast::<T>());
        let to = call.output.cast::<T>();
        for (at, count) in chunks(call.length) {
            // Safety: so many elements are left in each.
            unsafe {
                let (gate, up) = (load(gate.add(at), count, 0.0), load(up.add(at), count, 0.0));
                let product = |lane: usize| gate[lane] * sigmoid::<L>(gate[lane]) * up[lane];
                store(to.add(at), count, std::array::from_fn(product));
            }
        }
    }
}

/// The chunks of a row added up place by place, each after `value` of it.
///
/// Safety: the row has so many elements.
#[inline(always)]
unsafe fn total<T: Number>(
    row: *const T,
    length: usize,
    rest: f64,
    value: impl Fn(f64) -> f64,
) -> f64 {
    let mut sums = [0.0; CHUNK];
    for (at, count) in chunks(length) {
        // Safety: so many elements are left.
        let chunk = unsafe { load(row.add(at), count, rest) };
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += value(x);
        }
    }
    sums.iter().sum()
}

/// `CENTRED` if the mean is taken off first.
struct Norm<const CENTRED: bool>;

impl<const CENTRED: bool> Kernel for Norm<CENTRED> {
    type Call = Call;

    #[inline(always)]
    unsafe fn run<L: Level, T: Number>(call: &Call) {
        let (from, to) = (call.inputs[0].cast::<T>(), call.output.cast::<T>());
        let size = call.row as f64;
        for row in 0..call.length / call.row.max(1) {
            let (from, to) = (
                from.wrapping_add(row * call.row),
                to.wrapping_add(row * call.row),
            );
            // Safety: a whole row is left on either side.
            unsafe {
                let mean = if CENTRED {
                    total(from, call.row, 0.0, |x| x) / size
                } else {
                    0.0
                };
                let squares = total(from, call.row, mean, |x| (x - mean) * (x - mean));
                let scale = 1.0 / (squares / size + call.parameters[0]).sqrt();
                scaled(call, from, to, [mean, scale]);
            }
        }
    }
}

/// Safety: both, and the factors of the call, have the elements of a row.
#[inline(always)]
unsafe fn scaled<T: Number>(call: &Call, from: *const T, to: *mut T, [mean, scale]: [f64; 2]) {
    let [_, weight, bias] = call.inputs.map(|input| input.cast::<T>());
    for (at, count) in chunks(call.row) {
        // Safety: so many elements are left of each that is there.
        unsafe {
            let mut chunk = load(from.add(at), count, 0.0).map(|x| (x - mean) * scale);
            if !weight.is_null() {
                let weight = load(weight.add(at), count, 0.0);
                chunk = std::array::from_fn(|lane| chunk[lane] * weight[lane]);
            }
            if !bias.is_null() {
                let bias = load(bias.add(at), count, 0.0);
                chunk = std::array::from_fn(|lane| chunk[lane] + bias[lane]);
            }
            store(to.add(at), count, chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::entries;
    use std::ptr::null;

    fn run<K: Kernel<Call = Call>>(operands: [&[f32]; 3], row: usize, eps: f64) -> Vec<Vec<f32>> {
        let pointer = |x: &[f32]| {
            if x.is_empty() {
                null()
            } else {
                x.as_ptr().cast()
            }
        };
        let mut parameters = NO_PARAMETERS;
        parameters[0] = eps;
        let by_level = entries::<K, f32>().into_iter().flatten().map(|entry| {
            let mut y = vec![f32::NAN; operands[0].len()];
            let call = Call {
                inputs: operands.map(pointer),
                output: y.as_mut_ptr().cast(),
                length: y.len(),
                row,
                parameters,
            };
            // Safety: the operands have the sizes that the kernels ask for.
            unsafe { entry(&call) };
            y
        });
        by_level.collect()
    }

    fn numbers(count: usize, from: f32) -> Vec<f32> {
        (0..count)
            .map(|at| (at as f32 * 0.7 + from).sin() + 0.5)
            .collect()
    }

    fn assert_near(got: Vec<Vec<f32>>, expected: &[f64]) {
        for got in got {
            for (got, expected) in got.iter().zip(expected) {
                let distance = (f64::from(*got) - expected).abs();
                assert!(distance <= expected.abs() * 1e-7 + 1e-9, "{got} {expected}");
            }
        }
    }

    fn normalized(x: &[f32], row: usize, centred: bool, eps: f64) -> Vec<f64> {
        let normalized = |row: &[f32]| -> Vec<f64> {
            let size = row.len() as f64;
            let wide: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let mean = if centred {
                wide.iter().sum::<f64>() / size
            } else {
                0.0
            };
            let squares = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let root = (squares / size + eps).sqrt();
            wide.iter().map(|x| (x - mean) / root).collect()
        };
        x.chunks(row).flat_map(normalized).collect()
    }

    #[test]
    fn norms_of_rows_of_any_length_at_each_level() {
        for row in [1, 5, 16, 33, 384] {
            let x = numbers(3 * row, 0.0);
            let (weight, bias) = (numbers(row, 1.0), numbers(row, 2.0));
            let at = |factor: &[f32], place: usize| f64::from(factor[place % row]);
            let rms = normalized(&x, row, false, 0.125);
            assert_near(run::<Norm<false>>([&x, &[], &[]], row, 0.125), &rms);
            let norm = normalized(&x, row, true, 0.125).into_iter().enumerate();
            let norm: Vec<f64> = norm
                .map(|(i, y)| y * at(&weight, i) + at(&bias, i))
                .collect();
            assert_near(run::<Norm<true>>([&x, &weight, &bias], row, 0.125), &norm);
        }
    }

    #[test]
    fn gates_at_each_level() {
        let (gate, up) = (numbers(37, 0.0), numbers(37, 3.0));
        let pairs = gate
            .iter()
            .zip(&up)
            .map(|(&x, &up)| (f64::from(x), f64::from(up)));
        let expected: Vec<f64> = pairs.map(|(x, up)| x / (1.0 + (-x).exp()) * up).collect();
        assert_near(run::<SwiGlu>([&gate, &up, &[]], 37, 0.0), &expected);
    }
}
