//! Windows that slide over an array: their sums, products, extremes and folds.

use std::collections::BTreeMap;

use mlx_rs::error::Exception;
use mlx_rs::ops::{broadcast_to, maximum, select};
use mlx_rs::{Array, Dtype, Stream};

use super::elementwise::unsigned_of;
use super::pad::pad;
use super::reduction::{widened, Operation, MAX, MIN, PRODUCT, SUM};
use super::slicing::Part;
use super::{number, ops};
use crate::attribute::Shape;
use crate::error::{Error, Result};
use crate::evaluation;
use crate::ffi::{c_op, on_gpu};
use crate::program::Program;

ops! {
    /// The sum over each window.
    window_sum(x) { sizes: Shape, strides: Shape, dilations: Shape } |s| =>
        widened(x, |x| slide(x, &Windows { sizes, strides, dilations }, &SUM, s));
    /// The product over each window.
    window_product(x) { sizes: Shape, strides: Shape, dilations: Shape } |s| =>
        widened(x, |x| slide(x, &Windows { sizes, strides, dilations }, &PRODUCT, s));
    /// The largest in each window; NaN if there is one.
    window_max(x) { sizes: Shape, strides: Shape, dilations: Shape } |s| =>
        slide(x, &Windows { sizes, strides, dilations }, &MAX, s);
    /// The smallest in each window; NaN if there is one.
    window_min(x) { sizes: Shape, strides: Shape, dilations: Shape } |s| =>
        slide(x, &Windows { sizes, strides, dilations }, &MIN, s);

    /// What a program makes of each window, element by element in row order. It takes
    /// an element, what it made so far, and the operands after the first two, which are
    /// the array and what it starts from.
    window_fold[arrays] { sizes: Shape, strides: Shape, dilations: Shape, step: &Program } |s| =>
        fold(arrays, &Windows { sizes, strides, dilations }, step, s);

    /// An array of `initial` to which the elements of `source`, one for each window,
    /// are added where the last of the largest is; a NaN is the largest only if first.
    window_scatter_max(x, source, initial) { sizes: Shape, strides: Shape } |s| =>
        scatter([x, source, initial], Windows::dense(sizes, strides), |a, b| a.ge(b), s);
    /// The same where the last of the smallest is.
    window_scatter_min(x, source, initial) { sizes: Shape, strides: Shape } |s| =>
        scatter([x, source, initial], Windows::dense(sizes, strides), |a, b| a.le(b), s);
}

/// Whether elements beat those before them.
type Wins = fn(&Array, &Array) -> Result<Array, Exception>;

/// Sizes of windows, steps between them and between their elements, along each axis.
struct Windows {
    sizes: Shape,
    strides: Shape,
    dilations: Shape,
}

impl Windows {
    fn dense(sizes: Shape, strides: Shape) -> Windows {
        let dilations = vec![1; sizes.len()];
        Windows {
            sizes,
            strides,
            dilations,
        }
    }

    /// How many windows fit along each axis.
    fn counts(&self, x: &Array) -> Result<Shape> {
        let count = |axis: usize| {
            let reach = i64::from(self.sizes[axis] - 1) * i64::from(self.dilations[axis]);
            let room = i64::from(x.shape()[axis]) - 1 - reach;
            (room >= 0).then_some((room / i64::from(self.strides[axis])) as i32 + 1)
        };
        let attributes = [&self.sizes, &self.strides, &self.dilations];
        let usable = attributes
            .iter()
            .all(|list| list.len() == x.ndim() && list.iter().all(|&value| value > 0));
        usable
            .then(|| (0..x.ndim()).map(count).collect::<Option<Shape>>())
            .flatten()
            .ok_or_else(|| Error::Dimension {
                dims: self.sizes.iter().map(|&size| size.into()).collect(),
            })
    }

    /// Where the first, second, … element of every window is, in row order.
    fn parts<'a>(&'a self, x: &'a Array, counts: &'a [i32]) -> impl Iterator<Item = Part> + 'a {
        let total = self.sizes.iter().map(|&size| size as usize).product();
        (0..total).map(move |position: usize| {
            let mut rest = position;
            let whole = Part::whole(x.shape());
            (0..x.ndim()).rev().fold(whole, |part, axis| {
                let size = self.sizes[axis] as usize;
                let start = (rest % size) as i32 * self.dilations[axis];
                rest /= size;
                part.along(axis, start, counts[axis], self.strides[axis])
            })
        })
    }
}

/// A window of several axes is one of windows along each, one after the other.
fn slide(x: &Array, windows: &Windows, operation: &Operation, s: &Stream) -> Result<Array> {
    let counts = windows.counts(x)?;
    (0..x.ndim()).try_fold(x.clone(), |x, axis| {
        let line = Line {
            axis,
            size: windows.sizes[axis],
            stride: windows.strides[axis],
            dilation: windows.dilations[axis],
            count: counts[axis],
        };
        line.slide(&x, operation, s)
    })
}

/// Windows along one axis.
struct Line {
    axis: usize,
    size: i32,
    stride: i32,
    dilation: i32,
    count: i32,
}

impl Line {
    fn slide(&self, x: &Array, operation: &Operation, s: &Stream) -> Result<Array> {
        let (dim, size) = (i64::from(x.shape()[self.axis]), i64::from(self.size));
        if size == 1 {
            self.elements(x, 0, s)
        } else if self.count == 1 {
            let window = Part::whole(x.shape()).along(self.axis, 0, self.size, self.dilation);
            let folded = (operation.reduce)(&window.of(x, s)?, &[self.axis as i32])?;
            // MLX sums narrow integers into wider ones.
            Ok(folded.as_dtype(x.dtype())?)
        } else if (size - 1) * i64::from(self.count) <= dim * i64::from(size.ilog2()) {
            (1..self.size).try_fold(self.elements(x, 0, s)?, |folded, position| {
                Ok((operation.pair)(&folded, &self.elements(x, position, s)?)?)
            })
        } else {
            self.double(x, operation, s)
        }
    }

    /// Puts windows together from runs of 1, 2, 4, … elements.
    fn double(&self, x: &Array, operation: &Operation, s: &Stream) -> Result<Array> {
        let mut runs = x.clone();
        let mut length = 1;
        let mut covered = 0;
        let mut folded: Option<Array> = None;
        while 2 * length <= self.size {
            if !operation.idempotent && self.size & length != 0 {
                let run = self.elements(&runs, covered, s)?;
                covered += length;
                folded = Some(match folded {
                    Some(folded) => (operation.pair)(&folded, &run)?,
                    None => run,
                });
            }
            runs = self.doubled(&runs, length, operation, s)?;
            length *= 2;
        }
        if operation.idempotent && self.size > length {
            folded = Some(self.elements(&runs, 0, s)?);
        }
        let last = self.elements(&runs, self.size - length, s)?;
        match folded {
            Some(folded) => Ok((operation.pair)(&folded, &last)?),
            None => Ok(last),
        }
    }

    /// Runs of twice the length, one from each place where it fits.
    fn doubled(&self, x: &Array, length: i32, op: &Operation, s: &Stream) -> Result<Array> {
        let shift = length * self.dilation;
        let count = x.shape()[self.axis] - shift;
        let whole = || Part::whole(x.shape());
        let first = whole().along(self.axis, 0, count, 1).of(x, s)?;
        let second = whole().along(self.axis, shift, count, 1).of(x, s)?;
        Ok((op.pair)(&first, &second)?)
    }

    /// The element at that position of every window.
    fn elements(&self, x: &Array, position: i32, s: &Stream) -> Result<Array> {
        let start = position * self.dilation;
        Part::whole(x.shape())
            .along(self.axis, start, self.count, self.stride)
            .of(x, s)
    }
}

/// Steps of a fold after which what has been built is computed, so that the graph of a
/// long one stays small.
const STEPS_BUILT: usize = 64;

fn fold(arrays: &[&Array], windows: &Windows, step: &Program, s: &Stream) -> Result<Array> {
    let (x, initial, captured) = match arrays {
        [x, initial, captured @ ..] => (*x, *initial, captured),
        _ => {
            return Err(Error::OperandCount {
                op: "window_fold",
                expected: 2,
                given: arrays.len(),
            })
        }
    };
    let counts = windows.counts(x)?;
    let mut folded = initial.clone();
    for (position, part) in windows.parts(x, &counts).enumerate() {
        let mut inputs = vec![part.of(x, s)?, folded];
        inputs.extend(captured.iter().map(|&array| array.clone()));
        folded = step.run_for_one(inputs, s)?;
        if position % STEPS_BUILT == STEPS_BUILT - 1 {
            evaluation::async_eval(&[&folded])?;
        }
    }
    Ok(broadcast_to(&folded, &counts)?)
}

/// Elements of a window that are a multiple of the stride apart meet the same elements
/// of the array. Their shares are added up before they are put into their places, which
/// no others meet.
fn scatter(
    [x, source, initial]: [&Array; 3],
    windows: Windows,
    wins: Wins,
    s: &Stream,
) -> Result<Array> {
    let counts = windows.counts(x)?;
    let winners = winners(x, &windows, &counts, wins, s)?;
    let zero = number(0, source.dtype())?;
    let mut meeting: BTreeMap<Shape, Vec<(usize, Part)>> = BTreeMap::new();
    for (position, part) in windows.parts(x, &counts).enumerate() {
        let start = zip_map(&part.starts, &windows.strides, |start, stride| {
            start % stride
        });
        meeting.entry(start).or_default().push((position, part));
    }
    let mut scattered = broadcast_to(initial, x.shape())?;
    for (start, positions) in meeting {
        let sizes = zip_map(x.shape(), &start, |dim, start| dim - start);
        let sizes = zip_map(&sizes, &windows.strides, |size, stride| {
            (size - 1) / stride + 1
        });
        let mut sum = initial.clone();
        for (position, part) in positions {
            let won = winners.eq(number(position as i64, winners.dtype())?)?;
            let values = choose(&won, source, &zero, s)?;
            let low = zip_map(&part.starts, &windows.strides, |start, stride| {
                start / stride
            });
            let rest = zip_map(&sizes, &low, |size, low| size - low);
            let high = zip_map(&rest, &counts, |rest, count| rest - count);
            let between = vec![0; x.ndim()];
            sum = sum.add(pad(&values, &zero, [&low, &high, &between], s)?)?;
        }
        let place = (0..x.ndim()).fold(Part::whole(x.shape()), |part, axis| {
            part.along(axis, start[axis], sizes[axis], windows.strides[axis])
        });
        scattered = place.replaced(&scattered, &sum, s)?;
    }
    Ok(scattered)
}

fn zip_map(a: &[i32], b: &[i32], f: impl Fn(i32, i32) -> i32) -> Shape {
    std::iter::zip(a, b).map(|(&a, &b)| f(a, b)).collect()
}

/// The position of the winner in each window.
fn winners(x: &Array, windows: &Windows, counts: &[i32], wins: Wins, s: &Stream) -> Result<Array> {
    let few = windows
        .sizes
        .iter()
        .map(|&size| i64::from(size))
        .product::<i64>()
        <= 256;
    let dtype = if few { Dtype::Uint8 } else { Dtype::Int32 };
    let mut winners = number(0, dtype)?;
    let mut best: Option<Array> = None;
    for (position, part) in windows.parts(x, counts).enumerate() {
        let candidate = part.of(x, s)?;
        best = Some(match best {
            Some(best) => {
                let won = wins(&candidate, &best)?;
                let place = won
                    .as_dtype(dtype)?
                    .multiply(number(position as i64, dtype)?)?;
                winners = maximum(&winners, place)?;
                choose(&won, &candidate, &best, s)?
            }
            None => candidate,
        });
    }
    Ok(winners)
}

/// What `select` does. On the CPU, MLX takes ten times as long for it as for bits.
fn choose(condition: &Array, a: &Array, b: &Array, s: &Stream) -> Result<Array> {
    if on_gpu(s) {
        return Ok(select(condition, a, b)?);
    }
    let dtype = a.dtype();
    let (bits, _) = unsigned_of(dtype);
    let mask = number(0, bits)?.subtract(condition.as_dtype(bits)?)?;
    let (a, b) = (a.view_dtype(bits)?, b.view_dtype(bits)?);
    let differing = c_op!(mlx_bitwise_xor(a.as_ptr(), b.as_ptr()), s)?;
    let changed = c_op!(mlx_bitwise_and(differing.as_ptr(), mask.as_ptr()), s)?;
    let chosen = c_op!(mlx_bitwise_xor(b.as_ptr(), changed.as_ptr()), s)?;
    Ok(chosen.view_dtype(dtype)?)
}
