//! Products of matrices.

use std::process::Command;
use std::thread;

use crate::case::*;
use crate::numbers::*;

tests! {
    matrices_of_every_float_type_multiply => every_type;
    batches_multiply_and_broadcast => batches;
    big_products_match_plain_sums => big;
    long_products_keep_their_precision => long;
    nan_and_infinity_spread => special_values;
    vectors_multiply_with_rows => vectors;
    integer_products_wrap => integer_products;
    big_integer_products_wrap => big_integer_products;
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

fn vectors() -> Vec<Case> {
    fn row<T: Element>(values: &[T]) -> Tensor {
        tensor(values, &[1, values.len() as i64])
    }
    fn product<T: Float>() -> Case {
        let a = tensor(&floats::<T>(&[1.0, 2.0, -3.0, 0.5, 0.0, 4.0]), &[2, 3]);
        let x = row(&floats::<T>(&[2.0, 1.0, 0.5]));
        case("matvec")
            .on([x, a])
            .gives(row(&floats::<T>(&[2.5, 3.0])))
    }
    // So many that OpenBLAS is given some rows at a time.
    let (rows, columns) = (96, 16_384);
    let a: Vec<f32> = (0..rows * columns).map(|i| (i % 7) as f32).collect();
    let x: Vec<f32> = (0..columns).map(|i| (i % 3) as f32).collect();
    let sums = a.chunks(columns).map(|row| {
        let products = row.iter().zip(&x).map(|(a, x)| a * x);
        products.sum::<f32>()
    });
    let sums: Vec<f32> = sums.collect();
    let blocks = case("matvec")
        .on([row(&x), tensor(&a, &[rows as i64, columns as i64])])
        .gives(row(&sums));
    let none = case("matvec")
        .on([tensor::<f32>(&[], &[1, 0]), tensor::<f32>(&[], &[2, 0])])
        .gives(row(&[0f32, 0.0]));
    [for_floats!(product()), vec![blocks, none]].concat()
}

fn empty() -> Vec<Case> {
    let empty = |dims: &[i64]| tensor::<f32>(&[], dims);
    vec![
        matmul(empty(&[2, 0]), empty(&[0, 3])).gives(tensor(&[0f32; 6], &[2, 3])),
        matmul(empty(&[0, 2]), tensor(&[1f32; 4], &[2, 2])).gives(empty(&[0, 2])),
    ]
}

const CHILD: &str = "MLX_CORE_EMPTY_CHILD";

/// Other products run beside it and tell whether their memory is left alone.
#[test]
fn empty_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let groups = [empty, empty, batches, every_type];
    let threads = groups.map(|group| thread::spawn(move || (0..800).for_each(|_| check(group()))));
    for thread in threads {
        thread.join().unwrap();
    }
}

/// In a process of its own, because MLX frees its copy of a strided operand before
/// the copy is written if the product is empty.
#[test]
fn empty_matrices_multiply_to_zeros() {
    let outcome = Command::new(std::env::current_exe().unwrap())
        .args(["linalg::empty_child", "--exact"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.status.success(), "{}\n{said}", outcome.status);
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

fn product_of<T: Integer>(a: &[T], b: &[T], inner: usize) -> Case {
    let (rows, columns) = (a.len() / inner, b.len() / inner);
    let element = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        let terms = (0..inner).map(|k| {
            a[row * inner + k]
                .wide()
                .wrapping_mul(b[k * columns + column].wide())
        });
        T::of(terms.fold(0, i128::wrapping_add))
    };
    let product: Vec<T> = (0..rows * columns).map(element).collect();
    let dims = |a: usize, b: usize| [a as i64, b as i64];
    case("integer_matmul")
        .on([
            tensor(a, &dims(rows, inner)),
            tensor(b, &dims(inner, columns)),
        ])
        .gives(tensor(&product, &dims(rows, columns)))
}

fn integer_products() -> Vec<Case> {
    fn products<T: Integer>() -> Vec<Case> {
        let corners = corners::<T>();
        let turned: Vec<T> = corners.iter().rev().copied().collect();
        let few = integers::<T>(&[1, -2, 3, 4]);
        vec![
            product_of(&few, &few, 2),
            product_of(&corners, &turned, 14),
            product_of(&corners, &turned, 1),
            product_of(&corners, &turned, 7),
        ]
    }
    let empty = case("integer_matmul")
        .on([tensor::<i32>(&[], &[2, 0]), tensor::<i32>(&[], &[0, 1])])
        .gives(tensor(&[0i32; 2], &[2, 1]));
    [for_integers!(products()).concat(), vec![empty]].concat()
}

/// So big that they are put together from products of floats.
fn big_integer_products() -> Vec<Case> {
    fn product<T: Integer>() -> Case {
        let element = |i: i128| T::of((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7);
        let a: Vec<T> = (0..45 * 50).map(element).collect();
        let b: Vec<T> = (0..50 * 40).map(|i| element(3 * i + 1)).collect();
        product_of(&a, &b, 50)
    }
    for_integers!(product())
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
