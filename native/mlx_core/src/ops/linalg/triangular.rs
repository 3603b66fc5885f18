//! Triangular systems.

use mlx_rs::ops::{matmul, pad};
use mlx_rs::{linalg, Array, Dtype, Stream};

use super::matrix::{above, at, beside, diagonal, eye, part, resized, rows, size, transpose};
use crate::beside::on_cpu;
use crate::error::{Error, Result};
use crate::evaluation::truth;
use crate::ops::number;

/// Rows that are solved at once, by the inverse of their part of the diagonal.
const LEAF: i32 = 64;

pub(super) fn solve(a: &Array, b: &Array, lower: bool, s: &Stream) -> Result<Array> {
    if b.size() == 0 {
        return Ok(b.clone());
    }
    on_cpu([a, b], s, |[a, b], s| {
        if truth(&has_zero(&diagonal(a)?)?)? {
            return Err(Error::Singular);
        }
        substitute(a, b, lower, s)
    })
}

pub(super) fn has_zero(x: &Array) -> Result<Array> {
    Ok(x.eq(number(0, x.dtype())?)?.any(false)?)
}

/// X of A X = B, where no element of A's diagonal is zero.
pub(super) fn substitute(a: &Array, b: &Array, lower: bool, s: &Stream) -> Result<Array> {
    let dtype = b.dtype();
    let n = a.dim(-1);
    let wide = match dtype {
        // Costs nothing for a small system, and gives the nearest numbers.
        Dtype::Float32 if n <= LEAF => Dtype::Float64,
        other => other,
    };
    let (a, b) = (a.as_dtype(wide)?, b.as_dtype(wide)?);
    let leaf = match wide {
        Dtype::Complex64 => (n as u32).next_power_of_two().min(LEAF as u32) as i32,
        _ => n.min(LEAF),
    };
    let padding = (leaf - n % leaf) % leaf;
    let (a, b) = padded(&a, &b, padding, s)?;
    let system = System {
        inverses: leaf_inverses(&a, leaf, lower, s)?,
        a,
        leaf,
        lower,
        s,
    };
    let x = system.solve(0, system.a.dim(-1) / leaf, &b)?;
    Ok(rows(&x, 0..n, s)?.as_dtype(dtype)?)
}

/// More rows, in which x = 0 follows from the identity.
fn padded(a: &Array, b: &Array, padding: i32, s: &Stream) -> Result<(Array, Array)> {
    if padding == 0 {
        return Ok((a.clone(), b.clone()));
    }
    let n = a.dim(-1);
    let mut widths = vec![(0, 0); a.ndim()];
    widths[a.ndim() - 2] = (0, padding);
    let b = pad(b, &widths[..], None, None)?;
    let mut right = pad(
        eye(padding, padding, 0, a.dtype(), s)?,
        &[(n, 0), (0, 0)],
        None,
        None,
    )?;
    right = mlx_rs::ops::broadcast_to(&right, &resized(a, n + padding, padding))?;
    let a = beside(&pad(a, &widths[..], None, None)?, &right)?;
    Ok((a, b))
}

struct System<'a> {
    a: Array,
    /// Of the leaves along the diagonal, in a batch axis of their own.
    inverses: Array,
    leaf: i32,
    lower: bool,
    s: &'a Stream,
}

impl System<'_> {
    /// Solves for `count` leaves from `first` on, half after half.
    fn solve(&self, first: i32, count: i32, b: &Array) -> Result<Array> {
        let s = self.s;
        if count == 1 {
            return Ok(matmul(at(&self.inverses, first, -3, s)?, b)?);
        }
        let half = count / 2;
        let [start, middle, end] = [first, first + half, first + count].map(|i| i * self.leaf);
        let top = rows(b, 0..middle - start, s)?;
        let bottom = rows(b, middle - start..end - start, s)?;
        if self.lower {
            let top = self.solve(first, half, &top)?;
            let known = matmul(&part(&self.a, middle..end, start..middle, s)?, &top)?;
            let bottom = self.solve(first + half, count - half, &bottom.subtract(known)?)?;
            above(&top, &bottom)
        } else {
            let bottom = self.solve(first + half, count - half, &bottom)?;
            let known = matmul(&part(&self.a, start..middle, middle..end, s)?, &bottom)?;
            let top = self.solve(first, half, &top.subtract(known)?)?;
            above(&top, &bottom)
        }
    }
}

fn leaf_inverses(a: &Array, leaf: i32, lower: bool, s: &Stream) -> Result<Array> {
    let leaves = diagonal_blocks(a, leaf)?;
    if a.dtype() == Dtype::Complex64 {
        return if lower {
            lower_inverse(&leaves, s)
        } else {
            transpose(&lower_inverse(&transpose(&leaves)?, s)?)
        };
    }
    Ok(linalg::tri_inv(leaves, Some(!lower))?)
}

/// The square blocks along the diagonal, in a new axis before them.
fn diagonal_blocks(a: &Array, block: i32) -> Result<Array> {
    let (n, _) = size(a);
    let mut shape = resized(a, n / block, block);
    shape.extend([n / block, block]);
    let blocks = a.reshape(&shape)?.diagonal(0, -4, -2)?;
    Ok(blocks.move_axis(-1, -3)?)
}

/// Inverts along the diagonal, then joins neighbours, each time twice as large:
/// [A 0; C D] has the inverse [A' 0; -D' C A' D'].
fn lower_inverse(a: &Array, s: &Stream) -> Result<Array> {
    let (n, _) = size(a);
    let one = number(1, a.dtype())?;
    let mut inverses = one.divide(diagonal_blocks(a, 1)?)?;
    let mut width = 1;
    while width < n {
        let corners = part(
            &diagonal_blocks(a, 2 * width)?,
            width..2 * width,
            0..width,
            s,
        )?;
        let mut pairs = resized(&inverses, width, width);
        let batch = pairs.len() - 3;
        pairs[batch] /= 2;
        pairs.insert(batch + 1, 2);
        let pairs = inverses.reshape(&pairs)?;
        let (first, second) = (at(&pairs, 0, -3, s)?, at(&pairs, 1, -3, s)?);
        let corner = matmul(&matmul(&second, &corners)?, &first)?.negative()?;
        let zeros = mlx_rs::ops::zeros_like(&corner)?;
        inverses = above(&beside(&first, &zeros)?, &beside(&corner, &second)?)?;
        width *= 2;
    }
    // One block is left, so its axis goes.
    Ok(inverses.squeeze_axes(&[-3])?)
}
