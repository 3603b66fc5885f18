//! Products of few rows with a matrix, which BLAS libraries copy before they use it.

use mlx_rs::{Array, Dtype, Stream};

use super::primitive::{product as array, Call, Entry};
use crate::error::Result;

/// With one row there is nothing to gain, and with more the copy costs little.
const ROWS: std::ops::RangeInclusive<i32> = 2..=48;

/// The product, or nothing where this has no kernel for it.
pub(crate) fn product(a: &Array, b: &Array, s: &Stream) -> Result<Option<Array>> {
    let (&[rows, inner], &[_, columns]) = (a.shape(), b.shape()) else {
        return Ok(None);
    };
    let singles = a.dtype() == Dtype::Float32 && b.dtype() == Dtype::Float32;
    let fits = inner > 0 && columns > 0 && b.shape()[0] == inner && columns % COLUMNS as i32 == 0;
    match entry() {
        Some(function) if singles && fits && ROWS.contains(&rows) => array(a, b, function, s),
        _ => Ok(None),
    }
}

/// Columns that are computed at once.
const COLUMNS: usize = 32;

/// Rows of the matrix that are added at once, few enough for the nearest memory.
#[cfg(target_arch = "x86_64")]
const DEPTH: usize = 64;

fn entry() -> Option<Entry> {
    entries().into_iter().flatten().next()
}

/// The kernel for each level that this processor has, the best first.
#[cfg(target_arch = "x86_64")]
fn entries() -> [Option<Entry>; 2] {
    use std::arch::is_x86_feature_detected as has;
    [
        has!("avx512f").then_some(avx512::product as Entry),
        (has!("avx2") && has!("fma")).then_some(avx2::product as Entry),
    ]
}

/// Elsewhere products are the BLAS's.
#[cfg(not(target_arch = "x86_64"))]
fn entries() -> [Option<Entry>; 0] {
    []
}

/// A copy of a part of the matrix, which begins where a line of a cache does.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
struct Near([f32; DEPTH * COLUMNS]);

/// Rows of a matrix, a part of another and of their product, by their first elements.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Tile {
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    /// From one row to the next.
    a_step: usize,
    b_step: usize,
    /// What will be read later, and takes long to come.
    next: *const f32,
    next_step: usize,
    c_step: usize,
    /// Rows of `b`.
    depth: usize,
    /// Whether there are sums to add to.
    adds: bool,
}

/// The product for vectors of one size: `$rows` rows of `$vectors` vectors fill the registers
/// with sums, to which each row of the matrix adds multiples.
macro_rules! product {
    ($level:ident $features:literal $vector:ident[$width:literal] $rows:literal x $vectors:literal
     $zero:ident $splat:ident $load:ident $store:ident $fma:ident
     $across:literal $total:ident) => {
        #[cfg(target_arch = "x86_64")]
        mod $level {
            use std::arch::x86_64::*;

            use super::*;

            #[target_feature(enable = $features)]
            pub(super) unsafe extern "C" fn product(call: *const Call) {
                // Safety: the primitive passes the call, with matrices in row order.
                let call = unsafe { &*call };
                let (rows, columns, inner) = (call.length, call.row, call.parameters[0] as usize);
                if call.parameters[1] > 0.0 {
                    // Safety: the columns of the matrix lie one after the other.
                    return unsafe { of_columns(call, rows, columns, inner) };
                }
                let mut near = Near([0.0; DEPTH * COLUMNS]);
                for k in (0..inner).step_by(DEPTH) {
                    let depth = DEPTH.min(inner - k);
                    for column in (0..columns).step_by(WIDTH) {
                        let from = call.inputs[1]
                            .cast::<f32>()
                            .wrapping_add(k * columns + column);
                        // Rows of a matrix may lie so that a cache holds few of them at once.
                        let (b, step) = if rows > $rows {
                            // Safety: so many rows are left, as wide as the tile is.
                            unsafe { gather(from, columns, depth, &mut near) };
                            (near.0.as_ptr(), WIDTH)
                        } else {
                            (from, columns)
                        };
                        for row in (0..rows).step_by($rows) {
                            let tile = Tile {
                                a: call.inputs[0].cast::<f32>().wrapping_add(row * inner + k),
                                a_step: inner,
                                b,
                                b_step: step,
                                next: from.wrapping_add(WIDTH + row / $rows * LINE),
                                next_step: columns,
                                c: call
                                    .output
                                    .cast::<f32>()
                                    .wrapping_add(row * columns + column),
                                c_step: columns,
                                depth,
                                adds: k > 0,
                            };
                            // Safety: so many rows are left, and as many columns as a tile has.
                            unsafe { of_rows(tile, $rows.min(rows - row)) };
                        }
                    }
                }
            }

            /// Numbers that memory gives at once.
            const LINE: usize = 16;
            const WIDTH: usize = $width * $vectors;

            /// Where columns lie one after the other, sums of products of vectors along them.
            ///
            /// Safety: the matrices have so many rows and columns.
            #[target_feature(enable = $features)]
            unsafe fn of_columns(call: &Call, rows: usize, columns: usize, inner: usize) {
                let [a, b] = [0, 1].map(|input: usize| call.inputs[input].cast::<f32>());
                for column in (0..columns).step_by($across) {
                    for row in (0..rows).step_by(DOWN) {
                        let a = a.wrapping_add(row * inner);
                        let b = b.wrapping_add(column * inner);
                        let c = call
                            .output
                            .cast::<f32>()
                            .wrapping_add(row * columns + column);
                        // Safety: so many rows are left, and as many columns as a tile has.
                        unsafe {
                            match rows - row {
                                1 => sums::<1>(a, b, c, inner, columns),
                                2 => sums::<2>(a, b, c, inner, columns),
                                3 => sums::<3>(a, b, c, inner, columns),
                                _ => sums::<DOWN>(a, b, c, inner, columns),
                            }
                        }
                    }
                }
            }

            const DOWN: usize = 4;
            const _: () = assert!(COLUMNS % $across == 0);

            /// Safety: so many rows and as many columns as a tile has are there.
            #[target_feature(enable = $features)]
            unsafe fn sums<const ROWS: usize>(
                a: *const f32,
                b: *const f32,
                c: *mut f32,
                inner: usize,
                columns: usize,
            ) {
                let mut sums = [[$zero(); $across]; ROWS];
                let whole = inner / $width * $width;
                // Safety: as the caller's.
                unsafe {
                    for k in (0..whole).step_by($width) {
                        let of_b: [$vector; $across] =
                            std::array::from_fn(|at| $load(b.add(at * inner + k)));
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let factor = $load(a.add(row * inner + k));
                            for (sum, b) in sums.iter_mut().zip(of_b) {
                                *sum = $fma(factor, b, *sum);
                            }
                        }
                    }
                    for (row, sums) in sums.into_iter().enumerate() {
                        for (column, sum) in sums.into_iter().enumerate() {
                            let mut sum = $total(sum);
                            for k in whole..inner {
                                sum += *a.add(row * inner + k) * *b.add(column * inner + k);
                            }
                            *c.add(row * columns + column) = sum;
                        }
                    }
                }
            }

            /// Safety: so many rows are there, a step apart and as wide as a tile.
            #[target_feature(enable = $features)]
            unsafe fn gather(from: *const f32, step: usize, depth: usize, to: &mut Near) {
                for (row, to) in to.0.chunks_exact_mut(WIDTH).enumerate().take(depth) {
                    // Safety: as the caller's; both are as wide as a tile.
                    unsafe {
                        let from = from.add(row * step).cast::<[f32; WIDTH]>();
                        to.copy_from_slice(&*from);
                    }
                }
            }

            const _: () = assert!(COLUMNS % WIDTH == 0);

            /// Safety: so many rows are in the matrices.
            #[target_feature(enable = $features)]
            unsafe fn of_rows(tile: Tile, rows: usize) {
                // Safety: as the caller's.
                unsafe {
                    match rows {
                        1 => add::<1>(tile),
                        2 => add::<2>(tile),
                        3 => add::<3>(tile),
                        4 => add::<4>(tile),
                        5 => add::<5>(tile),
                        6 => add::<6>(tile),
                        7 => add::<7>(tile),
                        _ => add::<$rows>(tile),
                    }
                }
            }

            /// Safety: so many rows are in the matrices.
            #[target_feature(enable = $features)]
            unsafe fn add<const ROWS: usize>(tile: Tile) {
                // Safety: as the caller's.
                unsafe {
                    let mut sums = [[$zero(); $vectors]; ROWS];
                    if tile.adds {
                        for (row, sums) in sums.iter_mut().enumerate() {
                            for (at, sum) in sums.iter_mut().enumerate() {
                                *sum = $load(tile.c.add(row * tile.c_step + at * $width));
                            }
                        }
                    }
                    for k in 0..tile.depth {
                        let from = tile.b.add(k * tile.b_step);
                        let next = tile.next.wrapping_add(k * tile.next_step);
                        _mm_prefetch::<_MM_HINT_T0>(next.cast());
                        let of_b: [$vector; $vectors] =
                            std::array::from_fn(|at| $load(from.add(at * $width)));
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let factor = $splat(*tile.a.add(row * tile.a_step + k));
                            for (sum, b) in sums.iter_mut().zip(of_b) {
                                *sum = $fma(factor, b, *sum);
                            }
                        }
                    }
                    for (row, sums) in sums.iter().enumerate() {
                        for (at, sum) in sums.iter().enumerate() {
                            $store(tile.c.add(row * tile.c_step + at * $width), *sum);
                        }
                    }
                }
            }
        }
    };
}

product!(avx512 "avx512f" __m512[16] 8 x 2
    _mm512_setzero_ps _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps
    4 _mm512_reduce_add_ps);
product!(avx2 "avx2,fma" __m256[8] 6 x 2
    _mm256_setzero_ps _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps
    2 total);

/// The sum of a vector's numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn total(vector: std::arch::x86_64::__m256) -> f32 {
    use std::arch::x86_64::*;
    let half = _mm_add_ps(
        _mm256_castps256_ps128(vector),
        _mm256_extractf128_ps::<1>(vector),
    );
    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::null;

    /// Numbers whose products and sums are exact.
    fn numbers(count: usize, from: usize) -> Vec<f32> {
        (0..count)
            .map(|at| ((at * 7 + from) % 13) as f32 - 6.0)
            .collect()
    }

    fn expected(a: &[f32], b: &[f32], [rows, inner, columns]: [usize; 3]) -> Vec<f32> {
        let element = |row: usize, column: usize| -> f32 {
            (0..inner)
                .map(|k| a[row * inner + k] * b[k * columns + column])
                .sum()
        };
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        places.map(|(row, column)| element(row, column)).collect()
    }

    fn by(entry: Entry, a: &[f32], b: &[f32], sizes: [usize; 3], transposed: bool) -> Vec<f32> {
        let [rows, inner, columns] = sizes;
        // What is not written stays NaN, which equals nothing.
        let mut c = vec![f32::NAN; rows * columns];
        let mut parameters = super::super::primitive::NO_PARAMETERS;
        parameters[0] = inner as f64;
        parameters[1] = f64::from(transposed);
        let call = Call {
            inputs: [a.as_ptr().cast(), b.as_ptr().cast(), null()],
            output: c.as_mut_ptr().cast(),
            length: rows,
            row: columns,
            parameters,
        };
        // Safety: the vectors have the sizes that the call names.
        unsafe { entry(&call) };
        c
    }

    #[test]
    fn all_sizes_and_both_orders_at_each_level() {
        for rows in 1..=20 {
            for inner in [1, 7, 16, 64, 65, 131] {
                for columns in [32, 96] {
                    let sizes = [rows, inner, columns];
                    let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 5));
                    let expected = expected(&a, &b, sizes);
                    let transposed: Vec<f32> = (0..columns)
                        .flat_map(|column| (0..inner).map(move |k| (k, column)))
                        .map(|(k, column)| b[k * columns + column])
                        .collect();
                    for entry in entries().into_iter().flatten() {
                        assert_eq!(by(entry, &a, &b, sizes, false), expected, "{sizes:?}");
                        assert_eq!(
                            by(entry, &a, &transposed, sizes, true),
                            expected,
                            "{sizes:?}"
                        );
                    }
                }
            }
        }
    }
}
