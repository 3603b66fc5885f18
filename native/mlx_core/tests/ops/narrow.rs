//! Types narrower than a byte, and floats of one byte.

use half::f16;
use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::Element;

tests! {
    packed_integers_are_unpacked_from_the_highest_bits => unpacked;
    integers_are_packed_from_the_highest_bits => packed;
    integers_wrap_to_few_bits => wrapped;
    e5m2_is_the_upper_half_of_f16 => e5m2;
    e4m3fn_has_448_and_no_infinity => e4m3fn;
    numbers_round_to_e4m3fn_away_from_zero => rounded;
    f64_is_rounded_to_f32_and_exact_the_other_way => f64_bits;
}

fn unpack<T: Element>(bytes: &[u8], bits: i64, values: &[T], signed: bool) -> Case {
    let count = int(values.len() as i64);
    case("unpack_bits")
        .on([vector(bytes)])
        .with([int(bits), count, Attribute::Bool(signed)])
        .gives(vector(values))
}

fn unpacked() -> Vec<Case> {
    vec![
        unpack(&[0xAB, 0x10], 4, &[10u8, 11, 1, 0], false),
        unpack(&[0xAB, 0x10], 4, &[-6i8, -5, 1], true),
        unpack(&[0b1110_0100], 2, &[3u8, 2, 1, 0], false),
        unpack(&[0b1110_0100, 0x80], 2, &[-1i8, -2, 1, 0, -2], true),
    ]
}

fn packed() -> Vec<Case> {
    let pack = |x: Tensor, bits, bytes: &[u8]| {
        case("pack_bits")
            .on([x])
            .with([int(bits)])
            .gives(vector(bytes))
    };
    vec![
        pack(vector(&[10u8, 11, 1]), 4, &[0xAB, 0x10]),
        pack(vector(&[-6i8, -5]), 4, &[0xAB]),
        pack(vector(&[3u8, 2, 1, 0]), 2, &[0b1110_0100]),
        pack(vector(&[-1i8, -2, 1, 0, -2]), 2, &[0b1110_0100, 0x80]),
        pack(tensor(&[1u8, 2, 3, 4], &[2, 2]), 4, &[0x12, 0x34]),
    ]
}

fn wrapped() -> Vec<Case> {
    let wrap = |x: Tensor, bits, y| case("wrap_bits").on([x]).with([int(bits)]).gives(y);
    vec![
        wrap(vector(&[17u8, 15, 255]), 4, vector(&[1u8, 15, 15])),
        wrap(vector(&[9i8, -9, 7, -8]), 4, vector(&[-7i8, 7, 7, -8])),
        wrap(vector(&[5u8, 3]), 2, vector(&[1u8, 3])),
        wrap(vector(&[2i8, 1, -3]), 2, vector(&[-2i8, 1, 1])),
    ]
}

fn e5m2() -> Vec<Case> {
    let bytes = || vector(&[0u8, 0x3C, 0xBE, 0x01, 0x7B, 0x7C, 0xFC]);
    let infinity = f32::INFINITY;
    let values = [0.0, 1.0, -1.5, 2f32.powi(-16), 57344.0, infinity, -infinity];
    let values = || vector(&values.map(f16::from_f32));
    let halves = |x: [f32; 4]| vector(&x.map(f16::from_f32));
    vec![
        case("f8_values").on([bytes()]).gives(values()),
        case("f8_bits").on([values()]).gives(bytes()),
        case("round_f8").on([values()]).gives(values()),
        case("round_f8")
            .on([halves([1.2, -1.99, 3.4, 65504.0])])
            .gives(halves([1.0, -1.75, 3.0, 57344.0])),
        case("f8_values")
            .on([vector(&[0x7Eu8])])
            .gives(vector(&[f16::NAN])),
    ]
}

fn f64_bits() -> Vec<Case> {
    let bits = |x: &[f64]| vector(&x.iter().map(|x| x.to_bits()).collect::<Vec<u64>>());
    let exact = [0.5f32, -0.0, 1e-45, f32::MAX, f32::INFINITY];
    let wide = exact.map(f64::from);
    vec![
        case("f64_bits").on([vector(&exact)]).gives(bits(&wide)),
        case("f64_values").on([bits(&wide)]).gives(vector(&exact)),
        case("f64_values")
            .on([bits(&[0.1, 1e300, -1e300, 1e-300, f64::NAN])])
            .gives(vector(&[
                0.1f32,
                f32::INFINITY,
                -f32::INFINITY,
                0.0,
                f32::NAN,
            ])),
    ]
}

fn e4m3fn() -> Vec<Case> {
    let bytes = || vector(&[0u8, 0x38, 0xBC, 0x01, 0x07, 0x08, 0x7E, 0xFE]);
    let tiny = 2f32.powi(-9);
    let values = [0.0, 1.0, -1.5, tiny, 7.0 * tiny, 8.0 * tiny, 448.0, -448.0];
    let values = || vector(&values);
    vec![
        case("f8_e4m3fn_values").on([bytes()]).gives(values()),
        case("f8_e4m3fn_bits").on([values()]).gives(bytes()),
        case("round_f8_e4m3fn").on([values()]).gives(values()),
        case("f8_e4m3fn_values")
            .on([vector(&[0x7Fu8, 0xFF])])
            .gives(vector(&[f32::NAN; 2])),
    ]
}

fn rounded() -> Vec<Case> {
    let infinity = f32::INFINITY;
    let tiny = 2f32.powi(-9);
    let x = [
        1.0625,
        -1.0625,
        1.06,
        1.99,
        0.6 * tiny,
        0.4 * tiny,
        460.0,
        infinity,
        -infinity,
    ];
    let y = [1.125, -1.125, 1.0, 1.875, tiny, 0.0, 448.0, 448.0, -448.0];
    vec![
        case("round_f8_e4m3fn").on([vector(&x)]).gives(vector(&y)),
        case("round_f8_e4m3fn")
            .on([vector(&[f32::NAN, -0.0])])
            .gives(vector(&[f32::NAN, -0.0])),
    ]
}
