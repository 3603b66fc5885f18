//! Exponentials, logarithms, trigonometry and their kin.

use std::f64::consts::FRAC_PI_2;

use crate::case::*;
use crate::numbers::*;

tests! {
    functions_match_rusts_on_f16 => on::<half::f16>;
    functions_match_rusts_on_bf16 => on::<half::bf16>;
    functions_match_rusts_on_f32 => on::<f32>;
    functions_match_rusts_on_f64 => on::<f64>;
    error_functions_match_written_values => error_functions;
    error_functions_of_f64_are_as_precise_as_nxs => error_functions_of_f64;
    the_complement_of_erf_does_not_cancel => complements;
    ends_of_domains_give_infinities_and_nan => special_values;
    nan_stays_nan => nans;
    f64_has_its_own_range => wide_range;
    cube_roots_of_negatives_are_negative => cube_roots;
    integers_become_floats => integer_arguments;
}

type Function = (&'static str, fn(f64) -> f64, &'static [f64]);

const INFINITY: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// Where the results are neither zero nor beyond f16.
const FUNCTIONS: [Function; 20] = [
    ("exp", f64::exp, &[-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 10.0]),
    (
        "expm1",
        f64::exp_m1,
        &[-9.0, -0.5, -1e-3, 0.0, 1e-3, 0.5, 10.0],
    ),
    ("log", f64::ln, &[1e-3, 0.5, 1.0, 1.5, 10.0, 6e4]),
    (
        "log1p",
        f64::ln_1p,
        &[-0.9, -0.5, -1e-3, 0.0, 1e-3, 1.0, 100.0],
    ),
    (
        "sigmoid",
        |x| 1.0 / (1.0 + (-x).exp()),
        &[-6.0, -1.0, 0.0, 0.5, 8.0],
    ),
    ("sin", f64::sin, &[-30.0, -2.0, -0.1, 0.0, 0.5, 1.0, 2.0]),
    ("cos", f64::cos, &[-30.0, -2.0, -0.1, 0.0, 0.5, 1.0, 2.0]),
    ("tan", f64::tan, &[-1.0, -0.1, 0.0, 0.5, 1.0, 2.0]),
    ("asin", f64::asin, &[-1.0, -0.5, 0.0, 0.1, 0.5, 1.0]),
    ("acos", f64::acos, &[-1.0, -0.5, 0.0, 0.1, 0.5, 1.0]),
    ("atan", f64::atan, &[-50.0, -1.0, 0.0, 0.1, 2.0, 1e4]),
    ("sinh", f64::sinh, &[-9.0, -1.0, -0.1, 0.0, 0.5, 10.0]),
    ("cosh", f64::cosh, &[-9.0, -1.0, -0.1, 0.0, 0.5, 10.0]),
    ("tanh", f64::tanh, &[-9.0, -1.0, -0.1, 0.0, 0.5, 2.0]),
    ("asinh", f64::asinh, &[-50.0, -1.0, 0.0, 0.1, 2.0, 1e4]),
    ("acosh", f64::acosh, &[1.0, 1.5, 2.0, 50.0, 1e4]),
    ("atanh", f64::atanh, &[-0.9, -0.5, 0.0, 0.1, 0.5]),
    ("sqrt", f64::sqrt, &[0.0, 1e-3, 0.5, 2.0, 9.0, 6e4]),
    ("rsqrt", |x| 1.0 / x.sqrt(), &[1e-3, 0.5, 2.0, 9.0, 6e4]),
    ("cbrt", f64::cbrt, &[-27.0, -1e-3, 0.0, 1e-3, 0.5, 8.0, 6e4]),
];

type Points = &'static [(f64, f64)];

const ERF: Points = &[
    (-2.0, -0.9953222650189527),
    (-0.25, -0.2763263901682369),
    (0.0, 0.0),
    (0.25, 0.2763263901682369),
    (0.5, 0.5204998778130465),
    (1.0, 0.8427007929497149),
    (1.5, 0.9661051464753108),
];

const ERF_INV: Points = &[
    (-0.5, -0.4769362762044699),
    (0.0, 0.0),
    (0.125, 0.11123545184094995),
    (0.25, 0.22531205501217808),
    (0.75, 0.8134198475976183),
    (0.9375, 1.3171503349861302),
];

#[rustfmt::skip]
const ENDS: [(&str, Points); 18] = [
    ("exp", &[(-INFINITY, 0.0), (-1e4, 0.0), (1e4, INFINITY), (INFINITY, INFINITY)]),
    ("expm1", &[(-INFINITY, -1.0), (1e4, INFINITY), (INFINITY, INFINITY)]),
    ("log", &[(-1.0, NAN), (0.0, -INFINITY), (INFINITY, INFINITY)]),
    ("log1p", &[(-2.0, NAN), (-1.0, -INFINITY), (INFINITY, INFINITY)]),
    ("sigmoid", &[(-INFINITY, 0.0), (-1e4, 0.0), (1e4, 1.0), (INFINITY, 1.0)]),
    ("sin", &[(-INFINITY, NAN), (INFINITY, NAN)]),
    ("cos", &[(-INFINITY, NAN), (INFINITY, NAN)]),
    ("tan", &[(-INFINITY, NAN), (INFINITY, NAN)]),
    ("asin", &[(-1.5, NAN), (2.0, NAN)]),
    ("acos", &[(-1.5, NAN), (2.0, NAN)]),
    ("atan", &[(-INFINITY, -FRAC_PI_2), (INFINITY, FRAC_PI_2)]),
    ("tanh", &[(-INFINITY, -1.0), (-1e4, -1.0), (1e4, 1.0), (INFINITY, 1.0)]),
    ("acosh", &[(0.5, NAN), (INFINITY, INFINITY)]),
    ("atanh", &[(-1.0, -INFINITY), (1.0, INFINITY), (2.0, NAN)]),
    ("sqrt", &[(-1.0, NAN), (INFINITY, INFINITY)]),
    ("rsqrt", &[(-1.0, NAN), (0.0, INFINITY), (INFINITY, 0.0)]),
    ("erf", &[(-INFINITY, -1.0), (-9.0, -1.0), (9.0, 1.0), (INFINITY, 1.0)]),
    ("erf_inv", &[(-2.0, NAN), (-1.0, -INFINITY), (1.0, INFINITY), (2.0, NAN)]),
];

fn on<T: Float>() -> Vec<Case> {
    FUNCTIONS
        .map(|(op, oracle, arguments)| {
            let arguments: Vec<T> = floats(arguments);
            let results: Vec<T> = arguments.iter().map(|x| T::of(oracle(x.wide()))).collect();
            pointwise(op, &arguments, &results).within(T::CLOSE)
        })
        .into()
}

fn error_functions() -> Vec<Case> {
    fn written<T: Float>() -> Vec<Case> {
        // MLX's polynomial for erf is only good to some 2e-7, next to zero too.
        [("erf", ERF), ("erf_inv", ERF_INV)]
            .map(|(op, points)| at::<T>(op, points).near(T::CLOSE / 8.0))
            .into()
    }
    [
        written::<half::f16>(),
        written::<half::bf16>(),
        written::<f32>(),
    ]
    .concat()
}

/// Nx's own inverse has single precision.
fn error_functions_of_f64() -> Vec<Case> {
    let inverse = at::<f64>("erf_inv", ERF_INV).within(1e-6);
    vec![at::<f64>("erf", ERF), inverse]
}

fn complements() -> Vec<Case> {
    const NEAR: Points = &[
        (-2.0, 1.9953222650189528),
        (-0.5, 1.5204998778130465),
        (0.0, 1.0),
        (0.5, 0.4795001221869535),
        (1.0, 0.15729920705028513),
        (2.0, 0.004677734981047266),
    ];
    const FAR: Points = &[(3.5, 7.430983723414128e-07), (5.0, 1.5374597944280347e-12)];
    const VERY_FAR: Points = &[
        (10.0, 2.088487583762545e-45),
        (26.0, 5.663192408856143e-296),
    ];
    const ENDS: Points = &[(-INFINITY, 2.0), (INFINITY, 0.0), (NAN, NAN)];
    fn of<T: Float>() -> Vec<Case> {
        vec![
            at::<T>("erfc", NEAR).near(T::CLOSE / 8.0),
            at::<T>("erfc", ENDS),
        ]
    }
    let far = [
        at::<f32>("erfc", FAR).within(1e-5),
        at::<f64>("erfc", FAR),
        at::<f64>("erfc", VERY_FAR).within(1e-12),
    ];
    [for_floats!(of()).concat(), far.into()].concat()
}

/// Repeated, so that vector units see whole registers and a rest.
fn pointwise<T: Float>(op: &'static str, arguments: &[T], results: &[T]) -> Case {
    case(op)
        .on([vector(&arguments.repeat(7))])
        .gives(vector(&results.repeat(7)))
}

fn at<T: Float>(op: &'static str, points: Points) -> Case {
    let (arguments, results): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    pointwise::<T>(op, &floats(&arguments), &floats(&results)).within(T::CLOSE)
}

fn special_values() -> Vec<Case> {
    fn of<T: Float>() -> Vec<Case> {
        ENDS.map(|(op, points)| at::<T>(op, points)).into()
    }
    for_floats!(of()).concat()
}

fn nans() -> Vec<Case> {
    fn of<T: Float>() -> Vec<Case> {
        let nan = [T::of(NAN)];
        let functions = FUNCTIONS.iter().map(|(op, ..)| *op);
        functions
            .chain(["erf", "erfc", "erf_inv"])
            .map(|op| pointwise(op, &nan, &nan))
            .collect()
    }
    for_floats!(of()).concat()
}

fn wide_range() -> Vec<Case> {
    const TINY: f64 = f64::MIN_POSITIVE;
    let values: [Function; 8] = [
        ("exp", f64::exp, &[-700.0, -100.0, 100.0, 700.0]),
        ("expm1", f64::exp_m1, &[1e-12, 100.0, 700.0]),
        ("log", f64::ln, &[TINY, 1e300]),
        ("sinh", f64::sinh, &[-700.0, 1e-300, 100.0]),
        ("sqrt", f64::sqrt, &[TINY, 1e300]),
        ("cbrt", f64::cbrt, &[-1e300, 1e-300, 1e300]),
        ("sin", f64::sin, &[1e-300, 1e9]),
        ("tanh", f64::tanh, &[1e-300, 1e-9]),
    ];
    values
        .map(|(op, oracle, arguments)| {
            let results: Vec<f64> = arguments.iter().map(|&x| oracle(x)).collect();
            pointwise(op, arguments, &results).within(f64::CLOSE)
        })
        .into()
}

fn cube_roots() -> Vec<Case> {
    const ROOTS: Points = &[
        (-64.0, -4.0),
        (-1.0, -1.0),
        (0.0, 0.0),
        (1.0, 1.0),
        (125.0, 5.0),
    ];
    const ENDS: Points = &[(-INFINITY, -INFINITY), (INFINITY, INFINITY), (NAN, NAN)];
    fn roots<T: Float>() -> Vec<Case> {
        vec![at::<T>("cbrt", ROOTS), at::<T>("cbrt", ENDS)]
    }
    let ends = [f32::MIN_POSITIVE, -1e-30, 1e30, f32::MAX];
    let edges = pointwise("cbrt", &ends, &ends.map(f32::cbrt)).within(f32::CLOSE);
    [for_floats!(roots()).concat(), vec![edges]].concat()
}

fn integer_arguments() -> Vec<Case> {
    let roots = vector(&[0f32, 1.0, 2.0, 3.0]);
    vec![
        case("sqrt")
            .on([vector(&[0u8, 1, 4, 9])])
            .gives(roots.clone()),
        case("sqrt").on([vector(&[0i64, 1, 4, 9])]).gives(roots),
        case("exp")
            .on([vector(&[0i32, 1, -1])])
            .gives(vector(&[1f32, 1f32.exp(), (-1f32).exp()]))
            .within(f32::CLOSE),
    ]
}
