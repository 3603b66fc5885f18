//! Parts that lie together, and arrays with such a part replaced.

use crate::case::*;
use crate::numbers::*;

tests! {
    slices_have_starts_stops_and_strides => slices;
    dynamic_slices_move_so_that_they_fit => dynamic_slices;
    parts_are_put_where_they_are_told => put_slices;
    dynamic_parts_move_so_that_they_fit => dynamic_puts;
    starts_of_every_type_are_clamped => every_start_type;
    elements_of_every_type_are_sliced => every_type;
    empty_slices_are_empty => empty;
    parts_that_do_not_fit_are_refused => misfits;
}

/// 0 to 11 in three rows.
pub fn grid() -> Tensor {
    let values: Vec<i32> = (0..12).collect();
    tensor(&values, &[3, 4])
}

fn slices() -> Vec<Case> {
    let slice = |starts: &[i64], stops: &[i64], strides: &[i64], y| {
        case("slice")
            .on([grid()])
            .with([ints(starts), ints(stops), ints(strides)])
            .gives(y)
    };
    vec![
        slice(&[0, 0], &[3, 4], &[1, 1], grid()),
        slice(&[1, 1], &[3, 3], &[1, 1], tensor(&[5, 6, 9, 10], &[2, 2])),
        slice(&[0, 0], &[3, 4], &[2, 3], tensor(&[0, 3, 8, 11], &[2, 2])),
        slice(&[2, 3], &[3, 4], &[5, 5], tensor(&[11], &[1, 1])),
        case("slice")
            .on([scalar(5u8)])
            .with([ints(&[]), ints(&[]), ints(&[])])
            .gives(scalar(5u8)),
    ]
}

fn dynamic<T: Element>(starts: &[T], y: &[i32]) -> Case {
    case("slice_dynamic")
        .on([grid(), vector(starts)])
        .with([ints(&[0, 1]), ints(&[2, 2])])
        .gives(tensor(y, &[2, 2]))
}

fn dynamic_slices() -> Vec<Case> {
    let along = |start: i64, axis: i64, lengths: &[i64], y: &[i32]| {
        case("slice_dynamic")
            .on([grid(), vector(&[start])])
            .with([ints(&[axis]), ints(lengths)])
            .gives(tensor(y, lengths))
    };
    vec![
        dynamic(&[0i64, 0], &[0, 1, 4, 5]),
        dynamic(&[1i64, 2], &[6, 7, 10, 11]),
        dynamic(&[2i64, 3], &[6, 7, 10, 11]),
        dynamic(&[-1i64, -5], &[0, 1, 4, 5]),
        dynamic(&[i64::MAX, i64::MIN], &[4, 5, 8, 9]),
        dynamic(&[1i64 << 32, 1], &[5, 6, 9, 10]),
        dynamic(&[u64::MAX, 1], &[5, 6, 9, 10]),
        along(1, 1, &[3, 1], &[1, 5, 9]),
        along(9, 0, &[1, 3], &[8, 9, 10]),
        case("slice_dynamic")
            .on([grid(), vector(&[9i64, 1])])
            .with([ints(&[1, 0]), ints(&[1, 2])])
            .gives(tensor(&[6, 7], &[1, 2])),
    ]
}

fn put_slices() -> Vec<Case> {
    let put = |starts: &[i64], stops: &[i64], y: &[i32; 12]| {
        case("put_slice")
            .on([grid(), tensor(&[-1, -2], &[1, 2])])
            .with([ints(starts), ints(stops)])
            .gives(tensor(y, &[3, 4]))
    };
    vec![
        put(&[0, 0], &[1, 2], &[-1, -2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        put(&[2, 2], &[3, 4], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2]),
        case("put_slice")
            .on([vector(&[1u8, 2]), vector(&[3u8, 4])])
            .with([ints(&[0]), ints(&[2])])
            .gives(vector(&[3u8, 4])),
        case("put_slice")
            .on([scalar(1u8), scalar(9u8)])
            .with([ints(&[]), ints(&[])])
            .gives(scalar(9u8)),
    ]
}

fn put<T: Element>(starts: &[T], y: [i32; 12]) -> Case {
    case("put_slice_dynamic")
        .on([grid(), tensor(&[-1, -2], &[1, 2]), vector(starts)])
        .with([ints(&[0, 1])])
        .gives(tensor(&y, &[3, 4]))
}

fn dynamic_puts() -> Vec<Case> {
    let first = [-1, -2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let last = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2];
    let corner = [0, 1, -1, -2, 4, 5, 6, 7, 8, 9, 10, 11];
    vec![
        put(&[0i64, 0], first),
        put(&[-9i64, i64::MIN], first),
        put(&[2i32, 2], last),
        put(&[3i32, 3], last),
        put(&[i64::MAX, i64::MAX], last),
        put(&[u64::MAX, 1 << 63], last),
        put(&[i64::MIN, i64::MAX], corner),
        case("put_slice_dynamic")
            .on([vector(&[1u8, 2]), vector(&[3u8, 4]), vector(&[1i64])])
            .with([ints(&[0])])
            .gives(vector(&[3u8, 4])),
    ]
}

/// What is below zero in a signed type is zero in the others.
fn every_start_type() -> Vec<Case> {
    fn far<T: Integer>() -> Vec<Case> {
        let far = [T::MIN, T::MAX];
        vec![
            dynamic(&far, &[2, 3, 6, 7]),
            put(&far, [0, 1, -1, -2, 4, 5, 6, 7, 8, 9, 10, 11]),
        ]
    }
    for_integers!(far()).concat()
}

fn moved<T: Element>(one: T, two: T) -> Vec<Case> {
    let pair = || vector(&[one, two]);
    vec![
        case("slice")
            .on([pair()])
            .with([ints(&[1]), ints(&[2]), ints(&[1])])
            .gives(vector(&[two])),
        case("slice_dynamic")
            .on([pair(), vector(&[9i64])])
            .with([ints(&[0]), ints(&[1])])
            .gives(vector(&[two])),
        case("put_slice")
            .on([pair(), vector(&[one])])
            .with([ints(&[1]), ints(&[2])])
            .gives(vector(&[one, one])),
        case("put_slice_dynamic")
            .on([pair(), vector(&[one]), vector(&[9i64])])
            .with([ints(&[0])])
            .gives(vector(&[one, one])),
    ]
}

fn every_type() -> Vec<Case> {
    fn of_integers<T: Integer>() -> Vec<Case> {
        moved(T::MIN, T::MAX)
    }
    fn of_floats<T: Float>() -> Vec<Case> {
        moved(T::of(-1.5), T::of(f64::NAN))
    }
    [
        for_integers!(of_integers()).concat(),
        for_floats!(of_floats()).concat(),
        moved(true, false),
        moved([1f32, -2.0], [3.0, 4.0]),
    ]
    .concat()
}

fn empty() -> Vec<Case> {
    vec![
        case("slice")
            .on([grid()])
            .with([ints(&[1, 2]), ints(&[1, 4]), ints(&[1, 1])])
            .gives(tensor::<i32>(&[], &[0, 2])),
        case("slice_dynamic")
            .on([grid(), vector(&[i64::MAX, 0])])
            .with([ints(&[0, 1]), ints(&[0, 2])])
            .gives(tensor::<i32>(&[], &[0, 2])),
        case("put_slice_dynamic")
            .on([vector(&[1u8, 2]), vector::<u8>(&[]), vector(&[5i64])])
            .with([ints(&[0])])
            .gives(vector(&[1u8, 2])),
    ]
}

fn misfits() -> Vec<Case> {
    let slice = |axes: &[i64], lengths: &[i64]| {
        case("slice_dynamic")
            .on([grid(), vector(&[0i64, 0])])
            .with([ints(axes), ints(lengths)])
    };
    let put = |x, part, axes: &[i64]| {
        case("put_slice_dynamic")
            .on([x, part, vector(&[0i64])])
            .with([ints(axes)])
    };
    let pair = || vector(&[1u8, 2]);
    [
        slice(&[0, 1], &[4, 4]),
        slice(&[0, 1], &[3, 5]),
        slice(&[0, 0], &[1, 1]),
        slice(&[0, 1], &[1]),
        slice(&[0, 2], &[1, 1]),
        put(pair(), vector(&[1u8; 3]), &[0]),
        put(pair(), vector(&[1u8]), &[1]),
        put(grid(), vector(&[1, 2]), &[0]),
        case("put_slice")
            .on([pair(), vector(&[1u8; 3])])
            .with([ints(&[0]), ints(&[2])]),
        case("put_slice")
            .on([pair(), vector(&[1u8; 2])])
            .with([ints(&[1]), ints(&[3])]),
        case("slice")
            .on([grid()])
            .with([ints(&[0]), ints(&[1]), ints(&[1])]),
    ]
    .map(Case::refused)
    .into()
}
