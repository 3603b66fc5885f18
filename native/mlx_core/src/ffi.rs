//! The few MLX C functions that mlx-rs does not offer, and MLX's errors as values.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CStr};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype, Stream};

use crate::device::Device;

type MlxResult<T> = std::result::Result<T, Exception>;

thread_local! {
    static LAST_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
}

extern "C" fn remember_error(message: *const c_char, _data: *mut c_void) {
    // Safety: MLX passes a NUL-terminated string that lives for this call.
    let message = unsafe { CStr::from_ptr(message) }
        .to_string_lossy()
        .into_owned();
    LAST_ERROR.with_borrow_mut(|last| *last = Some(without_location(message)));
}

/// mlx-c appends " at file:line"; users have no use for it.
fn without_location(mut message: String) -> String {
    if let Some(end) = message.rfind(" at /") {
        message.truncate(end);
    }
    message
}

/// Replaces MLX's own handler, which ends the process.
///
/// mlx-rs installs one lazily at its first fallible call, so one comes first here.
pub(crate) fn install_error_handler() {
    drop(Array::from_int(1).clone());
    // Safety: the handler is a plain function and needs no data.
    unsafe { mlx_sys::mlx_set_error_handler(Some(remember_error), std::ptr::null_mut(), None) };
}

/// The message of this thread's last MLX error, once.
pub(crate) fn take_error() -> Option<String> {
    LAST_ERROR.take()
}

fn check(status: i32) -> MlxResult<()> {
    if status == 0 {
        return Ok(());
    }
    let message = take_error().unwrap_or_else(|| "MLX gave no reason".to_owned());
    Err(Exception::custom(message))
}

/// Runs a C function that writes one array.
pub(crate) fn array(call: impl FnOnce(*mut mlx_sys::mlx_array) -> i32) -> MlxResult<Array> {
    // Safety: a new handle is empty and owned here; on success MLX has filled it,
    // on failure the wrapper frees it.
    let mut handle = unsafe { mlx_sys::mlx_array_new() };
    let status = call(&mut handle);
    let array = unsafe { Array::from_ptr(handle) };
    check(status).map(|()| array)
}

/// Calls `mlx_sys::$function(out, arguments…, stream)` for one array.
macro_rules! c_op {
    ($function:ident($($argument:expr),* $(,)?), $stream:expr) => {
        $crate::ffi::array(|out| {
            // Safety: the handles outlive the call, and MLX checks shapes and types itself.
            unsafe { mlx_sys::$function(out, $($argument),*, $stream.as_ptr()) }
        })
    };
}
pub(crate) use c_op;

/// The handle of an array that a C function may do without.
pub(crate) fn optional(array: Option<&Array>) -> mlx_sys::mlx_array {
    let ctx = std::ptr::null_mut();
    array.map_or(mlx_sys::mlx_array_ { ctx }, |array| array.as_ptr())
}

/// A C vector of array handles.
pub(crate) struct Arrays(mlx_sys::mlx_vector_array);

impl Arrays {
    pub(crate) fn new(arrays: &[&Array]) -> Arrays {
        let handles: Vec<_> = arrays.iter().map(|array| array.as_ptr()).collect();
        // Safety: MLX copies the handles, which are alive for this call.
        Arrays(unsafe { mlx_sys::mlx_vector_array_new_data(handles.as_ptr(), handles.len()) })
    }

    pub(crate) fn as_ptr(&self) -> mlx_sys::mlx_vector_array {
        self.0
    }
}

impl Drop for Arrays {
    fn drop(&mut self) {
        // Safety: the vector is owned here and freed once.
        unsafe { mlx_sys::mlx_vector_array_free(self.0) };
    }
}

/// The arrays of a C vector, which keeps its own.
pub(crate) fn arrays_of(vector: mlx_sys::mlx_vector_array) -> MlxResult<Vec<Array>> {
    // Safety: the vector is alive for this call.
    let size = unsafe { mlx_sys::mlx_vector_array_size(vector) };
    (0..size)
        .map(|at| array(|out| unsafe { mlx_sys::mlx_vector_array_get(out, vector, at) }))
        .collect()
}

/// Runs a C function that writes a vector of arrays.
pub(crate) fn arrays(
    call: impl FnOnce(*mut mlx_sys::mlx_vector_array) -> i32,
) -> MlxResult<Vec<Array>> {
    let mut vector = Arrays::new(&[]);
    check(call(&mut vector.0))?;
    arrays_of(vector.0)
}

/// What stands for an array that is not given.
pub(crate) fn no_array() -> mlx_sys::mlx_array {
    mlx_sys::mlx_array_ {
        ctx: std::ptr::null_mut(),
    }
}

type Function =
    extern "C" fn(*mut mlx_sys::mlx_vector_array, mlx_sys::mlx_vector_array, *mut c_void) -> c_int;

/// A function from arrays to arrays that MLX holds.
pub(crate) struct Closure(mlx_sys::mlx_closure);

impl Closure {
    /// The compiled form of `function`, which is called with a pointer to `payload`. It is
    /// cached for this thread under the number, which must never be another's.
    pub(crate) fn compiled<T>(
        function: Function,
        payload: Box<T>,
        id: usize,
    ) -> MlxResult<Closure> {
        extern "C" fn free<T>(payload: *mut c_void) {
            // Safety: made by `Box::into_raw` below, and MLX frees it once.
            drop(unsafe { Box::from_raw(payload.cast::<T>()) });
        }
        let payload = Box::into_raw(payload).cast();
        // Safety: the closure owns the payload; the compiled one keeps the plain one.
        unsafe {
            let plain =
                mlx_sys::mlx_closure_new_func_payload(Some(function), payload, Some(free::<T>));
            let plain = Closure(plain);
            let mut compiled = Closure(mlx_sys::mlx_closure_new());
            check(mlx_sys::mlx_detail_compile(
                &mut compiled.0,
                plain.0,
                id,
                false,
                std::ptr::null(),
                0,
            ))?;
            Ok(compiled)
        }
    }

    pub(crate) fn apply(&self, inputs: &[&Array]) -> MlxResult<Vec<Array>> {
        let inputs = Arrays::new(inputs);
        let mut outputs = Arrays::new(&[]);
        // Safety: the closure and both vectors are alive.
        check(unsafe { mlx_sys::mlx_closure_apply(&mut outputs.0, self.0, inputs.as_ptr()) })?;
        arrays_of(outputs.as_ptr())
    }
}

impl Drop for Closure {
    fn drop(&mut self) {
        // Safety: the closure is owned here and freed once.
        unsafe { mlx_sys::mlx_closure_free(self.0) };
    }
}

/// Forgets what this thread compiled under the number.
pub(crate) fn forget_compiled(id: usize) {
    // Safety: the handle of this thread's cache is made, used and freed here. A failure
    // leaves an entry that nobody asks for again.
    unsafe {
        let mut cache = mlx_sys::mlx_compile_cache_new();
        if mlx_sys::mlx_detail_compile_cache(&mut cache) == 0 {
            mlx_sys::mlx_detail_compile_erase(cache, id);
        }
        mlx_sys::mlx_compile_cache_free(cache);
    }
}

/// Computes the arrays and waits for them.
pub(crate) fn eval(arrays: &[&Array]) -> MlxResult<()> {
    let arrays = Arrays::new(arrays);
    // Safety: the vector outlives the call.
    check(unsafe { mlx_sys::mlx_eval(arrays.as_ptr()) })
}

/// Starts computing the arrays.
pub(crate) fn async_eval(arrays: &[&Array]) -> MlxResult<()> {
    let arrays = Arrays::new(arrays);
    // Safety: the vector outlives the call.
    check(unsafe { mlx_sys::mlx_async_eval(arrays.as_ptr()) })
}

/// Waits for everything that runs on the stream.
pub(crate) fn synchronize(stream: &Stream) -> MlxResult<()> {
    // Safety: the stream handle is alive.
    check(unsafe { mlx_sys::mlx_synchronize(stream.as_ptr()) })
}

/// Whether the array's values are there.
pub(crate) fn is_available(array: &Array) -> bool {
    let mut available = false;
    // Safety: both pointers are valid for the call.
    let status = unsafe { mlx_sys::_mlx_array_is_available(&mut available, array.as_ptr()) };
    status == 0 && available
}

/// Whether an evaluated array lies in memory in row order.
pub(crate) fn is_row_contiguous(array: &Array) -> bool {
    let mut contiguous = false;
    // Safety: both pointers are valid for the call.
    let status = unsafe { mlx_sys::_mlx_array_is_row_contiguous(&mut contiguous, array.as_ptr()) };
    status == 0 && contiguous
}

/// Where an evaluated array's values are.
pub(crate) fn data(array: &Array) -> *const u8 {
    // Safety: callers have evaluated the array, so it has a buffer.
    unsafe { mlx_sys::mlx_array_data_uint8(array.as_ptr()) }
}

/// An array with a copy of the bytes; their number is the caller's to check.
pub(crate) fn from_bytes(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Array {
    // Safety: `bytes` holds as many elements as the shape names, and MLX copies them.
    unsafe { Array::from_raw_data(bytes.as_ptr().cast(), shape, dtype) }
}

/// The value of an evaluated scalar.
pub(crate) fn item_bool(array: &Array) -> MlxResult<bool> {
    let mut value = false;
    // Safety: both pointers are valid for the call.
    check(unsafe { mlx_sys::mlx_array_item_bool(&mut value, array.as_ptr()) })?;
    Ok(value)
}

/// The value of an evaluated scalar.
pub(crate) fn item_f64(array: &Array) -> MlxResult<f64> {
    let mut value = 0.0;
    // Safety: both pointers are valid for the call.
    check(unsafe { mlx_sys::mlx_array_item_float64(&mut value, array.as_ptr()) })?;
    Ok(value)
}

/// Another handle to the same array.
pub(crate) fn share(array: &Array) -> Array {
    array.clone()
}

/// Makes the stream the default of this thread.
pub(crate) fn set_default_stream(stream: &Stream) -> MlxResult<()> {
    // Safety: the stream handle is alive.
    check(unsafe { mlx_sys::mlx_set_default_stream(stream.as_ptr()) })
}

/// Whether what runs on the stream runs on a GPU.
pub(crate) fn on_gpu(stream: &Stream) -> bool {
    let mut kind = mlx_sys::mlx_device_type__MLX_CPU;
    // Safety: the stream handle is alive; the device handle is made, asked and freed here.
    unsafe {
        let mut device = mlx_sys::mlx_device_new();
        if mlx_sys::mlx_stream_get_device(&mut device, stream.as_ptr()) == 0 {
            mlx_sys::mlx_device_get_type(&mut kind, device);
        }
        mlx_sys::mlx_device_free(device);
    }
    kind == mlx_sys::mlx_device_type__MLX_GPU
}

pub(crate) fn device_available(device: Device) -> bool {
    let kind = match device {
        Device::Cpu => mlx_sys::mlx_device_type__MLX_CPU,
        Device::Gpu => mlx_sys::mlx_device_type__MLX_GPU,
    };
    let mut available = false;
    // Safety: the device handle is made, asked and freed here.
    let status = unsafe {
        let device = mlx_sys::mlx_device_new_type(kind, 0);
        let status = mlx_sys::mlx_device_is_available(&mut available, device);
        mlx_sys::mlx_device_free(device);
        status
    };
    status == 0 && available
}

/// mlx-rs names this clock of Apple's for its random seeds; elsewhere it stands in.
#[cfg(not(target_os = "macos"))]
#[no_mangle]
extern "C" fn mach_approximate_time() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_cut_from_messages() {
        let message = "[add] bad shapes. at /tmp/x/ops.cpp:12".to_owned();
        assert_eq!(without_location(message), "[add] bad shapes.");
        assert_eq!(without_location("plain at home".into()), "plain at home");
    }
}
