//! Strided parts of arrays, which other families are made of.

use mlx_rs::{Array, Stream};

use crate::error::{Error, Result};
use crate::ffi::c_op;

/// Where a part begins, ends and how far apart its elements are, along each axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) starts: Vec<i32>,
    pub(super) stops: Vec<i32>,
    pub(super) strides: Vec<i32>,
}

/// Refuses an attribute that has not an element for each axis.
pub(super) fn rank(x: &Array, attribute: &[i32]) -> Result<()> {
    let (expected, given) = (x.ndim(), attribute.len());
    if expected != given {
        return Err(Error::Rank { expected, given });
    }
    Ok(())
}

impl Part {
    /// All of an array of that shape.
    pub(super) fn whole(shape: &[i32]) -> Part {
        Part {
            starts: vec![0; shape.len()],
            stops: shape.to_vec(),
            strides: vec![1; shape.len()],
        }
    }

    /// `count` elements along an axis.
    pub(super) fn along(mut self, axis: usize, start: i32, count: i32, stride: i32) -> Part {
        self.starts[axis] = start;
        self.stops[axis] = start + (count - 1) * stride + 1;
        self.strides[axis] = stride;
        self
    }

    pub(super) fn of(&self, x: &Array, s: &Stream) -> Result<Array> {
        Ok(c_op!(
            mlx_slice(
                x.as_ptr(),
                self.starts.as_ptr(),
                self.starts.len(),
                self.stops.as_ptr(),
                self.stops.len(),
                self.strides.as_ptr(),
                self.strides.len(),
            ),
            s
        )?)
    }

    /// The array with this part of it replaced.
    pub(super) fn replaced(&self, x: &Array, part: &Array, s: &Stream) -> Result<Array> {
        Ok(c_op!(
            mlx_slice_update(
                x.as_ptr(),
                part.as_ptr(),
                self.starts.as_ptr(),
                self.starts.len(),
                self.stops.as_ptr(),
                self.stops.len(),
                self.strides.as_ptr(),
                self.strides.len(),
            ),
            s
        )?)
    }
}
