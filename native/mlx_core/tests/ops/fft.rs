//! Discrete Fourier transforms.

use std::f64::consts::TAU;

use mlx_core::Attribute;
use num_complex::Complex64;

use crate::case::*;

tests! {
    transforms_match_written_ones => written;
    transforms_match_plain_sums => sums;
    axes_are_cut_and_padded => lengths;
    any_axis_is_transformed => axes;
    real_numbers_need_half_a_transform => halves;
    noise_becomes_zero => noise;
    lengths_that_are_none_are_refused => wrong_lengths;
}

type Pair = [f32; 2];

fn transform(op: &'static str, x: Tensor, length: i64, axis: i64, y: Tensor) -> Case {
    let eps = Attribute::Float(1e-6);
    case(op)
        .on([x])
        .with([int(length), int(axis), eps])
        .gives(y)
        .near(1e-5)
}

fn written() -> Vec<Case> {
    let x = vector(&[1f32, 2.0, 3.0, 4.0]);
    let complex: [Pair; 4] = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]];
    let y: [Pair; 4] = [[10.0, 0.0], [-2.0, 2.0], [-2.0, 0.0], [-2.0, -2.0]];
    vec![
        transform("fft", x, 4, 0, vector(&y)),
        transform("fft", vector(&complex), 4, 0, vector(&y)),
        transform("ifft", vector(&y), 4, 0, vector(&complex)),
    ]
}

/// For lengths with large prime factors, too.
fn sums() -> Vec<Case> {
    let of = |length: usize, op, sign: f64, scale: f64| {
        let element = |i: usize| Complex64::new((i * 7 % 5) as f64 - 2.0, (i * 3 % 4) as f64);
        let pair = |z: Complex64| [z.re as f32, z.im as f32];
        let term = |i: usize, k: usize| {
            let angle = sign * TAU * (i * k % length) as f64 / length as f64;
            element(i) * Complex64::from_polar(scale, angle)
        };
        let x: Vec<Pair> = (0..length).map(|i| pair(element(i))).collect();
        let y: Vec<Pair> = (0..length)
            .map(|k| pair((0..length).map(|i| term(i, k)).sum()))
            .collect();
        transform(op, vector(&x), length as i64, 0, vector(&y)).near(1e-4)
    };
    [1, 2, 3, 5, 8, 12, 31, 64]
        .into_iter()
        .flat_map(|length| {
            let share = 1.0 / length as f64;
            [of(length, "fft", -1.0, 1.0), of(length, "ifft", 1.0, share)]
        })
        .collect()
}

fn lengths() -> Vec<Case> {
    let padded: [Pair; 4] = [[3.0, 0.0], [1.0, -2.0], [-1.0, 0.0], [1.0, 2.0]];
    let cut: [Pair; 2] = [[3.0, 0.0], [-1.0, 0.0]];
    vec![
        transform("fft", vector(&[1f32, 2.0]), 4, 0, vector(&padded)),
        transform("fft", vector(&[1f32, 2.0, 9.0]), 2, 0, vector(&cut)),
        transform(
            "ifft",
            vector(&[[1f32, 0.0]]),
            2,
            0,
            vector(&[[0.5f32, 0.0]; 2]),
        ),
    ]
}

fn axes() -> Vec<Case> {
    let x = || tensor(&[1f32, 2.0, 3.0, 5.0], &[2, 2]);
    let down: [Pair; 4] = [[4.0, 0.0], [7.0, 0.0], [-2.0, 0.0], [-3.0, 0.0]];
    let across: [Pair; 4] = [[3.0, 0.0], [-1.0, 0.0], [8.0, 0.0], [-2.0, 0.0]];
    vec![
        transform("fft", x(), 2, 0, tensor(&down, &[2, 2])),
        transform("fft", x(), 2, 1, tensor(&across, &[2, 2])),
        transform("rfft", x(), 2, 0, tensor(&down, &[2, 2])),
    ]
}

fn halves() -> Vec<Case> {
    let half: [Pair; 3] = [[10.0, 0.0], [-2.0, 2.0], [-2.0, 0.0]];
    let odd: [Pair; 2] = [[6.0, 0.0], [-1.5, 0.866_025_4]];
    let (even, three) = (vector(&[1f32, 2.0, 3.0, 4.0]), vector(&[1f32, 2.0, 3.0]));
    vec![
        transform("rfft", even.clone(), 4, 0, vector(&half)),
        transform("rfft", three.clone(), 3, 0, vector(&odd)),
        transform("irfft", vector(&half), 4, 0, even),
        transform("irfft", vector(&odd), 3, 0, three),
    ]
}

fn noise() -> Vec<Case> {
    let with = |eps, y: [Pair; 2]| {
        case("fft")
            .on([vector(&[1f32, 0.75])])
            .with([int(2), int(0), Attribute::Float(eps)])
            .gives(vector(&y))
    };
    vec![
        with(0.0, [[1.75, 0.0], [0.25, 0.0]]),
        with(0.2, [[1.75, 0.0], [0.25, 0.0]]),
        with(0.25, [[1.75, 0.0], [0.0, 0.0]]),
        with(-1.0, [[1.75, 0.0], [0.25, 0.0]]),
    ]
}

fn wrong_lengths() -> Vec<Case> {
    let with = |length, axis| {
        case("fft")
            .on([vector(&[1f32, 2.0])])
            .with([int(length), int(axis), Attribute::Float(0.0)])
            .refused()
    };
    vec![with(0, 0), with(-1, 0), with(2, 1)]
}
