//! Parts of an array, and arrays with a part replaced.

use crate::case::*;
use crate::numbers::*;

tests! {
    slices_have_starts_stops_and_strides => slices;
    dynamic_slices_move_so_that_they_fit => dynamic_slices;
    put_slices_move_so_that_they_fit => put_slices;
    positions_of_every_type_are_clamped => every_position_type;
    gathers_take_rows_columns_and_elements => gathers;
    gathers_move_positions_to_the_edge => clamped_gathers;
    gathered_windows_stay_inside => gathered_windows;
    equal_positions_accumulate => duplicates;
    indexed_adds_move_positions_to_the_edge => clamped_adds;
    added_windows_stay_inside => added_windows;
    the_last_of_equal_positions_stays => puts;
    taken_positions_move_to_the_edge => takes;
    elements_of_every_type_are_found => every_type;
    nothing_is_gathered_from_no_positions => empty;
    parts_that_do_not_fit_are_refused => misfits;
}

fn grid() -> Tensor {
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
        slice(&[1, 2], &[1, 4], &[1, 1], tensor::<i32>(&[], &[0, 2])),
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
    vec![
        dynamic(&[0i64, 0], &[0, 1, 4, 5]),
        dynamic(&[1i64, 2], &[6, 7, 10, 11]),
        dynamic(&[2i64, 3], &[6, 7, 10, 11]),
        dynamic(&[-1i64, -5], &[0, 1, 4, 5]),
        dynamic(&[i64::MAX, i64::MIN], &[4, 5, 8, 9]),
        dynamic(&[1i64 << 32, 1], &[5, 6, 9, 10]),
        dynamic(&[u64::MAX, 1], &[5, 6, 9, 10]),
        case("slice_dynamic")
            .on([grid(), vector(&[7i32, 1])])
            .with([ints(&[0, 1]), ints(&[3, 1])])
            .gives(tensor(&[1, 5, 9], &[3, 1])),
        case("slice_dynamic")
            .on([grid(), vector(&[7i8])])
            .with([ints(&[1]), ints(&[1, 3])])
            .gives(tensor(&[1, 2, 3], &[1, 3])),
        case("slice_dynamic")
            .on([scalar(5f32), vector::<i64>(&[])])
            .with([ints(&[]), ints(&[])])
            .gives(scalar(5f32)),
    ]
}

fn put<T: Element>(starts: &[T], y: [i32; 12]) -> Case {
    case("put_slice_dynamic")
        .on([grid(), tensor(&[-1, -2], &[1, 2]), vector(starts)])
        .with([ints(&[0, 1])])
        .gives(tensor(&y, &[3, 4]))
}

fn put_slices() -> Vec<Case> {
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
        case("put_slice_dynamic")
            .on([grid(), tensor(&[-1, -2], &[2, 1]), vector(&[9u8])])
            .with([ints(&[1])])
            .gives(tensor(&[0, 1, 2, -1, 4, 5, 6, -2, 8, 9, 10, 11], &[3, 4])),
        case("put_slice_dynamic")
            .on([scalar(1u8), scalar(9u8), vector::<i64>(&[])])
            .with([ints(&[])])
            .gives(scalar(9u8)),
    ]
}

fn every_position_type() -> Vec<Case> {
    fn far<T: Integer>() -> Vec<Case> {
        // What is below zero in a signed type is zero in the others.
        let far = [T::MIN, T::MAX];
        vec![
            dynamic(&far, &[2, 3, 6, 7]),
            put(&far, [0, 1, -1, -2, 4, 5, 6, 7, 8, 9, 10, 11]),
            case("gather")
                .on([vector(&[10, 20, 30]), tensor(&far, &[2, 1])])
                .with([ints(&[0]), ints(&[1])])
                .gives(tensor(&[10, 30], &[2, 1])),
            case("indexed_add")
                .on([
                    vector(&[0, 0, 0]),
                    tensor(&far, &[2, 1]),
                    tensor(&[5, 7], &[2, 1]),
                ])
                .with([ints(&[0])])
                .gives(vector(&[5, 0, 7])),
        ]
    }
    for_integers!(far()).concat()
}

fn gather(indices: Tensor, axes: &[i64], sizes: &[i64], y: Tensor) -> Case {
    case("gather")
        .on([grid(), indices])
        .with([ints(axes), ints(sizes)])
        .gives(y)
}

fn gathers() -> Vec<Case> {
    let rows = tensor(&[2i64, 0, 2], &[3, 1]);
    let elements = tensor(&[2i64, 3, 0, 1], &[2, 2]);
    let grid_of_rows = tensor(&[0i32, 1, 2, 0], &[2, 2, 1]);
    let taken = [8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];
    vec![
        gather(rows, &[0], &[1, 4], tensor(&taken, &[3, 1, 4])),
        gather(
            tensor(&[3i64, 1], &[2, 1]),
            &[1],
            &[3, 1],
            tensor(&[3, 7, 11, 1, 5, 9], &[2, 3, 1]),
        ),
        gather(
            elements.clone(),
            &[0, 1],
            &[1, 1],
            tensor(&[11, 1], &[2, 1, 1]),
        ),
        gather(
            grid_of_rows,
            &[0],
            &[1, 1],
            tensor(&[0, 4, 8, 0], &[2, 2, 1, 1]),
        ),
        gather(vector(&[1i64, 2]), &[0, 1], &[1, 1], tensor(&[6], &[1, 1])),
        gather(
            tensor(&[1i64], &[1, 1]),
            &[0],
            &[1, 2],
            tensor(&[4, 5], &[1, 1, 2]),
        ),
    ]
}

fn clamped_gathers() -> Vec<Case> {
    let elements = [-1i64, 9, i64::MIN, i64::MAX, 1 << 32, -(1 << 32), 1, 2];
    vec![
        gather(
            tensor(&elements, &[4, 2]),
            &[0, 1],
            &[1, 1],
            tensor(&[3, 3, 8, 6], &[4, 1, 1]),
        ),
        gather(
            tensor(&[u64::MAX, 1 << 63, 1], &[3, 1]),
            &[0],
            &[1, 1],
            tensor(&[8, 8, 4], &[3, 1, 1]),
        ),
        gather(
            tensor(&[u32::MAX, 3], &[2, 1]),
            &[1],
            &[1, 1],
            tensor(&[3, 3], &[2, 1, 1]),
        ),
    ]
}

/// A slice longer than one element must not reach over the edge.
fn gathered_windows() -> Vec<Case> {
    vec![
        gather(
            tensor(&[0i64], &[1, 1]),
            &[1],
            &[1, 2],
            tensor(&[0, 1], &[1, 1, 2]),
        ),
        gather(
            tensor(&[3i64], &[1, 1]),
            &[1],
            &[1, 2],
            tensor(&[2, 3], &[1, 1, 2]),
        ),
        gather(
            tensor(&[9i64], &[1, 1]),
            &[0],
            &[3, 1],
            tensor(&[0, 4, 8], &[1, 3, 1]),
        ),
    ]
}

fn add<I: Element>(indices: &[I], updates: &[f32], y: &[f32]) -> Case {
    let count = indices.len() as i64;
    case("indexed_add")
        .on([
            vector(&vec![0f32; y.len()]),
            tensor(indices, &[count, 1]),
            tensor(updates, &[count, 1]),
        ])
        .with([ints(&[0])])
        .gives(vector(y))
}

fn duplicates() -> Vec<Case> {
    let thousand = [1i64; 1000];
    let rows = tensor(
        &[10, 20, 30, 40, 1, 2, 3, 4, 100, 200, 300, 400],
        &[3, 1, 4],
    );
    let sums = [110, 221, 332, 443, 4, 5, 6, 7, 9, 11, 13, 15];
    let elements = tensor(&[5, 6, 7], &[3, 1, 1]);
    vec![
        add(&[1i64, 1, 0, 1], &[1.0, 2.0, 3.0, 4.0], &[3.0, 7.0, 0.0]),
        add(&thousand, &[0.5; 1000], &[0.0, 500.0]),
        case("indexed_add")
            .on([grid(), tensor(&[0i64, 2, 0], &[3, 1]), rows])
            .with([ints(&[0])])
            .gives(tensor(&sums, &[3, 4])),
        case("indexed_add")
            .on([grid(), tensor(&[0i64, 1, 2, 3, 0, 1], &[3, 2]), elements])
            .with([ints(&[0, 1])])
            .gives(tensor(&[0, 13, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17], &[3, 4])),
    ]
}

fn clamped_adds() -> Vec<Case> {
    let far = [-7i64, i64::MIN, i64::MAX, 3, 1 << 32, 1];
    let elements = tensor(&[-1i64, 99, i64::MAX, i64::MIN], &[2, 2]);
    vec![
        add(&far, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], &[3.0, 32.0, 28.0]),
        add(&[u64::MAX, 1 << 63, 0], &[1.0, 2.0, 4.0], &[4.0, 0.0, 3.0]),
        case("indexed_add")
            .on([grid(), elements, tensor(&[100, 200], &[2, 1, 1])])
            .with([ints(&[0, 1])])
            .gives(tensor(&[0, 1, 2, 103, 4, 5, 6, 7, 208, 9, 10, 11], &[3, 4])),
    ]
}

/// An update longer than one element must not reach over the edge.
fn added_windows() -> Vec<Case> {
    let add = |position: i64, y: [i32; 3]| {
        case("indexed_add")
            .on([
                vector(&[0; 3]),
                tensor(&[position], &[1, 1]),
                tensor(&[1, 2], &[1, 2]),
            ])
            .with([ints(&[0])])
            .gives(vector(&y))
    };
    vec![add(0, [1, 2, 0]), add(1, [0, 1, 2]), add(2, [0, 1, 2])]
}

fn puts() -> Vec<Case> {
    let put = |at: Tensor, updates: Tensor, axes: &[i64], y: [i32; 12]| {
        case("indexed_put")
            .on([grid(), at, updates])
            .with([ints(axes)])
            .gives(tensor(&y, &[3, 4]))
    };
    let elements = tensor(&[0i64, 1, 9, -3, 0, 1], &[3, 2]);
    let rows = tensor(&[-1, -2, -3, -4, -5, -6, -7, -8], &[2, 1, 4]);
    vec![
        put(
            elements,
            tensor(&[-1, -2, -3], &[3, 1, 1]),
            &[0, 1],
            [0, -3, 2, 3, 4, 5, 6, 7, -2, 9, 10, 11],
        ),
        put(
            tensor(&[1u8, 1], &[2, 1]),
            rows,
            &[0],
            [0, 1, 2, 3, -5, -6, -7, -8, 8, 9, 10, 11],
        ),
        // Updates may be smaller than what they replace a part of.
        put(
            tensor(&[3i32, 0], &[2, 1]),
            tensor(&[-1, -2, -3, -4], &[2, 2, 1]),
            &[1],
            [-3, 1, 2, -1, -4, 5, 6, -2, 8, 9, 10, 11],
        ),
    ]
}

fn takes() -> Vec<Case> {
    let take = |at: Tensor, axis, y| case("take").on([grid(), at]).with([int(axis)]).gives(y);
    let along = |at: Tensor, axis, y| {
        case("take_along_axis")
            .on([grid(), at])
            .with([int(axis)])
            .gives(y)
    };
    vec![
        take(
            vector(&[i64::MAX, i64::MIN]),
            0,
            tensor(&[8, 9, 10, 11, 0, 1, 2, 3], &[2, 4]),
        ),
        take(
            tensor(&[u64::MAX, 1], &[2, 1]),
            1,
            tensor(&[3, 1, 7, 5, 11, 9], &[3, 2, 1]),
        ),
        take(scalar(1i8), 1, vector(&[1, 5, 9])),
        along(
            tensor(&[i64::MIN, 1, 2, i64::MAX], &[1, 4]),
            0,
            tensor(&[0, 5, 10, 11], &[1, 4]),
        ),
        along(
            tensor(&[1i8, -1, 127], &[3, 1]),
            1,
            tensor(&[1, 4, 11], &[3, 1]),
        ),
    ]
}

fn moved<T: Element>(one: T, two: T) -> Vec<Case> {
    let pair = vector(&[one, two]);
    vec![
        case("gather")
            .on([pair.clone(), tensor(&[1i64, 0, 9], &[3, 1])])
            .with([ints(&[0]), ints(&[1])])
            .gives(tensor(&[two, one, two], &[3, 1])),
        case("slice")
            .on([pair.clone()])
            .with([ints(&[1]), ints(&[2]), ints(&[1])])
            .gives(vector(&[two])),
        case("slice_dynamic")
            .on([pair.clone(), vector(&[9i64])])
            .with([ints(&[0]), ints(&[1])])
            .gives(vector(&[two])),
        case("put_slice")
            .on([pair.clone(), vector(&[one])])
            .with([ints(&[1]), ints(&[2])])
            .gives(vector(&[one, one])),
        case("put_slice_dynamic")
            .on([pair.clone(), vector(&[one]), vector(&[9i64])])
            .with([ints(&[0])])
            .gives(vector(&[one, one])),
        case("take")
            .on([pair.clone(), tensor(&[1i64, 0, 9, -1], &[2, 2])])
            .with([int(0)])
            .gives(tensor(&[two, one, two, one], &[2, 2])),
        case("take_along_axis")
            .on([pair.clone(), vector(&[1u8, 0, 9])])
            .with([int(0)])
            .gives(vector(&[two, one, two])),
        case("indexed_put")
            .on([
                pair.clone(),
                tensor(&[1i64, 1], &[2, 1]),
                tensor(&[two, one], &[2, 1]),
            ])
            .with([ints(&[0])])
            .gives(vector(&[one, one])),
    ]
}

fn doubled<T: Element>(one: T, two: T) -> Vec<Case> {
    let (at, update) = (tensor(&[1i64], &[1, 1]), tensor(&[one], &[1, 1]));
    let sum = case("indexed_add")
        .on([vector(&[one, one]), at, update])
        .with([ints(&[0])])
        .gives(vector(&[one, two]));
    vec![sum]
}

fn every_type() -> Vec<Case> {
    fn of_integers<T: Integer>() -> Vec<Case> {
        [moved(T::MIN, T::MAX), doubled(T::of(60), T::of(120))].concat()
    }
    fn of_floats<T: Float>() -> Vec<Case> {
        [
            moved(T::of(-1.5), T::of(f64::NAN)),
            doubled(T::of(1.5), T::of(3.0)),
        ]
        .concat()
    }
    [
        for_integers!(of_integers()).concat(),
        for_floats!(of_floats()).concat(),
        moved(true, false),
        moved([1f32, -2.0], [3.0, 4.0]),
        doubled([1f32, -2.0], [2.0, -4.0]),
    ]
    .concat()
}

fn empty() -> Vec<Case> {
    let nowhere = tensor::<i64>(&[], &[0, 1]);
    vec![
        gather(
            nowhere.clone(),
            &[0],
            &[1, 4],
            tensor::<i32>(&[], &[0, 1, 4]),
        ),
        case("indexed_add")
            .on([vector(&[1f32, 2.0]), nowhere, tensor::<f32>(&[], &[0, 1])])
            .with([ints(&[0])])
            .gives(vector(&[1f32, 2.0])),
        case("slice_dynamic")
            .on([grid(), vector(&[i64::MAX, 0])])
            .with([ints(&[0, 1]), ints(&[0, 2])])
            .gives(tensor::<i32>(&[], &[0, 2])),
        case("put_slice_dynamic")
            .on([vector(&[1u8, 2]), vector::<u8>(&[]), vector(&[5i64])])
            .with([ints(&[0])])
            .gives(vector(&[1u8, 2])),
        case("put_slice")
            .on([vector(&[1u8, 2]), vector::<u8>(&[])])
            .with([ints(&[2]), ints(&[2])])
            .gives(vector(&[1u8, 2])),
        case("indexed_put")
            .on([
                vector(&[1f32, 2.0]),
                tensor::<i64>(&[], &[0, 1]),
                tensor::<f32>(&[], &[0, 1]),
            ])
            .with([ints(&[0])])
            .gives(vector(&[1f32, 2.0])),
        case("take")
            .on([grid(), vector::<i64>(&[])])
            .with([int(1)])
            .gives(tensor::<i32>(&[], &[3, 0])),
        case("take_along_axis")
            .on([grid(), tensor::<i64>(&[], &[3, 0])])
            .with([int(1)])
            .gives(tensor::<i32>(&[], &[3, 0])),
        case("gather")
            .on([tensor::<i32>(&[], &[3, 0]), tensor(&[7i64, -1], &[2, 1])])
            .with([ints(&[0]), ints(&[1, 0])])
            .gives(tensor::<i32>(&[], &[2, 1, 0])),
    ]
}

fn misfits() -> Vec<Case> {
    let empty = || tensor::<i32>(&[], &[0]);
    let at = || tensor(&[0i64], &[1, 1]);
    let start = || vector(&[0i64, 0]);
    let slice = |lengths: &[i64]| {
        case("slice_dynamic")
            .on([grid(), start()])
            .with([ints(&[0, 1]), ints(lengths)])
    };
    let gather = |x, axes: &[i64], sizes: &[i64]| {
        case("gather").on([x, at()]).with([ints(axes), ints(sizes)])
    };
    let add = |x, updates| {
        case("indexed_add")
            .on([x, at(), updates])
            .with([ints(&[0])])
    };
    let index_put = |x, updates| {
        case("indexed_put")
            .on([x, at(), updates])
            .with([ints(&[0])])
    };
    let put = |x, part| {
        case("put_slice_dynamic")
            .on([x, part, vector(&[0i64])])
            .with([ints(&[0])])
    };
    let take = |x, axis| case("take").on([x, at()]).with([int(axis)]);
    let along = |x, axis| case("take_along_axis").on([x, at()]).with([int(axis)]);
    [
        slice(&[4, 4]),
        slice(&[1]),
        gather(empty(), &[0], &[1]),
        gather(grid(), &[2], &[1, 1]),
        gather(grid(), &[0], &[1]),
        gather(grid(), &[0], &[4, 1]),
        gather(grid(), &[], &[1, 1]),
        add(empty(), tensor(&[1], &[1, 1])),
        add(grid(), tensor(&[1; 5], &[1, 1, 5])),
        index_put(empty(), tensor(&[1], &[1, 1])),
        index_put(grid(), tensor(&[1; 5], &[1, 1, 5])),
        take(empty(), 0),
        take(grid(), 2),
        along(tensor::<i32>(&[], &[0, 1]), 0),
        along(grid(), 2),
        along(vector(&[1, 2]), 0),
        put(vector(&[1u8, 2]), vector(&[1u8; 3])),
        put(grid(), vector(&[1, 2])),
        case("slice")
            .on([grid()])
            .with([ints(&[0]), ints(&[1]), ints(&[1])]),
    ]
    .map(Case::refused)
    .into()
}
