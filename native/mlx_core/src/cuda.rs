//! Copies from the memory of NVIDIA GPUs.
//!
//! MLX moves an array to memory that host and GPU share as soon as the host asks for its
//! data. The driver, which MLX has loaded, copies the values and leaves the array alone.

use std::cell::OnceCell;
use std::ffi::{c_int, c_void, CStr};

use mlx_rs::Array;
use once_cell::sync::Lazy;

type Outcome = c_int;
type Stream = *mut c_void;

/// A stream that does not wait for others.
const NON_BLOCKING: u32 = 1;

/// Functions of CUDA's driver.
struct Driver {
    copy_to_host: CopyToHost,
    synchronize: Synchronize,
    create_stream: CreateStream,
}

type CopyToHost = unsafe extern "C" fn(*mut c_void, u64, usize, Stream) -> Outcome;
type Synchronize = unsafe extern "C" fn(Stream) -> Outcome;
type CreateStream = unsafe extern "C" fn(*mut Stream, u32) -> Outcome;

static DRIVER: Lazy<Option<Driver>> = Lazy::new(Driver::find);

thread_local! {
    /// Never destroyed: the driver ends with the process.
    static STREAM: OnceCell<Option<Stream>> = const { OnceCell::new() };
}

impl Driver {
    fn find() -> Option<Driver> {
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
        // Safety: the name is a string; the library stays, because MLX needs it.
        let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), flags) };
        if library.is_null() {
            return None;
        }
        let symbol = |name: &CStr| {
            // Safety: the library is loaded and the name is a string.
            let address = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!address.is_null()).then_some(address)
        };
        let copy_to_host = symbol(c"cuMemcpyDtoHAsync_v2")?;
        let synchronize = symbol(c"cuStreamSynchronize")?;
        let create_stream = symbol(c"cuStreamCreate")?;
        // Safety: CUDA's driver API gives the functions of these names these types.
        unsafe {
            Some(Driver {
                copy_to_host: std::mem::transmute::<*mut c_void, CopyToHost>(copy_to_host),
                synchronize: std::mem::transmute::<*mut c_void, Synchronize>(synchronize),
                create_stream: std::mem::transmute::<*mut c_void, CreateStream>(create_stream),
            })
        }
    }

    /// A stream of this thread, whose context MLX has made current.
    fn stream(&self) -> Option<Stream> {
        STREAM.with(|stream| {
            *stream.get_or_init(|| {
                let mut made = std::ptr::null_mut();
                // Safety: it writes a handle.
                let outcome = unsafe { (self.create_stream)(&mut made, NON_BLOCKING) };
                (outcome == 0).then_some(made)
            })
        })
    }
}

/// Whether this MLX is one for NVIDIA GPUs, and their driver is there.
pub(crate) fn is_loaded() -> bool {
    DRIVER.is_some()
}

/// What MLX's allocator for CUDA keeps of a buffer.
#[repr(C)]
struct Buffer {
    data: u64,
    size: usize,
    device: c_int,
}

extern "C" {
    fn mlx_core_buffer(array: *const c_void, offset: *mut usize) -> *const Buffer;
}

/// A copy of an evaluated array's bytes, which lie in row order. None where the driver is
/// not there or has failed, of which MLX then says more.
pub(crate) fn copy(array: &Array) -> Option<Vec<u8>> {
    let driver = DRIVER.as_ref()?;
    let stream = driver.stream()?;
    let len = array.nbytes();
    let mut bytes = Vec::<u8>::with_capacity(len);
    let mut offset = 0;
    // Safety: an evaluated array has a buffer that holds its bytes from the offset on; the
    // copy is waited for before anyone looks at it.
    unsafe {
        let buffer = mlx_core_buffer(array.as_ptr().ctx, &mut offset).as_ref()?;
        let data = buffer.data + offset as u64;
        let target = bytes.as_mut_ptr().cast();
        if (driver.copy_to_host)(target, data, len, stream) != 0 {
            return None;
        }
        if (driver.synchronize)(stream) != 0 {
            return None;
        }
        bytes.set_len(len);
    }
    Some(bytes)
}
