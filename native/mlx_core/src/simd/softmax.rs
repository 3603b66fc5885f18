//! Exponentials that sum to one along the last axis.

use mlx_rs::{Array, Stream};

use super::chunk::{chunks, load, store, Chunk, CHUNK};
use super::functions::exp;
use super::level::{Kernel, Level};
use super::number::Number;
use super::primitive::{array, Call, Order};
use crate::error::Result;

/// What the rows of an array are: scores by batch, head and query of so many keys.
#[derive(Clone, Copy)]
pub(crate) struct Scores {
    /// They are multiplied by it first.
    pub scale: f64,
    pub heads: usize,
    pub queries: usize,
    /// Whether a query sees no key after its own, the last query's being the last.
    pub causal: bool,
}

impl Scores {
    /// Rows that don't differ from each other.
    pub(crate) const PLAIN: Scores = Scores {
        scale: 1.0,
        heads: 1,
        queries: 1,
        causal: false,
    };
}

/// The softmax, or nothing where this has no kernel for it. A mask is added to the scores; it
/// has axes of batches, one, queries and keys, where one batch or query stands for all.
pub(crate) fn softmax(
    x: &Array,
    mask: Option<&Array>,
    scores: Scores,
    s: &Stream,
) -> Result<Option<Array>> {
    let keys = x.shape().last().copied().unwrap_or(1) as usize;
    if scores.causal && keys < scores.queries {
        return Ok(None);
    }
    let steps = match mask {
        Some(mask) if mask.dtype() == x.dtype() => {
            mask_steps(mask, x.shape()[0], scores.queries, keys)
        }
        Some(_) => None,
        None => Some([0, 0]),
    };
    let Some([batch_step, query_step]) = steps else {
        return Ok(None);
    };
    let counts = [
        scores.queries,
        scores.heads * scores.queries,
        batch_step,
        query_step,
    ];
    let [queries, rows, batch_step, query_step] = counts.map(|count| count as f64);
    let causal = f64::from(scores.causal);
    let parameters = [scores.scale, causal, queries, rows, batch_step, query_step];
    let operands: Vec<&Array> = [x].into_iter().chain(mask).collect();
    array::<Softmax>(c"Softmax", Order::Rows, parameters, &operands, s)
}

/// How many rows of the mask lie between those of two batches, and of two queries; nothing if
/// it has no place for each of them.
pub(super) fn mask_steps(
    mask: &Array,
    batches: i32,
    queries: usize,
    keys: usize,
) -> Option<[usize; 2]> {
    let &[of_batches, 1, rows, of_keys] = mask.shape() else {
        return None;
    };
    let batch_step = if of_batches == 1 { 0 } else { rows as usize };
    let fits = of_keys as usize == keys
        && (of_batches == 1 || of_batches == batches)
        && (rows == 1 || rows as usize == queries);
    fits.then_some([batch_step, usize::from(rows > 1)])
}

struct Softmax;

impl Kernel for Softmax {
    type Call = Call;

    #[inline(always)]
    unsafe fn run<L: Level, T: Number>(call: &Call) {
        let [from, mask, _] = call.inputs.map(|input| input.cast::<T>());
        let to = call.output.cast::<T>();
        let [scale, causal, counts @ ..] = call.parameters;
        let [queries, rows, batch_step, query_step] = counts.map(|count| count as usize);
        for at in 0..call.length / call.row.max(1) {
            let query = at % queries;
            let hidden = if causal > 0.0 { queries - 1 - query } else { 0 };
            let mask_row = at / rows * batch_step + query * query_step;
            let row = Row {
                from: from.wrapping_add(at * call.row),
                to: to.wrapping_add(at * call.row),
                mask: mask.wrapping_add(if mask.is_null() {
                    0
                } else {
                    mask_row * call.row
                }),
                length: call.row - hidden,
                scale,
            };
            // Safety: the row, and that of the mask if there is one, are in the arrays.
            unsafe {
                row.run::<L>();
                std::slice::from_raw_parts_mut(row.to.add(row.length), hidden).fill(T::ZERO);
            }
        }
    }
}

pub(super) struct Row<T> {
    pub from: *const T,
    pub to: *mut T,
    /// Null if there is none.
    pub mask: *const T,
    pub length: usize,
    pub scale: f64,
}

impl<T: Number> Row<T> {
    /// Scores, and where there are no more what adds nothing.
    ///
    /// Safety: so many elements are left.
    #[inline(always)]
    unsafe fn scores(&self, at: usize, count: usize) -> Chunk {
        // Safety: as the caller's.
        let mut chunk = unsafe { load(self.from.add(at), count, 0.0) }.map(|x| x * self.scale);
        if !self.mask.is_null() {
            // Safety: the mask's row is as long.
            let mask = unsafe { load(self.mask.add(at), count, 0.0) };
            chunk = std::array::from_fn(|lane| chunk[lane] + mask[lane]);
        }
        if count < CHUNK {
            chunk[count..].fill(f64::NEG_INFINITY);
        }
        chunk
    }

    /// The largest score; NaN may be passed over, as its exponential makes all NaN.
    ///
    /// Safety: the row is in the arrays.
    #[inline(always)]
    unsafe fn largest(&self) -> f64 {
        let mut largest = [f64::NEG_INFINITY; CHUNK];
        for (at, count) in chunks(self.length) {
            // Safety: so many elements are left.
            let scores = unsafe { self.scores(at, count) };
            for (largest, score) in largest.iter_mut().zip(scores) {
                *largest = if score > *largest { score } else { *largest };
            }
        }
        largest.into_iter().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Safety: the row is in the arrays.
    #[inline(always)]
    pub unsafe fn run<L: Level>(&self) {
        // Safety: as the caller's.
        let largest = unsafe { self.largest() };
        let mut sums = [0.0; CHUNK];
        for (at, count) in chunks(self.length) {
            // Safety: so many elements are left on either side.
            unsafe {
                let powers = self.scores(at, count).map(|x| exp::<L>(x - largest));
                for (sum, power) in sums.iter_mut().zip(powers) {
                    *sum += power;
                }
                if T::PRECISE {
                    store(self.to.add(at), count, powers);
                }
            }
        }
        let share = 1.0 / sums.iter().sum::<f64>();
        for (at, count) in chunks(self.length) {
            // Safety: so many elements are left on either side.
            unsafe {
                let powers = if T::PRECISE {
                    load(self.to.add(at), count, 0.0)
                } else {
                    self.scores(at, count).map(|x| exp::<L>(x - largest))
                };
                store(self.to.add(at), count, powers.map(|power| power * share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::entries;
    use crate::simd::number::{Bf16, F16};
    use std::ptr::null;

    const BATCHES: usize = 2;
    const HEADS: usize = 3;

    /// Scores that differ by little and by much, some of them minus infinity.
    fn score(at: usize) -> f64 {
        match at % 17 {
            0 => f64::NEG_INFINITY,
            rest => (rest * rest) as f64 / 16.0 - (at % 5) as f64,
        }
    }

    fn check<T: Number>(scores: Scores, keys: usize, masked: Option<[usize; 2]>, ulp: f64) {
        let rows = BATCHES * HEADS * scores.queries;
        let x: Vec<T> = (0..rows * keys).map(|at| T::narrow(score(at))).collect();
        let [batch_step, query_step] = masked.unwrap_or([0, 0]);
        let mask_rows = BATCHES * scores.queries;
        let mask: Vec<T> = (0..mask_rows * keys)
            .map(|at| T::narrow(score(at / 3 + 1)))
            .collect();
        let per_batch = HEADS * scores.queries;
        let counts = [scores.queries, per_batch, batch_step, query_step].map(|count| count as f64);
        let [queries, of_batch, batches, of_query] = counts;
        let causal = f64::from(scores.causal);
        let parameters = [scores.scale, causal, queries, of_batch, batches, of_query];
        for entry in entries::<Softmax, T>().into_iter().flatten() {
            let mut got = x.clone();
            let call = Call {
                inputs: [
                    got.as_ptr().cast(),
                    masked.map_or(null(), |_| mask.as_ptr().cast()),
                    null(),
                ],
                output: got.as_mut_ptr().cast(),
                length: got.len(),
                row: keys,
                parameters,
            };
            // Safety: the vectors have the sizes that the call names.
            unsafe { entry(&call) };
            for row in 0..rows {
                let query = row % scores.queries;
                let mask_row = row / per_batch * batch_step + query * query_step;
                let value = |key: usize| -> f64 {
                    let added = masked.map_or(0.0, |_| mask[mask_row * keys + key].widen());
                    let hidden = scores.causal && key + scores.queries > keys + query;
                    let score = x[row * keys + key].widen() * scores.scale + added;
                    if hidden {
                        0.0
                    } else {
                        score.exp()
                    }
                };
                let sum: f64 = (0..keys).map(value).sum();
                for key in 0..keys {
                    let (got, expected) = (got[row * keys + key].widen(), value(key) / sum);
                    assert!(
                        (got - expected).abs() <= expected * ulp + 3e-8,
                        "{got} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn masks_causes_and_lengths_at_each_level() {
        for keys in [5, 16, 33] {
            for queries in [1, 3] {
                for causal in [false, true] {
                    for scale in [1.0, 0.25] {
                        let scores = Scores {
                            scale,
                            heads: HEADS,
                            queries,
                            causal,
                        };
                        for masked in [None, Some([0, 0]), Some([1, 0]), Some([queries, 1])] {
                            check::<f32>(scores, keys, masked, 2e-7);
                            check::<F16>(scores, keys, masked, 1e-3);
                            check::<Bf16>(scores, keys, masked, 8e-3);
                        }
                    }
                }
            }
        }
    }
}
