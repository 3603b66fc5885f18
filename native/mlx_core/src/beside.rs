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

/// Whether this thread has such a stream.
pub(crate) fn exists() -> bool {
    BESIDE.with(|beside| beside.get().is_some())
}

/// Builds with a stream of the CPU: the worker's own where that is one, else the
/// one beside it.
pub(crate) fn on_cpu<const N: usize, T>(
    operands: [&Array; N],
    stream: &Stream,
    build: impl FnOnce([&Array; N], &Stream) -> Result<T>,
) -> Result<T> {
    match Device::of(stream) {
        Device::Cpu => build(operands, stream),
        Device::Gpu => beside(operands, stream, build),
    }
}

fn beside<const N: usize, T>(
    operands: [&Array; N],
    stream: &Stream,
    build: impl FnOnce([&Array; N], &Stream) -> Result<T>,
) -> Result<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_wait_for_each_other() {
        crate::init();
        let own = Stream::new_with_device(&Device::Cpu.handle());
        let numbers = Array::from_slice(&[2f32, 1.0, 0.0, 3.0], &[2, 2]);
        let product = mlx_rs::with_stream(&own, || {
            let a = mlx_rs::ops::matmul(&numbers, numbers.transpose().unwrap()).unwrap();
            let factor = beside([&a], &own, |[a], cpu| {
                assert!(*cpu != own);
                Ok(mlx_rs::linalg::cholesky(a, None)?)
            })
            .unwrap();
            mlx_rs::ops::matmul(&factor, factor.transpose().unwrap()).unwrap()
        });
        let expected = Array::from_slice(&[5f32, 3.0, 3.0, 9.0], &[2, 2]);
        ffi::eval(&[&product]).unwrap();
        assert!(product.all_close(&expected, None, None, None).unwrap());
        synchronize().unwrap();
    }
}
