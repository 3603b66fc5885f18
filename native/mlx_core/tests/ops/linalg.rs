//! Products of matrices.

use crate::case::*;
use crate::numbers::*;

tests! {
    matrices_of_every_float_type_multiply => every_type;
    batches_multiply_and_broadcast => batches;
    empty_matrices_multiply_to_zeros => empty;
    big_products_match_plain_sums => big;
    long_products_keep_their_precision => long;
    nan_and_infinity_spread => special_values;
    matrices_that_do_not_fit_are_refused => misfits;
}

fn matmul(a: Tensor, b: Tensor) -> Case {
    case("matmul").on([a, b])
}

fn every_type() -> Vec<Case> {
    fn product<T: Float>() -> Case {
        let a = tensor(&floats::<T>(&[1.0, 2.0, -3.0, 0.5, 0.0, 4.0]), &[2, 3]);
        let b = tensor(&floats::<T>(&[2.0, 1.0, 0.5, -1.0, 1.0, 3.0]), &[3, 2]);
        let product = floats::<T>(&[0.0, -10.0, 5.0, 12.5]);
        matmul(a, b).gives(tensor(&product, &[2, 2]))
    }
    for_floats!(product())
}

fn batches() -> Vec<Case> {
    let a = tensor(&[1f32, 2.0, 3.0, 4.0], &[2, 1, 2]);
    let b = tensor(&[1f32, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 2.0], &[2, 2, 2]);
    let one = tensor(&[0f32, 1.0, 1.0, 0.0], &[2, 2]);
    vec![
        matmul(a.clone(), b).gives(tensor(&[1f32, 2.0, 6.0, 8.0], &[2, 1, 2])),
        matmul(a, one.clone()).gives(tensor(&[2f32, 1.0, 4.0, 3.0], &[2, 1, 2])),
        matmul(one.clone(), vector(&[5f32, 7.0])).gives(vector(&[7f32, 5.0])),
        matmul(vector(&[5f32, 7.0]), one).gives(vector(&[7f32, 5.0])),
        matmul(vector(&[1f32, 2.0]), vector(&[3f32, 4.0])).gives(scalar(11f32)),
    ]
}

fn empty() -> Vec<Case> {
    let empty = |dims: &[i64]| tensor::<f32>(&[], dims);
    vec![
        matmul(empty(&[2, 0]), empty(&[0, 3])).gives(tensor(&[0f32; 6], &[2, 3])),
        matmul(empty(&[0, 2]), tensor(&[1f32; 4], &[2, 2])).gives(empty(&[0, 2])),
    ]
}

/// Small whole numbers, whose sums every order of addition gets right.
fn big() -> Vec<Case> {
    let (rows, inner, columns) = (37, 130, 65);
    let a: Vec<f32> = (0..rows * inner).map(|i| (i % 7) as f32 - 3.0).collect();
    let b: Vec<f32> = (0..inner * columns).map(|i| (i % 5) as f32 - 2.0).collect();
    let product: Vec<f32> = (0..rows * columns)
        .map(|i| {
            let (row, column) = (i / columns, i % columns);
            (0..inner)
                .map(|k| a[row * inner + k] * b[k * columns + column])
                .sum()
        })
        .collect();
    let dims = |a: usize, b: usize| [a as i64, b as i64];
    vec![matmul(
        tensor(&a, &dims(rows, inner)),
        tensor(&b, &dims(inner, columns)),
    )
    .gives(tensor(&product, &dims(rows, columns)))]
}

fn long() -> Vec<Case> {
    fn product<T: Float>() -> Case {
        let ones = [T::of(1.0); 5000];
        matmul(tensor(&ones, &[1, 5000]), tensor(&ones, &[5000, 1]))
            .gives(tensor(&[T::of(5000.0)], &[1, 1]))
    }
    for_floats!(product())
}

fn special_values() -> Vec<Case> {
    let a = tensor(&[f32::NAN, 0.0, f32::INFINITY, 1.0], &[2, 2]);
    let b = tensor(&[0f32, 1.0, 1.0, 1.0], &[2, 2]);
    let product = [f32::NAN, f32::NAN, f32::NAN, f32::INFINITY];
    vec![matmul(a, b).gives(tensor(&product, &[2, 2]))]
}

fn misfits() -> Vec<Case> {
    let two = || tensor(&[1f32; 4], &[2, 2]);
    let integers = || tensor(&[1i32; 4], &[2, 2]);
    vec![
        matmul(two(), tensor(&[1f32; 3], &[3, 1])).fails("matmul(f32[2][2], f32[3][1]): "),
        matmul(two(), scalar(1f32)).fails("matmul(f32[2][2], f32): "),
        matmul(integers(), integers()).fails("matmul(s32[2][2], s32[2][2]): "),
    ]
}
