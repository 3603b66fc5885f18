//! What has added up so far along an axis.

use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::*;

tests! {
    results_run_from_either_end => both_ways;
    any_axis_is_run_along => axes;
    integers_of_every_type_run => every_integer;
    floats_of_every_type_run => every_float;
    long_sums_keep_their_precision => long_sums;
    a_nan_stays => nans;
    axes_that_are_not_there_are_refused => wrong_axes;
}

const OPS: [&str; 4] = [
    "cumulative_sum",
    "cumulative_product",
    "cumulative_max",
    "cumulative_min",
];

fn run(op: &'static str, x: Tensor, axis: i64, reverse: bool, y: Tensor) -> Case {
    case(op)
        .on([x])
        .with([int(axis), Attribute::Bool(reverse)])
        .gives(y)
}

fn both_ways() -> Vec<Case> {
    let both = |op, forwards: [f32; 4], backwards: [f32; 4]| {
        let x = || vector(&[2f32, -1.0, 4.0, 0.5]);
        [
            run(op, x(), 0, false, vector(&forwards)),
            run(op, x(), 0, true, vector(&backwards)),
        ]
    };
    [
        both(OPS[0], [2.0, 1.0, 5.0, 5.5], [5.5, 3.5, 4.5, 0.5]),
        both(OPS[1], [2.0, -2.0, -8.0, -4.0], [-4.0, -2.0, 2.0, 0.5]),
        both(OPS[2], [2.0, 2.0, 4.0, 4.0], [4.0, 4.0, 4.0, 0.5]),
        both(OPS[3], [2.0, -1.0, -1.0, -1.0], [-1.0, -1.0, 0.5, 0.5]),
    ]
    .concat()
}

fn axes() -> Vec<Case> {
    let x = || tensor(&[1, 2, 3, 4, 5, 6], &[2, 3]);
    let sum = |axis, reverse, y: [i32; 6]| run(OPS[0], x(), axis, reverse, tensor(&y, &[2, 3]));
    vec![
        sum(0, false, [1, 2, 3, 5, 7, 9]),
        sum(0, true, [5, 7, 9, 4, 5, 6]),
        sum(1, false, [1, 3, 6, 4, 9, 15]),
        sum(1, true, [6, 5, 3, 15, 11, 6]),
    ]
}

fn every_integer() -> Vec<Case> {
    fn all<T: Integer>() -> Vec<Case> {
        let of = |values: &[i128]| vector(&integers::<T>(values));
        let x = [3, 100, 100, 2];
        vec![
            run(OPS[0], of(&x), 0, false, of(&[3, 103, 203, 205])),
            run(OPS[1], of(&x), 0, true, of(&[60_000, 20_000, 200, 2])),
            run(OPS[2], of(&x), 0, false, of(&[3, 100, 100, 100])),
            run(OPS[3], of(&x), 0, false, of(&[3, 3, 3, 2])),
        ]
    }
    for_integers!(all()).concat()
}

fn every_float() -> Vec<Case> {
    fn all<T: Float>() -> Vec<Case> {
        let of = |values: &[f64]| vector(&floats::<T>(values));
        let x = [1.5, -2.0, 4.0];
        vec![
            run(OPS[0], of(&x), 0, false, of(&[1.5, -0.5, 3.5])),
            run(OPS[1], of(&x), 0, false, of(&[1.5, -3.0, -12.0])),
            run(OPS[2], of(&x), 0, false, of(&[1.5, 1.5, 4.0])),
            run(OPS[3], of(&x), 0, true, of(&[-2.0, -2.0, 4.0])),
        ]
    }
    for_floats!(all()).concat()
}

/// Added one by one in their own type, ones stop at 256 in bf16 and at 2048 in f16.
fn long_sums() -> Vec<Case> {
    fn ones<T: Float>() -> Case {
        let sums: Vec<T> = (1..=5000).map(|i| T::of(f64::from(i))).collect();
        run(OPS[0], vector(&[T::of(1.0); 5000]), 0, false, vector(&sums))
    }
    for_floats!(ones())
}

fn nans() -> Vec<Case> {
    fn all<T: Float>() -> Vec<Case> {
        let nan = f64::NAN;
        let of = |values: &[f64]| vector(&floats::<T>(values));
        OPS.map(|op| run(op, of(&[1.0, nan, 1.0]), 0, false, of(&[1.0, nan, nan])))
            .into()
    }
    for_floats!(all()).concat()
}

fn wrong_axes() -> Vec<Case> {
    OPS.map(|op| {
        case(op)
            .on([vector(&[1f32])])
            .with([int(1), Attribute::Bool(false)])
            .refused()
    })
    .into()
}
