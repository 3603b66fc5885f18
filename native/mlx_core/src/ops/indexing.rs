//! Parts of an array, and arrays with a part replaced.

use mlx_rs::ops::{maximum, minimum};
use mlx_rs::{Array, Dtype, Stream};

use super::{number, ops};
use crate::attribute::Shape;
use crate::error::Result;
use crate::ffi::{c_op, Arrays};

ops! {
    /// From `starts` up to `stops`, every `strides`-th element.
    slice(x) { starts: Shape, stops: Shape, strides: Shape } |s| => c_op!(
        mlx_slice(
            x.as_ptr(),
            starts.as_ptr(), starts.len(),
            stops.as_ptr(), stops.len(),
            strides.as_ptr(), strides.len(),
        ),
        s
    );

    /// `lengths` elements from computed starts, moved so that the slice fits.
    slice_dynamic(x, starts) { lengths: Shape } |s| => slice_dynamic(x, starts, &lengths, s);

    /// The array with a part replaced at computed starts, moved so that it fits.
    put_slice(x, part, starts) |s| => put_slice(x, part, starts, s);

    /// Slices of `sizes` at positions along `axes`; the last axis of `indices` holds
    /// a position each. Positions outside are moved to the edge.
    gather(x, indices) { axes: Shape, sizes: Shape } |s| => gather(x, indices, &axes, &sizes, s);

    /// Adds updates at positions along `axes`; equal positions accumulate.
    /// Positions outside are moved to the edge.
    indexed_add(x, indices, updates) { axes: Shape } |s| =>
        indexed_add(x, indices, updates, &axes, s);
}

/// Moves every position into `0..=limit` of its axis; MLX checks none.
fn clamp(positions: &Array, limits: &[i32]) -> Result<Array> {
    let wide: Vec<i64> = limits.iter().map(|&limit| i64::from(limit)).collect();
    let dtype = positions.dtype();
    let top = number(i64::from(i32::MAX), Dtype::Int64)?;
    // An unsigned 64-bit position would turn negative.
    let positions = match dtype {
        Dtype::Uint64 => minimum(positions, top.as_dtype(Dtype::Uint64)?)?,
        _ => positions.clone(),
    };
    let positions = positions.as_dtype(Dtype::Int64)?;
    let limits = Array::from_slice(&wide, &[wide.len() as i32]);
    let inside = minimum(maximum(&positions, number(0, Dtype::Int64)?)?, &limits)?;
    Ok(inside.as_dtype(Dtype::Int32)?)
}

/// The largest start with which `lengths` elements fit.
fn last_starts(x: &Array, lengths: &[i32]) -> Vec<i32> {
    x.shape()
        .iter()
        .zip(lengths)
        .map(|(dim, length)| dim - length)
        .collect()
}

fn slice_dynamic(x: &Array, starts: &Array, lengths: &[i32], s: &Stream) -> Result<Array> {
    let starts = clamp(starts, &last_starts(x, lengths))?;
    let axes: Vec<i32> = (0..x.ndim() as i32).collect();
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

fn put_slice(x: &Array, part: &Array, starts: &Array, s: &Stream) -> Result<Array> {
    let starts = clamp(starts, &last_starts(x, part.shape()))?;
    let axes: Vec<i32> = (0..x.ndim() as i32).collect();
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

/// One index array for each axis, from positions in the last dimension.
fn index_columns(x: &Array, indices: &Array, axes: &[i32]) -> Result<Vec<Array>> {
    let limits: Vec<i32> = axes.iter().map(|&axis| x.dim(axis) - 1).collect();
    let indices = clamp(indices, &limits)?;
    let last = indices.ndim() as i32 - 1;
    let columns = indices.split_equal(axes.len() as i32, last)?;
    Ok(columns
        .iter()
        .map(|column| column.squeeze_axes(&[last]))
        .collect::<Result<_, _>>()?)
}

fn gather(x: &Array, indices: &Array, axes: &[i32], sizes: &[i32], s: &Stream) -> Result<Array> {
    let columns = index_columns(x, indices, axes)?;
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

fn indexed_add(
    x: &Array,
    indices: &Array,
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let columns = index_columns(x, indices, axes)?;
    let columns: Vec<&Array> = columns.iter().collect();
    let columns = Arrays::new(&columns);
    Ok(c_op!(
        mlx_scatter_add(
            x.as_ptr(),
            columns.as_ptr(),
            updates.as_ptr(),
            axes.as_ptr(),
            axes.len()
        ),
        s
    )?)
}
