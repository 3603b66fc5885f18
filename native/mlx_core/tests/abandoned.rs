//! Work whose results nobody can read any more is skipped or ended, what others need is not.
//!
//! What must be skipped never ends by itself, so a worker that runs it answers nobody.

mod common;

use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use mlx_core::{Answer, Attribute, Error, HostView, Program, Result, Slot, Stream};

const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the worker busy until it is told to go on; comes back once the worker is.
fn hold(stream: &Stream) -> Sender<()> {
    let (release, blocked) = channel();
    let (started, running) = channel();
    stream.synchronize(move |_: Result<(), Arc<Error>>| {
        started.send(()).unwrap();
        blocked.recv().unwrap();
    });
    running.recv().unwrap();
    release
}

/// A loop that starts with the operand and never ends.
fn endless(stream: &Stream, slot: &Arc<Slot>) -> Arc<Slot> {
    let identity = || Program::new(1, vec![], vec![0]).unwrap();
    let condition = Program::new(1, vec![instruction("equal", &[0, 0], vec![])], vec![1]);
    let programs = [condition.unwrap(), identity()];
    let attributes = programs.map(|program| Attribute::Program(Box::new(program)));
    op(stream, "while", &[slot], attributes.to_vec())
}

fn assert_serves(stream: &Stream) {
    let (sender, receiver) = channel();
    let one = load(stream, &[1.0], &[]);
    op(stream, "negate", &[&one], vec![])
        .read(move |view: Result<HostView, Arc<Error>>| sender.send(view.is_ok()).unwrap());
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(true));
}

/// Whoever asked has gone.
struct Gone;

impl<T> Answer<T> for Gone {
    fn is_awaited(&self) -> bool {
        false
    }

    fn send(self, _outcome: Result<T, Arc<Error>>) {
        panic!("an answer to nobody");
    }
}

#[test]
fn a_chain_that_was_let_go_of_is_skipped() {
    let stream = stream();
    let one = load(&stream, &[1.0], &[]);
    let held = hold(&stream);
    let forever = endless(&stream, &one);
    let after = op(&stream, "negate", &[&forever], vec![]);
    let last = op(&stream, "negate", &[&after], vec![]);
    [forever, last, after].into_iter().for_each(Slot::let_go);
    held.send(()).unwrap();
    assert_serves(&stream);
}

#[test]
fn what_is_let_go_of_while_earlier_work_runs_is_skipped() {
    let stream = stream();
    let one = load(&stream, &[1.0], &[]);
    let held = hold(&stream);
    let (release, blocked) = channel::<()>();
    let (started, running) = channel();
    stream.synchronize(move |_: Result<(), Arc<Error>>| {
        started.send(()).unwrap();
        blocked.recv().unwrap();
    });
    // These three come to the worker at once.
    let forever = endless(&stream, &one);
    let after = op(&stream, "negate", &[&forever], vec![]);
    held.send(()).unwrap();
    running.recv().unwrap();
    [after, forever].into_iter().for_each(Slot::let_go);
    release.send(()).unwrap();
    assert_serves(&stream);
}

#[test]
fn work_whose_reader_has_gone_is_skipped() {
    let stream = stream();
    let one = load(&stream, &[1.0], &[]);
    let held = hold(&stream);
    let forever = endless(&stream, &one);
    forever.read(Gone);
    forever.signature(Gone);
    Slot::eval_all(forever.clone(), vec![one], Gone);
    forever.let_go();
    held.send(()).unwrap();
    assert_serves(&stream);
}

#[test]
fn a_request_of_nobody_is_skipped() {
    let stream = stream();
    load(&stream, &[1.0], &[]).read(Gone);
    stream.synchronize(Gone);
    assert_serves(&stream);
}

/// The same, once the worker has begun with it.
fn begun(stream: &Stream, slot: &Arc<Slot>) -> Arc<Slot> {
    let held = hold(stream);
    let forever = endless(stream, slot);
    held.send(()).unwrap();
    // There is nothing before it.
    std::thread::sleep(Duration::from_millis(250));
    forever
}

#[test]
fn a_loop_that_is_let_go_of_while_it_runs_ends() {
    let stream = stream();
    let one = load(&stream, &[1.0], &[]);
    let forever = begun(&stream, &one);
    let after = op(&stream, "negate", &[&forever], vec![]);
    after.read(Gone);
    let last = op(&stream, "negate", &[&after], vec![]);
    [forever, after, last].into_iter().for_each(Slot::let_go);
    assert_serves(&stream);
}

#[test]
fn a_loop_ends_although_another_stream_waits_for_it() {
    let (stream, other) = (stream(), common::stream());
    let one = load(&stream, &[1.0], &[]);
    let forever = begun(&stream, &one);
    let far = op(&other, "negate", &[&forever], vec![]);
    let farther = op(&other, "negate", &[&far], vec![]);
    [forever, far, farther].into_iter().for_each(Slot::let_go);
    assert_serves(&other);
    assert_serves(&stream);
}

#[test]
fn what_someone_still_needs_is_not_skipped() {
    let stream = stream();
    let held = hold(&stream);
    let two = load(&stream, &[2.0], &[]);
    let four = op(&stream, "multiply", &[&two, &two], vec![]);
    let unneeded = op(&stream, "negate", &[&four], vec![]);
    let other = common::stream();
    let far = op(&other, "multiply", &[&four, &four], vec![]);
    let near = op(&stream, "sqrt", &[&four], vec![]);
    [two, four, unneeded].into_iter().for_each(Slot::let_go);
    held.send(()).unwrap();
    assert_eq!(floats(&far), [16.0]);
    assert_eq!(floats(&near), [2.0]);
}
