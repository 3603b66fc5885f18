//! Floors, ceilings and rounding.

use crate::case::*;
use crate::numbers::*;

tests! {
    halves_round_away_from_zero => halves;
    rounding_gives_no_negative_zero => zeros;
    rounding_has_no_double_rounding => near_halves;
    rounding_keeps_infinities_and_nan => special_values;
    floors_and_ceilings_match_rusts => floors_and_ceilings;
    integers_are_whole => whole_numbers;
}

fn rounds<T: Float>(values: &[f64], rounded: &[f64]) -> Case {
    case("round")
        .on([vector(&floats::<T>(values))])
        .gives(vector(&floats::<T>(rounded)))
}

fn halves() -> Vec<Case> {
    let values = [
        -3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, -2.25, 2.75, 100.0,
    ];
    let rounded = [-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0, -2.0, 3.0, 100.0];
    for_floats!(rounds(&values, &rounded))
}

fn zeros() -> Vec<Case> {
    for_floats!(rounds(&[-0.4, -0.0, 0.0, 0.4], &[0.0; 4]))
}

/// Adding a half and truncating gets each of these wrong.
fn near_halves() -> Vec<Case> {
    let odd = f64::from((1 << 23) + 1);
    let odd_64 = (1u64 << 52) as f64 + 1.0;
    vec![
        rounds::<f32>(
            &[0.49999997, -0.49999997, odd, -odd],
            &[0.0, 0.0, odd, -odd],
        ),
        rounds::<f64>(
            &[0.49999999999999994, -0.49999999999999994, odd_64, -odd_64],
            &[0.0, 0.0, odd_64, -odd_64],
        ),
        rounds::<half::f16>(&[0.49975586, 1025.0, 2049.0], &[0.0, 1025.0, 2048.0]),
        rounds::<half::bf16>(&[0.498046875, 129.0, 255.0], &[0.0, 129.0, 255.0]),
        rounds::<f32>(
            &[8388607.5, 1e30, -1e30],
            &[8388608.0, 1e30f32.into(), -f64::from(1e30f32)],
        ),
    ]
}

fn special_values() -> Vec<Case> {
    let values = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN];
    for_floats!(rounds(&values, &values))
}

fn floors_and_ceilings() -> Vec<Case> {
    fn both<T: Float>() -> Vec<Case> {
        let (infinity, nan) = (f64::INFINITY, f64::NAN);
        let values = [
            -infinity, -2.5, -2.0, -0.5, -0.0, 0.0, 0.5, 1.75, 1e4, infinity, nan,
        ];
        let values = floats::<T>(&values);
        let floors: Vec<T> = values.iter().map(|x| T::of(x.wide().floor())).collect();
        let ceilings: Vec<T> = values.iter().map(|x| T::of(x.wide().ceil())).collect();
        vec![
            case("floor").on([vector(&values)]).gives(vector(&floors)),
            case("ceil").on([vector(&values)]).gives(vector(&ceilings)),
        ]
    }
    for_floats!(both()).concat()
}

fn whole_numbers() -> Vec<Case> {
    fn unchanged<T: Integer>() -> Vec<Case> {
        let values = vector(&corners::<T>());
        ["round", "floor", "ceil"]
            .map(|op| case(op).on([values.clone()]).gives(values.clone()))
            .into()
    }
    for_integers!(unchanged()).concat()
}
