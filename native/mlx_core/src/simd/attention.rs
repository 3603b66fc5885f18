//! Attention of some queries at a time, whose scores stay in the nearest memory.

use std::ffi::{c_int, c_void};
use std::ptr::null;

use mlx_rs::{Array, Dtype, Stream};
use smallvec::SmallVec;

use super::functions::exp;
use super::level::{wide_entry, Kernel, Level};
use super::number::Number;
use super::primitive::{on_cpu, Entry};
use super::softmax::mask_steps;
use crate::error::Result;

/// Queries, and elements along the last axis, that sums are kept of at once.
const ROWS: usize = 6;
const WIDTH: usize = 16;

/// What attention is computed from; `primitive.cpp` has the same. Steps are those from one
/// batch, head and position to the next, in elements; the numbers of a position have no gaps.
#[repr(C)]
struct Call {
    /// Queries, keys, values, and numbers to add to scores or null.
    inputs: [*const c_void; 4],
    output: *mut c_void,
    batches: usize,
    heads: usize,
    groups: usize,
    queries: usize,
    keys: usize,
    size: usize,
    width: usize,
    steps: [[isize; 3]; 3],
    /// From one batch and query to the next.
    mask_steps: [usize; 2],
    scale: f64,
    causal: bool,
}

extern "C" {
    fn mlx_simd_attend(
        result: *mut mlx_sys::mlx_array,
        function: Entry<Call>,
        call: *const Call,
        inputs: *const mlx_sys::mlx_array,
        count: usize,
        stream: mlx_sys::mlx_stream,
    ) -> c_int;
}

/// The attention of arrays of four axes, or nothing where this has no kernel for it, or a BLAS
/// has better ones. A mask is added to the scores; it has axes of batches, one, queries and keys,
/// where one batch or query stands for all.
pub(crate) fn attention(
    [q, k, v]: [&Array; 3],
    mask: Option<&Array>,
    scale: f64,
    causal: bool,
    s: &Stream,
) -> Result<Option<Array>> {
    let operands: SmallVec<[&Array; 4]> = [q, k, v].into_iter().chain(mask).collect();
    let singles = operands.iter().all(|x| x.dtype() == Dtype::Float32);
    let Some(call) = call([q, k, v], mask, scale, causal).filter(|call| singles && call.pays())
    else {
        return Ok(None);
    };
    let Some(function) = wide_entry::<Attention>() else {
        return Ok(None);
    };
    let handles: SmallVec<[_; 4]> = operands.iter().map(|x| x.as_ptr()).collect();
    on_cpu(|result| {
        let (inputs, count) = (handles.as_ptr(), handles.len());
        // Safety: the handles are alive and of the sizes that the call names, which the primitive
        // copies.
        unsafe { mlx_simd_attend(result, function, &call, inputs, count, s.as_ptr()) }
    })
}

/// Without addresses and steps, or nothing if the arrays don't fit.
fn call([q, k, v]: [&Array; 3], mask: Option<&Array>, scale: f64, causal: bool) -> Option<Call> {
    let (&[batch, heads, queries, size], &[_, groups, keys, width]) = (q.shape(), v.shape()) else {
        return None;
    };
    let fits = k.shape() == [batch, groups, keys, size]
        && v.shape()[0] == batch
        && groups > 0
        && heads % groups == 0
        && !(causal && (keys < queries || mask.is_some()));
    if !fits {
        return None;
    }
    let mask_steps = match mask {
        Some(mask) => mask_steps(mask, batch, queries as usize, keys as usize)?,
        None => [0, 0],
    };
    Some(Call {
        inputs: [null(); 4],
        output: std::ptr::null_mut(),
        batches: batch as usize,
        heads: heads as usize,
        groups: groups as usize,
        queries: queries as usize,
        keys: keys as usize,
        size: size as usize,
        width: width as usize,
        steps: [[0; 3]; 3],
        mask_steps: mask_steps.map(|rows| rows * keys as usize),
        scale,
        causal,
    })
}

impl Call {
    /// Whether the kernel computes it, and a BLAS would not be faster.
    fn pays(&self) -> bool {
        let wide = self.size > 0 && self.width > 0 && self.width.is_multiple_of(WIDTH);
        let near = self.size <= MOST_NUMBERS && (1..=MOST_KEYS).contains(&self.keys);
        wide && near && self.queries >= ROWS
    }
}

/// Numbers of a query, and keys. Of more a BLAS makes the products faster.
const MOST_NUMBERS: usize = 256;
const MOST_KEYS: usize = 1024;

struct Attention;

/// What is computed of some queries, in rows as far from each other as the compiler knows.
#[repr(align(64))]
struct Near {
    queries: [[f32; MOST_NUMBERS]; ROWS],
    scores: [[f32; STEP]; ROWS],
}

/// Not a power of two, which would put rows in the same places of a cache.
const STEP: usize = MOST_KEYS + WIDTH;

/// Rows of a matrix, by the first element and the step from one to the next.
#[derive(Clone, Copy)]
struct Matrix {
    first: *const f32,
    step: isize,
}

impl Matrix {
    fn row(self, row: usize) -> Matrix {
        let first = self.first.wrapping_offset(row as isize * self.step);
        Matrix { first, ..self }
    }
}

impl Kernel for Attention {
    type Call = Call;

    #[inline(always)]
    unsafe fn run<L: Level, T: Number>(call: &Call) {
        let wide = call.keys.next_multiple_of(WIDTH);
        let mut turned = vec![0f32; call.size * wide];
        let mut near = Near {
            queries: [[0.0; MOST_NUMBERS]; ROWS],
            scores: [[0.0; STEP]; ROWS],
        };
        let heads = call.heads / call.groups;
        for batch in 0..call.batches {
            for group in 0..call.groups {
                // Safety: the call names the arrays, and what is allocated has their sizes.
                unsafe { turn(call.at(1, batch, group), call.keys, &mut turned, wide) };
                for head in group * heads..(group + 1) * heads {
                    for query in (0..call.queries).step_by(ROWS) {
                        let place = [batch, head, group, query];
                        // Safety: the place is in the arrays.
                        unsafe { some::<L>(call, place, &turned, &mut near) };
                    }
                }
            }
        }
    }
}

impl Call {
    /// The numbers of an operand's positions.
    #[inline(always)]
    fn at(&self, input: usize, batch: usize, head: usize) -> Matrix {
        let [of_batch, of_head, step] = self.steps[input];
        let offset = batch as isize * of_batch + head as isize * of_head;
        let first = self.inputs[input].cast::<f32>().wrapping_offset(offset);
        Matrix { first, step }
    }
}

/// The numbers of keys side by side, number by number, and in the places of keys that there are
/// not those of the last one.
///
/// Safety: there are so many keys.
#[inline(always)]
unsafe fn turn(keys: Matrix, count: usize, turned: &mut [f32], wide: usize) {
    for first in (0..count).step_by(WIDTH) {
        let rows: [_; WIDTH] =
            std::array::from_fn(|beside| keys.row((first + beside).min(count - 1)).first);
        for (number, turned) in turned.chunks_exact_mut(wide).enumerate() {
            for (to, row) in turned[first..first + WIDTH].iter_mut().zip(rows) {
                // Safety: as the caller's.
                *to = unsafe { *row.add(number) };
            }
        }
    }
}

/// The attention of some queries of a head, from one on.
///
/// Safety: the place is in the arrays.
#[inline(always)]
unsafe fn some<L: Level>(
    call: &Call,
    [batch, head, group, query]: [usize; 4],
    turned: &[f32],
    near: &mut Near,
) {
    let count = ROWS.min(call.queries - query);
    let seen = |row: usize| match call.causal {
        true => call.keys - (call.queries - 1 - (query + row)),
        false => call.keys,
    };
    let all = seen(count - 1);
    let queries = call.at(0, batch, head);
    for (row, near) in near.queries.iter_mut().enumerate().take(count) {
        // Safety: the numbers of a query have no gaps.
        let numbers =
            unsafe { std::slice::from_raw_parts(queries.row(query + row).first, call.size) };
        near[..call.size].copy_from_slice(numbers);
    }
    let keys = Matrix {
        first: turned.as_ptr(),
        step: (turned.len() / call.size) as isize,
    };
    for column in (0..all).step_by(WIDTH) {
        // Safety: there are as many rows of keys as a query has numbers, and they are as wide.
        let sums = unsafe { tile::<L, MOST_NUMBERS>(&near.queries, keys, column, call.size) };
        for (scores, sums) in near.scores.iter_mut().zip(sums) {
            scores[column..column + WIDTH].copy_from_slice(&sums);
        }
    }
    let mut shares = [0.0; ROWS];
    for (row, scores) in near.scores.iter_mut().enumerate().take(count) {
        let mask = call.mask_of(batch, query + row);
        // Safety: the mask has as many numbers as there are keys.
        shares[row] = unsafe { powers::<L>(scores, mask, call.scale, seen(row), all) };
    }
    for column in (0..call.width).step_by(WIDTH) {
        let values = call.at(2, batch, group);
        // Safety: there are so many values, and the result has a place for each sum.
        unsafe {
            let sums = tile::<L, STEP>(&near.scores, values, column, all);
            for (row, sums) in sums.into_iter().enumerate().take(count) {
                let at = (batch * call.queries + query + row) * call.heads + head;
                let to = call.output.cast::<f32>().add(at * call.width + column);
                let sums = std::array::from_fn(|lane| sums[lane] * shares[row]);
                to.cast::<[f32; WIDTH]>().write_unaligned(sums);
            }
        }
    }
}

impl Call {
    /// The numbers to add to the scores of a query, or null.
    #[inline(always)]
    fn mask_of(&self, batch: usize, query: usize) -> *const f32 {
        let [of_batch, of_query] = self.mask_steps;
        let mask = self.inputs[3].cast::<f32>();
        if mask.is_null() {
            return mask;
        }
        mask.wrapping_add(batch * of_batch + query * of_query)
    }
}

/// Makes exponentials of scores, and zeros of those that are not seen, and gives what they are to
/// be multiplied with to have a sum of one.
///
/// Safety: the mask is null, or has as many numbers as there are scores.
#[inline(always)]
unsafe fn powers<L: Level>(
    scores: &mut [f32; STEP],
    mask: *const f32,
    scale: f64,
    seen: usize,
    all: usize,
) -> f32 {
    let scale = scale as f32;
    for (key, score) in scores[..seen].iter_mut().enumerate() {
        // Safety: as the caller's.
        let added = if mask.is_null() {
            0.0
        } else {
            unsafe { *mask.add(key) }
        };
        *score = L::fma_single(*score, scale, added);
    }
    let whole = all.next_multiple_of(WIDTH);
    scores[seen..whole].fill(f32::NEG_INFINITY);
    let (chunks, _) = scores[..whole].as_chunks_mut::<WIDTH>();
    let mut largest = [f32::NEG_INFINITY; WIDTH];
    for chunk in chunks.iter() {
        for (largest, &score) in largest.iter_mut().zip(chunk) {
            // NaN may be passed over, as its exponential makes all NaN.
            *largest = if score > *largest { score } else { *largest };
        }
    }
    let largest = f64::from(halved(largest, |a, b| if a > b { a } else { b }));
    let mut sums = [0.0; WIDTH];
    for chunk in chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            let power = exp::<L>(f64::from(*score) - largest);
            *sum += power;
            *score = power as f32;
        }
    }
    (1.0 / halved(sums, |a, b| a + b)) as f32
}

/// All numbers as one, by halves, as vectors do.
#[inline(always)]
fn halved<T: Copy>(mut numbers: [T; WIDTH], join: impl Fn(T, T) -> T) -> T {
    let mut half = WIDTH / 2;
    while half > 0 {
        for lane in 0..half {
            numbers[lane] = join(numbers[lane], numbers[lane + half]);
        }
        half /= 2;
    }
    numbers[0]
}

/// Sums of so many products of each row with numbers side by side in the rows of a matrix.
///
/// Safety: the matrix has so many rows, and the column and those beside it.
#[inline(always)]
unsafe fn tile<L: Level, const STEP: usize>(
    rows: &[[f32; STEP]; ROWS],
    matrix: Matrix,
    column: usize,
    depth: usize,
) -> [[f32; WIDTH]; ROWS] {
    let mut sums = [[0f32; WIDTH]; ROWS];
    let rows = rows.as_ptr().cast::<f32>();
    for k in 0..depth {
        // Safety: as the caller's.
        unsafe {
            let beside = matrix.row(k).first.add(column);
            let beside = beside.cast::<[f32; WIDTH]>().read_unaligned();
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = *rows.add(row * STEP + k);
                for (sum, number) in sums.iter_mut().zip(beside) {
                    *sum = L::fma_single(factor, number, *sum);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests;
