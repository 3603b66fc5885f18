//! How far the functions are from the C library's double precision, in units in the last
//! place of the type that they return.

use std::ffi::c_void;
use std::ptr::null;

use super::functions::{
    Cos, Erf, Erfc, Exp, Expm1, Gelu, GeluSigmoid, GeluTanh, Log, Log1p, Rsqrt, Sigmoid, Sin, Sqrt,
    Tanh,
};
use super::level::entries;
use super::map::{Function, Map};
use super::number::{Bf16, Number, F16};
use super::primitive::{Call, Entry, NO_PARAMETERS};

extern "C" {
    fn erf(x: f64) -> f64;
    fn erfc(x: f64) -> f64;
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Twice the number of which GELU's approximation takes the hyperbolic tangent.
fn gelu_cubic(x: f64) -> f64 {
    (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))
}

type Oracle = fn(f64) -> f64;

/// What the documents say of single precision.
const ULPS: f64 = 0.51;

/// Odd, so that multiples meet all kinds of fractions and exponents.
const STRIDE: u64 = 10_007;
const BATCH: usize = 1 << 12;

fn apply<T>(entry: Entry, numbers: &mut [T]) {
    let call = Call {
        inputs: [numbers.as_ptr().cast::<c_void>(), null(), null()],
        output: numbers.as_mut_ptr().cast(),
        length: numbers.len(),
        row: numbers.len(),
        parameters: NO_PARAMETERS,
    };
    // Safety: the pointers are those of the numbers, whose type the kernel has.
    unsafe { entry(&call) };
}

/// The distance in units of the expected number's last place, `digits` being those after
/// the first and `lowest` the exponent of the smallest normal number.
fn ulps(got: f64, expected: f64, digits: i32, lowest: i32) -> f64 {
    if got == expected && got.is_sign_negative() == expected.is_sign_negative()
        || got.is_nan() && expected.is_nan()
    {
        return 0.0;
    }
    let exponent = (expected.abs().log2().floor() as i32).max(lowest);
    let ulps = (got - expected).abs() / 2f64.powi(exponent - digits);
    match (got.is_finite(), got == 0.0) {
        // From the largest number to infinity is as far as to where the next would be.
        (false, _) if expected.abs() < 2f64.powi(-lowest + 2) => 1000.0,
        (false, _) => 0.0,
        (_, true) if got.is_sign_negative() != expected.is_sign_negative() => 1000.0,
        _ => ulps,
    }
}

/// The largest distance over all multiples of the stride.
fn worst<F: Function>(oracle: Oracle, stride: u64) -> f64 {
    let entries = entries::<Map<F>, f32>();
    let (mut worst, mut at) = (0f64, String::new());
    let mut next = 0u64;
    while next <= u64::from(u32::MAX) {
        let bits = (0..BATCH as u64).map(|at| (next + at * stride).min(u64::from(u32::MAX)));
        let numbers: Vec<f32> = bits.map(|bits| f32::from_bits(bits as u32)).collect();
        let expected: Vec<f64> = numbers.iter().map(|&x| oracle(f64::from(x))).collect();
        for entry in entries.into_iter().flatten() {
            let mut got = numbers.clone();
            apply(entry, &mut got);
            for ((x, got), &expected) in numbers.iter().zip(got).zip(&expected) {
                let ulps = ulps(f64::from(got), expected, 23, -126);
                if ulps > worst {
                    worst = ulps;
                    at = format!("{:?}({x:e}) is {got:e}, not {expected:e}", F::NAME);
                }
            }
        }
        next += BATCH as u64 * stride;
    }
    println!("{at}: {worst:.4} ulps");
    worst
}

/// The same over all halves.
fn worst_half<F: Function, T: Number>(
    oracle: Oracle,
    digits: i32,
    lowest: i32,
    of: fn(u16) -> T,
) -> f64 {
    let numbers: Vec<T> = (0..=u16::MAX).map(of).collect();
    let (mut worst, mut at) = (0f64, String::new());
    for entry in entries::<Map<F>, T>().into_iter().flatten() {
        let mut got = numbers.clone();
        apply(entry, &mut got);
        for (x, got) in numbers.iter().zip(got) {
            let ulps = ulps(got.widen(), oracle(x.widen()), digits, lowest);
            if ulps > worst {
                worst = ulps;
                at = format!("{:?}({:e}) is {:e}", F::NAME, x.widen(), got.widen());
            }
        }
    }
    println!("{at}: {worst:.4} ulps");
    worst
}

macro_rules! accuracy {
    ($($test:ident $function:ident |$x:ident| $oracle:expr;)*) => {
        $(#[test]
        fn $test() {
            let oracle: Oracle = |$x| $oracle;
            assert!(worst::<$function>(oracle, STRIDE) <= ULPS);
            assert!(worst_half::<$function, F16>(oracle, 10, -14, F16) <= ULPS);
            assert!(worst_half::<$function, Bf16>(oracle, 7, -126, Bf16) <= ULPS);
        })*

        #[test]
        #[ignore = "it asks all floats there are, which takes half an hour"]
        fn all_numbers() {
            $(let oracle: Oracle = |$x| $oracle;
            let ulps = worst::<$function>(oracle, 1);
            assert!(ulps <= ULPS);)*
        }
    };
}

accuracy! {
    exponential Exp |x| x.exp();
    exponential_less_one Expm1 |x| x.exp_m1();
    logarithm Log |x| x.ln();
    logarithm_of_one_more Log1p |x| x.ln_1p();
    logistic_function Sigmoid |x| logistic(x);
    hyperbolic_tangent Tanh |x| x.tanh();
    // Safety: a function of numbers.
    error_function Erf |x| unsafe { erf(x) };
    // Safety: a function of numbers.
    complement Erfc |x| unsafe { erfc(x) };
    // Safety: a function of numbers.
    gaussian_unit Gelu |x| x * 0.5 * unsafe { erfc(-x * std::f64::consts::FRAC_1_SQRT_2) };
    gaussian_unit_by_tanh GeluTanh |x| x * logistic(gelu_cubic(x));
    gaussian_unit_by_sigmoid GeluSigmoid |x| x * logistic(1.702 * x);
    square_root Sqrt |x| x.sqrt();
    reciprocal_root Rsqrt |x| 1.0 / x.sqrt();
    sine Sin |x| x.sin();
    cosine Cos |x| x.cos();
}
