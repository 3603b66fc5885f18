//! Quotients and remainders, where processors trap and conventions differ.

use crate::arithmetic::{float_pairs, integer_pairs};
use crate::case::*;
use crate::numbers::*;

tests! {
    integer_quotients_truncate_and_zero_gives_all_bits => integer_quotients;
    integer_remainders_have_the_dividends_sign_and_zero_leaves_it => integer_remainders;
    every_pair_of_bytes_divides => bytes;
    divisors_broadcast => broadcasts;
    float_remainders_have_the_dividends_sign => float_remainders;
    quotients_of_integers_by_divide_are_floats => true_quotients;
}

fn quotient(a: i128, b: i128) -> i128 {
    a.checked_div(b).unwrap_or(-1)
}

fn remainder(a: i128, b: i128) -> i128 {
    a.checked_rem(b).unwrap_or(a)
}

fn integer_quotients() -> Vec<Case> {
    let written = case("quotient")
        .on([
            vector(&[7i32, -7, 7, -7, 5, -5, i32::MIN, i32::MIN]),
            vector(&[2i32, 2, -2, -2, 0, 0, -1, 0]),
        ])
        .gives(vector(&[3i32, -3, -3, 3, -1, -1, i32::MIN, -1]));
    let unsigned = case("quotient")
        .on([
            vector(&[u64::MAX, 1 << 63, 9, 0]),
            vector(&[2u64, 1 << 63, 0, 0]),
        ])
        .gives(vector(&[u64::MAX / 2, 1, u64::MAX, u64::MAX]));
    let all = for_integers!(integer_pairs("quotient", quotient));
    [vec![written, unsigned], all].concat()
}

fn integer_remainders() -> Vec<Case> {
    let written = case("remainder")
        .on([
            vector(&[7i64, -7, 7, -7, 5, -5, i64::MIN, i64::MIN]),
            vector(&[3i64, 3, -3, -3, 0, 0, -1, 0]),
        ])
        .gives(vector(&[1i64, -1, 1, -1, 5, -5, 0, i64::MIN]));
    let unsigned = case("remainder")
        .on([
            vector(&[u64::MAX, 1 << 63, 9, 0]),
            vector(&[2u64, 10, 0, 0]),
        ])
        .gives(vector(&[1u64, 8, 9, 0]));
    let all = for_integers!(integer_pairs("remainder", remainder));
    [vec![written, unsigned], all].concat()
}

fn bytes() -> Vec<Case> {
    fn all<T: Integer>(op: &'static str, oracle: fn(i128, i128) -> i128) -> Case {
        let values: Vec<T> = (T::MIN.wide()..=T::MAX.wide()).map(T::of).collect();
        let (a, b) = pairs(&values);
        let results: Vec<T> = std::iter::zip(&a, &b)
            .map(|(a, b)| T::of(oracle(a.wide(), b.wide())))
            .collect();
        case(op)
            .on([vector(&a), vector(&b)])
            .gives(vector(&results))
    }
    vec![
        all::<i8>("quotient", quotient),
        all::<u8>("quotient", quotient),
        all::<i8>("remainder", remainder),
        all::<u8>("remainder", remainder),
    ]
}

fn broadcasts() -> Vec<Case> {
    let column = tensor(&[-9i16, 9], &[2, 1]);
    let row = vector(&[0i16, -1, 4]);
    let all_bits = [-1i16, 9, -2, -1, -9, 2];
    vec![
        case("quotient")
            .on([column.clone(), row.clone()])
            .gives(tensor(&all_bits, &[2, 3])),
        case("remainder")
            .on([column.clone(), row])
            .gives(tensor(&[-9i16, 0, -1, 9, 0, 1], &[2, 3])),
        case("remainder")
            .on([column, scalar(0i16)])
            .gives(tensor(&[-9i16, 9], &[2, 1])),
        case("remainder")
            .on([scalar(-5.5f32), vector(&[2f32, -2.0, 0.0])])
            .gives(vector(&[-1.5f32, -1.5, f32::NAN])),
        case("quotient")
            .on([vector::<u32>(&[]), scalar(0u32)])
            .gives(vector::<u32>(&[])),
    ]
}

fn float_remainders() -> Vec<Case> {
    let written = case("remainder")
        .on([
            vector(&[5.5f32, -5.5, 5.5, -5.5, 6.0, -6.0, 1.0, 1e30]),
            vector(&[2f32, 2.0, -2.0, -2.0, 3.0, 3.0, 0.0, 3.0]),
        ])
        .gives(vector(&[
            1.5f32,
            -1.5,
            1.5,
            -1.5,
            0.0,
            -0.0,
            f32::NAN,
            1e30 % 3.0,
        ]));
    let values = &[-96.0, -2.5, -1.0, 0.0625, 0.5, 1.0, 3.0, 7.0, 40.0];
    let special = &[f64::NEG_INFINITY, -1.5, 0.0, 2.0, f64::INFINITY, f64::NAN];
    let finite = for_floats!(float_pairs("remainder", values, |a, b| a % b));
    let special = for_floats!(float_pairs("remainder", special, |a, b| a % b));
    [vec![written], finite, special].concat()
}

fn true_quotients() -> Vec<Case> {
    vec![
        case("divide")
            .on([vector(&[7i32, -1, 1, 0]), vector(&[2i32, 4, 0, 0])])
            .gives(vector(&[3.5f32, -0.25, f32::INFINITY, f32::NAN])),
        case("divide")
            .on([vector(&[200u8, 3]), vector(&[16u8, 255])])
            .gives(vector(&[12.5f32, 3.0 / 255.0])),
    ]
}
