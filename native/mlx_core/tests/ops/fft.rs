//! Fourier transforms, against sums written out.

use std::f64::consts::TAU;

use mlx_core::Attribute;

use crate::case::*;

tests! {
    transforms_are_the_sums_that_define_them => definitions;
    other_lengths_cut_or_pad => lengths;
    any_axis_is_transformed => axes;
    noise_is_removed => noise;
    transforms_of_no_numbers_are_refused => misfits;
}

type Complex = (f64, f64);

fn signal(length: usize) -> Vec<Complex> {
    let wave = |i: usize, step: usize| ((i * step % 7) as f64 - 3.0) / 2.0;
    (0..length).map(|i| (wave(i, 3), wave(i, 5))).collect()
}

/// Each element is the sum of all, turned by multiples of its share of the circle.
fn transform(x: &[Complex], direction: f64) -> Vec<Complex> {
    let length = x.len() as f64;
    (0..x.len())
        .map(|k| {
            x.iter().enumerate().fold((0.0, 0.0), |sum, (i, (re, im))| {
                let (sin, cos) = (direction * TAU * (i * k) as f64 / length).sin_cos();
                (sum.0 + re * cos - im * sin, sum.1 + re * sin + im * cos)
            })
        })
        .collect()
}

fn inverse(x: &[Complex]) -> Vec<Complex> {
    let length = x.len() as f64;
    let turned = transform(x, 1.0);
    turned
        .iter()
        .map(|(re, im)| (re / length, im / length))
        .collect()
}

fn complex(values: &[Complex]) -> Tensor {
    let pairs: Vec<[f32; 2]> = values
        .iter()
        .map(|&(re, im)| [re as f32, im as f32])
        .collect();
    vector(&pairs)
}

fn real(values: &[Complex]) -> Tensor {
    vector(&values.iter().map(|&(re, _)| re as f32).collect::<Vec<_>>())
}

fn of(op: &'static str, x: Tensor, length: usize, y: Tensor) -> Case {
    case(op)
        .on([x])
        .with([int(length as i64), int(0), Attribute::Float(1e-10)])
        .gives(y)
        .near(1e-5 * length as f64)
}

fn definitions() -> Vec<Case> {
    [1, 2, 3, 4, 5, 7, 8, 12, 17, 64, 90, 101]
        .into_iter()
        .flat_map(|length| {
            let x = signal(length);
            let reals: Vec<Complex> = x.iter().map(|&(re, _)| (re, 0.0)).collect();
            let half = length / 2 + 1;
            let spectrum = transform(&reals, -1.0);
            vec![
                of("fft", complex(&x), length, complex(&transform(&x, -1.0))),
                of("fft", real(&x), length, complex(&spectrum)),
                of("ifft", complex(&x), length, complex(&inverse(&x))),
                of("rfft", real(&x), length, complex(&spectrum[..half])),
                of("irfft", complex(&spectrum[..half]), length, real(&reals)),
            ]
        })
        .collect()
}

fn lengths() -> Vec<Case> {
    let x = signal(10);
    [1, 4, 9, 13, 32]
        .into_iter()
        .flat_map(|length| {
            let mut fitted = x.clone();
            fitted.resize(length, (0.0, 0.0));
            vec![
                of(
                    "fft",
                    complex(&x),
                    length,
                    complex(&transform(&fitted, -1.0)),
                ),
                of("ifft", complex(&x), length, complex(&inverse(&fitted))),
            ]
        })
        .collect()
}

fn axes() -> Vec<Case> {
    let x = tensor(&[1f32, 2.0, 3.0, 5.0], &[2, 2]);
    let y = |values: [f32; 4]| tensor(&values.map(|re| [re, 0.0]), &[2, 2]);
    let along = |axis| {
        case("fft")
            .on([x.clone()])
            .with([int(2), int(axis), int(0)])
    };
    vec![
        along(0).gives(y([4.0, 7.0, -2.0, -3.0])),
        along(1).gives(y([3.0, -1.0, 8.0, -2.0])),
    ]
}

fn noise() -> Vec<Case> {
    let alone = tensor(&[[1f32, -0.25], [-0.5, 3.0]], &[2, 1]);
    let with = |op, x, eps| {
        case(op)
            .on([x])
            .with([int(1), int(1), Attribute::Float(eps)])
    };
    vec![
        with("fft", alone.clone(), 0.5).gives(tensor(&[[1f32, 0.0], [0.0, 3.0]], &[2, 1])),
        with("fft", alone.clone(), 0.49).gives(tensor(&[[1f32, 0.0], [-0.5, 3.0]], &[2, 1])),
        with("ifft", alone, 5.0).gives(tensor(&[[0f32, 0.0], [0.0, 0.0]], &[2, 1])),
    ]
}

fn misfits() -> Vec<Case> {
    let of = |op: &'static str, x: Tensor, length, axis| {
        case(op).on([x]).with([int(length), int(axis), int(0)])
    };
    ["fft", "ifft", "rfft", "irfft"]
        .into_iter()
        .flat_map(|op| {
            [
                of(op, scalar(1f32), 1, 0),
                of(op, vector(&[1f32, 2.0]), 0, 0),
                of(op, vector(&[1f32, 2.0]), -1, 0),
                of(op, vector(&[1f32, 2.0]), 2, 1),
            ]
        })
        .map(Case::refused)
        .collect()
}
