//! Branches and loops.

use mlx_core::{Attribute, Dtype, Program};

use crate::case::*;
use crate::common::instruction;

tests! {
    the_predicate_chooses_a_branch => branches;
    a_loop_runs_while_its_condition_holds => whiles;
    a_loop_runs_a_number_of_times => repeats;
    programs_that_do_not_fit_are_refused => misfits;
}

fn program(inputs: usize, code: &[(&str, &[usize])], outputs: &[usize]) -> Attribute {
    let code: Vec<_> = code
        .iter()
        .map(|(name, operands)| instruction(name, operands, vec![]))
        .collect();
    Attribute::Program(Box::new(
        Program::new(inputs, code, outputs.to_vec()).unwrap(),
    ))
}

fn branches() -> Vec<Case> {
    let choose = |predicate: Tensor, y: Tensor| {
        let sum = program(2, &[("add", &[0, 1])], &[2]);
        let difference = program(2, &[("subtract", &[0, 1])], &[2]);
        case("cond")
            .on([predicate, vector(&[5i32, 7]), vector(&[1i32, 2])])
            .with([sum, difference])
            .gives(y)
    };
    let (sum, difference) = (vector(&[6i32, 9]), vector(&[4i32, 5]));
    let swap = program(2, &[], &[1, 0]);
    let keep = program(2, &[], &[0, 1]);
    vec![
        choose(scalar(1u8), sum.clone()),
        choose(scalar(0u8), difference.clone()),
        choose(scalar(256i32), sum.clone()),
        choose(scalar(0.5f32), sum.clone()),
        choose(scalar(f32::NAN), sum),
        choose(scalar(-0.0f32), difference),
        case("cond")
            .on([scalar(1u8), scalar(1i32), vector(&[2.0f32])])
            .with([swap, keep])
            .gives_all([vector(&[2.0f32]), scalar(1i32)]),
    ]
}

/// Doubles the second until the first, which counts down by the third, is not positive.
fn whiles() -> Vec<Case> {
    let double = |count: i32, y: i64| {
        let goes_on = program(3, &[("greater", &[0, 2]), ("negate", &[0])], &[3]);
        let body = program(3, &[("subtract", &[0, 2]), ("add", &[1, 1])], &[3, 4]);
        case("while")
            .on([scalar(count), scalar(1i64), scalar(1i32)])
            .with([goes_on, body])
            .gives_all([scalar(count.min(1)), scalar(y)])
    };
    vec![
        double(0, 1),
        double(1, 1),
        double(2, 2),
        double(41, 1 << 40),
    ]
}

/// Adds the counter to the state and takes away what stays the same.
fn repeats() -> Vec<Case> {
    let count = |times: i64, start: i64, step: i64, y: i32| {
        let body = program(3, &[("add", &[0, 2]), ("subtract", &[3, 1])], &[4]);
        case("repeat")
            .on([scalar(100i32), scalar(1i32)])
            .with([
                body,
                int(times),
                int(start),
                int(step),
                Attribute::Dtype(Dtype::Int32),
            ])
            .gives(scalar(y))
    };
    vec![
        count(0, 7, 1, 100),
        count(-3, 7, 1, 100),
        count(1, 7, 1, 106),
        count(5, 1, 2, 100 + 25 - 5),
        count(100, 99, -1, 100 + 4950 - 100),
    ]
}

fn misfits() -> Vec<Case> {
    let one = || program(1, &[], &[0]);
    let two = || program(2, &[], &[0, 1]);
    vec![
        case("cond").with([one(), one()]).refused(),
        case("cond")
            .on([scalar(1u8)])
            .with([one(), one()])
            .refused(),
        case("cond")
            .on([vector(&[1u8, 0]), scalar(1i32)])
            .with([one(), one()])
            .refused(),
        case("while")
            .on([scalar(1u8)])
            .with([one(), two()])
            .refused(),
    ]
}
