//! Kernels of this crate's own for NVIDIA GPUs, which MLX compiles when they first run.

use std::ffi::CStr;

use mlx_rs::{Array, Stream};

use crate::error::Result;
use crate::ffi::{arrays, Arrays};

/// The most threads that share what is near to them.
const BLOCK: i32 = 128;

/// A kernel that makes an array `y` of an array `x` in row order, both of elements of `T`.
pub(crate) struct CudaKernel(mlx_sys::mlx_fast_cuda_kernel);

impl CudaKernel {
    /// Of the body of a function, which has the dimensions of `x` as `x_shape`.
    pub(crate) fn new(name: &CStr, body: &CStr) -> CudaKernel {
        let (in_order, shared_memory) = (true, 0);
        // Safety: strings end with NUL, and MLX copies all that it is given here.
        unsafe {
            let x = mlx_sys::mlx_vector_string_new_value(c"x".as_ptr());
            let y = mlx_sys::mlx_vector_string_new_value(c"y".as_ptr());
            let kernel = mlx_sys::mlx_fast_cuda_kernel_new(
                name.as_ptr(),
                x,
                y,
                body.as_ptr(),
                c"".as_ptr(),
                in_order,
                shared_memory,
            );
            mlx_sys::mlx_vector_string_free(x);
            mlx_sys::mlx_vector_string_free(y);
            CudaKernel(kernel)
        }
    }

    /// What it makes, of a shape and by so many threads, whose number is rounded up to whole
    /// blocks.
    pub(crate) fn run(
        &self,
        x: &Array,
        shape: &[i32],
        threads: i32,
        stream: &Stream,
    ) -> Result<Array> {
        let dtype: mlx_sys::mlx_dtype = x.dtype().into();
        let x = Arrays::new(&[x]);
        let threads = (threads.max(1) as u32).next_multiple_of(BLOCK as u32) as i32;
        // Safety: the handles outlive the call, and MLX checks the number of arrays.
        let mut made = arrays(|out| unsafe {
            let config = mlx_sys::mlx_fast_cuda_kernel_config_new();
            mlx_sys::mlx_fast_cuda_kernel_config_add_output_arg(
                config,
                shape.as_ptr(),
                shape.len(),
                dtype,
            );
            mlx_sys::mlx_fast_cuda_kernel_config_set_grid(config, threads, 1, 1);
            mlx_sys::mlx_fast_cuda_kernel_config_set_thread_group(config, BLOCK, 1, 1);
            mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_dtype(
                config,
                c"T".as_ptr(),
                dtype,
            );
            let failed = mlx_sys::mlx_fast_cuda_kernel_apply(
                out,
                self.0,
                x.as_ptr(),
                config,
                stream.as_ptr(),
            );
            mlx_sys::mlx_fast_cuda_kernel_config_free(config);
            failed
        })?;
        Ok(made.remove(0))
    }
}

impl Drop for CudaKernel {
    fn drop(&mut self) {
        // Safety: the kernel is owned here and freed once.
        unsafe { mlx_sys::mlx_fast_cuda_kernel_free(self.0) };
    }
}
