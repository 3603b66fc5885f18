//! What operations need for as long as they run does not come anew from the system.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::mem::MaybeUninit;
use std::sync::Arc;

use common::*;
use mlx_core::{Attribute, Slot, Stream};

const SIZE: usize = 1 << 20;

/// Pages that this process has been given so far.
fn pages() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // Safety: it fills the structure, in which zeros are numbers.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_minflt
}

fn transform(stream: &Stream, signal: &Arc<Slot>) {
    let attributes = vec![
        Attribute::Int(SIZE as i64),
        Attribute::Int(0),
        Attribute::Float(0.0),
    ];
    let _spectrum = op(stream, "fft", &[signal], attributes);
    synchronize(stream);
}

#[test]
fn transforms_use_the_memory_of_the_last_ones() {
    let stream = stream();
    let signal = load(&stream, &vec![1.0; SIZE], &[SIZE as i64]);
    (0..3).for_each(|_| transform(&stream, &signal));
    let before = pages();
    let times = 10;
    (0..times).for_each(|_| transform(&stream, &signal));
    let each = (pages() - before) / times;
    // The numbers alone, of 8 bytes, fill 2,048 pages.
    assert!(each < 1024, "{each} pages each");
}
