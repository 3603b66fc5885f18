//! Other shapes for the same elements.

use crate::case::*;
use crate::numbers::*;

tests! {
    reshapes_keep_row_order => reshapes;
    broadcasts_repeat => broadcasts;
    transposes_permute_axes => transposes;
    reversals_flip_axes => reversals;
    concatenation_joins_along_an_axis => concatenations;
    stacking_adds_an_axis => stacks;
    padding_goes_around_and_between => pads;
    elements_of_every_type_move => every_type;
    shapes_that_do_not_fit_are_refused => misfits;
}

fn counting(dims: &[i64]) -> Tensor {
    let values: Vec<i32> = (0..dims.iter().product::<i64>() as i32).collect();
    tensor(&values, dims)
}

fn reshapes() -> Vec<Case> {
    let to = |from: &[i64], dims: &[i64]| {
        case("reshape")
            .on([counting(from)])
            .with([ints(dims)])
            .gives(counting(dims))
    };
    vec![
        to(&[2, 3], &[3, 2]),
        to(&[2, 3], &[6]),
        to(&[1], &[]),
        to(&[], &[1, 1]),
        to(&[4, 2, 3], &[2, 12]),
        to(&[0, 3], &[3, 0, 2]),
        to(&[2, 0], &[0]),
    ]
}

fn broadcasts() -> Vec<Case> {
    let to = |x: Tensor, y: Tensor| {
        let dims = ints(&y.dims);
        case("broadcast_to").on([x]).with([dims]).gives(y)
    };
    vec![
        to(scalar(7i32), tensor(&[7i32; 6], &[2, 3])),
        to(counting(&[3]), tensor(&[0, 1, 2, 0, 1, 2], &[2, 3])),
        to(
            tensor(&[5, 6], &[2, 1]),
            tensor(&[5, 5, 5, 6, 6, 6], &[2, 3]),
        ),
        to(
            tensor(&[5, 6], &[1, 2, 1]),
            tensor(&[5, 6, 5, 6], &[2, 2, 1]),
        ),
        to(scalar(7i32), scalar(7i32)),
        to(vector(&[1u8]), tensor::<u8>(&[], &[0])),
    ]
}

fn transposes() -> Vec<Case> {
    let cube = || case("transpose").on([counting(&[2, 1, 3])]);
    vec![
        case("transpose")
            .on([counting(&[2, 3])])
            .with([ints(&[1, 0])])
            .gives(tensor(&[0, 3, 1, 4, 2, 5], &[3, 2])),
        cube()
            .with([ints(&[2, 0, 1])])
            .gives(tensor(&[0, 3, 1, 4, 2, 5], &[3, 2, 1])),
        cube()
            .with([ints(&[1, 2, 0])])
            .gives(tensor(&[0, 3, 1, 4, 2, 5], &[1, 3, 2])),
        cube().with([ints(&[0, 1, 2])]).gives(counting(&[2, 1, 3])),
        case("transpose")
            .on([scalar(3i32)])
            .with([ints(&[])])
            .gives(scalar(3i32)),
        case("transpose")
            .on([counting(&[2, 0])])
            .with([ints(&[1, 0])])
            .gives(counting(&[0, 2])),
    ]
}

fn reversals() -> Vec<Case> {
    let along = |axes: &[i64], y: &[i32]| {
        case("reverse")
            .on([counting(&[2, 3])])
            .with([ints(axes)])
            .gives(tensor(y, &[2, 3]))
    };
    vec![
        along(&[0], &[3, 4, 5, 0, 1, 2]),
        along(&[1], &[2, 1, 0, 5, 4, 3]),
        along(&[0, 1], &[5, 4, 3, 2, 1, 0]),
        along(&[1, 0], &[5, 4, 3, 2, 1, 0]),
        along(&[], &[0, 1, 2, 3, 4, 5]),
        case("reverse")
            .on([counting(&[0, 2])])
            .with([ints(&[0])])
            .gives(counting(&[0, 2])),
    ]
}

fn concatenations() -> Vec<Case> {
    let rows = tensor(&[10, 11, 12], &[1, 3]);
    let columns = tensor(&[10, 11], &[2, 1]);
    vec![
        case("concatenate")
            .on([counting(&[2, 3]), rows.clone()])
            .with([int(0)])
            .gives(tensor(&[0, 1, 2, 3, 4, 5, 10, 11, 12], &[3, 3])),
        case("concatenate")
            .on([columns.clone(), counting(&[2, 3]), columns])
            .with([int(1)])
            .gives(tensor(&[10, 0, 1, 2, 10, 11, 3, 4, 5, 11], &[2, 5])),
        case("concatenate")
            .on([rows.clone()])
            .with([int(0)])
            .gives(rows),
        case("concatenate")
            .on([counting(&[0]), counting(&[2]), counting(&[0])])
            .with([int(0)])
            .gives(counting(&[2])),
    ]
}

fn stacks() -> Vec<Case> {
    let along = |axis, y| {
        case("stack")
            .on([vector(&[1, 2, 3]), vector(&[4, 5, 6])])
            .with([int(axis)])
            .gives(y)
    };
    vec![
        along(0, tensor(&[1, 2, 3, 4, 5, 6], &[2, 3])),
        along(1, tensor(&[1, 4, 2, 5, 3, 6], &[3, 2])),
        case("stack")
            .on([scalar(1u8), scalar(2u8), scalar(3u8)])
            .with([int(0)])
            .gives(vector(&[1u8, 2, 3])),
        case("stack")
            .on([scalar(1u8)])
            .with([int(0)])
            .gives(vector(&[1u8])),
    ]
}

fn pads() -> Vec<Case> {
    let pad = |[low, high, interior]: [&[i64]; 3], x: Tensor, y: Tensor| {
        case("pad")
            .on([x, scalar(9i32)])
            .with([ints(low), ints(high), ints(interior)])
            .gives(y)
    };
    let line = |[low, high, interior]: [i64; 3], y: &[i32]| {
        let x = vector(&[1, 2, 3]);
        pad([&[low], &[high], &[interior]], x, vector(y))
    };
    vec![
        line([0, 0, 0], &[1, 2, 3]),
        line([1, 2, 0], &[9, 1, 2, 3, 9, 9]),
        line([0, 0, 2], &[1, 9, 9, 2, 9, 9, 3]),
        line([-1, -1, 0], &[2]),
        line([-1, 1, 1], &[9, 2, 9, 3, 9]),
        line([-2, -2, 2], &[9, 2, 9]),
        line([-3, 0, 0], &[]),
        line([-3, 2, 0], &[9, 9]),
        pad(
            [&[1, 1], &[0, 0], &[0, 0]],
            tensor(&[4, 5, 6, 7], &[2, 2]),
            tensor(&[9, 9, 9, 9, 4, 5, 9, 6, 7], &[3, 3]),
        ),
        pad(
            [&[1, 0], &[0, 0], &[0, 1]],
            tensor(&[4, 5, 6, 7], &[2, 2]),
            tensor(&[9, 9, 9, 4, 9, 5, 6, 9, 7], &[3, 3]),
        ),
        pad([&[], &[], &[]], scalar(5i32), scalar(5i32)),
    ]
}

fn every_type() -> Vec<Case> {
    fn moved<T: Element>(one: T, two: T) -> Vec<Case> {
        let column = tensor(&[one, two], &[2, 1]);
        vec![
            case("reverse")
                .on([vector(&[one, two])])
                .with([ints(&[0])])
                .gives(vector(&[two, one])),
            case("transpose")
                .on([column.clone()])
                .with([ints(&[1, 0])])
                .gives(tensor(&[one, two], &[1, 2])),
            case("concatenate")
                .on([column.clone(), column.clone()])
                .with([int(1)])
                .gives(tensor(&[one, one, two, two], &[2, 2])),
            case("pad")
                .on([vector(&[one]), scalar(two)])
                .with([ints(&[1]), ints(&[0]), ints(&[0])])
                .gives(vector(&[two, one])),
            case("broadcast_to")
                .on([column])
                .with([ints(&[2, 2])])
                .gives(tensor(&[one, one, two, two], &[2, 2])),
        ]
    }
    fn integers<T: Integer>() -> Vec<Case> {
        moved(T::MIN, T::MAX)
    }
    fn floats<T: Float>() -> Vec<Case> {
        moved(T::of(-1.5), T::of(f64::NAN))
    }
    let others = [moved(true, false), moved([1f32, -2.0], [f32::NAN, 3.0])].concat();
    [
        for_integers!(integers()).concat(),
        for_floats!(floats()).concat(),
        others,
    ]
    .concat()
}

fn misfits() -> Vec<Case> {
    let six = || counting(&[2, 3]);
    let wrong = |op, attribute| {
        case(op)
            .on([six()])
            .with([attribute])
            .fails("(s32[2][3]): ")
    };
    let pair = |op, axis| {
        case(op)
            .on([six(), counting(&[2, 2])])
            .with([int(axis)])
            .fails("(s32[2][3], s32[2][2]): ")
    };
    vec![
        wrong("reshape", ints(&[4])),
        wrong("reshape", ints(&[])),
        wrong("broadcast_to", ints(&[3, 2])),
        wrong("broadcast_to", ints(&[3])),
        wrong("transpose", ints(&[0])),
        wrong("transpose", ints(&[0, 0])),
        wrong("transpose", ints(&[0, 2])),
        wrong("reverse", ints(&[2])),
        wrong("stack", int(3)),
        pair("concatenate", 0),
        pair("concatenate", 5),
        pair("stack", 0),
        case("concatenate").with([int(0)]).fails("concatenate(): "),
        case("stack").with([int(0)]).fails("stack(): "),
    ]
}
