//! Bits: logic, shifts and counts on every width, signed and unsigned.

use mlx_core::Dtype;

use crate::arithmetic::integer_pairs;
use crate::case::*;
use crate::numbers::*;

tests! {
    bits_combine => logic;
    bits_of_booleans_stay_booleans => booleans;
    left_shifts_drop_what_leaves => left_shifts;
    right_shifts_keep_the_sign => right_shifts;
    population_counts_match_rusts => population_counts;
    leading_zeros_match_rusts => leading_zeros;
    every_byte_is_counted => bytes;
}

fn logic() -> Vec<Case> {
    fn flipped<T: Integer>() -> Case {
        let values = corners::<T>();
        let flipped: Vec<T> = values.iter().map(|x| T::of(!x.wide())).collect();
        case("bitwise_not")
            .on([vector(&values)])
            .gives(vector(&flipped))
    }
    [
        for_integers!(integer_pairs("bitwise_and", |a, b| a & b)),
        for_integers!(integer_pairs("bitwise_or", |a, b| a | b)),
        for_integers!(integer_pairs("bitwise_xor", |a, b| a ^ b)),
        for_integers!(flipped()),
        vec![case("bitwise_and")
            .on([vector(&[0b1100u8, 0b1010]), scalar(0b0110u8)])
            .gives(vector(&[0b0100u8, 0b0010]))],
    ]
    .concat()
}

fn booleans() -> Vec<Case> {
    let a = vector(&[false, false, true, true]);
    let b = vector(&[false, true, false, true]);
    vec![
        case("bitwise_and")
            .on([a.clone(), b.clone()])
            .gives(vector(&[false, false, false, true])),
        case("bitwise_or")
            .on([a.clone(), b.clone()])
            .gives(vector(&[false, true, true, true])),
        case("bitwise_xor")
            .on([a, b])
            .gives(vector(&[false, true, true, false])),
    ]
}

/// Every corner shifted by every count that the width allows.
fn shifts<T: Integer>(op: &'static str, oracle: fn(i128, u32) -> i128) -> Case {
    let (values, counts): (Vec<T>, Vec<u32>) = corners::<T>()
        .into_iter()
        .flat_map(|value| (0..T::BITS).map(move |count| (value, count)))
        .unzip();
    let results: Vec<T> = std::iter::zip(&values, &counts)
        .map(|(value, &count)| T::of(oracle(value.wide(), count)))
        .collect();
    let counts: Vec<T> = counts.iter().map(|&count| T::of(count.into())).collect();
    case(op)
        .on([vector(&values), vector(&counts)])
        .gives(vector(&results))
}

fn left_shifts() -> Vec<Case> {
    for_integers!(shifts("left_shift", |value, count| value << count))
}

fn right_shifts() -> Vec<Case> {
    let written = case("right_shift")
        .on([vector(&[i64::MIN, -1, 5]), vector(&[63i64, 40, 1])])
        .gives(vector(&[-1i64, -1, 2]));
    let all = for_integers!(shifts("right_shift", |value, count| value >> count));
    [vec![written], all].concat()
}

/// A type's bits as the unsigned type of the same width.
fn bits<T: Integer>(value: T) -> u64 {
    value.wide() as u64 & (u64::MAX >> (64 - T::BITS))
}

/// The counts come back in the unsigned type of the same width.
fn counted<T: Integer>(op: &'static str, values: &[T], oracle: fn(u64, u32) -> u32) -> Case {
    let counts: Vec<u32> = values.iter().map(|&x| oracle(bits(x), T::BITS)).collect();
    let bytes = |count: &u32| match T::BITS {
        8 => (*count as u8).bytes(),
        16 => (*count as u16).bytes(),
        32 => count.bytes(),
        _ => u64::from(*count).bytes(),
    };
    let expected = Tensor {
        dtype: match T::BITS {
            8 => Dtype::Uint8,
            16 => Dtype::Uint16,
            32 => Dtype::Uint32,
            _ => Dtype::Uint64,
        },
        dims: vec![values.len() as i64],
        bytes: counts.iter().flat_map(bytes).collect(),
    };
    case(op).on([vector(values)]).gives(expected)
}

fn zeros(value: u64, width: u32) -> u32 {
    value.leading_zeros() - (64 - width)
}

/// Corners, single bits, runs of bits and a pattern.
fn patterns<T: Integer>() -> Vec<T> {
    let runs = (0..T::BITS).flat_map(|bit| [1i128 << bit, (1i128 << bit) - 1]);
    let patterns = [0x5555_5555_5555_5555, 0x0123_4567_89ab_cdef, -0x0f0f_0f0f];
    corners()
        .into_iter()
        .chain(runs.chain(patterns).map(T::of))
        .collect()
}

fn population_counts() -> Vec<Case> {
    fn counts<T: Integer>() -> Case {
        counted::<T>("population_count", &patterns(), |x, _| x.count_ones())
    }
    let written = case("population_count")
        .on([vector(&[0i8, 1, -1, i8::MIN, i8::MAX])])
        .gives(vector(&[0u8, 1, 8, 1, 7]));
    [vec![written], for_integers!(counts())].concat()
}

fn leading_zeros() -> Vec<Case> {
    fn counts<T: Integer>() -> Case {
        counted::<T>("count_leading_zeros", &patterns(), zeros)
    }
    let written = case("count_leading_zeros")
        .on([vector(&[0i64, 1, -1, i64::MIN, i64::MAX])])
        .gives(vector(&[64u64, 63, 0, 0, 1]));
    [vec![written], for_integers!(counts())].concat()
}

fn bytes() -> Vec<Case> {
    let signed: Vec<i8> = (i8::MIN..=i8::MAX).collect();
    let unsigned: Vec<u8> = (0..=u8::MAX).collect();
    let ones = |x: u64, _: u32| x.count_ones();
    vec![
        counted("population_count", &signed, ones),
        counted("population_count", &unsigned, ones),
        counted("count_leading_zeros", &signed, zeros),
        counted("count_leading_zeros", &unsigned, zeros),
        case("population_count")
            .on([scalar(255u8)])
            .gives(scalar(8u8)),
        case("count_leading_zeros")
            .on([vector::<u16>(&[])])
            .gives(vector::<u16>(&[])),
    ]
}
