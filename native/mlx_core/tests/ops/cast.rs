//! Conversions of values and of bits.

use half::{bf16, f16};
use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::*;

tests! {
    integers_wrap_into_narrower_ones => integers_to_integers;
    integers_become_the_nearest_float => integers_to_floats;
    floats_are_truncated_and_wrap => floats_to_integers;
    nan_becomes_zero_and_infinities_saturate => special_floats;
    floats_reach_the_upper_half_of_u64 => upper_half;
    floats_round_to_narrower_ones => floats_to_floats;
    complex_numbers_lose_their_imaginary_part => complex;
    booleans_are_zero_and_one => booleans;
    casts_keep_shapes => shapes;
    bits_survive_bitcasts => bitcasts;
}

fn cast<A: Element, B: Element>(from: &[A], to: &[B]) -> Case {
    case("cast")
        .on([vector(from)])
        .with([Attribute::Dtype(B::DTYPE)])
        .gives(vector(to))
}

fn integers_to_integers() -> Vec<Case> {
    fn to<B: Integer>(from: &[impl Integer]) -> Case {
        let wrapped: Vec<B> = from.iter().map(|x| B::of(x.wide())).collect();
        cast(from, &wrapped)
    }
    fn from<A: Integer>() -> Vec<Case> {
        for_integers!(to(&corners::<A>()))
    }
    for_integers!(from()).concat()
}

fn integers_to_floats() -> Vec<Case> {
    let written = vec![
        cast(
            &[u64::MAX, 1 << 63, 3],
            &[1.8446744e19f32, 9.223372e18, 3.0],
        ),
        cast(
            &[u64::MAX, 1 << 63],
            &[18446744073709551616f64, 9223372036854775808.0],
        ),
        cast(
            &[i64::MIN, i64::MAX, -5],
            &[-9.223372e18f32, 9.223372e18, -5.0],
        ),
        cast(&[(1i32 << 24) + 1, -7], &[16777216f32, -7.0]),
        cast(&[(1i64 << 53) + 1], &[9007199254740992f64]),
        cast(&[70_000i32, -70_000], &[f16::INFINITY, f16::NEG_INFINITY]),
    ];
    fn to<B: Float>(from: &[impl Integer]) -> Case {
        let small: Vec<B> = from.iter().map(|x| B::of(x.wide() as f64)).collect();
        cast(from, &small)
    }
    fn from<A: Integer>() -> Vec<Case> {
        for_floats!(to(&integers::<A>(&[0, 1, 2, 100, 127])))
    }
    [written, for_integers!(from()).concat()].concat()
}

fn to<B: Integer>(from: &[impl Float]) -> Case {
    let truncated: Vec<B> = from.iter().map(|x| B::of(x.wide() as i128)).collect();
    cast(from, &truncated)
}

/// Within 64 bits; where a float type rounds a value to infinity, it is left out.
fn floats_to_integers() -> Vec<Case> {
    const VALUES: [f64; 24] = [
        0.0, -0.0, 0.9, -0.9, 1.5, -1.5, 100.7, -100.7, 127.0, 128.0, -129.0, 200.0, 255.5, 256.0,
        300.5, -300.5, 32768.0, 65504.0, -40000.0, 65536.0, 3e9, -3e9, 1e18, -1e18,
    ];
    fn from<A: Float>() -> Vec<Case> {
        let mut values = floats::<A>(&VALUES);
        values.retain(|x| x.wide().is_finite());
        for_integers!(to(&values))
    }
    let written = vec![
        cast(&[-1f32, -2.9, 256.0, 511.9], &[255u8, 254, 0, 255]),
        cast(
            &[-1f64, -2.9, 4294967296.0, 1e10],
            &[u64::MAX, u64::MAX - 1, 1 << 32, 10_000_000_000],
        ),
        cast(
            &[3e9f32, -3e9, 2147483648.0],
            &[-1294967296i32, 1294967296, i32::MIN],
        ),
        cast(&[f16::from_f32(-1.5)], &[u16::MAX]),
        cast(&[bf16::from_f32(1e5)], &[99840u32]),
    ];
    [for_floats!(from()).concat(), written].concat()
}

fn special_floats() -> Vec<Case> {
    fn to<B: Integer>(from: &[impl Float]) -> Case {
        cast(from, &[B::of(0), B::MAX, B::MIN, B::of(1)])
    }
    fn from<A: Float>() -> Vec<Case> {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0];
        for_integers!(to(&floats::<A>(&values)))
    }
    for_floats!(from()).concat()
}

fn upper_half() -> Vec<Case> {
    vec![
        cast(
            &[9223372036854775808f32, 1e19, 1.8446743e19, 9.2233715e18],
            &[
                1u64 << 63,
                9999999980506447872,
                u64::MAX - (1 << 40) + 1,
                (1 << 63) - (1 << 39),
            ],
        ),
        cast(
            &[9223372036854775808f64, 1e19, 18446744073709549568.0],
            &[1u64 << 63, 10_000_000_000_000_000_000, u64::MAX - 2047],
        ),
        cast(&[bf16::from_f64(1e19)], &[10016005571271983104u64]),
    ]
}

fn floats_to_floats() -> Vec<Case> {
    let (infinity, nan) = (f64::INFINITY, f64::NAN);
    fn to<B: Float>(from: &[impl Float]) -> Case {
        let rounded: Vec<B> = from.iter().map(|x| B::of(x.wide())).collect();
        cast(from, &rounded)
    }
    let ulp = 1f32 / 128.0;
    let from = [
        0.0, -0.0, 1.0, -2.5, 0.1, 3e4, 1e30, -1e300, infinity, -infinity, nan,
    ];
    [
        for_floats!(to(&floats::<f64>(&from))),
        for_floats!(to(&floats::<f32>(&from))),
        for_floats!(to(&floats::<f16>(&from))),
        for_floats!(to(&floats::<bf16>(&from))),
        // Halfway between two, the even one is nearest.
        vec![cast(
            &[1.0 + ulp / 2.0, 1.0 + 1.5 * ulp, 65519.0, 65520.0],
            &[1.0, 1.0 + 2.0 * ulp, 65519.0, 65520.0].map(bf16::from_f32),
        )],
        vec![cast(
            &[2049f32, 2051.0, 65520.0],
            &[2048.0, 2052.0, 1e9].map(f16::from_f32),
        )],
    ]
    .concat()
}

fn complex() -> Vec<Case> {
    let values = [
        [1.5f32, 9.0],
        [-2.5, -9.0],
        [f32::NAN, 1.0],
        [f32::INFINITY, 0.0],
    ];
    vec![
        cast(&values, &[1.5f32, -2.5, f32::NAN, f32::INFINITY]),
        cast(&values, &[1.5f64, -2.5, f64::NAN, f64::INFINITY]),
        cast(
            &values,
            &[1.5, -2.5, f32::NAN, f32::INFINITY].map(f16::from_f32),
        ),
        cast(&values, &[1i32, -2, 0, i32::MAX]),
        cast(&values, &[1u8, 254, 0, 255]),
        cast(&values, &[1u64, u64::MAX - 1, 0, u64::MAX]),
        cast(&values, &values),
        cast(&[1.5f32, f32::NAN], &[[1.5f32, 0.0], [f32::NAN, 0.0]]),
        cast(&[-3i64, 4], &[[-3f32, 0.0], [4.0, 0.0]]),
        cast(&[f16::ONE], &[[1f32, 0.0]]),
    ]
}

fn booleans() -> Vec<Case> {
    fn integers<T: Integer>() -> Vec<Case> {
        vec![
            cast(&[true, false], &[T::of(1), T::of(0)]),
            cast(&[T::MAX, T::of(0), T::of(256 / 2)], &[true, false, true]),
        ]
    }
    fn of_floats<T: Float>() -> Vec<Case> {
        let values = floats::<T>(&[0.0, -0.0, 0.25, f64::NAN]);
        vec![
            cast(&[true, false], &floats::<T>(&[1.0, 0.0])),
            cast(&values, &[false, false, true, true]),
        ]
    }
    let wide = cast(&[256i32, 1 << 30, 0], &[true, true, false]);
    let integers = for_integers!(integers()).concat();
    [integers, for_floats!(of_floats()).concat(), vec![wide]].concat()
}

fn shapes() -> Vec<Case> {
    let to = |dtype| [Attribute::Dtype(dtype)];
    vec![
        case("cast")
            .on([scalar(2.7f32)])
            .with(to(i16::DTYPE))
            .gives(scalar(2i16)),
        case("cast")
            .on([tensor(&[1.5f32; 6], &[3, 2])])
            .with(to(u64::DTYPE))
            .gives(tensor(&[1u64; 6], &[3, 2])),
        case("cast")
            .on([tensor::<f64>(&[], &[2, 0])])
            .with(to(u64::DTYPE))
            .gives(tensor::<u64>(&[], &[2, 0])),
    ]
}

fn bitcasts() -> Vec<Case> {
    fn both<A: Element, B: Element>(a: &[A], b: &[B]) -> Vec<Case> {
        let to = |x: Tensor, y: Tensor| {
            case("bitcast")
                .on([x])
                .with([Attribute::Dtype(y.dtype)])
                .gives(y)
        };
        let (a, b) = (vector(a), vector(b));
        vec![to(a.clone(), b.clone()), to(b, a)]
    }
    let to_scalar = case("bitcast")
        .on([scalar(1f32)])
        .with([Attribute::Dtype(u32::DTYPE)])
        .gives(scalar(0x3f80_0000u32));
    [
        both(
            &[1f32, -0.0, f32::INFINITY],
            &[0x3f80_0000u32, 1 << 31, 0x7f80_0000],
        ),
        both(
            &[f32::from_bits(0x7fc0_1234), -2.0],
            &[0x7fc0_1234i32, -(1 << 30)],
        ),
        both(&[1f64, -0.0], &[0x3ff0_0000_0000_0000u64, 1 << 63]),
        both(&[1f64, -2.0], &[0x3ff0_0000_0000_0000i64, -(1 << 62)]),
        both(&[f16::ONE, f16::MAX], &[0x3c00u16, 0x7bff]),
        both(&[bf16::ONE], &[0x3f80i16]),
        both(&[f16::ONE], &[bf16::from_bits(0x3c00)]),
        both(&[-1i8, 5], &[255u8, 5]),
        both(&[u64::MAX, 7], &[-1i64, 7]),
        vec![to_scalar],
    ]
    .concat()
}
