//! Slots, poisoning, queue bounds, worker reuse and reads across streams.

mod common;

use std::sync::mpsc::channel;
use std::sync::Arc;

use common::*;
use mlx_core::{Attribute, Device, Dtype, Error, ErrorKind, Payload, Program, Slot, Stream};

#[test]
fn results_are_read_where_they_were_queued() {
    let stream = stream();
    let a = load(&stream, &[1.0, 2.0, 3.0], &[3]);
    let b = load(&stream, &[10.0], &[]);
    let sum = op(&stream, "add", &[&a, &b], vec![]);
    assert_eq!(floats(&sum), [11.0, 12.0, 13.0]);
    assert!(
        sum.host_view().is_some(),
        "a computed slot is read without its worker"
    );
}

#[test]
fn a_lazy_slot_has_no_host_view() {
    let stream = stream();
    let a = load(&stream, &[1.0; 4], &[2, 2]);
    let transposed = op(&stream, "transpose", &[&a], vec![ints(&[1, 0])]);
    let view = transposed.host_view();
    assert!(view.is_none());
    assert_eq!(floats(&transposed), [1.0; 4]);
}

#[test]
fn transposed_arrays_are_read_in_row_order() {
    let stream = stream();
    let a = load(&stream, &[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let transposed = op(&stream, "transpose", &[&a], vec![ints(&[1, 0])]);
    assert_eq!(floats(&transposed), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn empty_arrays_are_read() {
    let stream = stream();
    let empty = load(&stream, &[], &[2, 0]);
    assert_eq!(floats(&empty), [0.0; 0]);
    let sum = op(
        &stream,
        "sum",
        &[&empty],
        vec![ints(&[1]), Attribute::Bool(true)],
    );
    assert_eq!(floats(&sum), [0.0, 0.0]);
}

#[test]
fn a_failed_op_poisons_what_uses_it_with_the_first_failure() {
    let stream = stream();
    let a = load(&stream, &[1.0, 2.0], &[2]);
    let b = load(&stream, &[1.0, 2.0, 3.0], &[3]);
    let bad = op(&stream, "add", &[&a, &b], vec![]);
    let worse = op(&stream, "negate", &[&bad], vec![]);

    let error = read(&worse).unwrap_err();
    let (name, operands) = error.op().unwrap();
    assert_eq!(name, "add");
    assert_eq!(operands[0].to_string(), "f32[2]");
    assert_eq!(error.kind(), ErrorKind::Native);
    assert!(
        error.to_string().starts_with("add(f32[2], f32[3]): "),
        "{error}"
    );

    assert_eq!(floats(&op(&stream, "negate", &[&a], vec![])), [-1.0, -2.0]);
}

#[test]
fn bytes_must_fit_the_shape() {
    let error = Payload::new(vec![0u8; 7], &[2], Dtype::Float32)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "a tensor of f32[2] has 8 bytes, the binary has 7"
    );
    assert_eq!(error.kind(), ErrorKind::Shape);
    let error = Payload::new(vec![0u8; 4], &[1 << 40], Dtype::Uint8)
        .err()
        .unwrap();
    assert!(matches!(error, Error::Dimension { .. }));
    let error = Payload::new(vec![0u8; 4], &[-1], Dtype::Uint8)
        .err()
        .unwrap();
    assert!(matches!(error, Error::Dimension { .. }));
}

#[test]
fn a_full_queue_refuses_and_tells_when_it_has_room() {
    let stream = stream();
    let a = load(&stream, &[1.0], &[]);
    let (release, blocked) = channel::<()>();
    let (started, running) = channel();
    stream.synchronize(move |_| {
        started.send(()).unwrap();
        blocked.recv().unwrap();
    });
    running.recv().unwrap();

    let negate = Program::new(1, vec![instruction("negate", &[0], vec![])], vec![1]).unwrap();
    let negate = Arc::new(negate);
    let mut accepted = 0;
    while stream.run(negate.clone(), vec![a.clone()]).is_some() {
        accepted += 1;
        assert!(
            accepted <= 2 * mlx_core::queue_limit(),
            "the queue has no bound"
        );
    }
    assert_eq!(accepted, mlx_core::queue_limit());

    let (sender, room) = channel();
    assert!(!stream.when_room(move || sender.send(()).unwrap()));
    assert!(room.try_recv().is_err());
    release.send(()).unwrap();
    room.recv().unwrap();
    let slot = stream
        .run(negate, vec![a])
        .expect("there is room")
        .remove(0);
    assert_eq!(floats(&slot), [-1.0]);
}

#[test]
fn a_slot_of_another_stream_is_waited_for() {
    let (one, two) = (stream(), stream());
    for round in 0..200 {
        let a = load(&one, &[round as f32; 64], &[64]);
        let squared = op(&one, "multiply", &[&a, &a], vec![]);
        let doubled = op(&two, "add", &[&squared, &squared], vec![]);
        let back = op(&one, "subtract", &[&doubled, &squared], vec![]);
        assert_eq!(floats(&back), [(round * round) as f32; 64]);
    }
}

#[test]
fn two_streams_that_want_each_others_slots_both_go_on() {
    let (one, two) = (stream(), stream());
    let mut a = load(&one, &[1.0], &[]);
    let mut b = load(&two, &[1.0], &[]);
    for _ in 0..200 {
        let next_a = op(&one, "add", &[&a, &b], vec![]);
        let next_b = op(&two, "max", &[&b, &a], vec![]);
        a = op(&one, "min", &[&next_a, &next_b], vec![]);
        b = op(&two, "min", &[&next_b, &next_a], vec![]);
    }
    assert_eq!(floats(&a), floats(&b));
}

#[test]
fn a_failure_crosses_streams() {
    let (one, two) = (stream(), stream());
    let a = load(&one, &[1.0, 2.0], &[2]);
    let b = load(&one, &[1.0, 2.0, 3.0], &[3]);
    let bad = op(&one, "add", &[&a, &b], vec![]);
    let error = read(&op(&two, "negate", &[&bad], vec![])).unwrap_err();
    assert_eq!(error.op().unwrap().0, "add");
}

#[test]
fn slots_outlive_their_stream_and_workers_are_reused() {
    let before = {
        let stream = stream();
        let slot = load(&stream, &[4.0], &[]);
        let root = op(&stream, "sqrt", &[&slot], vec![]);
        drop(stream);
        assert_eq!(floats(&root), [2.0]);
        mlx_core::worker_count()
    };
    for _ in 0..100 {
        let stream = stream();
        let slot = load(&stream, &[4.0], &[]);
        assert_eq!(floats(&slot), [4.0]);
    }
    // Other tests run beside this one and take workers of their own.
    assert!(mlx_core::worker_count() < before + 50);
}

#[test]
fn the_default_stream_is_shared() {
    mlx_core::init();
    let (a, b) = (
        Stream::of(Device::Cpu).unwrap(),
        Stream::of(Device::Cpu).unwrap(),
    );
    let slot: Arc<Slot> = load(a, &[1.5], &[]);
    assert_eq!(floats(&op(b, "floor", &[&slot], vec![])), [1.0]);
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    if Device::Gpu.is_available() {
        return;
    }
    let error = Stream::new(Device::Gpu).err().unwrap();
    assert_eq!(error.to_string(), "there is no gpu device; available: cpu");
    assert_eq!(error.kind(), ErrorKind::Device);
}

#[test]
fn unread_work_is_computed_and_dropped() {
    let stream = stream();
    let mut slot = load(&stream, &[0.0; 256], &[256]);
    let one = load(&stream, &[1.0], &[]);
    for _ in 0..3000 {
        slot = op(&stream, "add", &[&slot, &one], vec![]);
    }
    synchronize(&stream);
    assert_eq!(floats(&slot), [3000.0; 256]);
}

#[test]
fn a_slot_knows_its_signature_before_it_is_computed() {
    let stream = stream();
    let a = load(&stream, &[0.0; 6], &[2, 3]);
    let (sender, receiver) = channel();
    op(&stream, "is_nan", &[&a], vec![]).signature(move |outcome| sender.send(outcome).unwrap());
    assert_eq!(receiver.recv().unwrap().unwrap().to_string(), "bool[2][3]");
}
