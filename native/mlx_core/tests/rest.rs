//! Streams of MLX that are let go of while their workers idle, and what is used across that.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use mlx_core::{rest_after, Device, Program, Slot, Stream};

const SOON: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(8);

/// For streams that rest soon. Threads of MLX's streams on CPUs stay, so that those are counted.
fn restless() -> Stream {
    rest_after(SOON);
    stream()
}

#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn sum_of_squares() -> Program {
    let instructions = vec![
        instruction("multiply", &[0, 0], vec![]),
        instruction("add", &[1, 0], vec![]),
        instruction(
            "sum",
            &[2],
            vec![ints(&[0]), mlx_core::Attribute::Bool(false)],
        ),
    ];
    Program::new(1, instructions, vec![3]).unwrap()
}

fn run(stream: &Stream, program: &Arc<Program>, input: &Arc<Slot>) -> Arc<Slot> {
    let outputs = stream.run(program.clone(), vec![input.clone()]);
    outputs.unwrap().remove(0)
}

#[test]
fn values_and_programs_outlive_the_stream() {
    let stream = restless();
    let fused = Arc::new(sum_of_squares().fused().unwrap());
    let x = load(&stream, &[1.0, 2.0, 3.0], &[3]);
    let mut y = op(&stream, "negate", &[&x], vec![]);
    #[cfg(target_os = "linux")]
    let before = threads();
    for at in 0..20 {
        std::thread::sleep(LONG);
        assert_eq!(floats(&run(&stream, &fused, &x)), [20.0], "{at}");
        y = op(&stream, "negate", &[&y], vec![]);
    }
    assert_eq!(floats(&y), [-1.0, -2.0, -3.0]);
    #[cfg(target_os = "linux")]
    assert!(threads() >= before + 10, "the stream has not rested");
}

#[test]
fn other_streams_use_what_a_resting_one_has_made() {
    let (one, other) = (restless(), restless());
    let x = load(&one, &[1.0, 2.0], &[2]);
    for _ in 0..10 {
        let lazy = op(&one, "negate", &[&x], vec![]);
        std::thread::sleep(LONG);
        let there = op(&other, "add", &[&lazy, &x], vec![]);
        std::thread::sleep(LONG);
        let back = op(&one, "subtract", &[&there, &lazy], vec![]);
        assert_eq!(floats(&back), [1.0, 2.0]);
    }
}

#[test]
fn workers_that_serve_nobody_serve_the_next_stream() {
    let x = load(&restless(), &[3.0], &[1]);
    for at in 0..200 {
        let stream = Stream::new(Device::Cpu).unwrap();
        assert_eq!(floats(&op(&stream, "negate", &[&x], vec![])), [-3.0]);
        drop(stream);
        std::thread::sleep(SOON * (at % 3));
    }
}

#[test]
fn streams_rest_beside_those_that_compute() {
    let threads: Vec<_> = (0..4u64)
        .map(|seed| {
            std::thread::spawn(move || {
                let stream = restless();
                let program = Arc::new(sum_of_squares().fused().unwrap());
                for at in 0..60 {
                    let x = load(&stream, &[seed as f32, at as f32], &[2]);
                    let (a, b) = (seed as f32, at as f32);
                    let expected = a * a + a + b * b + b;
                    assert_eq!(floats(&run(&stream, &program, &x)), [expected]);
                    std::thread::sleep(SOON * ((seed + at) % 4) as u32);
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}
