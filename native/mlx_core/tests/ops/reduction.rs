//! Sums, products, extremes and where they are.

use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::*;

tests! {
    sums_over_any_axes => sums;
    products_over_any_axes => products;
    extremes_over_any_axes => extremes;
    narrow_integers_add_up_in_wider_ones => narrow_integers;
    wide_integers_wrap => wide_integers;
    floats_of_every_type_add_up => floats_of_every_type;
    long_axes_are_reduced_whole => long_axes;
    long_sums_keep_their_precision => long_sums;
    integer_extremes_respect_signs => integer_extremes;
    a_nan_anywhere_makes_extremes_nan => nans;
    all_and_any_ask_for_truth => truths;
    the_first_of_equals_is_found => first_of_equals;
    the_last_of_equals_is_found => last_of_equals;
    the_last_nan_is_an_extreme => last_nan;
    empty_axes_give_neutral_elements => empty;
    axes_that_are_not_there_are_refused => wrong_axes;
    axes_that_are_not_kept_go => dropped_axes;
}

/// 2 × 3 × 4, counting from 1.
fn cube() -> Tensor {
    let values: Vec<f32> = (1..=24u8).map(f32::from).collect();
    tensor(&values, &[2, 3, 4])
}

fn over(op: &'static str, x: Tensor, axes: &[i64], y: Tensor) -> Case {
    case(op)
        .on([x])
        .with([ints(axes), Attribute::Bool(true)])
        .gives(y)
}

fn sums() -> Vec<Case> {
    let sum = |axes: &[i64], y: &[f32], dims: &[i64]| over("sum", cube(), axes, tensor(y, dims));
    let to_12: Vec<f32> = (0..12u8).map(|i| f32::from(2 * i + 14)).collect();
    vec![
        sum(&[0], &to_12, &[1, 3, 4]),
        sum(
            &[1],
            &[15.0, 18.0, 21.0, 24.0, 51.0, 54.0, 57.0, 60.0],
            &[2, 1, 4],
        ),
        sum(&[2], &[10.0, 26.0, 42.0, 58.0, 74.0, 90.0], &[2, 3, 1]),
        sum(&[0, 1], &[66.0, 72.0, 78.0, 84.0], &[1, 1, 4]),
        sum(&[0, 2], &[68.0, 100.0, 132.0], &[1, 3, 1]),
        sum(&[2, 0], &[68.0, 100.0, 132.0], &[1, 3, 1]),
        sum(&[1, 2], &[78.0, 222.0], &[2, 1, 1]),
        sum(&[0, 1, 2], &[300.0], &[1, 1, 1]),
        over("sum", cube(), &[], cube()),
        over("sum", scalar(5f32), &[], scalar(5f32)),
        over("sum", vector(&[0.5f32; 10_001]), &[0], vector(&[5000.5f32])),
    ]
}

fn products() -> Vec<Case> {
    let matrix = || tensor(&[1f32, 2.0, 3.0, -4.0, 0.5, 6.0], &[2, 3]);
    vec![
        over(
            "product",
            matrix(),
            &[0],
            tensor(&[-4f32, 1.0, 18.0], &[1, 3]),
        ),
        over("product", matrix(), &[1], tensor(&[6f32, -12.0], &[2, 1])),
        over("product", matrix(), &[0, 1], tensor(&[-72f32], &[1, 1])),
        over("product", matrix(), &[], matrix()),
    ]
}

fn extremes() -> Vec<Case> {
    let matrix = || tensor(&[3f32, -1.0, 2.0, 0.0, 7.0, -5.0], &[2, 3]);
    let max =
        |axes: &[i64], y: &[f32], dims: &[i64]| over("reduce_max", matrix(), axes, tensor(y, dims));
    let min =
        |axes: &[i64], y: &[f32], dims: &[i64]| over("reduce_min", matrix(), axes, tensor(y, dims));
    let low = || vector(&[f32::NEG_INFINITY]);
    let highest = tensor(&[16f32, 20.0, 24.0], &[1, 3, 1]);
    let lowest = tensor(&[1f32, 5.0, 9.0], &[1, 3, 1]);
    vec![
        max(&[0], &[3.0, 7.0, 2.0], &[1, 3]),
        max(&[1], &[3.0, 7.0], &[2, 1]),
        max(&[1, 0], &[7.0], &[1, 1]),
        min(&[0], &[0.0, -1.0, -5.0], &[1, 3]),
        min(&[1], &[-1.0, -5.0], &[2, 1]),
        min(&[0, 1], &[-5.0], &[1, 1]),
        over("reduce_max", cube(), &[0, 2], highest),
        over("reduce_min", cube(), &[0, 2], lowest),
        over("reduce_max", low(), &[0], low()),
    ]
}

fn narrow_integers() -> Vec<Case> {
    vec![
        over("sum", vector(&[200u8; 100]), &[0], vector(&[20_000u32])),
        over("sum", vector(&[60_000u16; 3]), &[0], vector(&[180_000u32])),
        over("sum", vector(&[-100i8; 100]), &[0], vector(&[-10_000i32])),
        over("sum", vector(&[i16::MIN; 3]), &[0], vector(&[-98_304i32])),
        over("sum", vector(&[true, false, true]), &[0], vector(&[2i32])),
        over("product", vector(&[100u8, 100]), &[0], vector(&[10_000u32])),
        over(
            "product",
            vector(&[-100i8, 100]),
            &[0],
            vector(&[-10_000i32]),
        ),
    ]
}

fn wide_integers() -> Vec<Case> {
    vec![
        over("sum", vector(&[i64::MAX, 2]), &[0], vector(&[i64::MIN + 1])),
        over("sum", vector(&[u64::MAX, 2]), &[0], vector(&[1u64])),
        over(
            "sum",
            vector(&[1i64 << 53, 1, 1]),
            &[0],
            vector(&[(1i64 << 53) + 2]),
        ),
        over("sum", vector(&[u32::MAX, 2]), &[0], vector(&[1u32])),
        over(
            "product",
            vector(&[1u64 << 40, 1 << 23, 3]),
            &[0],
            vector(&[3u64 << 63]),
        ),
        over(
            "product",
            vector(&[3i64, -(1 << 61)]),
            &[0],
            vector(&[-(3i64 << 61)]),
        ),
    ]
}

fn floats_of_every_type() -> Vec<Case> {
    fn all<T: Float>() -> Vec<Case> {
        let matrix = || tensor(&floats::<T>(&[1.5, -2.0, 4.0, 0.25]), &[2, 2]);
        let on = |op, y: &[f64], dims: &[i64], axes: &[i64]| {
            over(op, matrix(), axes, tensor(&floats::<T>(y), dims))
        };
        vec![
            on("sum", &[5.5, -1.75], &[1, 2], &[0]),
            on("sum", &[3.75], &[1, 1], &[0, 1]),
            on("product", &[-3.0, 1.0], &[2, 1], &[1]),
            on("reduce_max", &[1.5, 4.0], &[2, 1], &[1]),
            on("reduce_min", &[1.5, -2.0], &[1, 2], &[0]),
        ]
    }
    for_floats!(all()).concat()
}

/// Longer than what is folded at once, with a rest.
fn long_axes() -> Vec<Case> {
    const LONG: usize = 1501;
    fn ends<T: Element>(op: &'static str, most: T, last: T, y: impl Element) -> Vec<Case> {
        let mut x = vec![most; LONG];
        x[LONG - 1] = last;
        let pairs: Vec<T> = x.iter().flat_map(|&x| [x, x]).collect();
        let pairs = tensor(&pairs, &[LONG as i64, 2]);
        vec![
            over(op, vector(&x), &[0], vector(&[y])),
            over(op, pairs, &[0], tensor(&[y, y], &[1, 2])),
        ]
    }
    [
        ends("sum", 200u8, 1, 300_001u32),
        ends("sum", -100i8, 1, -149_999i32),
        ends("sum", true, false, 1500i32),
        ends("sum", 2i64, i64::MAX, i64::MIN + 2999),
        ends("sum", 2f32, 0.5, 3000.5f32),
        ends("sum", [1f32, -2.0], [0.0, 0.5], [1500f32, -2999.5]),
        ends("product", 1u8, 7, 7u32),
        ends("product", 1f64, -2.5, -2.5f64),
        ends("reduce_max", -3i16, 5, 5i16),
        ends("reduce_max", 1f32, f32::NAN, f32::NAN),
        ends("reduce_min", 3u64, 2, 2u64),
        ends(
            "reduce_min",
            half::bf16::ONE,
            half::bf16::NAN,
            half::bf16::NAN,
        ),
        ends("all", true, false, false),
        ends("any", 0f32, 0.5, true),
    ]
    .concat()
}

/// Added one by one in their own type, ones stop at 256 in bf16 and at 2048 in f16.
fn long_sums() -> Vec<Case> {
    fn halves<T: Float>() -> Vec<Case> {
        let ones = [T::of(1.0); 5000];
        vec![
            over("sum", vector(&ones), &[0], vector(&[T::of(5000.0)])),
            over(
                "sum",
                tensor(&ones, &[2500, 2]),
                &[0],
                tensor(&[T::of(2500.0); 2], &[1, 2]),
            ),
        ]
    }
    let tenths = vec![0.1f32; 1 << 20];
    let sum = 0.1 * tenths.len() as f32;
    let singles = [
        over("sum", vector(&tenths), &[0], vector(&[sum])),
        over(
            "sum",
            tensor(&tenths, &[1 << 19, 2]),
            &[0],
            tensor(&[sum / 2.0; 2], &[1, 2]),
        ),
    ];
    let close = |case: Case| case.within(1e-4);
    [
        halves::<half::bf16>(),
        halves::<half::f16>(),
        singles.map(close).into(),
    ]
    .concat()
}

fn integer_extremes() -> Vec<Case> {
    fn both<T: Integer>() -> Vec<Case> {
        let values = corners::<T>();
        let rows = tensor(&values, &[2, values.len() as i64 / 2]);
        vec![
            over(
                "reduce_max",
                rows.clone(),
                &[0, 1],
                tensor(&[T::MAX], &[1, 1]),
            ),
            over("reduce_min", rows, &[0, 1], tensor(&[T::MIN], &[1, 1])),
        ]
    }
    for_integers!(both()).concat()
}

/// At every place of rows that vector units take whole and of rows they don't.
fn nans() -> Vec<Case> {
    fn both<T: Float>() -> Vec<Case> {
        let nan = T::of(f64::NAN);
        let length = |n: usize| {
            let mut rows: Vec<T> = (0..n * n).map(|i| T::of((i % 5) as f64)).collect();
            (0..n).for_each(|i| rows[i * n + i] = nan);
            let side = n as i64;
            let rows = tensor(&rows, &[side, side]);
            ["reduce_max", "reduce_min"].map(|op| {
                let across = tensor(&vec![nan; n], &[side, 1]);
                let down = tensor(&vec![nan; n], &[1, side]);
                let all = tensor(&[nan], &[1, 1]);
                let rows = || rows.clone();
                [
                    over(op, rows(), &[1], across),
                    over(op, rows(), &[0], down),
                    over(op, rows(), &[0, 1], all),
                ]
            })
        };
        [1, 3, 16, 37].map(length).concat().concat()
    }
    for_floats!(both()).concat()
}

fn truths() -> Vec<Case> {
    let table = || tensor(&[true, true, false, true, false, false], &[3, 2]);
    vec![
        over("all", table(), &[1], tensor(&[true, false, false], &[3, 1])),
        over("any", table(), &[1], tensor(&[true, true, false], &[3, 1])),
        over("all", table(), &[0], tensor(&[false, false], &[1, 2])),
        over("any", table(), &[0, 1], tensor(&[true], &[1, 1])),
        over("all", vector(&[f32::NAN, 0.5]), &[0], vector(&[true])),
        over("any", vector(&[0.0f32, -0.0]), &[0], vector(&[false])),
        over("all", vector(&[256i32, 1 << 30]), &[0], vector(&[true])),
        over("any", vector(&[0u64, 1 << 63]), &[0], vector(&[true])),
    ]
}

fn first_of_equals() -> Vec<Case> {
    fn of_integers<T: Integer>() -> Vec<Case> {
        let values = [T::of(1), T::MAX, T::MIN, T::MAX, T::MIN];
        found(&values, 1, 2)
    }
    fn of_floats<T: Float>() -> Vec<Case> {
        let infinity = f64::INFINITY;
        [
            found(&floats::<T>(&[0.5, 2.0, -1.0, 2.0, -1.0]), 1, 2),
            found(&floats::<T>(&[0.0, -infinity, infinity, infinity]), 2, 1),
            found(&[T::of(3.0); 70], 0, 0),
        ]
        .concat()
    }
    let matrix = || tensor(&[1f32, 5.0, 5.0, 5.0, 0.0, 0.0], &[2, 3]);
    let along = |op, axis, y: &[u32], dims: &[i64]| {
        case(op)
            .on([matrix()])
            .with([int(axis), Attribute::Bool(false)])
            .gives(tensor(y, dims))
    };
    let axes = vec![
        along("argmax", 1, &[1, 0], &[2, 1]),
        along("argmin", 1, &[0, 1], &[2, 1]),
        along("argmax", 0, &[1, 0, 0], &[1, 3]),
        along("argmin", 0, &[0, 1, 1], &[1, 3]),
    ];
    [
        for_integers!(of_integers()).concat(),
        for_floats!(of_floats()).concat(),
        axes,
    ]
    .concat()
}

/// In short axes and in long ones, whose blocks are searched one by one.
fn last_of_equals() -> Vec<Case> {
    let last = |op, x: Tensor, place: u32| {
        case(op)
            .on([x])
            .with([int(0), Attribute::Bool(true)])
            .gives(vector(&[place]))
    };
    [3, 1023, 1024, 1536, 2500]
        .map(|size| {
            let equals = vector(&vec![7u8; size]);
            let mut values = vec![1i32; size];
            (values[0], values[size - 2]) = (9, 9);
            let end = size as u32 - 1;
            [
                last("argmax", equals.clone(), end),
                last("argmin", equals, end),
                last("argmax", vector(&values), end - 1),
                last("argmin", vector(&values), end),
            ]
        })
        .concat()
}

fn last_nan() -> Vec<Case> {
    fn both<T: Float>() -> Vec<Case> {
        [(4usize, 2usize), (1200, 1023), (2500, 2499), (2500, 0)]
            .map(|(size, place)| {
                let mut values = vec![T::of(f64::INFINITY); size];
                (values[0], values[place]) = (T::of(f64::NAN), T::of(f64::NAN));
                ["argmax", "argmin"].map(|op| {
                    [false, true].map(|last| {
                        case(op)
                            .on([vector(&values)])
                            .with([int(0), Attribute::Bool(last)])
                            .gives(vector(&[place as u32]))
                    })
                })
            })
            .concat()
            .concat()
    }
    for_floats!(both()).concat()
}

fn found<T: Element>(values: &[T], largest: u32, smallest: u32) -> Vec<Case> {
    [("argmax", largest), ("argmin", smallest)]
        .map(|(op, place)| {
            case(op)
                .on([vector(values)])
                .with([int(0), Attribute::Bool(false)])
                .gives(vector(&[place]))
        })
        .into()
}

fn empty() -> Vec<Case> {
    let rows = || tensor::<f32>(&[], &[2, 0]);
    let none = || tensor::<f32>(&[], &[1, 0]);
    vec![
        over("sum", rows(), &[1], tensor(&[0f32, 0.0], &[2, 1])),
        over("sum", rows(), &[0], none()),
        over("sum", rows(), &[0, 1], tensor(&[0f32], &[1, 1])),
        over("product", rows(), &[1], tensor(&[1f32, 1.0], &[2, 1])),
        over("all", rows(), &[1], tensor(&[true, true], &[2, 1])),
        over("any", rows(), &[1], tensor(&[false, false], &[2, 1])),
        over("reduce_max", rows(), &[0], none()),
        case("reduce_max")
            .on([rows()])
            .with([ints(&[1]), Attribute::Bool(true)])
            .fails("reduce_max(f32[2][0]): "),
        case("reduce_min")
            .on([rows()])
            .with([ints(&[1]), Attribute::Bool(true)])
            .fails("reduce_min(f32[2][0]): "),
        case("argmax")
            .on([rows()])
            .with([int(1), Attribute::Bool(false)])
            .fails("argmax(f32[2][0]): "),
        case("argmin")
            .on([rows()])
            .with([int(1), Attribute::Bool(false)])
            .fails("argmin(f32[2][0]): "),
    ]
}

fn wrong_axes() -> Vec<Case> {
    let row = || vector(&[1f32, 2.0]);
    let reductions = ["sum", "product", "reduce_max", "reduce_min", "all", "any"];
    let reductions = reductions
        .into_iter()
        .flat_map(|op| [(op, ints(&[1])), (op, ints(&[0, 0])), (op, ints(&[-2]))])
        .map(|(op, axes)| {
            case(op)
                .on([row()])
                .with([axes, Attribute::Bool(false)])
                .fails("(f32[2]): ")
        });
    let places = ["argmax", "argmin"].into_iter().flat_map(|op| {
        [1, -1].map(|axis| {
            case(op)
                .on([row()])
                .with([int(axis), Attribute::Bool(false)])
                .fails("(f32[2]): ")
        })
    });
    reductions.chain(places).collect()
}

fn dropped_axes() -> Vec<Case> {
    let matrix = || tensor(&[1f32, 2.0, 3.0, 0.0, 5.0, 6.0], &[2, 3]);
    let over = |op, axes: &[i64], y: Tensor| {
        case(op)
            .on([matrix()])
            .with([ints(axes), Attribute::Bool(false)])
            .gives(y)
    };
    vec![
        over("sum", &[1], vector(&[6f32, 11.0])),
        over("sum", &[1, 0], scalar(17f32)),
        over("sum", &[], matrix()),
        over("product", &[0], vector(&[0f32, 10.0, 18.0])),
        over("reduce_max", &[0, 1], scalar(6f32)),
        over("reduce_min", &[1], vector(&[1f32, 0.0])),
        over("all", &[0], vector(&[false, true, true])),
        over("any", &[0, 1], scalar(true)),
    ]
}
