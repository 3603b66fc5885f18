//! Large buffers from the host, on the CPU.
//!
//! MLX copies a buffer page by page as the system hands out memory. Asked to load an
//! array from a reader instead, it lets the reader write to the new memory, and the
//! reader can ask for large pages first, which costs a third of the time. What is read
//! from a file this way is nowhere else meanwhile; it comes without large pages, which take
//! longer to find than they save where the file's own pages fill the memory.

use std::ffi::{c_char, c_int, c_void};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype, Stream};

use crate::dtype::dtype_size;
use crate::ffi;

/// Below this size the reader costs more than it saves.
pub(crate) const LARGE: usize = 4 << 20;

/// Bytes that are there or can be had.
pub(crate) trait Bytes: Send {
    fn len(&self) -> usize;

    /// Writes the bytes from an offset on. MLX is told of no failure, because it would end
    /// the process: who gives the bytes finds out.
    fn write_to(&self, target: &mut [u8], offset: usize);
}

impl Bytes for Box<dyn AsRef<[u8]> + Send> {
    fn len(&self) -> usize {
        (**self).as_ref().len()
    }

    fn write_to(&self, target: &mut [u8], offset: usize) {
        advise_large_pages(target.as_mut_ptr(), target.len());
        target.copy_from_slice(&(**self).as_ref()[offset..offset + target.len()]);
    }
}

/// A file in NumPy's format, version 1.0: a header and the bytes
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
struct Source {
    header: Vec<u8>,
    bytes: Box<dyn Bytes>,
    position: usize,
}

/// An array of the bytes, which is lazy until it is evaluated.
pub(crate) fn load(
    bytes: Box<dyn Bytes>,
    shape: &[i32],
    dtype: Dtype,
    stream: &Stream,
) -> Result<Array, Exception> {
    let (name, stored) = unsigned(dtype);
    let source = Source {
        header: header(name, shape),
        bytes,
        position: 0,
    };
    let source = Box::into_raw(Box::new(source)).cast();
    // Safety: the reader owns the source from here on and frees it with `free`.
    let array = unsafe {
        let reader = mlx_sys::mlx_io_reader_new(source, VTABLE);
        let array = ffi::array(|out| mlx_sys::mlx_load_reader(out, reader, stream.as_ptr()));
        mlx_sys::mlx_io_reader_free(reader);
        array?
    };
    if stored == dtype {
        return Ok(array);
    }
    array.view_dtype(dtype)
}

/// NumPy's name of the unsigned type as wide as an element, and the type.
fn unsigned(dtype: Dtype) -> (&'static str, Dtype) {
    match dtype_size(dtype) {
        1 => ("|u1", Dtype::Uint8),
        2 => ("<u2", Dtype::Uint16),
        4 => ("<u4", Dtype::Uint32),
        _ => ("<u8", Dtype::Uint64),
    }
}

fn header(name: &str, shape: &[i32]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(i32::to_string).collect();
    // MLX takes no comma after the last of several.
    let comma = if let [_] = shape { "," } else { "" };
    let dims = dims.join(", ") + comma;
    let mut text = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': ({dims}), }}");
    let padding = 64 - (10 + text.len() + 1) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.bytes());
    header
}

impl Source {
    /// Copies as many bytes as there are from an offset on.
    fn copy(&self, target: *mut c_char, wanted: usize, offset: usize) -> usize {
        let target = target.cast::<u8>();
        let Some(offset) = offset.checked_sub(self.header.len()) else {
            let part = &self.header[offset..];
            let count = part.len().min(wanted);
            // Safety: MLX gives room for as many bytes as it wants.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), target, count) };
            return count;
        };
        let count = self.bytes.len().saturating_sub(offset).min(wanted);
        // Safety: as above, and nobody reads the memory before it is written.
        let target = unsafe { std::slice::from_raw_parts_mut(target, count) };
        self.bytes.write_to(target, offset);
        count
    }
}

#[cfg(target_os = "linux")]
fn advise_large_pages(target: *mut u8, count: usize) {
    const PAGE: usize = 2 << 20;
    let start = (target as usize).next_multiple_of(PAGE);
    let end = (target as usize + count) / PAGE * PAGE;
    if end > start {
        // Safety: the range lies within memory that MLX has just allocated; refusal
        // changes nothing but speed.
        unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_target: *mut u8, _count: usize) {}

const VTABLE: mlx_sys::mlx_io_vtable = mlx_sys::mlx_io_vtable {
    is_open: Some(always),
    good: Some(always),
    tell: Some(tell),
    seek: Some(seek),
    read: Some(read),
    read_at_offset: Some(read_at_offset),
    write: Some(write),
    label: Some(label),
    free: Some(free),
};

// Safety of the functions below: MLX passes the source that `load` gave it, and asks
// for the position and for sequential reads from one thread.

unsafe extern "C" fn always(_source: *mut c_void) -> bool {
    true
}

unsafe extern "C" fn tell(source: *mut c_void) -> usize {
    (*source.cast::<Source>()).position
}

unsafe extern "C" fn seek(source: *mut c_void, offset: i64, whence: c_int) -> c_int {
    let source = &mut *source.cast::<Source>();
    let end = source.header.len() + source.bytes.len();
    let from = match whence {
        0 => 0,
        1 => source.position,
        _ => end,
    };
    match from.checked_add_signed(offset as isize) {
        Some(position) if position <= end => source.position = position,
        _ => return -1,
    }
    0
}

unsafe extern "C" fn read(source: *mut c_void, target: *mut c_char, count: usize) -> usize {
    let source = &mut *source.cast::<Source>();
    let copied = source.copy(target, count, source.position);
    source.position += copied;
    copied
}

unsafe extern "C" fn read_at_offset(
    source: *mut c_void,
    target: *mut c_char,
    count: usize,
    offset: usize,
) -> usize {
    (*source.cast::<Source>()).copy(target, count, offset)
}

unsafe extern "C" fn write(_source: *mut c_void, _from: *const c_char, _count: usize) -> usize {
    0
}

unsafe extern "C" fn label(_source: *mut c_void) -> *const c_char {
    c"bytes of the host".as_ptr()
}

unsafe extern "C" fn free(source: *mut c_void) {
    drop(Box::from_raw(source.cast::<Source>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_aligned() {
        for shape in [&[][..], &[0], &[9], &[1 << 30, 1 << 20, 3]] {
            let header = header("<u8", shape);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
        }
    }

    #[test]
    fn loaded_arrays_hold_the_bytes() {
        let values: Vec<u8> = (0..LARGE + 32).map(|i| (i % 251) as u8).collect();
        let count = (values.len() / 8) as i32;
        let stream = Stream::new_with_device(&mlx_rs::Device::cpu());
        mlx_rs::with_stream(&stream, || {
            let bytes: Box<dyn AsRef<[u8]> + Send> = Box::new(values.clone());
            let array = load(Box::new(bytes), &[2, count / 2], Dtype::Int64, &stream).unwrap();
            ffi::eval(&[&array]).unwrap();
            assert_eq!(array.shape(), [2, count / 2]);
            // Safety: the array is evaluated and has as many bytes.
            let read = unsafe { std::slice::from_raw_parts(ffi::data(&array), values.len()) };
            assert_eq!(read, values);
        });
    }
}
