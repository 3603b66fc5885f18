//! CPU streams beside the streams of other devices.
//!
//! MLX has its linear algebra for the CPU only. A worker of a GPU builds it on a CPU
//! stream of its own thread, and MLX makes the two wait for each other.

use std::cell::OnceCell;

use mlx_rs::{Array, Stream};

use crate::device::Device;
use crate::error::Result;
use crate::ffi::{self, c_op};

thread_local! {
    // MLX's streams live as long as the process, so the handle may, too.
    static BESIDE: OnceCell<&'static Stream> = const { OnceCell::new() };
}

/// Builds with a stream of the CPU: the worker's own where that is one, else the
/// one beside it.
pub(crate) fn on_cpu<const N: usize, T>(
    operands: [&Array; N],
    stream: &Stream,
    build: impl FnOnce([&Array; N], &Stream) -> Result<T>,
) -> Result<T> {
    if Device::of(stream) == Device::Cpu {
        return build(operands, stream);
    }
    let copies: Vec<Array> = operands
        .iter()
        .map(|operand| copy(operand, stream))
        .collect::<Result<_>>()?;
    let cpu = BESIDE.with(|beside| {
        *beside.get_or_init(|| Box::leak(Box::new(Stream::new_with_device(&Device::Cpu.handle()))))
    });
    mlx_rs::with_stream(cpu, || build(std::array::from_fn(|i| &copies[i]), cpu))
}

/// Waits for the CPU stream beside this thread's own, if there is one.
pub(crate) fn synchronize() -> Result<()> {
    match BESIDE.with(|beside| beside.get().copied()) {
        Some(stream) => Ok(ffi::synchronize(stream)?),
        None => Ok(()),
    }
}

/// CUDA moves a buffer that the CPU reads to the host for good, so it reads another.
fn copy(operand: &Array, stream: &Stream) -> Result<Array> {
    let always = Array::from_bool(true);
    Ok(c_op!(
        mlx_where(always.as_ptr(), operand.as_ptr(), operand.as_ptr()),
        stream
    )?)
}
