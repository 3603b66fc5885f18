//! Parts of an array, and arrays with a part replaced.

mod positions;
mod scatter;

use mlx_rs::{Array, Stream};

use super::ops;
use super::slicing::Part;
use crate::attribute::Shape;
use crate::error::{Error, Result};
use crate::ffi::{c_op, Arrays};

ops! {
    /// From `starts` up to `stops`, every `strides`-th element.
    slice(x) { starts: Shape, stops: Shape, strides: Shape } |s| =>
        slice(x, Part { starts, stops, strides }, s);

    /// `lengths` elements from computed starts along `axes`, moved so that the slice
    /// fits; from 0 along the others.
    slice_dynamic(x, starts) { axes: Shape, lengths: Shape } |s| =>
        slice_dynamic(x, starts, &axes, &lengths, s);

    /// The array with the part from `starts` up to `stops` replaced.
    put_slice(x, part) { starts: Shape, stops: Shape } |s| =>
        Part { strides: vec![1; starts.len()], starts, stops }.replaced(x, part, s);

    /// The array with a part replaced at computed starts along `axes`, moved so that
    /// the part fits; at 0 along the others.
    put_slice_dynamic(x, part, starts) { axes: Shape } |s| =>
        put_slice_dynamic(x, part, starts, &axes, s);

    /// Slices of `sizes` at positions along `axes`; the last axis of `indices` holds
    /// a position each. Positions outside are moved to the edge.
    gather(x, indices) { axes: Shape, sizes: Shape } |s| => gather(x, indices, &axes, &sizes, s);

    /// Slices at positions along an axis, which the axes of `indices` take the place of.
    /// Positions outside are moved to the edge.
    take(x, indices) { axis: i32 } |s| => take(x, indices, axis, s);

    /// Elements at positions along an axis, with a position for each other place.
    /// Positions outside are moved to the edge.
    take_along_axis(x, indices) { axis: i32 } |s| => take_along_axis(x, indices, axis, s);

    /// Adds updates at positions along `axes`; equal positions accumulate.
    /// Positions outside are moved to the edge.
    indexed_add(x, indices, updates) { axes: Shape } |s| =>
        scatter::add(x, &update_columns(x, indices, updates, &axes, s)?, updates, &axes, s);

    /// Puts updates at positions along `axes`; of equal positions the last one stays.
    /// Positions outside are moved to the edge.
    indexed_put(x, indices, updates) { axes: Shape } |s| =>
        scatter::put(x, &update_columns(x, indices, updates, &axes, s)?, updates, &axes, s);
}

/// MLX divides by the strides.
fn slice(x: &Array, part: Part, s: &Stream) -> Result<Array> {
    if part.strides.iter().any(|&stride| stride < 1) {
        return Err(Error::Attribute {
            op: "slice",
            name: "strides",
            expected: "a list of positive integers",
        });
    }
    part.of(x, s)
}

/// The last position along an axis from which `length` elements fit.
fn limit(x: &Array, axis: i32, length: i32, positions: &Array) -> Result<i32> {
    let size = size(x, axis)?;
    if size == 0 && positions.size() > 0 {
        return Err(Error::EmptyAxis { axis });
    }
    Ok((size - length).max(0))
}

/// Positions along an axis that are inside.
pub(super) fn along(x: &Array, axis: i32, positions: &Array, s: &Stream) -> Result<Array> {
    positions::inside(positions, &[limit(x, axis, 1, positions)?], s)
}

pub(super) fn size(x: &Array, axis: i32) -> Result<i32> {
    let rank = x.ndim();
    let size = usize::try_from(axis)
        .ok()
        .and_then(|axis| x.shape().get(axis));
    size.copied().ok_or(Error::Axis { axis, rank })
}

/// Starts along the axes, moved so that `lengths` elements fit.
fn starts_inside(
    x: &Array,
    starts: &Array,
    axes: &[i32],
    lengths: &[i32],
    s: &Stream,
) -> Result<Array> {
    let (expected, given) = (x.ndim(), lengths.len());
    if expected != given {
        return Err(Error::Rank { expected, given });
    }
    let limits: Result<Vec<i32>> = axes
        .iter()
        .map(|&axis| Ok((size(x, axis)? - lengths[axis as usize]).max(0)))
        .collect();
    positions::inside(starts, &limits?, s)
}

fn slice_dynamic(
    x: &Array,
    starts: &Array,
    axes: &[i32],
    lengths: &[i32],
    s: &Stream,
) -> Result<Array> {
    let starts = starts_inside(x, starts, axes, lengths, s)?;
    Ok(c_op!(
        mlx_slice_dynamic(
            x.as_ptr(),
            starts.as_ptr(),
            axes.as_ptr(),
            axes.len(),
            lengths.as_ptr(),
            lengths.len()
        ),
        s
    )?)
}

pub(super) fn put_slice_dynamic(
    x: &Array,
    part: &Array,
    starts: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let starts = starts_inside(x, starts, axes, part.shape(), s)?;
    Ok(c_op!(
        mlx_slice_update_dynamic(
            x.as_ptr(),
            part.as_ptr(),
            starts.as_ptr(),
            axes.as_ptr(),
            axes.len()
        ),
        s
    )?)
}

/// One array of positions for each axis, from the last dimension of `indices`. The
/// slices at them have those `sizes`.
fn index_columns(
    x: &Array,
    indices: &Array,
    axes: &[i32],
    sizes: &[i32],
    s: &Stream,
) -> Result<Vec<Array>> {
    let last = indices.ndim() as i32 - 1;
    let length = |axis: i32| sizes.get(axis as usize).copied().unwrap_or(1);
    let limits: Vec<i32> = axes
        .iter()
        .map(|&axis| limit(x, axis, length(axis), indices))
        .collect::<Result<_>>()?;
    let inside = positions::are_inside(indices, &limits, s);
    indices
        .split_equal(axes.len() as i32, last)?
        .iter()
        .zip(&limits)
        .map(|(column, &limit)| {
            let column = column.squeeze_axes(&[last])?;
            match inside {
                true => positions::unsigned(&column, s),
                false => positions::inside(&column, &[limit], s),
            }
        })
        .collect()
}

fn gather(x: &Array, indices: &Array, axes: &[i32], sizes: &[i32], s: &Stream) -> Result<Array> {
    let columns = index_columns(x, indices, axes, sizes, s)?;
    gather_columns(x, &columns, axes, sizes, s)
}

/// The positions of updates, which follow the dimensions of the indices but the last.
fn update_columns(
    x: &Array,
    indices: &Array,
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Vec<Array>> {
    let batch = indices.ndim().saturating_sub(1).min(updates.ndim());
    index_columns(x, indices, axes, &updates.shape()[batch..], s)
}

fn gather_columns(
    x: &Array,
    columns: &[Array],
    axes: &[i32],
    sizes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let columns: Vec<&Array> = columns.iter().collect();
    let columns = Arrays::new(&columns);
    Ok(c_op!(
        mlx_gather(
            x.as_ptr(),
            columns.as_ptr(),
            axes.as_ptr(),
            axes.len(),
            sizes.as_ptr(),
            sizes.len()
        ),
        s
    )?)
}

fn take(x: &Array, indices: &Array, axis: i32, s: &Stream) -> Result<Array> {
    let indices = along(x, axis, indices, s)?;
    Ok(c_op!(mlx_take_axis(x.as_ptr(), indices.as_ptr(), axis), s)?)
}

pub(super) fn take_along_axis(x: &Array, indices: &Array, axis: i32, s: &Stream) -> Result<Array> {
    let indices = positions::without_sign(&along(x, axis, indices, s)?)?;
    Ok(c_op!(
        mlx_take_along_axis(x.as_ptr(), indices.as_ptr(), axis),
        s
    )?)
}
