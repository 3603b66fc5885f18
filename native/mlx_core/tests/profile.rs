//! A profile has every instruction, and gives what a plain run gives.

mod common;

use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use mlx_core::{Attribute, Dtype, Error, Few, Profile, Program, Slot, Stream};

fn profile(
    stream: &Stream,
    program: &Arc<Program>,
    inputs: &[Arc<Slot>],
) -> Result<(Few<Arc<Slot>>, Profile), Arc<Error>> {
    let (sender, receiver) = channel();
    stream.profile(program.clone(), inputs.to_vec(), move |outcome| {
        sender.send(outcome).unwrap()
    });
    receiver.recv().unwrap()
}

fn program(inputs: usize, steps: Vec<mlx_core::Instruction>, output: usize) -> Program {
    Program::new(inputs, steps, vec![output]).unwrap()
}

fn nested(programs: Vec<Program>) -> Vec<Attribute> {
    programs
        .into_iter()
        .map(|program| Attribute::Program(Box::new(program)))
        .collect()
}

/// Doubles five times, then takes one branch of two.
fn loop_and_branch() -> Program {
    let double = program(2, vec![instruction("add", &[0, 0], vec![])], 2);
    let mut times = nested(vec![double]);
    times.extend([5, 0, 1].map(Attribute::Int));
    times.push(Attribute::Dtype(Dtype::Int32));
    let negate = program(1, vec![instruction("negate", &[0], vec![])], 1);
    let abs = program(1, vec![instruction("abs", &[0], vec![])], 1);
    let steps = vec![
        instruction("repeat", &[0], times),
        instruction("cond", &[1, 2], nested(vec![negate, abs])),
    ];
    program(2, steps, 3)
}

#[test]
fn each_instruction_is_timed_for_itself() {
    let stream = stream();
    let program = Arc::new(loop_and_branch());
    let inputs = [
        load(&stream, &[1.0, -2.0], &[2]),
        load(&stream, &[1.0], &[]),
    ];
    let plain = stream.run(program.clone(), inputs.to_vec()).unwrap();
    let (outputs, profile) = profile(&stream, &program, &inputs).unwrap();
    assert_eq!(floats(&outputs[0]), floats(&plain[0]));
    assert_eq!(floats(&outputs[0]), [-32.0, 64.0]);

    let listing = program.listing();
    let rows: Vec<_> = listing.iter().map(|line| (line.row, line.part)).collect();
    let expected = [
        ("repeat", None),
        ("add", Some("body")),
        ("cond", None),
        ("negate", Some("on_true")),
        ("abs", Some("on_false")),
    ];
    assert_eq!(rows, expected);
    let calls: Vec<_> = profile.timings.iter().map(|timing| timing.calls).collect();
    assert_eq!(calls, [1, 5, 1, 1, 0]);
    assert_eq!(profile.timings[1].operands.len(), 2);
    assert_eq!(profile.timings[1].results[0].shape, [2]);
    assert_eq!(profile.timings[1].bytes, 8);

    let own: Duration = profile.timings.iter().map(|timing| timing.own).sum();
    let whole = profile.timings[0].time + profile.timings[2].time;
    assert_eq!(own, whole);
    assert!(whole <= profile.duration);
    assert!(profile.timings[1].time <= profile.timings[0].time);
    assert_eq!((profile.events.len(), profile.dropped), (8, 0));
    assert!(profile
        .events
        .iter()
        .all(|event| event.start + event.duration <= profile.duration));
}

#[test]
fn events_beyond_the_limit_are_counted() {
    let stream = stream();
    let double = program(2, vec![instruction("abs", &[0], vec![])], 2);
    let mut times = nested(vec![double]);
    times.extend([100_010, 0, 1].map(Attribute::Int));
    times.push(Attribute::Dtype(Dtype::Int32));
    let program = Arc::new(program(1, vec![instruction("repeat", &[0], times)], 1));
    let (_, profile) = profile(&stream, &program, &[load(&stream, &[1.0], &[])]).unwrap();
    assert_eq!(profile.timings[1].calls, 100_010);
    assert_eq!((profile.events.len(), profile.dropped), (100_000, 11));
}

#[test]
fn a_fused_part_is_one_line_that_names_its_rows() {
    let stream = stream();
    let steps = vec![
        instruction("add", &[0, 0], vec![]),
        instruction("negate", &[1], vec![]),
    ];
    let program = Arc::new(program(1, steps, 2).fused().unwrap());
    let inputs = [load(&stream, &[1.5], &[1])];
    for _ in 0..2 {
        let (outputs, profile) = profile(&stream, &program, &inputs).unwrap();
        assert_eq!(floats(&outputs[0]), [-3.0]);
        assert_eq!((profile.timings.len(), profile.timings[0].calls), (1, 1));
    }
    let [line] = &program.listing()[..] else {
        panic!("one line");
    };
    assert_eq!(
        (line.row, &line.fused[..]),
        ("fused", &["add", "negate"][..])
    );
}

#[test]
fn a_failure_is_told_and_ends_the_recording() {
    let stream = stream();
    let program = Arc::new(program(2, vec![instruction("add", &[0, 1], vec![])], 2));
    let inputs = [
        load(&stream, &[1.0, 2.0], &[2]),
        load(&stream, &[1.0; 3], &[3]),
    ];
    let error = profile(&stream, &program, &inputs).err().unwrap();
    assert_eq!(error.op().unwrap().0, "add");
    let right = [inputs[0].clone(), inputs[0].clone()];
    let (outputs, profile) = profile(&stream, &program, &right).unwrap();
    assert_eq!(floats(&outputs[0]), [2.0, 4.0]);
    assert_eq!(profile.timings[0].calls, 1);
}
