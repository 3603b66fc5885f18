//! What a worker does with what fails, and with other workers' slots.

use std::sync::mpsc::channel;

use mlx_rs::{linalg, ops as mlx};

use super::*;
use crate::device::Device;
use crate::error::ErrorKind;
use crate::ops;
use crate::program::Instruction;
use crate::stream::Payload;
use crate::Stream as Handle;

fn stream() -> Handle {
    crate::init();
    Handle::new(Device::Cpu).unwrap()
}

/// What the worker of a stream makes of its context.
fn ask<T: Send + 'static>(
    stream: &Handle,
    question: impl FnOnce(&mut Context) -> T + Send + 'static,
) -> T {
    let (sender, receiver) = channel();
    let slot = stream.slot();
    slot.owner()
        .call(move |context| sender.send(question(context)).unwrap());
    receiver.recv().unwrap()
}

/// A slot as a program leaves it.
fn filled(stream: &Handle, make: impl FnOnce() -> Array + Send + 'static) -> Arc<Slot> {
    let slot = stream.slot();
    let output = slot.clone();
    ask(stream, move |context| fill(context, &output, make()));
    slot
}

fn fill(context: &mut Context, slot: &Arc<Slot>, array: Array) {
    slot.fill(array);
    let slot = Arc::downgrade(slot);
    let program = Arc::new(Program::new(0, Vec::new(), Few::new()).unwrap());
    context.pending.push(Made { slot, program });
}

/// A slot that was left to those who use it, after all is computed.
fn completed(stream: &Handle, make: impl FnOnce() -> Array + Send + 'static) -> Arc<Slot> {
    let slot = stream.slot();
    let left = slot.clone();
    ask(stream, move |context| {
        context.rests = true;
        left.mark_used();
        fill(context, &left, make());
        context.synchronize().unwrap();
        assert!(is_lazy(&left));
        assert!(context.complete());
        assert!(!context.has_failed() && context.left.is_empty());
    });
    slot
}

/// Fails when MLX computes it.
fn singular() -> Array {
    let matrix = mlx::zeros::<f32>(&[2, 2]).unwrap();
    linalg::inv(&matrix).unwrap()
}

fn ones() -> Array {
    let one = mlx::ones::<f32>(&[2]).unwrap();
    one.multiply(&one).unwrap()
}

fn read(stream: &Handle, slot: &Arc<Slot>) -> Result<Vec<u8>, Arc<Error>> {
    let slot = slot.clone();
    ask(stream, move |context| {
        Ok(context.read(&slot)?.bytes().to_vec())
    })
}

/// The inverse of the negative.
fn failing_program() -> Arc<Program> {
    let step = |row, operands: &[usize]| Instruction {
        row,
        operands: operands.into(),
        attributes: vec![],
    };
    let negate = ops::row("negate").unwrap();
    let steps = vec![step(negate, &[0]), step(ops::failing_row(), &[1])];
    Arc::new(Program::new(1, steps, vec![2]).unwrap())
}

/// The result of the failing program on zeros, and what is queued after it.
fn fail(stream: &Handle) -> (Arc<Slot>, Arc<Slot>) {
    let zeros = Payload::new(vec![0u8; 16], &[2, 2], Dtype::Float32).unwrap();
    let zeros = stream.load(zeros).unwrap();
    let bad = stream.run(failing_program(), vec![zeros.clone()]);
    let negate = Instruction {
        row: ops::row("negate").unwrap(),
        operands: Few::from_slice(&[0]),
        attributes: vec![],
    };
    let program = Program::new(1, vec![negate], vec![1]).unwrap();
    let next = stream.run(Arc::new(program), vec![zeros]);
    (bad.unwrap().remove(0), next.unwrap().remove(0))
}

#[test]
fn a_failure_names_what_was_in_flight() {
    let stream = stream();
    // What was computed before is not among them.
    read(&stream, &filled(&stream, ones)).unwrap();
    let (bad, next) = fail(&stream);
    let error = read(&stream, &bad).unwrap_err();
    let Error::Among {
        operations, more, ..
    } = &*error
    else {
        panic!("{error}");
    };
    let named: Vec<_> = operations.iter().map(Operation::to_string).collect();
    let expected = ["negate", "inverse giving f32[2][2]"];
    assert_eq!((&named[..2], *more), (&expected.map(String::from)[..], 0));
    assert_eq!(error.kind(), ErrorKind::Native);
    // Queued at the same time, and in flight if the worker had come to it.
    if named.len() > 2 {
        assert_eq!(named[2..], ["negate giving f32[2][2]"]);
        assert!(read(&stream, &next).is_err());
    }
}

#[test]
fn a_stepwise_worker_blames_one_operation() {
    let stream = stream();
    set_stepwise(true);
    let (bad, next) = fail(&stream);
    let (error, next) = (read(&stream, &bad).unwrap_err(), read(&stream, &next));
    set_stepwise(false);
    let square = Signature {
        dtype: Dtype::Float32,
        shape: vec![2, 2],
    };
    assert_eq!(error.op(), Some(("inverse", &[square][..])), "{error}");
    assert!(!error.to_string().contains("in flight"), "{error}");
    assert!(next.is_ok());
}

#[test]
fn a_message_names_a_few_of_many_operations() {
    let operation = |op| Operation { op, result: None };
    let operations = vec![operation("add"); 7];
    let error = Error::Closed.among([operations, vec![operation("abs"); 5]].concat());
    let message = error.to_string();
    let listed = "add, add, add, abs, abs, abs, abs, abs and 4 before";
    assert_eq!(
        message,
        format!("the stream is closed; in flight: {listed}")
    );
    assert!(matches!(Error::Closed.among(vec![]), Error::Closed));
}

#[test]
fn a_failed_evaluation_poisons_what_is_in_flight_and_nothing_else() {
    let stream = stream();
    let known = filled(&stream, ones);
    let values = read(&stream, &known).unwrap();
    let (bystander, bad) = (filled(&stream, ones), filled(&stream, singular));

    let error = read(&stream, &bad).unwrap_err();
    assert!(matches!(*error, Error::Evaluation { .. }), "{error}");
    assert!(error.to_string().contains("failed"), "{error}");
    // MLX has forgotten it by now, and would answer with zeros.
    for slot in [&bad, &bystander] {
        assert!(Arc::ptr_eq(&read(&stream, slot).unwrap_err(), &error));
    }
    assert_eq!(read(&stream, &known).unwrap(), values);
    assert_eq!(read(&stream, &filled(&stream, ones)).unwrap(), values);
}

#[test]
fn a_failure_of_what_was_started_unasked_is_told_once() {
    let stream = stream();
    let values = read(&stream, &filled(&stream, ones)).unwrap();
    let bad = filled(&stream, singular);
    ask(&stream, |context| context.flush());
    let told = ask(&stream, |context| context.synchronize());
    let error = read(&stream, &bad).unwrap_err();
    assert!(told.is_ok() || Arc::ptr_eq(&told.unwrap_err(), &error));

    let later = filled(&stream, ones);
    assert!(ask(&stream, |context| context.synchronize()).is_ok());
    assert_eq!(read(&stream, &later).unwrap(), values);
}

#[test]
fn a_poisoned_slot_poisons_what_other_streams_make_of_it() {
    let (stream, other) = (stream(), self::stream());
    let bad = filled(&stream, singular);
    let wanted = bad.clone();
    let error = ask(&other, move |context| context.eval(&[wanted])).unwrap_err();
    assert!(matches!(*error, Error::Evaluation { .. }), "{error}");
    assert!(Arc::ptr_eq(&read(&stream, &bad).unwrap_err(), &error));
    assert!(read(&other, &filled(&other, ones)).is_ok());
}

#[test]
fn what_is_left_to_those_who_use_it_is_computed_before_the_stream_goes() {
    let slot = completed(&stream(), ones);
    let ones = [1f32, 1.0].map(f32::to_ne_bytes).concat();
    assert_eq!(slot.host_view().unwrap().bytes(), ones);
}

#[test]
fn what_fails_when_all_is_computed_says_so() {
    assert!(completed(&stream(), singular).failure().is_some());
}
