//! Windows that slide over an array.

use mlx_core::{Attribute, Program};

use crate::case::*;
use crate::common;
use crate::numbers::*;

tests! {
    windows_of_all_sizes_match_plain_loops => lines;
    windows_of_two_axes_slide => planes;
    windows_of_every_type_are_folded => every_type;
    a_nan_makes_windows_nan => nans;
    a_program_folds_windows_in_row_order => folds;
    sources_go_where_the_last_extreme_is => scatters;
    windows_that_do_not_fit_are_refused => misfits;
}

type Pairwise = (&'static str, fn(f64, f64) -> f64);

const OPS: [Pairwise; 4] = [
    ("window_sum", |a, b| a + b),
    ("window_product", |a, b| a * b),
    ("window_max", f64::max),
    ("window_min", f64::min),
];

fn slide(op: &'static str, x: Tensor, [sizes, strides, dilations]: [&[i64]; 3], y: Tensor) -> Case {
    case(op)
        .on([x])
        .with([ints(sizes), ints(strides), ints(dilations)])
        .gives(y)
}

/// Every window of a line, as a loop finds it; small whole numbers stay exact.
fn lines() -> Vec<Case> {
    let x: Vec<f64> = (0..24).map(|i| f64::from(i * 7 % 5) - 1.0).collect();
    let mut cases = Vec::new();
    for size in [1, 2, 3, 4, 7, 8, 13] {
        for (stride, dilation) in [(1, 1), (2, 1), (1, 2), (3, 1)] {
            let reach = (size - 1) * dilation;
            if reach >= x.len() {
                continue;
            }
            for (op, oracle) in OPS {
                let window = |start: usize| {
                    let elements = (0..size).map(|i| x[start + i * dilation]);
                    elements.reduce(oracle).unwrap()
                };
                let y: Vec<f64> = (0..x.len() - reach).step_by(stride).map(window).collect();
                let shape = [size, stride, dilation].map(|n| [n as i64]);
                let shape = [&shape[0][..], &shape[1], &shape[2]];
                cases.push(slide(op, vector(&x), shape, vector(&y)));
            }
        }
    }
    cases
}

fn planes() -> Vec<Case> {
    let x = || tensor(&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[3, 3]);
    let dense = [&[2i64, 2][..], &[1, 1], &[1, 1]];
    let apart = [&[2i64, 2][..], &[1, 1], &[2, 2]];
    let far = [&[1i64, 2][..], &[2, 1], &[1, 1]];
    vec![
        slide(OPS[0].0, x(), dense, tensor(&[12, 16, 24, 28], &[2, 2])),
        slide(OPS[2].0, x(), dense, tensor(&[5, 6, 8, 9], &[2, 2])),
        slide(OPS[1].0, x(), apart, tensor(&[189], &[1, 1])),
        slide(OPS[3].0, x(), far, tensor(&[1, 2, 7, 8], &[2, 2])),
    ]
}

fn every_type() -> Vec<Case> {
    const SHAPE: [&[i64]; 3] = [&[2], &[1], &[1]];
    fn of_floats<T: Float>() -> Vec<Case> {
        let of = |values: &[f64]| vector(&floats::<T>(values));
        let slide = |op, y: &[f64]| slide(op, of(&[1.5, -2.0, 4.0]), SHAPE, of(y));
        vec![
            slide(OPS[0].0, &[-0.5, 2.0]),
            slide(OPS[1].0, &[-3.0, -8.0]),
            slide(OPS[2].0, &[1.5, 4.0]),
            slide(OPS[3].0, &[-2.0, -2.0]),
        ]
    }
    fn of_integers<T: Integer>() -> Vec<Case> {
        let of = |values: &[i128]| vector(&integers::<T>(values));
        let high = T::MAX.wide();
        let slide = |op, y: &[i128]| slide(op, of(&[2, high, 3]), SHAPE, of(y));
        vec![
            slide(OPS[0].0, &[high + 2, high + 3]),
            slide(OPS[1].0, &[high.wrapping_mul(2), high.wrapping_mul(3)]),
            slide(OPS[2].0, &[high, high]),
            slide(OPS[3].0, &[2, 3]),
        ]
    }
    let one = slide(OPS[0].0, vector(&[200u8, 100]), SHAPE, vector(&[44u8]));
    [
        for_floats!(of_floats()).concat(),
        for_integers!(of_integers()).concat(),
        vec![one],
    ]
    .concat()
}

fn nans() -> Vec<Case> {
    let nan = f32::NAN;
    let x = || vector(&[1f32, nan, 1.0, 1.0]);
    OPS.map(|(op, _)| {
        let y = if op == "window_sum" { 2.0 } else { 1.0 };
        slide(op, x(), [&[2], &[1], &[1]], vector(&[nan, nan, y]))
    })
    .into()
}

/// Ten times what there is so far and the element, with the ten from outside.
fn folds() -> Vec<Case> {
    let digits = || {
        let step = vec![
            common::instruction("multiply", &[1, 2], vec![]),
            common::instruction("add", &[3, 0], vec![]),
        ];
        Attribute::Program(Box::new(Program::new(3, step, vec![4]).unwrap()))
    };
    let fold = |x: Tensor, [sizes, strides, dilations]: [&[i64]; 3], y: Tensor| {
        case("window_fold")
            .on([x, scalar(0i64), scalar(10i64)])
            .with([ints(sizes), ints(strides), ints(dilations), digits()])
            .gives(y)
    };
    let square = || tensor(&[1i64, 2, 3, 4, 5, 6, 7, 8, 9], &[3, 3]);
    let corners = tensor(&[1245i64, 2356, 4578, 5689], &[2, 2]);
    vec![
        fold(
            vector(&[1i64, 2, 3]),
            [&[2], &[1], &[1]],
            vector(&[12i64, 23]),
        ),
        fold(
            vector(&[1i64, 2, 3, 4]),
            [&[2], &[2], &[1]],
            vector(&[12i64, 34]),
        ),
        fold(square(), [&[2, 2], &[1, 1], &[1, 1]], corners),
        fold(
            square(),
            [&[2, 2], &[1, 1], &[2, 2]],
            tensor(&[1379i64], &[1, 1]),
        ),
    ]
}

fn scatters() -> Vec<Case> {
    let scatter = |op, x: &[f32], source: &[f32], stride, y: &[f32]| {
        case(op)
            .on([vector(x), vector(source), scalar(0.5f32)])
            .with([ints(&[2]), ints(&[stride])])
            .gives(vector(y))
    };
    let (max, min) = ("window_scatter_max", "window_scatter_min");
    vec![
        scatter(
            max,
            &[1.0, 3.0, 5.0, 2.0],
            &[10.0, 20.0],
            2,
            &[0.5, 10.5, 20.5, 0.5],
        ),
        scatter(
            min,
            &[1.0, 3.0, 5.0, 2.0],
            &[10.0, 20.0],
            2,
            &[10.5, 0.5, 0.5, 20.5],
        ),
        scatter(max, &[4.0, 4.0], &[10.0], 1, &[0.5, 10.5]),
        scatter(min, &[4.0, 4.0], &[10.0], 1, &[0.5, 10.5]),
        scatter(max, &[1.0, 5.0, 2.0], &[10.0, 20.0], 1, &[0.5, 30.5, 0.5]),
        scatter(min, &[5.0, 1.0, 2.0], &[10.0, 20.0], 1, &[0.5, 30.5, 0.5]),
    ]
}

fn misfits() -> Vec<Case> {
    let slide = |op, [sizes, strides, dilations]: [&[i64]; 3]| {
        case(op)
            .on([vector(&[1f32, 2.0, 3.0])])
            .with([ints(sizes), ints(strides), ints(dilations)])
    };
    OPS.iter()
        .flat_map(|&(op, _)| {
            [
                slide(op, [&[4], &[1], &[1]]),
                slide(op, [&[2], &[1], &[3]]),
                slide(op, [&[0], &[1], &[1]]),
                slide(op, [&[1], &[0], &[1]]),
                slide(op, [&[1], &[1], &[-1]]),
                slide(op, [&[1, 1], &[1, 1], &[1, 1]]),
            ]
        })
        .map(Case::refused)
        .collect()
}
