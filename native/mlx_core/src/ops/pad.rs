//! Padding between and around elements, and cutting them off.

use mlx_rs::ops::broadcast_to;
use mlx_rs::{Array, Stream};

use super::slicing::{rank, Part};
use crate::error::{Error, Result};

/// Along one axis: the elements that stay, and where they go.
#[derive(Debug, PartialEq)]
struct Placement {
    first: i32,
    count: i32,
    size: i32,
    start: i32,
    step: i32,
}

impl Placement {
    fn new(dim: i32, low: i32, high: i32, interior: i32) -> Result<Placement> {
        if interior < 0 {
            return Err(Error::Attribute {
                op: "pad",
                name: "interior",
                expected: "a list of integers from 0 on",
            });
        }
        let [dim, low, high, step] = [dim, low, high, interior].map(i64::from);
        let step = step + 1;
        let size = dim + (dim - 1) * (step - 1) + low + high;
        let first = (-low.min(0) + step - 1) / step;
        let last = (size - 1 - low).div_euclid(step).min(dim - 1);
        let start = (low + first * step).min(size);
        let narrow = |value: i64| match i32::try_from(value) {
            Ok(value) if value >= 0 => Ok(value),
            _ => Err(Error::Dimension { dims: vec![size] }),
        };
        Ok(Placement {
            size: narrow(size)?,
            first: narrow(first)?,
            count: narrow((last - first + 1).max(0))?,
            start: narrow(start)?,
            step: narrow(step)?,
        })
    }
}

pub(super) fn pad(
    x: &Array,
    value: &Array,
    [low, high, interior]: [&[i32]; 3],
    s: &Stream,
) -> Result<Array> {
    for list in [low, high, interior] {
        rank(x, list)?;
    }
    let placements = (x.shape().iter().zip(interior))
        .zip(low.iter().zip(high))
        .map(|((&dim, &interior), (&low, &high))| Placement::new(dim, low, high, interior))
        .collect::<Result<Vec<_>>>()?;
    let shape: Vec<i32> = placements.iter().map(|p| p.size).collect();
    let (mut kept, mut target) = (Part::whole(x.shape()), Part::whole(&shape));
    for (axis, p) in placements.iter().enumerate() {
        kept = kept.along(axis, p.first, p.count, 1);
        target = target.along(axis, p.start, p.count, p.step);
    }
    if placements.iter().any(|p| p.count == 0) {
        return Ok(broadcast_to(value, &shape)?);
    }
    let part = kept.of(x, s)?;
    if part.shape() == shape {
        return Ok(part);
    }
    target.replaced(&broadcast_to(value, &shape)?, &part, s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(dim: i32, low: i32, high: i32, interior: i32) -> [i32; 5] {
        let p = Placement::new(dim, low, high, interior).unwrap();
        [p.first, p.count, p.size, p.start, p.step]
    }

    #[test]
    fn padding_moves_elements() {
        assert_eq!(placement(3, 2, 1, 0), [0, 3, 6, 2, 1]);
        assert_eq!(placement(3, 2, 1, 1), [0, 3, 8, 2, 2]);
    }

    #[test]
    fn negative_padding_cuts_between_and_through_elements() {
        assert_eq!(placement(3, -1, -1, 0), [1, 1, 1, 0, 1]);
        // a . . b . . c without its first two and its last
        assert_eq!(placement(3, -2, -1, 2), [1, 1, 4, 1, 3]);
        assert_eq!(placement(3, -3, 0, 2), [1, 2, 4, 0, 3]);
        assert_eq!(placement(2, -3, 4, 0)[1..3], [0, 3]);
    }

    #[test]
    fn sizes_below_zero_are_refused() {
        assert!(Placement::new(2, -3, 0, 0).is_err());
        assert_eq!(placement(2, -2, 0, 0)[1..3], [0, 0]);
        assert!(Placement::new(i32::MAX, 1, 0, 0).is_err());
    }
}
