//! Functions of transformers, which are single kernels on GPUs.

use mlx_rs::{Array, Stream};

use super::ops;
use crate::error::{Error, Result};
use crate::ffi::{c_op, optional};

ops! {
    /// The elements divided by the root of the mean of their squares along the last axis,
    /// multiplied by a weight if that is the second operand.
    rms_norm[operands] { eps: f64 } |s| => rms_norm(operands, eps, s);
}

fn rms_norm(operands: &[&Array], eps: f64, s: &Stream) -> Result<Array> {
    let (x, weight) = match *operands {
        [x] => (x, None),
        [x, weight] => (x, Some(weight)),
        _ => return Err(count("rms_norm", 2, operands)),
    };
    if x.size() == 0 {
        return Ok(x.clone());
    }
    Ok(c_op!(
        mlx_fast_rms_norm(x.as_ptr(), optional(weight), eps as f32),
        s
    )?)
}

fn count(op: &'static str, expected: usize, operands: &[&Array]) -> Error {
    Error::OperandCount {
        op,
        expected,
        given: operands.len(),
    }
}
