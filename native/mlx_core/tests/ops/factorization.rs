//! Systems of equations and factors of matrices.

use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::*;

tests! {
    triangular_systems_do_not_read_the_other_triangle => triangular::<f32>, triangular::<f64>;
    long_triangular_systems_are_solved => long_triangular::<f32>, long_triangular::<f64>;
    systems_are_solved => systems::<f32>, systems::<f64>, complex_systems;
    cholesky_reads_the_lower_triangle => cholesky::<f32>, cholesky::<f64>, complex_cholesky;
    lu_pivots => lu::<f32>, lu::<f64>;
    determinants_of_any_size => determinants::<f32>, determinants::<f64>, integer_determinants;
    qr_has_the_signs_of_reflections => qr::<f32>, qr::<f64>;
    eigenvalues_come_by_magnitude => eigh::<f32>, eigh::<f64>, complex_eigh;
    singular_values_come_with_vectors_of_either_size => svd::<f32>, svd::<f64>;
    what_has_no_answer_fails_or_is_nan => unsound::<f32>, unsound::<f64>;
    matrices_are_factored_one_by_one_in_batches => batches::<f32>, batches::<f64>;
}

/// A matrix of so many columns.
fn matrix<T: Float>(values: &[f64], columns: i64) -> Tensor {
    let rows = values.len() as i64 / columns;
    tensor(&floats::<T>(values), &[rows, columns])
}

fn row<T: Float>(values: &[f64]) -> Tensor {
    vector(&floats::<T>(values))
}

fn close(cases: impl IntoIterator<Item = Case>) -> Vec<Case> {
    let close = |case: Case| case.within(2e-6).near(2e-6);
    cases.into_iter().map(close).collect()
}

fn triangular<T: Float>() -> Vec<Case> {
    let solve = |lower, a: &[f64], b: &[f64], x: &[f64]| {
        let columns = b.len() as i64 / 2;
        case("triangular_solve")
            .on([matrix::<T>(a, 2), matrix::<T>(b, columns)])
            .with([Attribute::Bool(lower)])
            .gives(matrix::<T>(x, columns))
    };
    close([
        solve(true, &[2.0, 99.0, 1.0, 4.0], &[2.0, 9.0], &[1.0, 2.0]),
        solve(false, &[2.0, 1.0, 99.0, 4.0], &[4.0, 8.0], &[1.0, 2.0]),
        solve(
            true,
            &[2.0, 99.0, 1.0, 4.0],
            &[2.0, 4.0, 9.0, 2.0],
            &[1.0, 2.0, 2.0, 0.0],
        ),
    ])
}

/// More rows than are solved at once: each is one more than the one before.
fn long_triangular<T: Float>() -> Vec<Case> {
    let size = 75;
    let entry = |i: usize| match i / size as usize {
        row if row == i % size as usize => 1.0,
        row if row == i % size as usize + 1 => -1.0,
        _ => 0.0,
    };
    let a: Vec<f64> = (0..(size * size) as usize).map(entry).collect();
    let counting: Vec<f64> = (1..=size).map(|i| i as f64).collect();
    let solve = case("triangular_solve")
        .on([
            matrix::<T>(&a, size),
            matrix::<T>(&vec![1.0; size as usize], 1),
        ])
        .with([Attribute::Bool(true)])
        .gives(matrix::<T>(&counting, 1));
    close([solve])
}

fn systems<T: Float>() -> Vec<Case> {
    let solve = |a: &[f64], b: &[f64], x: &[f64], columns| {
        let size = (b.len() as i64) / columns;
        case("solve")
            .on([matrix::<T>(a, size), matrix::<T>(b, columns)])
            .gives(matrix::<T>(x, columns))
    };
    let cyclic = [0.0, 2.0, 0.0, 0.0, 0.0, 4.0, 5.0, 0.0, 0.0];
    close([
        solve(&[2.0, 1.0, 1.0, 3.0], &[3.0, 5.0], &[0.8, 1.4], 1),
        solve(
            &[0.0, 1.0, 2.0, 0.0],
            &[3.0, 1.0, 4.0, 6.0],
            &[2.0, 3.0, 3.0, 1.0],
            2,
        ),
        solve(&cyclic, &[2.0, 4.0, 10.0], &[2.0, 1.0, 1.0], 1),
    ])
}

fn complex_systems() -> Vec<Case> {
    let a = tensor(&[[0f32, 1.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], &[2, 2]);
    let b = tensor(&[[1f32, 0.0], [0.0, 1.0]], &[2, 1]);
    let x = tensor(&[[0f32, -1.0], [0.0, 1.0]], &[2, 1]);
    let lower = case("triangular_solve")
        .on([a.clone(), b.clone()])
        .with([Attribute::Bool(true)])
        .gives(x.clone());
    close([case("solve").on([a, b]).gives(x), lower])
}

fn cholesky<T: Float>() -> Vec<Case> {
    let root = 2f64.sqrt();
    close([case("cholesky")
        .on([matrix::<T>(&[4.0, 99.0, 2.0, 3.0], 2)])
        .gives(matrix::<T>(&[2.0, 0.0, 1.0, root], 2))])
}

fn complex_cholesky() -> Vec<Case> {
    let a = tensor(&[[4f32, 0.0], [0.0, -2.0], [0.0, 2.0], [5.0, 0.0]], &[2, 2]);
    let l = tensor(&[[2f32, 0.0], [0.0, 0.0], [0.0, 1.0], [2.0, 0.0]], &[2, 2]);
    close([case("cholesky").on([a]).gives(l)])
}

fn lu<T: Float>() -> Vec<Case> {
    let third = 1.0 / 3.0;
    let cycle = [false, false, true, true, false, false, false, true, false];
    let a = [0.0, 0.0, 3.0, 2.0, 0.0, 0.0, 0.0, 5.0, 0.0];
    let one = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let diagonal = [2.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 3.0];
    close([
        case("lu")
            .on([matrix::<T>(&[1.0, 2.0, 3.0, 4.0], 2)])
            .gives_all([
                tensor(&[false, true, true, false], &[2, 2]),
                matrix::<T>(&[1.0, 0.0, third, 1.0], 2),
                matrix::<T>(&[3.0, 4.0, 0.0, 2.0 * third], 2),
            ]),
        case("lu").on([matrix::<T>(&a, 3)]).gives_all([
            tensor(&cycle, &[3, 3]),
            matrix::<T>(&one, 3),
            matrix::<T>(&diagonal, 3),
        ]),
        case("lu").on([matrix::<T>(&[5.0], 1)]).gives_all([
            tensor(&[true], &[1, 1]),
            matrix::<T>(&[1.0], 1),
            matrix::<T>(&[5.0], 1),
        ]),
    ])
}

fn determinants<T: Float>() -> Vec<Case> {
    let determinant = |a: &[f64], size, value| {
        case("determinant")
            .on([matrix::<T>(a, size)])
            .gives(scalar(T::of(value)))
    };
    let three = [2.0, 0.0, 1.0, 1.0, 3.0, 2.0, 0.0, 1.0, 4.0];
    let four = [
        0.0, 2.0, 0.0, 0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 4.0, 1.0, 0.0, 0.0, 2.0, 3.0,
    ];
    close([
        determinant(&[-7.5], 1, -7.5),
        determinant(&[1.0, 2.0, 3.0, 4.0], 2, -2.0),
        determinant(&[1.0, 2.0, 2.0, 4.0], 2, 0.0),
        determinant(&three, 3, 21.0),
        determinant(&four, 4, -60.0),
        determinant(&[1.0; 16], 4, 0.0),
    ])
}

fn integer_determinants() -> Vec<Case> {
    let two = tensor(&[1i32, 2, 3, 4], &[2, 2]);
    let three = tensor(&[2i64, 0, 1, 1, 3, 2, 0, 1, 4], &[3, 3]);
    vec![
        case("determinant").on([two]).gives(scalar(-2i32)),
        case("determinant").on([three]).gives(scalar(21i64)),
    ]
}

fn factored(a: Tensor, complete: bool, q: Tensor, r: Tensor) -> Case {
    case("qr")
        .on([a])
        .with([Attribute::Bool(complete), Attribute::Float(1e-10)])
        .gives_all([q, r])
}

fn qr<T: Float>() -> Vec<Case> {
    let square = || matrix::<T>(&[3.0, 1.0, 4.0, 2.0], 2);
    let wide = || matrix::<T>(&[3.0, 1.0, 5.0, 4.0, 2.0, 0.0], 3);
    let tall = || matrix::<T>(&[3.0, 4.0], 1);
    let q = || matrix::<T>(&[0.6, 0.8, 0.8, -0.6], 2);
    let r = || matrix::<T>(&[5.0, 2.2, 0.0, -0.4], 2);
    let wide_r = || matrix::<T>(&[5.0, 2.2, 3.0, 0.0, -0.4, 4.0], 3);
    let thin_q = matrix::<T>(&[0.6, 0.8], 1);
    close([
        factored(square(), false, q(), r()),
        factored(square(), true, q(), r()),
        factored(wide(), false, q(), wide_r()),
        factored(wide(), true, q(), wide_r()),
        factored(tall(), false, thin_q, matrix::<T>(&[5.0], 1)),
    ])
}

fn eigh<T: Float>() -> Vec<Case> {
    let half = 0.5f64.sqrt();
    close([
        case("eigh")
            .on([matrix::<T>(&[2.0, 1.0, 1.0, 2.0], 2)])
            .gives_all([
                row::<T>(&[3.0, 1.0]),
                matrix::<T>(&[half, half, half, -half], 2),
            ]),
        case("eigh")
            .on([matrix::<T>(&[2.0, 0.0, 0.0, -5.0], 2)])
            .gives_all([
                row::<T>(&[-5.0, 2.0]),
                matrix::<T>(&[0.0, 1.0, 1.0, 0.0], 2),
            ]),
    ])
}

fn complex_eigh() -> Vec<Case> {
    let half = 0.5f32.sqrt();
    let a = tensor(&[[2f32, 0.0], [0.0, -1.0], [0.0, 1.0], [2.0, 0.0]], &[2, 2]);
    let vectors = [[half, 0.0], [half, 0.0], [0.0, half], [0.0, -half]];
    close([case("eigh")
        .on([a])
        .gives_all([vector(&[3f32, 1.0]), tensor(&vectors, &[2, 2])])])
}

fn svd<T: Float>() -> Vec<Case> {
    let svd = |a, full, u, s: &[f64], v| {
        case("svd")
            .on([a])
            .with([Attribute::Bool(full)])
            .gives_all([u, row::<T>(s), v])
    };
    let square = || matrix::<T>(&[3.0, 0.0, 0.0, -2.0], 2);
    let tall = || matrix::<T>(&[0.0, 0.0, 3.0, 0.0, 0.0, 2.0], 2);
    let wide = || matrix::<T>(&[0.0, 3.0, 0.0, 0.0, 0.0, 2.0], 3);
    let one = || matrix::<T>(&[1.0, 0.0, 0.0, 1.0], 2);
    let flipped = matrix::<T>(&[1.0, 0.0, 0.0, -1.0], 2);
    let below = matrix::<T>(&[0.0, 0.0, 1.0, 0.0, 0.0, 1.0], 2);
    let beside = matrix::<T>(&[0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 3);
    close([
        svd(square(), false, flipped, &[3.0, 2.0], one()),
        svd(tall(), false, below, &[3.0, 2.0], one()),
        svd(wide(), false, one(), &[3.0, 2.0], beside),
    ])
}

fn unsound<T: Float>() -> Vec<Case> {
    let nan = f64::NAN;
    let singular = || matrix::<T>(&[1.0, 2.0, 2.0, 4.0], 2);
    let all = || matrix::<T>(&[nan; 4], 2);
    let spoilt = || matrix::<T>(&[1.0, nan, nan, 1.0], 2);
    let column = |value| matrix::<T>(&[value; 2], 1);
    vec![
        case("cholesky")
            .on([matrix::<T>(&[1.0, 2.0, 2.0, 1.0], 2)])
            .fails("not positive-definite"),
        case("cholesky").on([spoilt()]).gives(all()),
        case("solve")
            .on([singular(), column(1.0)])
            .fails("is singular"),
        case("solve").on([spoilt(), column(1.0)]).gives(column(nan)),
        case("triangular_solve")
            .on([matrix::<T>(&[1.0, 0.0, 1.0, 0.0], 2), column(1.0)])
            .with([Attribute::Bool(true)])
            .fails("is singular"),
        case("eigh")
            .on([spoilt()])
            .gives_all([row::<T>(&[nan, nan]), all()]),
        case("svd")
            .on([spoilt()])
            .with([Attribute::Bool(false)])
            .gives_all([all(), row::<T>(&[nan, nan]), all()]),
        case("determinant").on([spoilt()]).gives(scalar(T::of(nan))),
    ]
}

/// One matrix that has a factor, one that has not, and one that is not known.
fn batches<T: Float>() -> Vec<Case> {
    let nan = f64::NAN;
    let values = [4.0, 2.0, 2.0, 5.0, 1.0, 2.0, 2.0, 1.0];
    let unknown = [4.0, 2.0, 2.0, 5.0, 1.0, nan, nan, 1.0];
    let factors = [2.0, 0.0, 1.0, 2.0, nan, nan, nan, nan];
    let batch = |values: &[f64]| tensor(&floats::<T>(values), &[2, 2, 2]);
    let determinants = row::<T>(&[16.0, -3.0]);
    close([
        case("cholesky")
            .on([batch(&values)])
            .fails("not positive-definite"),
        case("cholesky")
            .on([batch(&unknown)])
            .gives(batch(&factors)),
        case("determinant").on([batch(&values)]).gives(determinants),
    ])
}
