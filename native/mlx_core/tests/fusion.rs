//! Fused programs give what they give unfused.

mod common;

use std::sync::Arc;

use common::*;
use mlx_core::{Attribute, Dtype, Instruction, Program, Slot, Stream};

fn code(instructions: &[(&str, &[usize])]) -> Vec<Instruction> {
    instructions
        .iter()
        .map(|(name, operands)| instruction(name, operands, vec![]))
        .collect()
}

fn run(stream: &Stream, program: Program, inputs: &[&Arc<Slot>]) -> Vec<Vec<f32>> {
    let inputs: Vec<_> = inputs.iter().map(|&slot| slot.clone()).collect();
    let outputs = stream.run(Arc::new(program), inputs).unwrap();
    outputs.iter().map(floats).collect()
}

fn same(program: Program, inputs: &[&[f32]]) -> Program {
    let stream = stream();
    let inputs: Vec<_> = inputs
        .iter()
        .map(|values| load(&stream, values, &[values.len() as i64]))
        .collect();
    let inputs: Vec<_> = inputs.iter().collect();
    let fused = program.clone().fused().unwrap();
    let plain = run(&stream, program, &inputs);
    assert_eq!(run(&stream, fused.clone(), &inputs), plain);
    assert_eq!(run(&stream, fused.clone(), &inputs), plain, "run again");
    fused
}

#[test]
fn a_stretch_becomes_one_instruction() {
    let steps = code(&[
        ("add", &[0, 1]),
        ("multiply", &[2, 2]),
        ("abs", &[3]),
        ("negate", &[0]),
    ]);
    let program = Program::new(2, steps, vec![4, 3, 5, 0]).unwrap();
    let fused = same(program, &[&[1.0, -2.0, 3.0], &[0.5, 0.25, 0.0]]);
    assert_eq!(fused.instructions(), 1);
}

#[test]
fn branches_divide_stretches_and_are_fused_themselves() {
    let inner = code(&[("add", &[0, 1]), ("abs", &[2])]);
    let on_true = Program::new(2, inner, vec![3, 2]).unwrap();
    let on_false = Program::new(2, vec![], vec![0, 1]).unwrap();
    let mut steps = code(&[("negate", &[1]), ("add", &[2, 0])]);
    let branches = [on_true, on_false].map(|program| Attribute::Program(Box::new(program)));
    steps.push(instruction("cond", &[0, 2, 3], branches.into()));
    steps.extend(code(&[("add", &[4, 2]), ("multiply", &[6, 5])]));
    let program = Program::new(2, steps, vec![7, 5, 2]).unwrap();
    for predicate in [0.0, 1.0] {
        let fused = same(program.clone(), &[&[predicate], &[3.0]]);
        assert_eq!(fused.instructions(), 3);
    }
}

#[test]
fn loops_run_their_bodies_several_at_once() {
    for times in [0, 1, 31, 100] {
        let body = code(&[("add", &[0, 2]), ("multiply", &[3, 1])]);
        let body = Program::new(3, body, vec![4]).unwrap();
        let attributes = vec![
            Attribute::Program(Box::new(body)),
            Attribute::Int(times),
            Attribute::Int(5),
            Attribute::Int(-2),
            Attribute::Dtype(Dtype::Float32),
        ];
        let mut steps = vec![instruction("repeat", &[0, 1], attributes)];
        steps.extend(code(&[("negate", &[2])]));
        let program = Program::new(2, steps, vec![3, 2]).unwrap();
        same(program, &[&[1.0, 2.0], &[0.5]]);
    }
}

#[test]
fn conditions_and_bodies_of_loops_are_fused() {
    let condition = code(&[("multiply", &[0, 0]), ("less", &[2, 1])]);
    let condition = Program::new(2, condition, vec![3]).unwrap();
    let body = Program::new(2, code(&[("add", &[0, 0]), ("abs", &[2])]), vec![3]).unwrap();
    let programs = [condition, body].map(|program| Attribute::Program(Box::new(program)));
    let steps = vec![instruction("while", &[0, 1], programs.into())];
    same(
        Program::new(2, steps, vec![2]).unwrap(),
        &[&[1.5], &[1000.0]],
    );
}

#[test]
fn a_fused_part_that_fails_names_the_op() {
    let stream = stream();
    let program = Program::new(2, code(&[("add", &[0, 1]), ("abs", &[2])]), vec![3]).unwrap();
    let inputs = vec![
        load(&stream, &[1.0, 2.0], &[2]),
        load(&stream, &[1.0; 3], &[3]),
    ];
    let outputs = stream
        .run(Arc::new(program.fused().unwrap()), inputs)
        .unwrap();
    let error = read(&outputs[0]).unwrap_err().to_string();
    assert!(error.contains("add(f32[2], f32[3])"), "{error}");
}

#[test]
fn dropped_programs_are_forgotten() {
    let stream = stream();
    let x = load(&stream, &[1.0, 2.0], &[2]);
    for _ in 0..3 {
        let program = Program::new(1, code(&[("negate", &[0]), ("abs", &[1])]), vec![2]).unwrap();
        let fused = Arc::new(program.fused().unwrap());
        let outputs = stream.run(fused.clone(), vec![x.clone()]).unwrap();
        assert_eq!(floats(&outputs[0]), [1.0, 2.0]);
        drop(fused);
    }
    synchronize(&stream);
}

#[test]
fn what_has_no_elements_is_computed_without_a_kernel() {
    let chain = code(&[("add", &[0, 0]), ("abs", &[1]), ("negate", &[2])]);
    let program = Program::new(1, chain, vec![3]).unwrap();
    let fused = same(program, &[&[]]);
    let stream = stream();
    let x = load(&stream, &[1.0, -2.0], &[2]);
    assert_eq!(run(&stream, fused, &[&x]), [[-2.0, -4.0]]);

    // Nor what only becomes empty on the way.
    let nothing = [&[0], &[0], &[1]].map(|list| ints(list)).into();
    let steps = vec![
        instruction("negate", &[0], vec![]),
        instruction("slice", &[1], nothing),
        instruction("abs", &[2], vec![]),
        instruction("add", &[3, 3], vec![]),
    ];
    let program = Program::new(1, steps, vec![4, 1]).unwrap();
    same(program, &[&[1.0, 2.0]]);
}
