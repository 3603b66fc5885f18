//! Functions of transformers, which are single kernels on GPUs.

use mlx_rs::{Array, Dtype, Stream};
use once_cell::sync::OnceCell;

use super::attention::{attention, Attention};
use super::cached::{attention_from, update_cache};
use super::functions::{self, fast};
use super::gelu::{gelu, gelu_sigmoid, gelu_tanh};
use super::reduction::{reduce, SUM};
use super::{ops, row};
use crate::error::{Error, Result};
use crate::evaluation;
use crate::ffi::{c_op, on_gpu, optional};
use crate::fuse::Fused;
use crate::program::{Instruction, Instructions, Program};
use crate::simd::{self, Scores, Sigmoid};

ops! {
    /// The elements divided by the root of the mean of their squares along the last axis,
    /// multiplied by a weight if that is the second operand.
    rms_norm[operands] { eps: f64 } |s| => rms_norm(operands, eps, s);

    /// The elements less their mean along the last axis, divided by the root of their
    /// variance. The weight and the bias follow the array if there are such.
    layer_norm[operands] { eps: f64, weight: bool, bias: bool } |s| =>
        layer_norm(operands, eps, weight, bias, s);

    /// Pairs of the first `dims` elements along the last of four axes, turned by angles that
    /// grow along the axis before it, from a position for all or one for each along the
    /// first axis. A third operand holds positions per radian and stands in for `base`.
    rope[operands] { dims: i32, traditional: bool, base: f64, scale: f64 } |s| =>
        rope(operands, Rope { dims, traditional, base, scale }, s);

    /// Sums of values, weighted by how well their keys match the queries. A mask, of booleans
    /// or of numbers to add, and sinks follow the values if there are such.
    attention[operands] { scale: f64, causal: bool, mask: bool, sinks: bool } |s| =>
        attention(operands, Attention { scale, causal, mask, sinks }, s);

    /// The same for queries from a position on, which follows the values: each sees the keys up
    /// to its own position, and the first key in any case.
    attention_from[operands] { scale: f64, sinks: bool } |s| looks =>
        attention_from(operands, scale, sinks, s);

    /// The cache with an update at a position along an axis, moved so that it fits.
    update_cache(cache, update, position) { axis: i32 } |s| looks =>
        update_cache(cache, update, position, axis, s);

    /// Exponentials that sum to one along an axis, summed in single precision if `precise`.
    softmax(x) { axis: i32, precise: bool } |s| => softmax(x, axis, precise, s);

    /// The product of a gate, itself times its sigmoid, and an array.
    swiglu(gate, up) |s| => swiglu(gate, up, s);

    /// The elements, each times the share of a normal distribution that is below it.
    gelu(x) |s| => gelu(x, s);

    /// The same, approximated by the hyperbolic tangent.
    gelu_tanh(x) |s| => gelu_tanh(x, s);

    /// The same, approximated by the logistic function.
    gelu_sigmoid(x) |s| => gelu_sigmoid(x, s);
}

/// The operands by their places, with none for those that are not there.
pub(super) fn places<'a, const N: usize>(
    op: &'static str,
    operands: &[&'a Array],
    present: [bool; N],
) -> Result<[Option<&'a Array>; N]> {
    let (expected, given) = (present.iter().filter(|&&is| is).count(), operands.len());
    if expected != given {
        return Err(Error::OperandCount {
            op,
            expected,
            given,
        });
    }
    let mut operands = operands.iter().copied();
    Ok(present.map(|is| if is { operands.next() } else { None }))
}

fn rms_norm(operands: &[&Array], eps: f64, s: &Stream) -> Result<Array> {
    let present = [true, operands.len() > 1];
    let [Some(x), weight] = places("rms_norm", operands, present)? else {
        unreachable!()
    };
    if x.size() == 0 {
        return Ok(x.clone());
    }
    if let Some(y) = simd::rms_norm(operands, eps, s)? {
        return Ok(y);
    }
    if !on_gpu(s) {
        let wide = x.as_dtype(Dtype::Float32)?;
        return normalized(&wide, eps, x.dtype(), [weight, None], s);
    }
    Ok(c_op!(
        mlx_fast_rms_norm(x.as_ptr(), optional(weight), eps as f32),
        s
    )?)
}

fn layer_norm(
    operands: &[&Array],
    eps: f64,
    weight: bool,
    bias: bool,
    s: &Stream,
) -> Result<Array> {
    let [Some(x), weight, bias] = places("layer_norm", operands, [true, weight, bias])? else {
        unreachable!()
    };
    if x.size() == 0 {
        return Ok(x.clone());
    }
    if weight.is_some() || bias.is_none() {
        if let Some(y) = simd::layer_norm(operands, eps, s)? {
            return Ok(y);
        }
    }
    if !on_gpu(s) {
        let wide = x.as_dtype(Dtype::Float32)?;
        let centred = wide.subtract(mean(&wide, s)?)?;
        return normalized(&centred, eps, x.dtype(), [weight, bias], s);
    }
    Ok(c_op!(
        mlx_fast_layer_norm(x.as_ptr(), optional(weight), optional(bias), eps as f32),
        s
    )?)
}

/// MLX composes norms on a CPU, too, but of sums that take longer.
fn normalized(
    x: &Array,
    eps: f64,
    dtype: Dtype,
    [weight, bias]: [Option<&Array>; 2],
    s: &Stream,
) -> Result<Array> {
    let squares = mean(&x.multiply(x)?, s)?;
    let scale = squares.add(Array::from_f32(eps as f32))?.rsqrt()?;
    let mut y = x.multiply(scale)?.as_dtype(dtype)?;
    if let Some(weight) = weight {
        y = y.multiply(weight)?;
    }
    if let Some(bias) = bias {
        y = y.add(bias)?;
    }
    Ok(y)
}

/// Along the last axis.
fn mean(x: &Array, s: &Stream) -> Result<Array> {
    let last = x.ndim() as i32 - 1;
    let size = x.shape().last().copied().unwrap_or(1);
    let sum = reduce(x, &[last], &SUM, s)?;
    Ok(sum.divide(Array::from_f32(size as f32))?)
}

struct Rope {
    dims: i32,
    traditional: bool,
    base: f64,
    scale: f64,
}

fn rope(operands: &[&Array], rope: Rope, s: &Stream) -> Result<Array> {
    let present = [true, true, operands.len() > 2];
    let [Some(x), Some(position), periods] = places("rope", operands, present)? else {
        unreachable!()
    };
    let (expected, given) = (4, x.ndim());
    if expected != given {
        return Err(Error::Rank { expected, given });
    }
    if x.size() == 0 {
        return Ok(x.clone());
    }
    let base = mlx_sys::mlx_optional_float_ {
        value: rope.base as f32,
        has_value: periods.is_none(),
    };
    Ok(c_op!(
        mlx_fast_rope_dynamic(
            x.as_ptr(),
            rope.dims,
            rope.traditional,
            base,
            rope.scale as f32,
            position.as_ptr(),
            optional(periods)
        ),
        s
    )?)
}

fn softmax(x: &Array, axis: i32, precise: bool, s: &Stream) -> Result<Array> {
    if x.size() == 0 {
        return Ok(x.clone());
    }
    if axis == -1 || axis == x.ndim() as i32 - 1 {
        if let Some(y) = simd::softmax(x, None, Scores::PLAIN, s)? {
            return Ok(y);
        }
    }
    Ok(c_op!(mlx_softmax_axis(x.as_ptr(), axis, precise), s)?)
}

/// One kernel on a GPU. On a CPU MLX would need a C++ compiler for that.
fn swiglu(gate: &Array, up: &Array, s: &Stream) -> Result<Array> {
    static FUSED: OnceCell<Fused> = OnceCell::new();
    if let Some(y) = simd::swiglu(gate, up, s)? {
        return Ok(y);
    }
    if !on_gpu(s) || evaluation::is_tracing() {
        let share = fast::<Sigmoid>(gate, s, functions::sigmoid)?;
        return Ok(share.multiply(gate)?.multiply(up)?);
    }
    let fused = FUSED.get_or_try_init(|| gated().map(Fused::new))?;
    Ok(fused.run(&[gate, up], s)?.remove(0))
}

/// `swiglu` as a program of rows.
fn gated() -> Result<Program> {
    let step = |name, operands: &[usize]| {
        Ok::<_, Error>(Instruction {
            row: row(name)?,
            operands: operands.into(),
            attributes: vec![],
        })
    };
    let steps = [
        step("sigmoid", &[0])?,
        step("multiply", &[2, 0])?,
        step("multiply", &[3, 1])?,
    ];
    Program::new(2, steps.into_iter().collect::<Instructions>(), vec![4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi;

    #[test]
    fn the_program_of_a_gate_is_the_row() {
        let stream = Stream::cpu();
        let [gate, up] = [[0.5f32, -2.0], [3.0, 4.0]].map(|x| Array::from_slice(&x, &[2]));
        let row = swiglu(&gate, &up, &stream).unwrap();
        let program = gated().unwrap().run(vec![gate, up], &stream).unwrap();
        ffi::eval(&[&row, &program[0]]).unwrap();
        assert_eq!(row.as_slice::<f32>(), program[0].as_slice::<f32>());
    }
}
