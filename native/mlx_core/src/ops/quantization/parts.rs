//! What a quantized matrix consists of.

use std::ffi::CStr;

use mlx_rs::ops as mlx;
use mlx_rs::{Array, Dtype, Stream};

use crate::attribute::{Attribute, FromAttribute};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ffi::{self, arrays, c_op, no_array};
use crate::ops::number;

/// How numbers become few bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Affine,
    Mxfp4,
    Mxfp8,
    Nvfp4,
}

impl Mode {
    pub(super) fn name(self) -> &'static CStr {
        match self {
            Mode::Affine => c"affine",
            Mode::Mxfp4 => c"mxfp4",
            Mode::Mxfp8 => c"mxfp8",
            Mode::Nvfp4 => c"nvfp4",
        }
    }
}

impl FromAttribute<'_> for Mode {
    const EXPECTED: &'static str = "a quantization mode";
    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        let Attribute::Bytes(name) = attribute else {
            return None;
        };
        [Mode::Affine, Mode::Mxfp4, Mode::Mxfp8, Mode::Nvfp4]
            .into_iter()
            .find(|mode| mode.name().to_bytes() == name)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Format {
    pub mode: Mode,
    pub group_size: i32,
    pub bits: i32,
}

impl Format {
    /// MLX divides by both.
    fn check(self) -> Result<()> {
        let Format {
            group_size, bits, ..
        } = self;
        if group_size > 0 && bits > 0 {
            return Ok(());
        }
        Err(Error::QuantizedFormat { group_size, bits })
    }
}

pub(super) struct Parts {
    pub packed: Array,
    pub scales: Array,
    pub biases: Option<Array>,
    pub format: Format,
}

impl Parts {
    /// Refuses what does not belong together: MLX would read beyond the end of some.
    pub(super) fn of(op: &'static str, parts: &[&Array], format: Format) -> Result<Parts> {
        let expected = if format.mode == Mode::Affine { 3 } else { 2 };
        if parts.len() != expected {
            let given = parts.len();
            return Err(Error::OperandCount {
                op,
                expected,
                given,
            });
        }
        format.check()?;
        let parts = Parts {
            packed: parts[0].clone(),
            scales: parts[1].clone(),
            biases: parts.get(2).map(|&biases| biases.clone()),
            format,
        };
        parts.check()?;
        Ok(parts)
    }

    fn check(&self) -> Result<()> {
        let Format {
            group_size, bits, ..
        } = self.format;
        let (packed, scales) = (self.packed.shape(), self.scales.shape());
        let sound = packed.len() >= 2
            && packed.len() == scales.len()
            && packed[..packed.len() - 1] == scales[..scales.len() - 1]
            && self.packed.dtype() == Dtype::Uint32
            && i64::from(self.packed.dim(-1)) * 32
                == i64::from(self.scales.dim(-1)) * i64::from(group_size) * i64::from(bits)
            && self.biases.as_ref().is_none_or(|biases| {
                biases.shape() == scales && biases.dtype() == self.scales.dtype()
            });
        if sound {
            return Ok(());
        }
        Err(Error::Quantized {
            packed: (&self.packed).into(),
            scales: (&self.scales).into(),
            group_size,
            bits,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packed.size() == 0
    }

    /// The columns of the matrix, of which each group has one scale.
    pub(super) fn columns(&self) -> i32 {
        self.scales.dim(-1) * self.format.group_size
    }

    /// Zeros: MLX divides by the sizes.
    pub(super) fn empty_product(&self, x: &Array, transpose: bool) -> Result<Array> {
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = if transpose {
                self.packed.dim(-2)
            } else {
                self.columns()
            };
        }
        Ok(mlx::broadcast_to(number(0, x.dtype())?, &shape)?)
    }

    pub(super) fn biases_ptr(&self) -> mlx_sys::mlx_array {
        self.biases.as_ref().map_or_else(no_array, Array::as_ptr)
    }

    /// The same with scales and biases of another type, where they are floats.
    pub(super) fn cast(&self, dtype: Dtype) -> Result<Parts> {
        let cast = |x: &Array| match x.dtype() {
            Dtype::Uint8 => Ok(x.clone()),
            _ => x.as_dtype(dtype),
        };
        Ok(Parts {
            packed: self.packed.clone(),
            scales: cast(&self.scales)?,
            biases: self.biases.as_ref().map(cast).transpose()?,
            format: self.format,
        })
    }

    /// What a product on the right is made with.
    pub(super) fn unpacked(&self, dtype: Dtype, transpose: bool, s: &Stream) -> Result<Array> {
        let w = self.dequantize(dtype, s)?;
        Ok(if transpose { w.swap_axes(-1, -2)? } else { w })
    }

    /// The same parts, where kernels need it in row order.
    pub(super) fn in_order(&self, s: &Stream) -> Result<Parts> {
        let in_order = |x: &Array| in_order(x, s);
        Ok(Parts {
            packed: in_order(&self.packed)?,
            scales: in_order(&self.scales)?,
            biases: self.biases.as_ref().map(in_order).transpose()?,
            format: self.format,
        })
    }

    pub(super) fn dequantize(&self, dtype: Dtype, s: &Stream) -> Result<Array> {
        let mut shape = self.packed.shape().to_vec();
        if self.is_empty() {
            if let Some(last) = shape.last_mut() {
                *last = self.columns();
            }
            return Ok(mlx::broadcast_to(number(0, dtype)?, &shape)?);
        }
        let Format {
            mode,
            group_size,
            bits,
        } = self.format;
        let result = c_op!(
            mlx_dequantize(
                self.packed.as_ptr(),
                self.scales.as_ptr(),
                self.biases_ptr(),
                some(group_size),
                some(bits),
                mode.name().as_ptr(),
                no_array(),
                mlx_sys::mlx_optional_dtype_ {
                    value: dtype.into(),
                    has_value: true,
                }
            ),
            s
        )?;
        Ok(result)
    }
}

/// Whether GPUs multiply with a packed matrix as they should. NVIDIA's kernels are only for
/// products that contract the axis along which the groups lie, and the one for several rows of
/// 64 numbers in single precision, a group of 4 bits each, gives garbage.
pub(super) fn has_kernel(x: &Array, transpose: bool) -> bool {
    let is_short = x.dim(-1) < 128 && x.dtype() == Dtype::Float32;
    !cfg!(target_os = "linux") || transpose && !is_short
}

/// NVIDIA's kernels refuse other orders when they run; the one that packs takes a transposed
/// matrix for one in row order.
fn in_order(x: &Array, s: &Stream) -> Result<Array> {
    let known = ffi::is_available(x) && ffi::is_row_contiguous(x);
    if !known && cfg!(target_os = "linux") && Device::of(s) == Device::Gpu {
        return Ok(c_op!(mlx_contiguous(x.as_ptr(), false), s)?);
    }
    Ok(x.clone())
}

pub(super) fn some(value: i32) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int_ {
        value,
        has_value: true,
    }
}

/// The first operand, and the others.
pub(super) fn split<'a>(
    op: &'static str,
    operands: &'a [&Array],
) -> Result<(&'a Array, &'a [&'a Array])> {
    match operands {
        [first, rest @ ..] => Ok((first, rest)),
        [] => Err(Error::OperandCount {
            op,
            expected: 3,
            given: 0,
        }),
    }
}

/// The parts of a matrix, as many as the mode has.
pub(super) fn quantize<const N: usize>(
    w: &Array,
    format: Format,
    s: &Stream,
) -> Result<[Array; N]> {
    format.check()?;
    let Format {
        mode,
        group_size,
        bits,
    } = format;
    let w = in_order(w, s)?;
    let parts = arrays(|out| {
        // Safety: the handles outlive the call, and MLX checks shapes and types itself.
        unsafe {
            mlx_sys::mlx_quantize(
                out,
                w.as_ptr(),
                some(group_size),
                some(bits),
                mode.name().as_ptr(),
                no_array(),
                s.as_ptr(),
            )
        }
    })?;
    let given = parts.len();
    parts.try_into().map_err(|_| Error::OperandCount {
        op: "quantize",
        expected: N,
        given,
    })
}
