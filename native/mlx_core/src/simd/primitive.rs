//! What `primitive.cpp` makes of a function: a node of MLX's graph.

use std::ffi::{c_char, c_int, c_void, CStr};

use mlx_rs::{Array, Stream};

use super::level::{entry, Kernel};
use crate::error::Result;
use crate::ffi;

const MAX_INPUTS: usize = 4;

/// What a function computes from; `primitive.cpp` has the same. The output may be where the
/// first input is, and nothing else overlaps.
#[repr(C)]
pub(super) struct Call {
    pub inputs: [*const c_void; MAX_INPUTS],
    /// How many elements lie behind each.
    pub lengths: [usize; MAX_INPUTS],
    pub output: *mut c_void,
    pub length: usize,
    /// The size of the last axis.
    pub row: usize,
    pub parameter: f64,
}

pub(super) type Entry = unsafe extern "C" fn(*const Call);

#[repr(C)]
struct Plan {
    name: *const c_char,
    function: Entry,
    parameter: f64,
    ordered: bool,
}

extern "C" {
    fn mlx_simd_array(
        result: *mut mlx_sys::mlx_array,
        plan: *const Plan,
        inputs: *const mlx_sys::mlx_array,
        count: usize,
        stream: mlx_sys::mlx_stream,
    ) -> c_int;
}

/// The stream is not a CPU's.
const ELSEWHERE: c_int = 2;

/// What a kernel makes of elements in any order, if the stream is a CPU's.
pub(super) fn elements<K: Kernel>(
    name: &'static CStr,
    x: &Array,
    s: &Stream,
) -> Result<Option<Array>> {
    let plan = Plan {
        name: name.as_ptr(),
        function: entry::<K>(),
        parameter: 0.0,
        ordered: false,
    };
    run(&plan, &[x.as_ptr()], s)
}

fn run(plan: &Plan, inputs: &[mlx_sys::mlx_array], s: &Stream) -> Result<Option<Array>> {
    let mut elsewhere = false;
    let array = ffi::array(|result| {
        // Safety: the handles are alive, and the primitive copies the plan, whose name and
        // function are static.
        let status =
            unsafe { mlx_simd_array(result, plan, inputs.as_ptr(), inputs.len(), s.as_ptr()) };
        elsewhere = status == ELSEWHERE;
        if elsewhere {
            0
        } else {
            status
        }
    })?;
    Ok(if elsewhere { None } else { Some(array) })
}
