//! Functions of floats of at most 32 bits, computed in double precision, so that nearly all
//! results are the nearest that there are.
//!
//! The coefficients are those that `coefficients.py` prints, with relative errors of at most
//! 6e-10, where half a unit in the last place of single precision is 3e-8 or more.

use super::level::Level;
use super::map::Function;
use std::f64::consts::FRAC_1_SQRT_2;
use std::ffi::CStr;

/// Adding it to a small number leaves the nearest integer in the lowest bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

#[inline(always)]
fn polynomial<L: Level, const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let mut sum = coefficients[N - 1];
    for at in (0..N - 1).rev() {
        sum = L::fma(sum, x, coefficients[at]);
    }
    sum
}

/// Keeps NaN, unlike `f64::clamp` in vectors.
#[inline(always)]
fn within(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high {
        high
    } else {
        x
    }
}

/// A power of two and what is left to it of the exponential, less one: the argument is that
/// of the nearest power, and a rest of at most half of log 2 (Cody and Waite, 1980).
#[inline(always)]
fn exponential<L: Level>(x: f64) -> (f64, f64) {
    let rounded = L::fma(x, std::f64::consts::LOG2_E, ROUNDER);
    let rest = L::fma(-(rounded - ROUNDER), std::f64::consts::LN_2, x);
    let power = f64::from_bits((rounded.to_bits() << 52).wrapping_add(1.0f64.to_bits()));
    (power, rest * polynomial::<L, _>(&EXPM1, rest))
}

/// For what has no effect beyond these numbers, even on the smallest of singles.
#[inline(always)]
pub(super) fn exp<L: Level>(x: f64) -> f64 {
    let (power, rest) = exponential::<L>(within(x, -110.0, 110.0));
    L::fma(power, rest, power)
}

#[inline(always)]
pub(super) fn sigmoid<L: Level>(x: f64) -> f64 {
    1.0 / (1.0 + exp::<L>(-x))
}

/// The complement of the error function, from 0 to 10.5.
#[inline(always)]
fn complement<L: Level>(x: f64) -> f64 {
    exp::<L>(-x * x) * polynomial::<L, _>(&ERFC, (x - 4.0) / (x + 4.0))
}

/// A share of the number, which is exact but where it is too small for the smallest of singles.
#[inline(always)]
fn gated(x: f64, share: f64) -> f64 {
    x * if share < 5e-48 { 0.0 } else { share }
}

/// Twice the root of two over pi, and its product with the factor of the cube.
const GELU_TANH: [f64; 2] = [1.5957691216057308, 0.07135481627260025];

#[inline(always)]
fn expm1<L: Level>(x: f64) -> f64 {
    let (power, rest) = exponential::<L>(x);
    // Keeps the sign of zero.
    if power == 1.0 {
        rest
    } else {
        L::fma(power, rest, power - 1.0)
    }
}

/// The logarithm of a number as those of a power of two and of a number about one, that is,
/// of the quotient of one plus and one minus `s`.
#[inline(always)]
fn logarithm<L: Level>(exponent: f64, s: f64) -> f64 {
    let rest = s * polynomial::<L, _>(&LOG, s * s);
    // Keeps the sign of zero.
    if exponent == 0.0 {
        rest
    } else {
        L::fma(exponent, std::f64::consts::LN_2, rest)
    }
}

/// The exponent of two that leaves a factor about one, and the factor.
#[inline(always)]
fn parts(x: f64) -> (f64, f64) {
    const FRACTION: u64 = (1 << 52) - 1;
    let lowest = FRAC_1_SQRT_2.to_bits();
    let bits = x.to_bits().wrapping_add(1.0f64.to_bits() - lowest);
    let integer = 2f64.powi(52);
    let exponent = f64::from_bits(bits >> 52 | integer.to_bits()) - (integer + 1023.0);
    let factor = f64::from_bits((bits & FRACTION) + lowest);
    (exponent, factor)
}

/// What a logarithm is of numbers that have no finite one.
#[inline(always)]
fn where_defined(x: f64, logarithm: f64) -> f64 {
    let logarithm = if x == 0.0 {
        f64::NEG_INFINITY
    } else {
        logarithm
    };
    let logarithm = if x < f64::INFINITY { logarithm } else { x };
    if x < 0.0 {
        f64::NAN
    } else {
        logarithm
    }
}

/// Halves of pi, by three numbers of which two have 26 digits, so that their products with
/// integers of as many have no error (Cody and Waite, 1980).
const HALF_PI: [f64; 3] = [
    1.5707963109016418,
    1.5893254712295857e-08,
    6.123233995736766e-17,
];

/// The sine of the number and so many right angles.
#[inline(always)]
fn sine<L: Level>(x: f64, turns: u64) -> f64 {
    let rounded = L::fma(x, std::f64::consts::FRAC_2_PI, ROUNDER);
    let quadrant = rounded.to_bits().wrapping_add(turns);
    // Negated, zero keeps the sign of what it is added to.
    let count = -(rounded - ROUNDER);
    let rest = L::fma(count, HALF_PI[0], x);
    let rest = L::fma(count, HALF_PI[1], rest);
    let rest = L::fma(count, HALF_PI[2], rest);
    let square = rest * rest;
    let sine = rest * polynomial::<L, _>(&SIN, square);
    let cosine = polynomial::<L, _>(&COS, square);
    let value = if quadrant & 1 == 0 { sine } else { cosine };
    f64::from_bits(value.to_bits() ^ (quadrant & 2) << 62)
}

/// Beyond it, the rest of a division by pi is the C library's to find.
const MANY_TURNS: f64 = 1e8;

macro_rules! functions {
    ($($(#[doc = $doc:literal])+ $name:ident $text:literal |$x:ident| $value:expr $(, beyond $limit:expr => $beyond:expr)?;)*) => {$(
        $(#[doc = $doc])+
        pub(crate) struct $name;

        impl Function for $name {
            const NAME: &'static CStr = $text;
            $(const LIMIT: f64 = $limit;)?

            #[inline(always)]
            fn value<L: Level>($x: f64) -> f64 {
                $value
            }

            $(#[inline(always)]
            fn beyond<L: Level>($x: f64) -> f64 {
                $beyond
            })?
        }
    )*};
}

functions! {
    /// The exponential.
    Exp c"Exp" |x| exp::<L>(x);
    /// The exponential less one.
    Expm1 c"Expm1" |x| expm1::<L>(within(x, -110.0, 110.0));
    /// The natural logarithm.
    Log c"Log" |x| {
        let (exponent, factor) = parts(x);
        where_defined(x, logarithm::<L>(exponent, (factor - 1.0) / (factor + 1.0)))
    };
    /// The natural logarithm of one more.
    Log1p c"Log1p" |x| {
        let (exponent, factor) = parts(1.0 + x);
        // The sum has lost digits of what is small.
        let above = if exponent == 0.0 { x } else { factor - 1.0 };
        where_defined(1.0 + x, logarithm::<L>(exponent, above / (above + 2.0)))
    };
    /// The logistic function.
    Sigmoid c"Sigmoid" |x| sigmoid::<L>(x);
    /// The hyperbolic tangent.
    Tanh c"Tanh" |x| {
        let less_one = expm1::<L>(within(2.0 * x, -40.0, 40.0));
        less_one / (less_one + 2.0)
    };
    /// The error function.
    Erf c"Erf" |x| {
        // Beyond four the nearest single is one.
        let x = within(x, -4.0, 4.0);
        x * polynomial::<L, _>(&ERF, L::fma(x, x * 0.125, -1.0))
    };
    /// One less the error function.
    Erfc c"Erfc" |x| {
        let value = complement::<L>(within(x.abs(), 0.0, 10.5));
        if x < 0.0 { 2.0 - value } else { value }
    };
    /// The number times the share of a normal distribution that is below it.
    Gelu c"Gelu" |x| {
        let share = x * polynomial::<L, _>(&NORMAL, L::fma(x, x * 0.125, -1.0));
        x * (0.5 + share)
    }, beyond 4.0 => {
        let above = complement::<L>(within(x.abs() * FRAC_1_SQRT_2, 0.0, 10.5)) * 0.5;
        gated(x, if x < 0.0 { above } else { 1.0 - above })
    };
    /// The same, approximated by the hyperbolic tangent.
    GeluTanh c"GeluTanh" |x| gated(x, sigmoid::<L>(x * L::fma(x * x, GELU_TANH[1], GELU_TANH[0])));
    /// The same, approximated by the logistic function.
    GeluSigmoid c"GeluSigmoid" |x| gated(x, sigmoid::<L>(x * 1.702));
    /// The square root.
    Sqrt c"Sqrt" |x| x.sqrt();
    /// One over the square root.
    Rsqrt c"Rsqrt" |x| 1.0 / x.sqrt();
    /// The sine.
    Sin c"Sin" |x| sine::<L>(x, 0), beyond MANY_TURNS => x.sin();
    /// The cosine.
    Cos c"Cos" |x| sine::<L>(x, 1), beyond MANY_TURNS => x.cos();
}

/// The exponential less one, divided by the number, up to half of log 2.
const EXPM1: [f64; 7] = [
    1.0,
    0.5000000047117757,
    0.16666666718997508,
    0.04166635289677516,
    0.008333298483754886,
    0.0013941108433972674,
    0.0001989927395864936,
];

/// The error function divided by the number, by an eighth of its square less one.
const ERF: [f64; 20] = [
    0.35353099561954215,
    -0.1765762332932892,
    0.13167512166462025,
    -0.10771044414410302,
    0.09020883714494014,
    -0.07472781257074841,
    0.059888903555390775,
    -0.04576578772582612,
    0.03304775025622779,
    -0.02246919993772733,
    0.014397091965097183,
    -0.008622341358686591,
    0.0047476391993702015,
    -0.0025422212206154073,
    0.0014372159312613072,
    -0.0006622194966461363,
    0.0001587696196752785,
    -7.775892249416875e-05,
    9.725663769924159e-05,
    -3.5566795785810666e-05,
];

/// What a normal distribution has between zero and a number, divided by the number, by an eighth
/// of its square less one, up to four.
const NORMAL: [f64; 19] = [
    0.17594978076521386,
    -0.08432144901001119,
    0.05593420401220242,
    -0.036869326347110425,
    0.022518150228525904,
    -0.012472326991540335,
    0.006236960866762617,
    -0.002822317273875289,
    0.0011613497243883279,
    -0.00043702175974353924,
    0.0001512453430510035,
    -4.839376477435492e-05,
    1.4389731162776145e-05,
    -3.999955097413803e-06,
    1.0398464473544996e-06,
    -2.4844743456001963e-07,
    5.7608057398903804e-08,
    -1.5556355944950265e-08,
    3.169675074884778e-09,
];

/// Twice the inverse hyperbolic tangent divided by the number, by its square.
const LOG: [f64; 5] = [
    2.0000000000083595,
    0.6666666524748752,
    0.4000038467237519,
    0.2853505103781631,
    0.23616359099145984,
];

/// The sine divided by the number, by its square, up to a quarter of pi.
const SIN: [f64; 5] = [
    0.9999999999956731,
    -0.16666666631591165,
    0.00833332878245888,
    -0.000198392022122311,
    2.7173456841089953e-06,
];

/// The cosine, by the square of the number, up to a quarter of pi.
const COS: [f64; 5] = [
    0.9999999999524894,
    -0.4999999961485761,
    0.041666616692532826,
    -0.0013886617999647076,
    2.4379831251175367e-05,
];

/// The complement times the exponential of the square, by `(x - 4) / (x + 4)`.
const ERFC: [f64; 13] = [
    0.1369994575944846,
    -0.25906804842839776,
    0.21871968487199892,
    -0.1642578346191956,
    0.10896297762579721,
    -0.0631076558245156,
    0.03130152427730678,
    -0.012842836605616883,
    0.004048018690735036,
    -0.0008157593601657074,
    -6.579644533453736e-06,
    0.00012464427157956882,
    7.425981636723481e-06,
];
