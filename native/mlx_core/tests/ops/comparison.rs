//! Comparisons, logic, selection and tests for NaN and infinity.

use std::iter::zip;

use half::{bf16, f16};
use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::*;

tests! {
    integers_compare_by_value => integer_comparisons;
    floats_compare_with_nan_unordered => float_comparisons;
    big_integers_are_not_rounded => big_integers;
    complex_numbers_are_equal_if_both_parts_are => complex_equality;
    whatever_is_not_zero_is_true => logic;
    complex_numbers_are_true_unless_both_parts_are_zero => complex_truths;
    select_takes_from_either_side => selections;
    select_broadcasts_and_takes_what_is_not_zero_for_true => mixed_selections;
    distances_are_within_bounds => bounds;
    nan_and_infinity_are_told_apart => classes;
}

type Comparison<W> = (&'static str, fn(&W, &W) -> bool);

fn ordering<T: Element, W: PartialOrd + Copy>(values: &[T], wide: fn(T) -> W) -> Vec<Case> {
    let (a, b) = pairs(values);
    let ops: [Comparison<W>; 6] = [
        ("equal", |a, b| a == b),
        ("not_equal", |a, b| a != b),
        ("greater", |a, b| a > b),
        ("less", |a, b| a < b),
        ("greater_equal", |a, b| a >= b),
        ("less_equal", |a, b| a <= b),
    ];
    let compared = ops.map(|(op, oracle)| {
        let results: Vec<bool> = zip(&a, &b)
            .map(|(&a, &b)| oracle(&wide(a), &wide(b)))
            .collect();
        case(op)
            .on([vector(&a), vector(&b)])
            .gives(vector(&results))
    });
    compared.into()
}

fn integer_comparisons() -> Vec<Case> {
    fn all<T: Integer>() -> Vec<Case> {
        ordering(&corners::<T>(), T::wide)
    }
    for_integers!(all()).concat()
}

fn float_comparisons() -> Vec<Case> {
    fn all<T: Float>() -> Vec<Case> {
        let infinity = f64::INFINITY;
        let values = [-infinity, -2.0, -0.0, 0.0, 0.5, 2.0, infinity, f64::NAN];
        ordering(&floats::<T>(&values), T::wide)
    }
    for_floats!(all()).concat()
}

fn big_integers() -> Vec<Case> {
    let two_53 = 1i64 << 53;
    vec![
        case("equal")
            .on([
                vector(&[two_53, i64::MAX]),
                vector(&[two_53 + 1, i64::MAX - 1]),
            ])
            .gives(vector(&[false, false])),
        case("greater")
            .on([scalar(u64::MAX), vector(&[u64::MAX - 1, u64::MAX, 0])])
            .gives(vector(&[true, false, true])),
    ]
}

fn complex_equality() -> Vec<Case> {
    let a = vector(&[[1f32, 2.0], [1.0, 2.0], [0.0, -0.0], [f32::NAN, 0.0]]);
    let b = vector(&[[1f32, 2.0], [1.0, -2.0], [-0.0, 0.0], [f32::NAN, 0.0]]);
    vec![
        case("equal")
            .on([a.clone(), b.clone()])
            .gives(vector(&[true, false, true, false])),
        case("not_equal")
            .on([a, b])
            .gives(vector(&[false, true, false, true])),
    ]
}

fn logic() -> Vec<Case> {
    fn table<T: Float>() -> Vec<Case> {
        let a = vector(&floats::<T>(&[0.0, -0.0, 0.5, f64::NAN, f64::INFINITY]));
        let b = vector(&floats::<T>(&[0.0, 1e-3, 0.0, -1.0, -0.0]));
        truths(
            a,
            b,
            [
                [false, false, false, true, false],
                [false, true, true, true, true],
            ],
        )
    }
    fn integers<T: Integer>() -> Vec<Case> {
        let a = vector(&[T::of(0), T::of(2), T::MIN, T::MAX, T::of(0)]);
        let b = vector(&[T::of(0), T::of(4), T::of(0), T::of(1), T::MAX]);
        let min_is_true = T::SIGNED;
        truths(
            a,
            b,
            [
                [false, true, false, true, false],
                [false, true, min_is_true, true, true],
            ],
        )
    }
    [
        for_floats!(table()).concat(),
        for_integers!(integers()).concat(),
        negated(),
    ]
    .concat()
}

fn negated() -> Vec<Case> {
    let not = |x: Tensor, y: &[bool]| case("logical_not").on([x]).gives(vector(y));
    vec![
        not(
            vector(&[0f32, -0.0, 0.5, f32::NAN]),
            &[true, true, false, false],
        ),
        not(vector(&[0i64, i64::MIN, 256]), &[true, false, false]),
        not(vector(&[true, false]), &[false, true]),
    ]
}

fn bounds() -> Vec<Case> {
    let within = |rtol: f64, atol: f64, within: [bool; 4]| {
        case("within")
            .on([
                vector(&[0i64, 2, 3, i64::MAX]),
                vector(&[0i64, 10, -10, i64::MIN]),
            ])
            .with([Attribute::Float(rtol), Attribute::Float(atol)])
            .gives(vector(&within))
    };
    vec![
        within(0.0, 0.0, [true, false, false, false]),
        within(0.25, 0.0, [true, true, false, false]),
        within(0.25, 0.5, [true, true, true, false]),
        within(1.0, 0.0, [true, true, true, true]),
    ]
}

/// Expects these ands and ors; a xor is an or that is no and.
fn truths(a: Tensor, b: Tensor, [ands, ors]: [[bool; 5]; 2]) -> Vec<Case> {
    let xors: Vec<bool> = zip(ands, ors).map(|(and, or)| or && !and).collect();
    vec![
        case("logical_and")
            .on([a.clone(), b.clone()])
            .gives(vector(&ands)),
        case("logical_or")
            .on([a.clone(), b.clone()])
            .gives(vector(&ors)),
        case("logical_xor").on([a, b]).gives(vector(&xors)),
    ]
}

fn complex_truths() -> Vec<Case> {
    let a = vector(&[
        [0f32, 0.0],
        [0.0, 1.0],
        [1.0, 0.0],
        [0.0, -0.0],
        [0.0, f32::NAN],
    ]);
    let b = vector(&[[0f32, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 2.0]]);
    let ands = [false, true, false, false, true];
    let ors = [false, true, true, true, true];
    let mut cases = truths(a, b, [ands, ors]);
    let imaginary = || vector(&[[0f32, 1.0]]);
    let over = |op| {
        case(op)
            .on([imaginary()])
            .with([ints(&[0]), Attribute::Bool(true)])
    };
    cases.push(
        case("logical_not")
            .on([imaginary()])
            .gives(vector(&[false])),
    );
    cases.push(over("all").gives(vector(&[true])));
    cases.push(over("any").gives(vector(&[true])));
    cases.push(
        case("select")
            .on([imaginary(), vector(&[1f32]), vector(&[2f32])])
            .gives(vector(&[1f32])),
    );
    cases
}

fn selections() -> Vec<Case> {
    fn of_integers<T: Integer>() -> Case {
        let a = vector(&[T::MIN, T::MAX, T::of(3)]);
        let b = vector(&[T::of(7), T::of(8), T::of(9)]);
        case("select")
            .on([vector(&[true, false, true]), a, b])
            .gives(vector(&[T::MIN, T::of(8), T::of(3)]))
    }
    fn of_floats<T: Float>() -> Case {
        let values = floats::<T>(&[1.0, f64::NAN, f64::NAN, 4.0]);
        let (a, b) = values.split_at(2);
        case("select")
            .on([vector(&[true, false]), vector(a), vector(b)])
            .gives(vector(&[a[0], b[1]]))
    }
    [for_integers!(of_integers()), for_floats!(of_floats())].concat()
}

fn mixed_selections() -> Vec<Case> {
    let column = tensor(&[1u8, 0], &[2, 1]);
    let (a, b) = ([1f32, 2.0], [3f32, 4.0]);
    vec![
        case("select")
            .on([column, vector(&[1f32, 2.0, 3.0]), scalar(-1f32)])
            .gives(tensor(&[1f32, 2.0, 3.0, -1.0, -1.0, -1.0], &[2, 3])),
        case("select")
            .on([vector(&[false, true]), scalar(a), scalar(b)])
            .gives(vector(&[b, a])),
        case("select")
            .on([vector(&[256i32, 0, -1]), scalar(1u8), scalar(0u8)])
            .gives(vector(&[1u8, 0, 1])),
    ]
}

fn classes() -> Vec<Case> {
    fn of_floats<T: Float>() -> Vec<Case> {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0];
        let values = vector(&floats::<T>(&values));
        vec![
            case("is_nan")
                .on([values.clone()])
                .gives(vector(&[true, false, false, false, false])),
            case("is_infinity")
                .on([values])
                .gives(vector(&[false, true, true, false, false])),
        ]
    }
    let largest = vec![
        case("is_infinity")
            .on([vector(&[f16::MAX])])
            .gives(vector(&[false])),
        case("is_infinity")
            .on([vector(&[bf16::MAX])])
            .gives(vector(&[false])),
        case("is_nan")
            .on([vector(&[i64::MIN, 0])])
            .gives(vector(&[false; 2])),
        case("is_infinity")
            .on([vector(&[u8::MAX])])
            .gives(vector(&[false])),
        case("is_nan")
            .on([vector(&[[f32::NAN, 0.0], [0.0, f32::NAN], [1.0, 2.0]])])
            .gives(vector(&[true, true, false])),
        case("is_infinity")
            .on([vector(&[
                [f32::INFINITY, 0.0],
                [0.0, f32::NEG_INFINITY],
                [1.0, 2.0],
            ])])
            .gives(vector(&[true, true, false])),
    ];
    [for_floats!(of_floats()).concat(), largest].concat()
}
