//! Complex numbers.

use mlx_core::Attribute;
use num_complex::Complex64;

use crate::case::*;

tests! {
    complex_arithmetic => arithmetic;
    complex_parts => parts;
    complex_functions_match_rusts => functions;
    complex_reductions_and_products => reductions;
}

/// One in each quadrant.
const ARGUMENTS: [[f32; 2]; 4] = [[1.0, 2.0], [-0.5, 0.25], [0.75, -1.5], [-2.0, -0.5]];

type Function = (&'static str, fn(Complex64) -> Complex64);

const FUNCTIONS: [Function; 18] = [
    ("exp", Complex64::exp),
    ("log", Complex64::ln),
    ("log1p", |z| (z + 1.0).ln()),
    ("sin", Complex64::sin),
    ("cos", Complex64::cos),
    ("tan", Complex64::tan),
    ("asin", Complex64::asin),
    ("acos", Complex64::acos),
    ("atan", Complex64::atan),
    ("sinh", Complex64::sinh),
    ("cosh", Complex64::cosh),
    ("tanh", Complex64::tanh),
    ("asinh", Complex64::asinh),
    ("acosh", Complex64::acosh),
    ("atanh", Complex64::atanh),
    ("sqrt", Complex64::sqrt),
    ("rsqrt", |z| z.sqrt().inv()),
    ("sign", |z| z / z.norm()),
];

fn functions() -> Vec<Case> {
    let exponent = [0.5, -1.0];
    let powers = results(|z| z.powc(wide(exponent)));
    let power = case("power")
        .on([vector(&ARGUMENTS), scalar(exponent)])
        .gives(vector(&powers));
    FUNCTIONS
        .iter()
        .map(|(op, oracle)| {
            case(op)
                .on([vector(&ARGUMENTS)])
                .gives(vector(&results(oracle)))
        })
        .chain([power])
        .map(|case| case.within(1e-5))
        .collect()
}

fn wide([real, imaginary]: [f32; 2]) -> Complex64 {
    Complex64::new(real.into(), imaginary.into())
}

fn results(oracle: impl Fn(Complex64) -> Complex64) -> [[f32; 2]; 4] {
    ARGUMENTS.map(|argument| {
        let result = oracle(wide(argument));
        [result.re as f32, result.im as f32]
    })
}

fn arithmetic() -> Vec<Case> {
    let a = vector(&[[1f32, 2.0], [-3.0, 0.5]]);
    let b = vector(&[[4f32, -2.0], [0.0, 2.0]]);
    let on = |op| case(op).on([a.clone(), b.clone()]);
    vec![
        on("add").gives(vector(&[[5f32, 0.0], [-3.0, 2.5]])),
        on("subtract").gives(vector(&[[-3f32, 4.0], [-3.0, -1.5]])),
        on("multiply").gives(vector(&[[8f32, 6.0], [-1.0, -6.0]])),
        on("divide")
            .gives(vector(&[[0f32, 0.5], [0.25, 1.5]]))
            .near(1e-6),
        case("negate")
            .on([a.clone()])
            .gives(vector(&[[-1f32, -2.0], [3.0, -0.5]])),
        case("add")
            .on([a.clone(), scalar(1f32)])
            .gives(vector(&[[2f32, 2.0], [-2.0, 0.5]])),
    ]
}

fn parts() -> Vec<Case> {
    let values = vector(&[[3f32, -4.0], [0.0, 2.0], [-1.5, 0.0]]);
    let on = |op| case(op).on([values.clone()]);
    vec![
        on("real").gives(vector(&[3f32, 0.0, -1.5])),
        on("imag").gives(vector(&[-4f32, 2.0, 0.0])),
        on("conjugate").gives(vector(&[[3f32, 4.0], [0.0, -2.0], [-1.5, -0.0]])),
        on("abs").gives(vector(&[5f32, 2.0, 1.5])),
    ]
}

fn reductions() -> Vec<Case> {
    let values = vector(&[[1f32, 2.0], [3.0, -1.0], [0.0, 1.0]]);
    let matrix = tensor(&[[0f32, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, -1.0]], &[2, 2]);
    let square = [[1f32, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]];
    vec![
        case("sum")
            .on([values.clone()])
            .with([ints(&[0]), Attribute::Bool(true)])
            .gives(vector(&[[4f32, 2.0]])),
        case("product")
            .on([values])
            .with([ints(&[0]), Attribute::Bool(true)])
            .gives(vector(&[[-5f32, 5.0]])),
        case("matmul")
            .on([matrix.clone(), matrix])
            .gives(tensor(&square, &[2, 2])),
    ]
}
