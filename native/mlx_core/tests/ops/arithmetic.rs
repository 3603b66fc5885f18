//! Sums, products, powers, signs and extremes.

use crate::case::*;
use crate::numbers::*;

tests! {
    integer_arithmetic_wraps => integer_arithmetic;
    float_arithmetic_follows_the_standard => float_arithmetic;
    operands_broadcast => broadcasts;
    empty_operands_give_empty_results => empty_operands;
    shapes_that_do_not_broadcast_are_refused => clashing_shapes;
    integer_powers_wrap => integer_powers;
    integers_to_negative_powers_are_truncated => negative_powers;
    float_powers_are_those_of_pow => float_powers;
    atan2_knows_all_quadrants => angles;
    integer_extremes_respect_signs => integer_extremes;
    float_extremes_are_nan_if_either_is => float_extremes;
    signs_and_magnitudes_of_integers => integer_signs;
    signs_and_magnitudes_of_floats => float_signs;
}

/// Finite values of both signs and far apart, exact in every float type.
const FLOATS: [f64; 11] = [
    -96.0, -2.5, -1.0, -0.15625, -0.0, 0.0, 0.0625, 0.5, 1.0, 3.0, 40.0,
];
const SPECIAL: [f64; 6] = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, f64::INFINITY, f64::NAN];

/// An op on all pairs of corners, in arithmetic that can't overflow.
pub fn integer_pairs<T: Integer>(op: &'static str, oracle: fn(i128, i128) -> i128) -> Case {
    let (a, b) = pairs(&corners::<T>());
    let results: Vec<T> = std::iter::zip(&a, &b)
        .map(|(a, b)| T::of(oracle(a.wide(), b.wide())))
        .collect();
    case(op)
        .on([vector(&a), vector(&b)])
        .gives(vector(&results))
}

pub fn float_pairs<T: Float>(
    op: &'static str,
    values: &[f64],
    oracle: fn(f64, f64) -> f64,
) -> Case {
    let (a, b) = pairs(&floats::<T>(values));
    let results: Vec<T> = std::iter::zip(&a, &b)
        .map(|(a, b)| T::of(oracle(a.wide(), b.wide())))
        .collect();
    case(op)
        .on([vector(&a), vector(&b)])
        .gives(vector(&results))
}

fn integer_arithmetic() -> Vec<Case> {
    [
        for_integers!(integer_pairs("add", |a, b| a + b)),
        for_integers!(integer_pairs("subtract", |a, b| a - b)),
        for_integers!(integer_pairs("multiply", |a, b| a.wrapping_mul(b))),
    ]
    .concat()
}

fn float_arithmetic() -> Vec<Case> {
    let on = |values: &'static [f64]| {
        [
            for_floats!(float_pairs("add", values, |a, b| a + b)),
            for_floats!(float_pairs("subtract", values, |a, b| a - b)),
            for_floats!(float_pairs("multiply", values, |a, b| a * b)),
            for_floats!(float_pairs("divide", values, |a, b| a / b)),
        ]
        .concat()
    };
    [on(&FLOATS), on(&SPECIAL)].concat()
}

fn broadcasts() -> Vec<Case> {
    let column = tensor(&[10f32, 20.0], &[2, 1]);
    let row = vector(&[1f32, 2.0, 3.0]);
    vec![
        case("add")
            .on([column.clone(), row.clone()])
            .gives(tensor(&[11f32, 12.0, 13.0, 21.0, 22.0, 23.0], &[2, 3])),
        case("subtract")
            .on([scalar(1f32), row.clone()])
            .gives(vector(&[0f32, -1.0, -2.0])),
        case("multiply")
            .on([row, scalar(2f32)])
            .gives(vector(&[2f32, 4.0, 6.0])),
        case("divide")
            .on([column, scalar(4f32)])
            .gives(tensor(&[2.5f32, 5.0], &[2, 1])),
        case("add")
            .on([scalar(2u8), scalar(3u8)])
            .gives(scalar(5u8)),
    ]
}

fn empty_operands() -> Vec<Case> {
    let empty = tensor::<f32>(&[], &[0, 3]);
    vec![
        case("add")
            .on([empty.clone(), scalar(1f32)])
            .gives(empty.clone()),
        case("max")
            .on([empty.clone(), vector(&[1f32, 2.0, 3.0])])
            .gives(empty.clone()),
        case("negate").on([empty.clone()]).gives(empty),
    ]
}

fn clashing_shapes() -> Vec<Case> {
    let (two, three) = (vector(&[1f32, 2.0]), vector(&[1f32, 2.0, 3.0]));
    [
        "add",
        "multiply",
        "max",
        "equal",
        "quotient",
        "remainder",
        "power",
    ]
    .map(|op| {
        case(op)
            .on([two.clone(), three.clone()])
            .fails("(f32[2], f32[3]): ")
    })
    .into()
}

fn integer_powers() -> Vec<Case> {
    fn powers<T: Integer>(op: &'static str) -> Case {
        let exponents: Vec<i128> = (0..14).collect();
        let (bases, exponents): (Vec<T>, Vec<T>) = corners::<T>()
            .into_iter()
            .flat_map(|base| exponents.iter().map(move |&e| (base, T::of(e))))
            .unzip();
        let results: Vec<T> = std::iter::zip(&bases, &exponents)
            .map(|(base, e)| T::of(base.wide().wrapping_pow(e.wide() as u32)))
            .collect();
        case(op)
            .on([vector(&bases), vector(&exponents)])
            .gives(vector(&results))
    }
    [
        for_integers!(powers("power")),
        for_integers!(powers("integer_power")),
    ]
    .concat()
}

fn negative_powers() -> Vec<Case> {
    fn powers<T: Integer>() -> Case {
        let bases = integers::<T>(&[2, -2, 1, -1, -1, 3, T::MIN.wide(), T::MAX.wide()]);
        let exponents = integers::<T>(&[-1, -3, -7, -1, -2, T::MIN.wide(), -1, -2]);
        let powers = integers::<T>(&[0, 0, 1, -1, 1, 0, 0, 0]);
        case("integer_power")
            .on([vector(&bases), vector(&exponents)])
            .gives(vector(&powers))
    }
    vec![
        powers::<i8>(),
        powers::<i16>(),
        powers::<i32>(),
        powers::<i64>(),
    ]
}

fn float_powers() -> Vec<Case> {
    fn powers<T: Float>() -> Case {
        let values = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0];
        float_pairs::<T>("power", &values, f64::powf).within(T::CLOSE)
    }
    let infinite = for_floats!(float_pairs("power", &SPECIAL, f64::powf));
    [for_floats!(powers()), infinite].concat()
}

fn angles() -> Vec<Case> {
    fn finite<T: Float>() -> Case {
        float_pairs::<T>("atan2", &FLOATS, f64::atan2).within(T::CLOSE)
    }
    fn special<T: Float>() -> Case {
        float_pairs::<T>("atan2", &SPECIAL, f64::atan2).within(T::CLOSE)
    }
    [for_floats!(finite()), for_floats!(special())].concat()
}

fn integer_extremes() -> Vec<Case> {
    [
        for_integers!(integer_pairs("max", i128::max)),
        for_integers!(integer_pairs("min", i128::min)),
    ]
    .concat()
}

fn float_extremes() -> Vec<Case> {
    fn max(a: f64, b: f64) -> f64 {
        match (a.is_nan(), b.is_nan()) {
            (false, false) => a.max(b),
            _ => f64::NAN,
        }
    }
    fn min(a: f64, b: f64) -> f64 {
        -max(-a, -b)
    }
    // The sign of zero is left open: which of two equals is chosen is not said.
    let values = &[f64::NEG_INFINITY, -1.5, 0.0, 2.0, f64::INFINITY, f64::NAN];
    [
        for_floats!(float_pairs("max", values, max)),
        for_floats!(float_pairs("min", values, min)),
    ]
    .concat()
}

fn unary_integers<T: Integer>(op: &'static str, oracle: fn(i128) -> i128) -> Case {
    let values = corners::<T>();
    let results: Vec<T> = values.iter().map(|x| T::of(oracle(x.wide()))).collect();
    case(op).on([vector(&values)]).gives(vector(&results))
}

fn integer_signs() -> Vec<Case> {
    [
        for_integers!(unary_integers("negate", |x| -x)),
        for_integers!(unary_integers("abs", i128::abs)),
        for_integers!(unary_integers("sign", i128::signum)),
    ]
    .concat()
}

fn float_signs() -> Vec<Case> {
    fn unary<T: Float>(op: &'static str, oracle: fn(f64) -> f64) -> Case {
        let values = [&FLOATS[..], &SPECIAL[..]].concat();
        let values = floats::<T>(&values);
        let results: Vec<T> = values.iter().map(|x| T::of(oracle(x.wide()))).collect();
        case(op).on([vector(&values)]).gives(vector(&results))
    }
    fn sign<T: Float>() -> Case {
        let values = floats::<T>(&[f64::NEG_INFINITY, -2.5, 0.0, 1e-3, f64::INFINITY]);
        let signs = floats::<T>(&[-1.0, -1.0, 0.0, 1.0, 1.0]);
        case("sign").on([vector(&values)]).gives(vector(&signs))
    }
    [
        for_floats!(unary("negate", |x| -x)),
        for_floats!(unary("abs", f64::abs)),
        for_floats!(sign()),
    ]
    .concat()
}
