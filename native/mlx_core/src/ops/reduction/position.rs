//! Where the extremes of an axis are.

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::{argmax_axis, argmin_axis, take_along_axis};
use mlx_rs::ops::{concatenate, is_nan, minimum, select};
use mlx_rs::{Array, Dtype, Stream};

use super::{reduce, Operation, MAX, MIN};
use crate::error::{Error, Result};
use crate::ffi::{c_op, on_gpu};
use crate::ops::number;
use crate::ops::slicing::Part;

/// What is looked for.
pub(super) struct Extreme {
    fold: Operation,
    find: fn(&Array, i32) -> Result<Array, Exception>,
}

pub(super) const LARGEST: Extreme = Extreme {
    fold: MAX,
    find: |x, axis| argmax_axis(x, axis, true),
};
pub(super) const SMALLEST: Extreme = Extreme {
    fold: MIN,
    find: |x, axis| argmin_axis(x, axis, true),
};

/// MLX's search compares one element after the other, its reductions many at once. So
/// on the CPU the extremes of blocks of an axis of this size are compared first.
const LONG: i32 = 1024;

impl Extreme {
    /// The first place of the extreme, or the last one. A NaN is more extreme than any
    /// number, and of several the last one counts.
    pub(super) fn position(&self, x: &Array, axis: i32, last: bool, s: &Stream) -> Result<Array> {
        if axis < 0 || axis as usize >= x.ndim() {
            return Err(Error::Mlx {
                message: format!("there is no axis {axis}"),
            });
        }
        let size = x.dim(axis);
        if size < LONG || on_gpu(s) || x.size() == 0 {
            return self.scan(x, axis, last, s);
        }
        let block = 1 << (size.ilog2() / 2).max(9);
        let extremes = self.of_blocks(x, axis, block, s)?;
        let chosen = self.scan(&extremes, axis, last, s)?;
        let chosen = chosen.as_dtype(Dtype::Int32)?;
        let start = minimum(
            chosen.multiply(number(block.into(), Dtype::Int32)?)?,
            number((size - block).into(), Dtype::Int32)?,
        )?;
        let mut shape = vec![1; x.ndim()];
        shape[axis as usize] = block;
        let places = mlx_rs::ops::arange::<_, i32>(0, block, 1)?.reshape(&shape)?;
        let places = start.add(places)?;
        let inside = take_along_axis(x, &places, axis)?;
        let position = self.scan(&inside, axis, last, s)?;
        Ok(position.add(start)?.as_dtype(Dtype::Uint32)?)
    }

    /// The extremes of blocks of which the last may overlap with the one before it.
    fn of_blocks(&self, x: &Array, axis: i32, block: i32, s: &Stream) -> Result<Array> {
        let (size, at) = (x.dim(axis), axis as usize);
        let blocks = size / block;
        let part = |start, count| Part::whole(x.shape()).along(at, start, count, 1).of(x, s);
        let mut shape = x.shape().to_vec();
        shape.splice(at..=at, [blocks, block]);
        let whole = part(0, blocks * block)?.reshape(&shape)?;
        let extremes = reduce(&whole, &[axis + 1], &self.fold, s)?.squeeze_axes(&[axis + 1])?;
        if blocks * block == size {
            return Ok(extremes);
        }
        let end = reduce(&part(size - block, block)?, &[axis], &self.fold, s)?;
        Ok(concatenate(&[extremes, end], axis)?)
    }

    fn scan(&self, x: &Array, axis: i32, last: bool, s: &Stream) -> Result<Array> {
        let position = match last {
            true => last_place(x, axis, self.find, s)?,
            false => (self.find)(x, axis)?,
        };
        if !x.dtype().is_float() {
            return Ok(position);
        }
        let nan = is_nan(x)?;
        let last_nan = last_place(&nan, axis, LARGEST.find, s)?;
        // Without any, that is the last place.
        let end = x.dim(axis) - 1;
        let earlier = last_nan.lt(number(end.into(), Dtype::Uint32)?)?;
        let at_end = Part::whole(x.shape()).along(axis as usize, end, 1, 1);
        let found = earlier.logical_or(at_end.of(&nan, s)?)?;
        Ok(select(&found, &last_nan, &position)?)
    }
}

/// The first extreme of the reversed axis is the last one of the axis.
fn last_place(
    x: &Array,
    axis: i32,
    find: fn(&Array, i32) -> Result<Array, Exception>,
    s: &Stream,
) -> Result<Array> {
    let reversed = c_op!(mlx_flip_axes(x.as_ptr(), &axis, 1), s)?;
    let end = number(i64::from(x.dim(axis)) - 1, Dtype::Uint32)?;
    Ok(end.subtract(find(&reversed, axis)?)?)
}
