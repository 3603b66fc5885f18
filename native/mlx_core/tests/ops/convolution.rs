//! Kernels that slide over batches of arrays with channels.

use crate::case::*;
use crate::numbers::*;

tests! {
    kernels_slide_along_lines => lines;
    channels_are_summed_and_groups_kept_apart => channels;
    planes_and_higher_spaces_are_convolved => spaces;
    kernels_of_every_type_multiply => every_type;
    nothing_is_convolved_to_zeros => empty;
    kernels_that_do_not_fit_are_refused => misfits;
}

/// Steps and paddings along each axis.
#[derive(Clone, Copy)]
struct Geometry {
    strides: &'static [i64],
    low: &'static [i64],
    high: &'static [i64],
    input_dilation: &'static [i64],
    kernel_dilation: &'static [i64],
    groups: i64,
}

const LINE: Geometry = Geometry {
    strides: &[1],
    low: &[0],
    high: &[0],
    input_dilation: &[1],
    kernel_dilation: &[1],
    groups: 1,
};

fn convolve(x: Tensor, kernels: Tensor, geometry: Geometry) -> Case {
    case("convolution").on([x, kernels]).with([
        ints(geometry.strides),
        ints(geometry.low),
        ints(geometry.high),
        ints(geometry.input_dilation),
        ints(geometry.kernel_dilation),
        int(geometry.groups),
    ])
}

/// Two digits: the window's first element times ten, and its second.
fn lines_of<T: Float>() -> Vec<Case> {
    let line = |geometry, y: &[f64]| {
        let x = tensor(&floats::<T>(&[1.0, 2.0, 3.0, 4.0]), &[1, 4, 1]);
        let kernel = tensor(&floats::<T>(&[10.0, 1.0]), &[1, 2, 1]);
        convolve(x, kernel, geometry).gives(tensor(&floats::<T>(y), &[1, y.len() as i64, 1]))
    };
    vec![
        line(LINE, &[12.0, 23.0, 34.0]),
        line(
            Geometry {
                strides: &[2],
                ..LINE
            },
            &[12.0, 34.0],
        ),
        line(Geometry { low: &[1], ..LINE }, &[1.0, 12.0, 23.0, 34.0]),
        line(
            Geometry { high: &[2], ..LINE },
            &[12.0, 23.0, 34.0, 40.0, 0.0],
        ),
        line(
            Geometry {
                kernel_dilation: &[2],
                ..LINE
            },
            &[13.0, 24.0],
        ),
        line(
            Geometry {
                input_dilation: &[2],
                ..LINE
            },
            &[10.0, 2.0, 20.0, 3.0, 30.0, 4.0],
        ),
    ]
}

fn lines() -> Vec<Case> {
    for_floats!(lines_of()).concat()
}

fn channels() -> Vec<Case> {
    let x = || tensor(&[1f32, 10.0, 2.0, 20.0, 3.0, 30.0], &[1, 3, 2]);
    let both = tensor(&[1f32, 1.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0], &[2, 2, 2]);
    let own = tensor(&[1f32, 2.0, 3.0, 4.0], &[2, 2, 1]);
    let batch = tensor(&[1f32, 2.0, 3.0, 4.0], &[2, 2, 1]);
    let grouped = Geometry { groups: 2, ..LINE };
    vec![
        convolve(x(), both, LINE).gives(tensor(&[51f32, 1.0, 82.0, 2.0], &[1, 2, 2])),
        convolve(x(), own, grouped).gives(tensor(&[5f32, 110.0, 8.0, 180.0], &[1, 2, 2])),
        convolve(batch, tensor(&[10f32, 1.0], &[1, 2, 1]), LINE)
            .gives(tensor(&[12f32, 34.0], &[2, 1, 1])),
    ]
}

const PLANE: Geometry = Geometry {
    strides: &[1, 1],
    low: &[0, 0],
    high: &[0, 0],
    input_dilation: &[1, 1],
    kernel_dilation: &[1, 1],
    groups: 1,
};
const LOPSIDED: Geometry = Geometry {
    strides: &[2, 1],
    low: &[0, 1],
    high: &[1, 0],
    ..PLANE
};
const HIGHER: Geometry = Geometry {
    strides: &[1; 4],
    low: &[0; 4],
    high: &[0; 4],
    input_dilation: &[1; 4],
    kernel_dilation: &[1; 4],
    groups: 1,
};

fn spaces() -> Vec<Case> {
    let square = || {
        tensor(
            &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
            &[1, 3, 3, 1],
        )
    };
    let kernel = || tensor(&[1000f32, 100.0, 10.0, 1.0], &[1, 2, 2, 1]);
    let digits = [1245f32, 2356.0, 4578.0, 5689.0];
    let sides = [104f32, 1245.0, 2356.0, 700.0, 7800.0, 8900.0];
    let ones = |side: i64| {
        tensor(
            &vec![1f32; side.pow(4) as usize],
            &[1, side, side, side, side, 1],
        )
    };
    vec![
        convolve(square(), kernel(), PLANE).gives(tensor(&digits, &[1, 2, 2, 1])),
        convolve(square(), kernel(), LOPSIDED).gives(tensor(&sides, &[1, 2, 3, 1])),
        convolve(ones(3), ones(2), HIGHER).gives(tensor(&[16f32; 16], &[1, 2, 2, 2, 2, 1])),
    ]
}

fn every_type() -> Vec<Case> {
    let x = tensor(&[[1f32, 1.0], [2.0, 0.0], [0.0, -1.0]], &[1, 3, 1]);
    let kernel = tensor(&[[0f32, 1.0], [2.0, 0.0]], &[1, 2, 1]);
    let y = tensor(&[[3f32, 1.0], [0.0, 0.0]], &[1, 2, 1]);
    let complex = convolve(x, kernel, LINE).gives(y);
    let wide = tensor(&[1f64 + 1e-12, 1.0], &[1, 2, 1]);
    let precise = convolve(wide, tensor(&[1f64, -1.0], &[1, 2, 1]), LINE)
        .gives(tensor(&[(1f64 + 1e-12) - 1.0], &[1, 1, 1]));
    vec![complex, precise]
}

fn empty() -> Vec<Case> {
    let x = tensor::<f32>(&[], &[0, 4, 1]);
    let kernel = || tensor(&[1f32, 1.0], &[1, 2, 1]);
    let channels = tensor::<f32>(&[], &[1, 2, 0]);
    let none = tensor::<f32>(&[], &[1, 3, 0]);
    vec![
        convolve(x, kernel(), LINE).gives(tensor::<f32>(&[], &[0, 3, 1])),
        convolve(none, channels, LINE).gives(tensor(&[0f32; 2], &[1, 2, 1])),
    ]
}

fn misfits() -> Vec<Case> {
    let x = || tensor(&[1f32; 4], &[1, 4, 1]);
    let kernel = |size: i64| tensor(&vec![1f32; size as usize], &[1, size, 1]);
    let on = |geometry| convolve(x(), kernel(2), geometry);
    [
        convolve(x(), kernel(5), LINE),
        convolve(x(), tensor(&[1f32; 4], &[1, 2, 2]), LINE),
        convolve(x(), tensor(&[1f32; 4], &[1, 2, 2, 1]), LINE),
        on(Geometry {
            strides: &[0],
            ..LINE
        }),
        on(Geometry { low: &[-1], ..LINE }),
        on(Geometry {
            kernel_dilation: &[0],
            ..LINE
        }),
        on(Geometry { groups: 0, ..LINE }),
        on(Geometry { groups: 2, ..LINE }),
        on(Geometry {
            strides: &[1, 1],
            ..LINE
        }),
    ]
    .map(Case::refused)
    .into()
}
