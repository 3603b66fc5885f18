//! Attention to keys of which some are not there yet, and the cache that holds them.

use mlx_rs::ops::{concatenate, maximum};
use mlx_rs::{Array, Dtype, Stream};

use super::attention::{attention, check_axes, Attention};
use super::creation::arange;
use super::fast::places;
use super::indexing::{put_slice_dynamic, size};
use super::number;
use super::slicing::{rank, Part};
use crate::error::Result;
use crate::known;

/// Where the host knows the position, later keys are not even read.
pub(super) fn attention_from(
    operands: &[&Array],
    scale: f64,
    sinks: bool,
    s: &Stream,
) -> Result<Array> {
    let places = places("attention_from", operands, [true, true, true, true, sinks])?;
    let [Some(q), Some(k), Some(v), Some(position), sinks] = places else {
        unreachable!()
    };
    check_axes([q, k, v])?;
    let (queries, keys) = (q.shape()[2], k.shape()[2]);
    let end = known::number(position).map(|first| first.saturating_add(queries.into()));
    let seen = end.filter(|end| (i64::from(queries)..=keys.into()).contains(end));
    let (k, v, mask) = match seen {
        Some(end) => {
            let end = end as i32;
            (positions(k, 0, end, s)?, positions(v, 0, end, s)?, None)
        }
        None => (
            k.clone(),
            v.clone(),
            Some(earlier(position, queries, keys, s)?),
        ),
    };
    let options = Attention {
        scale,
        causal: mask.is_none() && queries > 1,
        mask: mask.is_some(),
        sinks: sinks.is_some(),
    };
    let rest = [mask.as_ref(), sinks].into_iter().flatten();
    let operands: Vec<&Array> = [q, &k, &v].into_iter().chain(rest).collect();
    attention(&operands, options, s)
}

/// What is at the positions from one on up to another.
fn positions(x: &Array, start: i32, end: i32, s: &Stream) -> Result<Array> {
    let part = Part::whole(x.shape()).along(2, start, end - start, 1);
    part.of(x, s)
}

/// Which keys each query sees, from the first one on.
fn earlier(position: &Array, queries: i32, keys: i32, s: &Stream) -> Result<Array> {
    let count = |stop: i32| arange(stop.into(), Dtype::Int32, s);
    let last = position.as_dtype(Dtype::Int32)?.add(count(queries)?)?;
    let last = maximum(last, number(0, Dtype::Int32)?)?.reshape(&[1, 1, queries, 1])?;
    Ok(count(keys)?.le(last)?)
}

pub(super) fn update_cache(
    cache: &Array,
    update: &Array,
    position: &Array,
    axis: i32,
    s: &Stream,
) -> Result<Array> {
    rank(cache, update.shape())?;
    let (size, length) = (size(cache, axis)?, size(update, axis)?);
    match known::number(position) {
        Some(position) if length > 0 => {
            let start = position.clamp(0, (size - length).max(0).into()) as i32;
            let part = Part::whole(cache.shape()).along(axis as usize, start, length, 1);
            part.replaced(cache, update, s)
        }
        _ => put_slice_dynamic(cache, update, &position.reshape(&[1])?, &[axis], s),
    }
}

/// Queries that are taken together on the CPU, where MLX computes what is hidden as well.
pub(super) const STRETCH: i32 = 64;

/// Causal attention, in which a stretch of queries sees none of the keys after it.
pub(super) fn in_stretches(
    [q, k, v]: [&Array; 3],
    sinks: Option<&Array>,
    options: Attention,
    s: &Stream,
) -> Result<Array> {
    let (queries, keys) = (q.dim(-2), k.dim(-2));
    let mut attended = Vec::new();
    for start in (0..queries).step_by(STRETCH as usize) {
        let end = queries.min(start + STRETCH);
        let seen = keys - queries + end;
        let parts = [
            positions(q, start, end, s)?,
            positions(k, 0, seen, s)?,
            positions(v, 0, seen, s)?,
        ];
        let operands: Vec<&Array> = parts.iter().chain(sinks).collect();
        attended.push(attention(&operands, options, s)?);
    }
    Ok(concatenate(&attended, 2)?)
}
