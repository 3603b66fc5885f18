//! Sums of the rows of halves on an NVIDIA GPU, by a kernel of their own.
//!
//! MLX's sums of halves lose digits there, because they are halves on the way; to cast to single
//! precision and back are two kernels more.

use mlx_rs::{Array, Dtype, Stream};

use crate::cuda_kernel::CudaKernel;
use crate::error::Result;
use crate::ffi::on_gpu;

/// A row is added up by 32 threads, so few or long ones are best left to others.
const MANY: usize = 256;
const LONGEST: i32 = 16_384;

/// Threads that exchange what they have without waiting.
const WARP: i32 = 32;

thread_local! {
    static KERNEL: CudaKernel = CudaKernel::new(c"row_sums", BODY);
}

/// Eight numbers at a time where they lie as the processor wants them.
const BODY: &std::ffi::CStr = c"
  const int rows = x_shape[0], size = x_shape[1];
  const int lane = threadIdx.x % 32;
  const long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
  if (row >= rows) {
    return;
  }
  const T* from = x + row * size;
  float sum = 0;
  if (size % 8 == 0 && reinterpret_cast<unsigned long long>(x) % 16 == 0) {
    for (int at = lane * 8; at < size; at += 256) {
      const uint4 eight = *reinterpret_cast<const uint4*>(from + at);
      const T* numbers = reinterpret_cast<const T*>(&eight);
      for (int i = 0; i < 8; ++i) {
        sum += static_cast<float>(numbers[i]);
      }
    }
  } else {
    for (int at = lane; at < size; at += 32) {
      sum += static_cast<float>(from[at]);
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    sum += __shfl_down_sync(0xffffffff, sum, step);
  }
  if (lane == 0) {
    y[row] = static_cast<T>(sum);
  }
";

/// Whether the sum over the axes is one of rows that the kernel is best at.
pub(super) fn are(x: &Array, axes: &[i32], s: &Stream) -> bool {
    let last = x.ndim() as i32 - 1;
    let size = x.shape().last().copied().unwrap_or(0);
    matches!(x.dtype(), Dtype::Float16 | Dtype::Bfloat16)
        && axes == [last]
        && (1..=LONGEST).contains(&size)
        && (MANY..=(i32::MAX / WARP) as usize / 2).contains(&(x.size() / size as usize))
        && !cfg!(target_os = "macos")
        && on_gpu(s)
}

/// The sums of the rows, with a last axis of one.
pub(super) fn sums(x: &Array, s: &Stream) -> Result<Array> {
    let mut shape = x.shape().to_vec();
    let size = shape.pop().unwrap_or(1);
    shape.push(1);
    let rows = x.reshape(&[-1, size])?;
    KERNEL.with(|kernel| kernel.run(&rows, &shape, rows.dim(0) * WARP, s))
}
