//! The engine of Mlx: MLX arrays computed on worker threads, one per stream.
//!
//! - [`Stream`] hands work to a worker thread and returns at once.
//! - [`Slot`] is the place where a result will be: empty, ready or failed.
//! - [`Program`] is a flat list of [`Instruction`]s over numbered registers.
//! - [`ops`] is the table of everything an instruction can name.
//!
//! Nothing here knows of the BEAM; `mlx_nif` translates terms to these types.

mod attribute;
mod beside;
mod blocks;
mod context;
mod cuda;
mod device;
mod dtype;
mod error;
mod evaluation;
mod ffi;
mod file;
mod fuse;
mod fusion;
mod garbage;
mod graphs;
mod halt;
mod host;
mod job;
mod kernels;
mod known;
mod memory;
mod openblas;
pub mod ops;
mod placement;
mod pointer;
mod profile;
mod program;
mod queue;
mod rest;
mod simd;
mod slot;
mod stream;
mod upload;
mod worker;

pub use attribute::{Attribute, FromAttribute, Shape};
pub use blocks::{Blocks, Field};
pub use context::{set_stepwise, Context};
pub use device::Device;
pub use dtype::{dtype_from_nx, dtype_name};
pub use error::{Error, ErrorKind, Operation, Result, Signature};
pub use file::{FilePart, Packed, Stamp};
pub use garbage::{collect_advised, garbage_collected, set_garbage_host, Garbage};
pub use halt::halt;
pub use host::HostView;
pub use memory::{
    cache_limit, clear_cache, memory_cached, memory_held, memory_limit, memory_peak,
    reset_memory_peak, set_cache_limit, set_memory_limit,
};
pub use mlx_rs::{Array, Dtype};
pub use openblas::{openblas, OpenBlas};
pub use pointer::SegmentName;
pub use profile::{Event, Line, Profile, Timing};
pub use program::{Few, Instruction, Instructions, Program};
pub use rest::rest_after;
pub use slot::Slot;
pub use stream::{Answer, Payload, Stream};
pub use worker::{queue_depths, queue_limit, set_queue_limit, worker_count, QueueDepth};

/// Makes MLX safe to use from this process: errors become values, and
/// workers stop before the native libraries are torn down. Idempotent.
pub fn init() {
    static ONCE: once_cell::sync::OnceCell<()> = once_cell::sync::OnceCell::new();
    ONCE.get_or_init(|| {
        graphs::keep_many();
        ffi::install_error_handler();
        halt::install();
    });
}
