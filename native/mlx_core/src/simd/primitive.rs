//! What `primitive.cpp` makes of a function: a node of MLX's graph.

use std::ffi::{c_char, c_int, c_void, CStr};

use mlx_rs::{Array, Stream};
use smallvec::SmallVec;

use super::level::{entry, Kernel};
use crate::error::Result;
use crate::ffi;

const MAX_INPUTS: usize = 3;

/// What a kernel needs to know beside the operands.
pub(super) type Parameters = [f64; 6];

pub(super) const NO_PARAMETERS: Parameters = [0.0; 6];

/// What a function computes from; `primitive.cpp` has the same. The output has the first
/// input's size and may be where that is.
#[repr(C)]
pub(super) struct Call {
    /// Null where there is none.
    pub inputs: [*const c_void; MAX_INPUTS],
    pub output: *mut c_void,
    pub length: usize,
    /// The size of the last axis.
    pub row: usize,
    pub parameters: Parameters,
}

pub(super) type Entry<C = Call> = unsafe extern "C" fn(*const C);

#[repr(C)]
struct Plan {
    name: *const c_char,
    function: Entry,
    parameters: Parameters,
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

    fn mlx_simd_product(
        result: *mut mlx_sys::mlx_array,
        function: Entry,
        few: c_int,
        a: mlx_sys::mlx_array,
        b: mlx_sys::mlx_array,
        stream: mlx_sys::mlx_stream,
    ) -> c_int;
}

/// The stream is not a CPU's.
const ELSEWHERE: c_int = 2;

/// In which order the elements of the operands may lie.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Order {
    Any,
    /// A row after the other.
    Rows,
}

/// What a kernel makes of operands, an array of the first one's shape and type. Nothing if
/// the kernel doesn't have the type, or the stream is not a CPU's.
pub(super) fn array<K: Kernel<Call = Call>>(
    name: &'static CStr,
    order: Order,
    parameters: Parameters,
    operands: &[&Array],
    s: &Stream,
) -> Result<Option<Array>> {
    let handles: SmallVec<[_; MAX_INPUTS]> = operands.iter().map(|x| x.as_ptr()).collect();
    let Some(function) = entry::<K>(operands[0].dtype()) else {
        return Ok(None);
    };
    let plan = Plan {
        name: name.as_ptr(),
        function,
        parameters,
        ordered: order == Order::Rows,
    };
    on_cpu(|result| {
        let (inputs, count) = (handles.as_ptr(), handles.len());
        // Safety: the handles are alive, and the primitive copies the plan, whose name and
        // function are static.
        unsafe { mlx_simd_array(result, &plan, inputs, count, s.as_ptr()) }
    })
}

/// What a function makes of two matrices of the same type, whose inner sizes agree; by MLX's
/// own product where there are gaps in them, or more rows than are few and the second one's
/// columns don't lie one after the other. Nothing if the stream is not a CPU's. Parameters of
/// the call are the inner size and whether those columns do; its length is the rows.
pub(super) fn product(
    a: &Array,
    b: &Array,
    function: Entry,
    few: i32,
    s: &Stream,
) -> Result<Option<Array>> {
    // Safety: the handles are alive, and the function is static.
    on_cpu(|result| unsafe {
        mlx_simd_product(result, function, few, a.as_ptr(), b.as_ptr(), s.as_ptr())
    })
}

pub(super) fn on_cpu(make: impl FnOnce(*mut mlx_sys::mlx_array) -> c_int) -> Result<Option<Array>> {
    let mut elsewhere = false;
    let array = ffi::array(|result| {
        let status = make(result);
        elsewhere = status == ELSEWHERE;
        if elsewhere {
            0
        } else {
            status
        }
    })?;
    Ok((!elsewhere).then_some(array))
}
