//! Elements at computed positions, and arrays with such elements replaced.

use crate::case::*;
use crate::numbers::*;
use crate::slicing::grid;

tests! {
    positions_of_every_type_are_clamped => every_position_type;
    gathers_take_rows_columns_and_elements => gathers;
    gathers_move_positions_to_the_edge => clamped_gathers;
    gathered_windows_stay_inside => gathered_windows;
    takes_put_positions_in_the_place_of_an_axis => takes;
    takes_along_an_axis_have_a_position_for_each_place => takes_along;
    equal_positions_accumulate => duplicates;
    of_equal_positions_the_last_stays => puts;
    indexed_adds_move_positions_to_the_edge => clamped_adds;
    the_last_of_equal_positions_stays => puts;
    taken_positions_move_to_the_edge => takes;
    elements_of_every_type_are_found => every_type;
    halves_are_summed_in_single_precision => halves;
    nothing_is_gathered_from_no_positions => empty;
    positions_that_do_not_fit_are_refused => misfits;
}

/// What is below zero in a signed type is zero in the others.
fn every_position_type() -> Vec<Case> {
    fn far<T: Integer>() -> Vec<Case> {
        let far = || tensor(&[T::MIN, T::MAX], &[2, 1]);
        let values = || vector(&[10, 20, 30]);
        let updates = || tensor(&[5, 7], &[2, 1]);
        let ends = || tensor(&[10, 30], &[2, 1]);
        vec![
            case("gather")
                .on([values(), far()])
                .with([ints(&[0]), ints(&[1])])
                .gives(ends()),
            case("take")
                .on([values(), far()])
                .with([int(0)])
                .gives(ends()),
            case("take_along_axis")
                .on([tensor(&[10, 20, 30], &[3, 1]), far()])
                .with([int(0)])
                .gives(ends()),
            case("indexed_add")
                .on([values(), far(), updates()])
                .with([ints(&[0])])
                .gives(vector(&[15, 20, 37])),
            case("indexed_put")
                .on([values(), far(), updates()])
                .with([ints(&[0])])
                .gives(vector(&[5, 20, 7])),
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

fn takes() -> Vec<Case> {
    let take = |indices: Tensor, axis, y| {
        case("take")
            .on([grid(), indices])
            .with([int(axis)])
            .gives(y)
    };
    let rows = [8, 9, 10, 11, 0, 1, 2, 3];
    vec![
        take(vector(&[2i64, 0]), 0, tensor(&rows, &[2, 4])),
        take(vector(&[9i64, -1]), 0, tensor(&rows, &[2, 4])),
        take(scalar(1i64), 1, vector(&[1, 5, 9])),
        take(
            tensor(&[3u8, 0, 0, 1], &[2, 2]),
            1,
            tensor(&[3, 0, 0, 1, 7, 4, 4, 5, 11, 8, 8, 9], &[3, 2, 2]),
        ),
        take(vector(&[u64::MAX]), 1, tensor(&[3, 7, 11], &[3, 1])),
    ]
}

fn takes_along() -> Vec<Case> {
    let take = |indices: Tensor, axis, y| {
        case("take_along_axis")
            .on([grid(), indices])
            .with([int(axis)])
            .gives(y)
    };
    vec![
        take(
            tensor(&[0i64, 3, 1, 1, 9, -9], &[3, 2]),
            1,
            tensor(&[0, 3, 5, 5, 11, 8], &[3, 2]),
        ),
        take(
            tensor(&[2i64, 1, 0, i64::MAX], &[1, 4]),
            0,
            tensor(&[8, 5, 2, 11], &[1, 4]),
        ),
    ]
}

fn puts() -> Vec<Case> {
    let put = |positions: &[i64], updates: &[f32], y: &[f32]| {
        let count = positions.len() as i64;
        case("indexed_put")
            .on([
                vector(&vec![0f32; y.len()]),
                tensor(positions, &[count, 1]),
                tensor(updates, &[count, 1]),
            ])
            .with([ints(&[0])])
            .gives(vector(y))
    };
    let (rows, twice): (Vec<i64>, Vec<f32>) = (0..1000).map(|i| (i % 2, i as f32)).unzip();
    let elements = tensor(&[5, 6, 7], &[3, 1, 1]);
    vec![
        put(&[1, 1, 0, 1], &[1.0, 2.0, 3.0, 4.0], &[3.0, 4.0, 0.0]),
        put(&[-9, 9, 0], &[1.0, 2.0, 3.0], &[3.0, 0.0, 2.0]),
        put(&rows, &twice, &[998.0, 999.0]),
        case("indexed_put")
            .on([grid(), tensor(&[0i64, 1, 2, 3, 0, 1], &[3, 2]), elements])
            .with([ints(&[0, 1])])
            .gives(tensor(&[0, 7, 2, 3, 4, 5, 6, 7, 8, 9, 10, 6], &[3, 4])),
    ]
}

fn moved<T: Element>(one: T, two: T) -> Vec<Case> {
    let pair = || vector(&[one, two]);
    let at = |position: i64| tensor(&[position], &[1, 1]);
    vec![
        case("gather")
            .on([pair(), tensor(&[1i64, 0, 9], &[3, 1])])
            .with([ints(&[0]), ints(&[1])])
            .gives(tensor(&[two, one, two], &[3, 1])),
        case("take")
            .on([pair(), vector(&[1i64, 0])])
            .with([int(0)])
            .gives(vector(&[two, one])),
        case("take_along_axis")
            .on([pair(), vector(&[1i64, 0])])
            .with([int(0)])
            .gives(vector(&[two, one])),
        case("indexed_put")
            .on([pair(), at(0), tensor(&[two], &[1, 1])])
            .with([ints(&[0])])
            .gives(vector(&[two, two])),
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

fn halves() -> Vec<Case> {
    fn ones<T: Float>() -> Case {
        case("indexed_add")
            .on([
                vector(&[T::of(0.0)]),
                tensor(&[0i64; 5000], &[5000, 1]),
                tensor(&[T::of(1.0); 5000], &[5000, 1]),
            ])
            .with([ints(&[0])])
            .gives(vector(&[T::of(5000.0)]))
    }
    for_floats!(ones())
}

fn empty() -> Vec<Case> {
    let nowhere = || tensor::<i64>(&[], &[0, 1]);
    let pair = || vector(&[1f32, 2.0]);
    let nothing = || tensor::<f32>(&[], &[0, 1]);
    vec![
        gather(nowhere(), &[0], &[1, 4], tensor::<i32>(&[], &[0, 1, 4])),
        case("take")
            .on([grid(), vector::<i64>(&[])])
            .with([int(1)])
            .gives(tensor::<i32>(&[], &[3, 0])),
        case("indexed_add")
            .on([pair(), nowhere(), nothing()])
            .with([ints(&[0])])
            .gives(pair()),
        case("indexed_put")
            .on([pair(), nowhere(), nothing()])
            .with([ints(&[0])])
            .gives(pair()),
    ]
}

fn misfits() -> Vec<Case> {
    let empty = || tensor::<i32>(&[], &[0]);
    let at = || tensor(&[0i64], &[1, 1]);
    let gather = |x, axes: &[i64], sizes: &[i64]| {
        case("gather").on([x, at()]).with([ints(axes), ints(sizes)])
    };
    let add = |x, updates| {
        case("indexed_add")
            .on([x, at(), updates])
            .with([ints(&[0])])
    };
    let put = |x, updates| {
        case("indexed_put")
            .on([x, at(), updates])
            .with([ints(&[0])])
    };
    [
        gather(empty(), &[0], &[1]),
        gather(grid(), &[2], &[1, 1]),
        gather(grid(), &[0], &[1]),
        gather(grid(), &[0], &[4, 1]),
        gather(grid(), &[], &[1, 1]),
        case("take").on([empty(), at()]).with([int(0)]),
        case("take").on([grid(), at()]).with([int(2)]),
        case("take_along_axis").on([grid(), at()]).with([int(2)]),
        add(empty(), tensor(&[1], &[1, 1])),
        put(empty(), tensor(&[1], &[1, 1])),
        add(grid(), tensor(&[1; 5], &[1, 1, 5])),
        put(grid(), tensor(&[1; 5], &[1, 1, 5])),
    ]
    .map(Case::refused)
    .into()
}
