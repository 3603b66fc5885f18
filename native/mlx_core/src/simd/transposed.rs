//! Products with a matrix whose columns lie one after the other, as the weights of most layers
//! do, so that a product reads two matrices along their rows.

use std::arch::x86_64::*;

use super::primitive::Call;

/// Elements of a row that are multiplied before the next row's, few enough for the nearer memory.
const DEPTH: usize = 512;

/// Columns of the product whose rows are stored at once.
const COLUMNS: usize = 8;

/// Rows of one matrix beside each other, and what the other one's add up to with them; both
/// begin where a line of a cache does.
#[repr(align(64))]
struct Near<const COUNT: usize>([f32; COUNT]);

/// The product for vectors of one size, which hold an element each of as many rows; or, where
/// few rows are left, as many elements of a row. `$rows` rows of weights and two vectors fill
/// the registers with sums, or `$across` of them and up to four rows.
macro_rules! transposed {
    ($level:ident $features:literal $vector:ident[$width:literal] $rows:literal
     $zero:ident $splat:ident $load:ident $store:ident $fma:ident
     $across:literal $total:path) => {
        pub(super) mod $level {
            use super::*;

            const WIDTH: usize = 2 * $width;
            /// So few rows are multiplied one by one.
            const FEW: usize = $width / 2;

            /// A product of rows with weights: the sizes of both, and where all of it lies.
            #[derive(Clone, Copy)]
            struct Product {
                a: *const f32,
                weights: *const f32,
                c: *mut f32,
                inner: usize,
                columns: usize,
            }

            impl Product {
                fn after(self, row: usize) -> Product {
                    Product {
                        a: self.a.wrapping_add(row * self.inner),
                        c: self.c.wrapping_add(row * self.columns),
                        ..self
                    }
                }

                /// The columns from this one on, of the elements of rows from that one on.
                fn of(self, column: usize, from: usize) -> Product {
                    Product {
                        weights: self.weights.wrapping_add(column * self.inner + from),
                        c: self.c.wrapping_add(column),
                        ..self
                    }
                }
            }

            /// Safety: the call has the addresses of matrices of its sizes; the columns are a
            /// multiple of eight.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn product(call: &Call) {
                let [a, weights] = [0, 1].map(|input: usize| call.inputs[input].cast::<f32>());
                let (inner, columns) = (call.parameters[0] as usize, call.row);
                let product = Product {
                    a,
                    weights,
                    c: call.output.cast(),
                    inner,
                    columns,
                };
                let mut near = Near([0.0; DEPTH * WIDTH]);
                let mut row = 0;
                while row < call.length {
                    let left = call.length - row;
                    let part = product.after(row);
                    // Safety: so many rows are left.
                    row += unsafe {
                        match left {
                            ..=FEW => one_by_one(part, left),
                            _ if left <= $width => beside::<1, COLUMNS>(part, left, &mut near),
                            _ => beside::<2, $rows>(part, left, &mut near),
                        }
                    };
                }
            }

            /// The product of the first rows, as many as vectors hold. Gives how many they are.
            ///
            /// Safety: so many rows are left.
            #[target_feature(enable = $features)]
            unsafe fn beside<const VECTORS: usize, const ROWS: usize>(
                product: Product,
                left: usize,
                near: &mut Near<{ DEPTH * WIDTH }>,
            ) -> usize {
                let rows = left.min(VECTORS * $width);
                for from in (0..product.inner).step_by(DEPTH) {
                    let depth = DEPTH.min(product.inner - from);
                    let a = product.a.wrapping_add(from);
                    // Safety: as the caller's; so many elements are left of each row.
                    unsafe { deal(a, product.inner, rows, depth, &mut near.0) };
                    // What is dealt next takes long to come.
                    let (next, lines) = match product.inner - from - depth {
                        0 if left == rows => (a, 0),
                        0 => (product.after(rows).a, rows * depth.div_ceil(LINE)),
                        _ => (a.wrapping_add(depth), rows * depth.div_ceil(LINE)),
                    };
                    let share = lines.div_ceil(product.columns / COLUMNS);
                    for column in (0..product.columns).step_by(COLUMNS) {
                        let line = column / COLUMNS * share;
                        for line in line..lines.min(line + share) {
                            let (row, k) = (line % rows, line / rows * LINE);
                            let next = next.wrapping_add(row * product.inner + k);
                            _mm_prefetch::<_MM_HINT_T1>(next.cast());
                        }
                        let near = &near.0[..depth * WIDTH];
                        // Safety: the product has these rows, and these columns of them.
                        unsafe {
                            across::<VECTORS, ROWS>(product.of(column, from), near, rows, from > 0)
                        };
                    }
                }
                rows
            }

            /// Stores the first columns, or adds to what they are.
            ///
            /// Safety: there are as many columns as are stored at once, and so many rows of them.
            #[target_feature(enable = $features)]
            unsafe fn across<const VECTORS: usize, const ROWS: usize>(
                product: Product,
                near: &[f32],
                rows: usize,
                adds: bool,
            ) {
                let mut sums = Near([0.0; COLUMNS * WIDTH]);
                for at in (0..COLUMNS).step_by(ROWS) {
                    let weights = product.weights.wrapping_add(at * product.inner);
                    let sums = &mut sums.0[at * WIDTH..];
                    // Safety: so many rows of weights are left.
                    unsafe { multiply::<VECTORS, ROWS>(weights, product.inner, near, sums) };
                }
                // Safety: as the caller's.
                unsafe { turn(&sums.0, WIDTH, product.c, product.columns, rows, adds) };
            }

            /// Elements of rows, those at the same place beside each other.
            ///
            /// Safety: there are so many rows, a step apart, of so many elements.
            #[target_feature(enable = $features)]
            unsafe fn deal(
                from: *const f32,
                step: usize,
                rows: usize,
                depth: usize,
                to: &mut [f32],
            ) {
                let (whole, deep) = (rows / 8 * 8, depth / 8 * 8);
                for row in (0..whole).step_by(8) {
                    for k in (0..deep).step_by(8) {
                        // Safety: as the caller's.
                        let block = std::array::from_fn(|at| unsafe {
                            _mm256_loadu_ps(from.add((row + at) * step + k))
                        });
                        for (at, places) in transpose(block).into_iter().enumerate() {
                            let to = &mut to[(k + at) * WIDTH + row..][..8];
                            // Safety: there are eight.
                            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), places) };
                        }
                    }
                }
                for row in 0..rows {
                    for k in if row < whole { deep } else { 0 }..depth {
                        // Safety: as the caller's.
                        to[k * WIDTH + row] = unsafe { *from.add(row * step + k) };
                    }
                }
            }

            /// The sums of some rows of weights, each times what is near.
            ///
            /// Safety: there are so many rows of weights, a step apart.
            #[target_feature(enable = $features)]
            unsafe fn multiply<const VECTORS: usize, const ROWS: usize>(
                weights: *const f32,
                step: usize,
                near: &[f32],
                to: &mut [f32],
            ) {
                let mut sums = [[$zero(); VECTORS]; ROWS];
                // The rows after these, which take long to come.
                let next = weights.wrapping_add(ROWS * step);
                for (k, near) in near.chunks_exact(WIDTH).enumerate() {
                    if k % LINE == 0 {
                        for row in 0..ROWS {
                            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(row * step + k).cast());
                        }
                    }
                    // Safety: as the caller's; what is near is two vectors wide.
                    unsafe {
                        let places: [$vector; VECTORS] =
                            std::array::from_fn(|at| $load(near.as_ptr().add(at * $width)));
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let factor = $splat(*weights.add(row * step + k));
                            for (sum, places) in sums.iter_mut().zip(places) {
                                *sum = $fma(factor, places, *sum);
                            }
                        }
                    }
                }
                for (sums, to) in sums.iter().zip(to.chunks_exact_mut(WIDTH)) {
                    for (&sum, to) in sums.iter().zip(to.chunks_exact_mut($width)) {
                        // Safety: there is room for a vector.
                        unsafe { $store(to.as_mut_ptr(), sum) };
                    }
                }
            }

            /// The product of all rows, and how many they are.
            ///
            /// Safety: so many rows are left.
            #[target_feature(enable = $features)]
            unsafe fn one_by_one(product: Product, rows: usize) -> usize {
                for column in (0..product.columns).step_by($across) {
                    for row in (0..rows).step_by(DOWN) {
                        let part = product.of(column, 0).after(row);
                        // Safety: so many rows are left, and as many columns as a tile has.
                        unsafe {
                            match rows - row {
                                1 => sums::<1>(part),
                                2 => sums::<2>(part),
                                3 => sums::<3>(part),
                                _ => sums::<DOWN>(part),
                            }
                        }
                    }
                }
                rows
            }

            const DOWN: usize = 4;
            const _: () = assert!(COLUMNS % $across == 0 && COLUMNS % $rows == 0);

            /// Sums of products of vectors along rows.
            ///
            /// Safety: so many rows and as many columns as a tile has are there.
            #[target_feature(enable = $features)]
            unsafe fn sums<const ROWS: usize>(product: Product) {
                let Product {
                    a,
                    weights,
                    c,
                    inner,
                    columns,
                } = product;
                let mut sums = [[$zero(); $across]; ROWS];
                let whole = inner / $width * $width;
                // Safety: as the caller's.
                unsafe {
                    for k in (0..whole).step_by($width) {
                        let weights: [$vector; $across] =
                            std::array::from_fn(|at| $load(weights.add(at * inner + k)));
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let factor = $load(a.add(row * inner + k));
                            for (sum, weights) in sums.iter_mut().zip(weights) {
                                *sum = $fma(factor, weights, *sum);
                            }
                        }
                    }
                    for (row, sums) in sums.into_iter().enumerate() {
                        for (column, sum) in sums.into_iter().enumerate() {
                            let mut sum = $total(sum);
                            for k in whole..inner {
                                sum += *a.add(row * inner + k) * *weights.add(column * inner + k);
                            }
                            *c.add(row * columns + column) = sum;
                        }
                    }
                }
            }
        }
    };
}

/// Numbers that memory gives at once.
const LINE: usize = 16;

transposed!(avx512 "avx512f" __m512[16] 8
    _mm512_setzero_ps _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps
    4 _mm512_reduce_add_ps);
transposed!(avx2 "avx2,fma" __m256[8] 4
    _mm256_setzero_ps _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps
    2 super::total);

/// Stores sums of columns as so many rows, or adds them to what is there.
///
/// Safety: there are so many rows of eight elements, a step apart.
#[target_feature(enable = "avx2")]
unsafe fn turn(sums: &[f32], width: usize, to: *mut f32, step: usize, rows: usize, adds: bool) {
    for row in (0..rows).step_by(8) {
        let block = std::array::from_fn(|column| {
            let from = &sums[column * width + row..][..8];
            // Safety: there are eight.
            unsafe { _mm256_loadu_ps(from.as_ptr()) }
        });
        for (at, mut sum) in transpose(block).into_iter().enumerate().take(rows - row) {
            // Safety: as the caller's.
            unsafe {
                let to = to.add((row + at) * step);
                if adds {
                    sum = _mm256_add_ps(sum, _mm256_loadu_ps(to));
                }
                _mm256_storeu_ps(to, sum);
            }
        }
    }
}

/// Rows of a matrix as its columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256; 8]) -> [__m256; 8] {
    let pairs: [__m256; 8] = std::array::from_fn(|at| {
        let (even, odd) = (rows[at & !1], rows[at | 1]);
        match at % 2 {
            0 => _mm256_unpacklo_ps(even, odd),
            _ => _mm256_unpackhi_ps(even, odd),
        }
    });
    let fours: [__m256; 8] = std::array::from_fn(|at| {
        let pair = at / 4 * 4 + at % 4 / 2;
        match at % 2 {
            0 => _mm256_shuffle_ps::<0b01_00_01_00>(pairs[pair], pairs[pair + 2]),
            _ => _mm256_shuffle_ps::<0b11_10_11_10>(pairs[pair], pairs[pair + 2]),
        }
    });
    std::array::from_fn(|at| {
        let (top, bottom) = (fours[at % 4], fours[at % 4 + 4]);
        match at / 4 {
            0 => _mm256_permute2f128_ps::<0x20>(top, bottom),
            _ => _mm256_permute2f128_ps::<0x31>(top, bottom),
        }
    })
}

/// The sum of a vector's numbers.
#[target_feature(enable = "avx2")]
fn total(vector: __m256) -> f32 {
    let half = _mm_add_ps(
        _mm256_castps256_ps128(vector),
        _mm256_extractf128_ps::<1>(vector),
    );
    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
}
