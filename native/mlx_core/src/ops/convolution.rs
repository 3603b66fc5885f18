//! Kernels that slide over batches of arrays with channels in the last axis.

use mlx_rs::ops::{imag, real, stack, zeros_dtype};
use mlx_rs::{Array, Dtype, Stream};

use super::ops;
use super::pad::pad;
use super::{number, shape::cast};
use crate::attribute::Shape;
use crate::error::{Error, Result};
use crate::ffi::{c_op, on_gpu};

ops! {
    /// The products of kernels and the windows of an array, summed. The array's axes
    /// are batch, space, channels; the kernels' are output channels, space, input
    /// channels of a group. Padding may not be negative. Integers give f32.
    convolution(x, kernels) {
        strides: Shape,
        low: Shape,
        high: Shape,
        input_dilation: Shape,
        kernel_dilation: Shape,
        groups: i32,
    } |s| => {
        let geometry = Geometry { strides, low, high, input_dilation, kernel_dilation, groups };
        geometry.convolve(x, kernels, s)
    };
}

/// From so many output channels in each group, laying out windows for a product of
/// matrices is worth its time.
const LARGE_GROUP: i32 = 4;

/// Arrays of so many bytes lie anywhere in an NVIDIA GPU's memory, larger ones at round addresses.
const TINY: usize = 8;

enum Path {
    Native,
    PaddedNative,
    MatrixProduct,
}

struct Geometry {
    strides: Shape,
    low: Shape,
    high: Shape,
    input_dilation: Shape,
    kernel_dilation: Shape,
    groups: i32,
}

/// An operand in row order if its address counts: MLX for CUDA remembers where it lay, but
/// brings it into row order, somewhere else, after that.
fn settled(x: &Array, s: &Stream) -> Result<Array> {
    if x.nbytes() > TINY || !on_gpu(s) {
        return Ok(x.clone());
    }
    Ok(c_op!(mlx_contiguous(x.as_ptr(), false), s)?)
}

impl Geometry {
    fn convolve(&self, x: &Array, kernels: &Array, s: &Stream) -> Result<Array> {
        let space = self.output_space(x, kernels)?;
        let dtype = x.dtype();
        let whole = !(dtype.is_float() || dtype.is_complex());
        if x.size() == 0 || kernels.size() == 0 {
            let shape = [&[x.dim(0)], &*space, &[kernels.dim(0)]].concat();
            let dtype = if whole { Dtype::Float32 } else { dtype };
            return Ok(zeros_dtype(&shape, dtype)?);
        }
        match dtype {
            _ if whole => self.integers(x, kernels, s),
            Dtype::Complex64 => self.complex(x, kernels, s),
            Dtype::Float64 => self.matrix_product(x, kernels, &space, s),
            _ => match self.path(kernels, s) {
                Path::Native => self.native(x, kernels, s),
                Path::PaddedNative => self.unpadded().native(&self.padded(x, s)?, kernels, s),
                Path::MatrixProduct => {
                    let wide = |x| cast(x, Dtype::Float32);
                    let product = self.matrix_product(&wide(x)?, &wide(kernels)?, &space, s)?;
                    cast(&product, dtype)
                }
            },
        }
    }

    /// MLX knows up to three dimensions, and groups in up to two. On the CPU it
    /// multiplies matrices unless there are dilations or groups; its other way is slow,
    /// and writes past the end of its result where padding is wide. On NVIDIA GPUs it
    /// reads what was never written where the input is dilated.
    fn path(&self, kernels: &Array, s: &Stream) -> Path {
        let rank = self.strides.len();
        let dense = |list: &[i32]| list.iter().all(|&step| step == 1);
        let plain = dense(&self.input_dilation) && dense(&self.kernel_dilation);
        if rank > if self.groups == 1 { 3 } else { 2 } {
            Path::MatrixProduct
        } else if on_gpu(s) && dense(&self.input_dilation) {
            Path::Native
        } else if on_gpu(s) {
            Path::PaddedNative
        } else if plain && (self.groups == 1 || rank == 1) {
            Path::Native
        } else if kernels.dim(0) / self.groups < LARGE_GROUP {
            Path::PaddedNative
        } else {
            Path::MatrixProduct
        }
    }

    fn output_space(&self, x: &Array, kernels: &Array) -> Result<Shape> {
        let spread = |dim: i32, dilation: i32| i64::from(dim - 1) * i64::from(dilation) + 1;
        let size = |axis: usize| {
            let input = spread(x.shape()[axis + 1], self.input_dilation[axis]);
            let kernel = spread(kernels.shape()[axis + 1], self.kernel_dilation[axis]);
            let room = input + i64::from(self.low[axis]) + i64::from(self.high[axis]) - kernel;
            i32::try_from(room / i64::from(self.strides[axis]) + 1)
                .ok()
                .filter(|_| room >= 0)
        };
        let rank = x.ndim().saturating_sub(2);
        let steps = [&self.strides, &self.input_dilation, &self.kernel_dilation];
        let usable = x.ndim() >= 2
            && kernels.ndim() == x.ndim()
            && self.groups > 0
            && steps
                .iter()
                .all(|list| list.len() == rank && list.iter().all(|&step| step > 0))
            && [&self.low, &self.high]
                .iter()
                .all(|list| list.len() == rank && list.iter().all(|&padding| padding >= 0));
        usable
            .then(|| (0..rank).map(size).collect::<Option<Shape>>())
            .flatten()
            .ok_or_else(|| Error::Dimension {
                dims: kernels.shape().iter().map(|&dim| dim.into()).collect(),
            })
    }

    fn native(&self, x: &Array, kernels: &Array, s: &Stream) -> Result<Array> {
        let flip = false;
        let (x, kernels) = (&settled(x, s)?, &settled(kernels, s)?);
        Ok(c_op!(
            mlx_conv_general(
                x.as_ptr(),
                kernels.as_ptr(),
                self.strides.as_ptr(),
                self.strides.len(),
                self.low.as_ptr(),
                self.low.len(),
                self.high.as_ptr(),
                self.high.len(),
                self.kernel_dilation.as_ptr(),
                self.kernel_dilation.len(),
                self.input_dilation.as_ptr(),
                self.input_dilation.len(),
                self.groups,
                flip,
            ),
            s
        )?)
    }

    /// Sums of products of integers cancel exactly where there is room for them.
    fn integers(&self, x: &Array, kernels: &Array, s: &Stream) -> Result<Array> {
        let dtype = match on_gpu(s) {
            true => Dtype::Float32,
            false => Dtype::Float64,
        };
        let sums = self.convolve(&cast(x, dtype)?, &cast(kernels, dtype)?, s)?;
        cast(&sums, Dtype::Float32)
    }

    fn complex(&self, x: &Array, kernels: &Array, s: &Stream) -> Result<Array> {
        let (a, b) = (real(x)?, imag(x)?);
        let (c, d) = (real(kernels)?, imag(kernels)?);
        let product = |x: &Array, kernels: &Array| self.convolve(x, kernels, s);
        let real = product(&a, &c)?.subtract(product(&b, &d)?)?;
        let imaginary = product(&a, &d)?.add(product(&b, &c)?)?;
        // Multiplying by i would turn an infinity into NaN.
        let pairs = stack(&[real, imaginary], -1)?;
        Ok(pairs.view_dtype(Dtype::Complex64)?.squeeze_axes(&[-1])?)
    }

    /// Lays the windows out as the rows of a matrix.
    fn matrix_product(
        &self,
        x: &Array,
        kernels: &Array,
        space: &[i32],
        s: &Stream,
    ) -> Result<Array> {
        let (groups, batch) = (self.groups, x.dim(0));
        let (outputs, inputs) = (kernels.dim(0) / groups, kernels.dim(-1));
        let window: i32 = kernels.shape()[1..kernels.ndim() - 1].iter().product();
        let rows: i32 = batch * space.iter().product::<i32>();

        let windows = self.windows(x, kernels, space, s)?;
        let windows = windows.reshape(&[rows, window, groups, inputs])?;
        let windows = windows.transpose_axes(&[2, 0, 1, 3])?;
        let windows = windows.reshape(&[groups, rows, window * inputs])?;
        let kernels = kernels.reshape(&[groups, outputs, window * inputs])?;
        let products = windows.matmul(kernels.transpose_axes(&[0, 2, 1])?)?;
        let products = products.transpose_axes(&[1, 0, 2])?;
        let shape = [&[batch], space, &[groups * outputs]].concat();
        Ok(products.reshape(&shape)?)
    }

    /// The array with the zeros that padding and dilation put into it.
    fn padded(&self, x: &Array, s: &Stream) -> Result<Array> {
        let around = |padding: &[i32]| [&[0], padding, &[0]].concat();
        let between: Shape = self.input_dilation.iter().map(|step| step - 1).collect();
        let zero = number(0, x.dtype())?;
        let padding = [&self.low, &self.high, &between].map(|list| around(list));
        pad(x, &zero, [&padding[0], &padding[1], &padding[2]], s)
    }

    /// What is left to do on a padded array.
    fn unpadded(&self) -> Geometry {
        let rank = self.strides.len();
        Geometry {
            strides: self.strides.clone(),
            low: vec![0; rank],
            high: vec![0; rank],
            input_dilation: vec![1; rank],
            kernel_dilation: self.kernel_dilation.clone(),
            groups: self.groups,
        }
    }

    /// A view with the axes batch, space, window, channels.
    fn windows(&self, x: &Array, kernels: &Array, space: &[i32], s: &Stream) -> Result<Array> {
        let x = self.padded(x, s)?;
        // MLX takes strides of nothing else.
        let x = c_op!(mlx_contiguous(x.as_ptr(), false), s)?;

        let mut steps = vec![1i64; x.ndim()];
        for axis in (0..x.ndim() - 1).rev() {
            steps[axis] = steps[axis + 1] * i64::from(x.shape()[axis + 1]);
        }
        let inner = &steps[1..x.ndim() - 1];
        let scaled = |factors: &[i32]| -> Vec<i64> {
            std::iter::zip(inner, factors)
                .map(|(&step, &factor)| step * i64::from(factor))
                .collect()
        };
        let between = scaled(&self.strides);
        let within = scaled(&self.kernel_dilation);
        let strides = [&steps[..1], &between, &within, &[1]].concat();
        let window = &kernels.shape()[1..kernels.ndim() - 1];
        let shape = [&[x.dim(0)], space, window, &[x.dim(-1)]].concat();
        Ok(c_op!(
            mlx_as_strided(
                x.as_ptr(),
                shape.as_ptr(),
                shape.len(),
                strides.as_ptr(),
                strides.len(),
                0,
            ),
            s
        )?)
    }
}
