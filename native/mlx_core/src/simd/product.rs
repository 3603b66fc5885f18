//! Products with a matrix, which BLAS libraries copy before they use it: of few rows, or with
//! one whose columns lie one after the other.

use mlx_rs::{Array, Dtype, Stream};

#[cfg(any(test, target_arch = "x86_64"))]
use super::primitive::Call;
use super::primitive::{product as array, Entry};
#[cfg(target_arch = "x86_64")]
use super::transposed;
use crate::error::Result;
use crate::openblas;

/// With one row there is nothing to gain, and with more than these the copy costs little.
const FEW: std::ops::RangeInclusive<i32> = 2..=48;

/// The product, or nothing where this has no kernel for it.
pub(crate) fn product(a: &Array, b: &Array, s: &Stream) -> Result<Option<Array>> {
    let (&[rows, inner], &[_, columns]) = (a.shape(), b.shape()) else {
        return Ok(None);
    };
    let singles = a.dtype() == Dtype::Float32 && b.dtype() == Dtype::Float32;
    let fits = inner > 0 && columns > 0 && b.shape()[0] == inner && columns % COLUMNS as i32 == 0;
    match entry() {
        Some(function)
            if singles && fits && (FEW.contains(&rows) || many(rows, inner, columns)) =>
        {
            array(a, b, function, *FEW.end(), s)
        }
        _ => Ok(None),
    }
}

/// Whether this is worth it for more rows. With smaller vectors a BLAS is as fast, and with more
/// processors it shares the rows among them.
fn many(rows: i32, inner: i32, columns: i32) -> bool {
    let size = i64::from(inner) * i64::from(columns);
    let fits = inner.min(columns) >= LEAST && (size <= LARGE || rows <= SOME);
    let has_best = matches!(entries().first(), Some(Some(_)));
    rows > *FEW.end() && fits && has_best && openblas::threads() == Some(1)
}

/// Rows and columns of a matrix below which much of the time goes into laying out the others.
const LEAST: i32 = 64;

/// Elements of a matrix that caches keep from some rows to the next.
const LARGE: i64 = 1 << 21;

/// Rows that are done before the cost of fetching a larger matrix again outweighs its copy.
const SOME: i32 = 128;

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
     $zero:ident $splat:ident $load:ident $store:ident $fma:ident) => {
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
                    // Safety: the columns of the matrix lie one after the other, so many.
                    return unsafe { transposed::$level::product(call) };
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
    _mm512_setzero_ps _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps);
product!(avx2 "avx2,fma" __m256[8] 6 x 2
    _mm256_setzero_ps _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps);

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
        // What is not written stays NaN, which equals nothing.
        let mut c = vec![f32::NAN; sizes[0] * sizes[2]];
        run(entry, a, b, c.as_mut_ptr(), sizes, transposed);
        c
    }

    /// To where there is room for the product.
    fn run(
        entry: Entry,
        a: &[f32],
        b: &[f32],
        c: *mut f32,
        [rows, inner, columns]: [usize; 3],
        transposed: bool,
    ) {
        let mut parameters = super::super::primitive::NO_PARAMETERS;
        parameters[0] = inner as f64;
        parameters[1] = f64::from(transposed);
        let call = Call {
            inputs: [a.as_ptr().cast(), b.as_ptr().cast(), null()],
            output: c.cast(),
            length: rows,
            row: columns,
            parameters,
        };
        // Safety: the vectors have the sizes that the call names.
        unsafe { entry(&call) };
    }

    fn columns_together(b: &[f32], [_, inner, columns]: [usize; 3]) -> Vec<f32> {
        (0..columns)
            .flat_map(|column| (0..inner).map(move |k| (k, column)))
            .map(|(k, column)| b[k * columns + column])
            .collect()
    }

    fn assert_exact(rows: usize, inner: usize, columns: usize) {
        let sizes = [rows, inner, columns];
        let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 5));
        let expected = expected(&a, &b, sizes);
        let transposed = columns_together(&b, sizes);
        for entry in entries().into_iter().flatten() {
            assert_eq!(by(entry, &a, &b, sizes, false), expected, "{sizes:?}");
            let product = by(entry, &a, &transposed, sizes, true);
            assert_eq!(product, expected, "{sizes:?}, transposed");
        }
    }

    #[test]
    fn all_sizes_and_both_orders_at_each_level() {
        for rows in 1..=49 {
            for inner in [1, 7, 16, 65, 131] {
                for columns in [32, 96] {
                    assert_exact(rows, inner, columns);
                }
            }
        }
        for rows in [5, 16, 33, 70, 101] {
            for inner in [511, 512, 513, 1100] {
                assert_exact(rows, inner, 64);
            }
        }
    }

    #[test]
    fn sums_are_as_exact_as_single_precision_is() {
        let mut seed = 7_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for sizes in [[3, 700, 32], [11, 1536, 32], [32, 384, 64], [57, 1030, 96]] {
            let [rows, inner, columns] = sizes;
            let a: Vec<f32> = (0..rows * inner).map(|_| next()).collect();
            let b: Vec<f32> = (0..inner * columns).map(|_| next()).collect();
            let transposed = columns_together(&b, sizes);
            for entry in entries().into_iter().flatten() {
                for (b, order) in [(&b, false), (&transposed, true)] {
                    let product = by(entry, &a, b, sizes, order);
                    for (at, &element) in product.iter().enumerate() {
                        let (row, column) = (at / columns, at % columns);
                        let terms = (0..inner).map(|k| {
                            let b = if order {
                                b[column * inner + k]
                            } else {
                                b[k * columns + column]
                            };
                            f64::from(a[row * inner + k]) * f64::from(b)
                        });
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| {
                            (sum + term, size + term.abs())
                        });
                        let error = (f64::from(element) - sum).abs();
                        // What rounding at each step of a sum in order can't exceed by far.
                        assert!(error <= 2e-7 * size, "{sizes:?}: {element}, not {sum}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_in_its_row_and_column() {
        for rows in [2, 9, 20, 32, 45] {
            let sizes @ [_, inner, columns] = [rows, 600, 32];
            let mut a = numbers(rows * inner, 1);
            let b: Vec<f32> = (0..inner * columns)
                .map(|at| (at % 5) as f32 + 1.0)
                .collect();
            let mut spoiled = b.clone();
            a[(rows - 1) * inner + 3] = f32::INFINITY;
            spoiled[599 * columns + 7] = f32::NAN;
            let transposed = columns_together(&spoiled, sizes);
            for entry in entries().into_iter().flatten() {
                for product in [
                    by(entry, &a, &spoiled, sizes, false),
                    by(entry, &a, &transposed, sizes, true),
                ] {
                    for (at, element) in product.into_iter().enumerate() {
                        match (at / columns, at % columns) {
                            (_, 7) => assert!(element.is_nan()),
                            (row, _) if row == rows - 1 => assert_eq!(element, f32::INFINITY),
                            _ => assert!(element.is_finite()),
                        }
                    }
                }
            }
        }
    }

    /// Numbers before a page that must not be touched.
    #[cfg(target_os = "linux")]
    struct AtTheEnd {
        start: *mut f32,
        count: usize,
        pages: *mut std::ffi::c_void,
        length: usize,
    }

    #[cfg(target_os = "linux")]
    impl AtTheEnd {
        fn new(numbers: &[f32]) -> AtTheEnd {
            const PAGE: usize = 4096;
            let size = size_of_val(numbers);
            let length = size.next_multiple_of(PAGE) + PAGE;
            // Safety: the pages are new, and the numbers fit before the last one.
            unsafe {
                let (access, kind) = (
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                );
                let pages = libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0);
                assert_ne!(pages, libc::MAP_FAILED);
                let last = pages.add(length - PAGE);
                assert_eq!(libc::mprotect(last, PAGE, libc::PROT_NONE), 0);
                let start = last.cast::<f32>().sub(numbers.len());
                start.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len());
                let count = numbers.len();
                AtTheEnd {
                    start,
                    count,
                    pages,
                    length,
                }
            }
        }

        fn numbers(&self) -> &[f32] {
            // Safety: so many were written there.
            unsafe { std::slice::from_raw_parts(self.start, self.count) }
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            // Safety: the pages were mapped, and nothing refers to them any more.
            unsafe { libc::munmap(self.pages, self.length) };
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nothing_beyond_the_ends_is_touched() {
        for rows in [1, 2, 7, 10, 16, 19, 31, 32, 33, 50] {
            for inner in [1, 7, 15, 519] {
                let sizes @ [_, _, columns] = [rows, inner, 32];
                let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 5));
                let expected = expected(&a, &b, sizes);
                let orders = [(b.clone(), false), (columns_together(&b, sizes), true)];
                for entry in entries().into_iter().flatten() {
                    for (b, transposed) in &orders {
                        let [a, b, c] =
                            [&a, b, &vec![0.0; rows * columns]].map(|x| AtTheEnd::new(x));
                        let (a, b) = (a.numbers(), b.numbers());
                        run(entry, a, b, c.start, sizes, *transposed);
                        assert_eq!(c.numbers(), expected, "{sizes:?}");
                    }
                }
            }
        }
    }
}
