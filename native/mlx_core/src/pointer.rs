//! Memory that other code knows by an address or by a name.
//!
//! A tensor can be found by code of this process at an address, and by other processes
//! in a segment of shared memory. Both stay as long as the tensor's slot.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use mlx_rs::Dtype;
use parking_lot::Mutex;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::host::{readable_in_place, HostView};
use crate::memory;
use crate::slot::Slot;
use crate::stream::{Answer, Payload, Request, Stream};

/// Segments that are there, for the end of the process.
static SEGMENTS: Mutex<Vec<CString>> = Mutex::new(Vec::new());

/// Attempts to find a name that no process before this one has left behind.
const ATTEMPTS: u32 = 1024;

/// A segment of shared memory that goes with its name when it is dropped.
pub(crate) struct Segment {
    name: CString,
    permissions: u32,
    len: usize,
}

/// A segment's name and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName {
    pub name: String,
    pub len: usize,
}

/// Bytes that belong to someone else.
struct Foreign {
    address: usize,
    len: usize,
}

// Safety: whoever gave the address keeps the bytes until the copy is made.
unsafe impl Send for Foreign {}

impl AsRef<[u8]> for Foreign {
    fn as_ref(&self) -> &[u8] {
        // Safety: the process can read the bytes, which their owner leaves alone.
        unsafe { std::slice::from_raw_parts(self.address as *const u8, self.len) }
    }
}

impl Slot {
    /// Computes the slot and answers on its worker with the address of its values and
    /// their size in bytes.
    pub fn address(self: &Arc<Self>, answer: impl Answer<(usize, usize)>) {
        let device = self.device();
        self.read_as(move |view| address(&view, device), answer);
    }

    /// Computes `values`, copies them to shared memory for as long as this slot lives,
    /// and answers on their worker.
    pub fn publish(
        self: &Arc<Self>,
        values: &Arc<Slot>,
        permissions: u32,
        answer: impl Answer<SegmentName>,
    ) {
        let owner = self.clone();
        values.read_as(
            move |view| publish(&owner, view.bytes(), permissions),
            answer,
        );
    }
}

fn address(view: &HostView, device: crate::Device) -> Result<(usize, usize)> {
    let bytes = view.bytes();
    if !readable_in_place(device) {
        return Err(Error::NotAddressable { device });
    }
    if bytes.is_empty() {
        return Err(Error::NoElements);
    }
    Ok((bytes.as_ptr() as usize, bytes.len()))
}

fn publish(owner: &Slot, bytes: &[u8], permissions: u32) -> Result<SegmentName> {
    let mut segments = owner.segments().lock();
    let found = segments.iter().find(|one| one.permissions == permissions);
    if let Some(segment) = found {
        return Ok(segment.name());
    }
    if bytes.is_empty() {
        return Err(Error::NoElements);
    }
    let segment = Segment::create(bytes, permissions)?;
    let name = segment.name();
    segments.push(segment);
    Ok(name)
}

impl Stream {
    /// Copies `len` bytes at an address into a new slot and answers on the worker, after which the bytes are not looked at any more.
    pub fn copy_address(
        &self,
        address: usize,
        len: usize,
        dims: Vec<i64>,
        dtype: Dtype,
        answer: impl Answer<Arc<Slot>>,
    ) {
        let bytes = move || match is_readable(address, len) {
            Ok(true) => Ok(Foreign { address, len }),
            Ok(false) => Err(Error::NotReadable { address, len }),
            Err(error) => Err(Error::Io {
                message: error.to_string(),
            }),
        };
        self.copy(bytes, dims, dtype, answer);
    }

    /// Copies the first `len` bytes of shared memory into a new slot and answers on
    /// the worker.
    pub fn copy_segment(
        &self,
        name: Vec<u8>,
        len: usize,
        dims: Vec<i64>,
        dtype: Dtype,
        answer: impl Answer<Arc<Slot>>,
    ) {
        self.copy(move || read_segment(name, len), dims, dtype, answer);
    }

    fn copy<B: AsRef<[u8]> + Send + 'static>(
        &self,
        bytes: impl FnOnce() -> Result<B> + Send + 'static,
        dims: Vec<i64>,
        dtype: Dtype,
        answer: impl Answer<Arc<Slot>>,
    ) {
        let slot = self.slot();
        let worker = slot.owner();
        let work = move |context: &mut Context| {
            Payload::new(bytes()?, &dims, dtype)?.load(&slot, context);
            slot.failure().map_or(Ok(slot), Err)
        };
        worker.request(Request { answer, work });
    }
}

/// Whether the process can read the bytes. The system is asked to read one of each page,
/// because it says no where the processor would end the process.
fn is_readable(address: usize, len: usize) -> io::Result<bool> {
    const PROBES: usize = 512;
    let Some(end) = address.checked_add(len) else {
        return Ok(false);
    };
    // Safety: a plain question.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let mut probes = (address - address % page..end)
        .step_by(page)
        .map(|start| libc::iovec {
            iov_base: start.max(address) as *mut _,
            iov_len: 1,
        });
    let (mut reader, writer) = io::pipe()?;
    let mut sink = [0; PROBES];
    loop {
        let some: Vec<libc::iovec> = probes.by_ref().take(PROBES).collect();
        if some.is_empty() {
            return Ok(true);
        }
        // Safety: the system checks the addresses, and the pipe has room for the bytes.
        let written = unsafe {
            let count = some.len() as libc::c_int;
            libc::writev(writer.as_raw_fd(), some.as_ptr(), count)
        };
        if written != some.len() as isize {
            return Ok(false);
        }
        reader.read_exact(&mut sink[..some.len()])?;
    }
}

impl Segment {
    fn create(bytes: &[u8], permissions: u32) -> Result<Segment> {
        let (name, file) = new_segment(permissions).map_err(failure("new"))?;
        SEGMENTS.lock().push(name.clone());
        let segment = Segment {
            name,
            permissions,
            len: bytes.len(),
        };
        transfer::write(file, bytes).map_err(failure(&segment.name().name))?;
        Ok(segment)
    }

    fn name(&self) -> SegmentName {
        SegmentName {
            name: self.name.to_string_lossy().into_owned(),
            len: self.len,
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        SEGMENTS.lock().retain(|name| *name != self.name);
        // Safety: the name ends with NUL.
        unsafe { libc::shm_unlink(self.name.as_ptr()) };
    }
}

/// Takes away the names of all segments, which else outlive the process.
pub(crate) fn unlink_segments() {
    for name in SEGMENTS.lock().drain(..) {
        // Safety: the name ends with NUL.
        unsafe { libc::shm_unlink(name.as_ptr()) };
    }
}

fn failure(name: &str) -> impl FnOnce(io::Error) -> Error + '_ {
    move |error| Error::SharedMemory {
        name: name.to_owned(),
        message: error.to_string(),
    }
}

/// macOS allows names of 31 bytes.
fn new_segment(permissions: u32) -> io::Result<(CString, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    let mut outcome = Err(io::ErrorKind::AlreadyExists.into());
    for _ in 0..ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("/mlx-{:x}-{number:x}", std::process::id()))?;
        outcome = open(&name, flags, permissions).map(|file| (name, file));
        let taken = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
        if !outcome.as_ref().is_err_and(taken) {
            break;
        }
    }
    outcome
}

fn open(name: &CString, flags: libc::c_int, permissions: u32) -> io::Result<File> {
    // Safety: the name ends with NUL, and the descriptor is owned by the file alone.
    unsafe {
        match libc::shm_open(name.as_ptr(), flags, permissions) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(File::from(OwnedFd::from_raw_fd(descriptor))),
        }
    }
}

fn read_segment(name: Vec<u8>, len: usize) -> Result<Vec<u8>> {
    let shown = String::from_utf8_lossy(&name).into_owned();
    let open = || -> io::Result<(File, u64)> {
        let file = open(&CString::new(name)?, libc::O_RDONLY, 0)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let (file, size) = open().map_err(failure(&shown))?;
    if size < len as u64 {
        return Err(Error::SegmentSize {
            name: shown,
            expected: len,
            given: size as usize,
        });
    }
    memory::check(len)?;
    transfer::read(file, len).map_err(failure(&shown))
}

/// Through the file: it reports a segment that has shrunk or a system that has no memory
/// left, for which access to mapped memory ends the process.
#[cfg(target_os = "linux")]
mod transfer {
    use std::fs::File;
    use std::io::{self, Read, Write};

    pub fn write(mut file: File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    pub fn read(mut file: File, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(not(target_os = "linux"))]
use mapped as transfer;

/// Through a mapping: the way where segments can't be read and written as files. There
/// they don't shrink, either.
#[cfg(any(test, not(target_os = "linux")))]
mod mapped {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    struct Mapping {
        start: *mut libc::c_void,
        len: usize,
    }

    impl Mapping {
        fn new(file: &File, len: usize, access: libc::c_int) -> io::Result<Mapping> {
            let descriptor = file.as_raw_fd();
            // Safety: the system chooses the place.
            let start = unsafe {
                let shared = libc::MAP_SHARED;
                libc::mmap(std::ptr::null_mut(), len, access, shared, descriptor, 0)
            };
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(Mapping { start, len })
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // Safety: nothing points into the mapping any more.
            unsafe { libc::munmap(self.start, self.len) };
        }
    }

    pub fn write(file: File, bytes: &[u8]) -> io::Result<()> {
        file.set_len(bytes.len() as u64)?;
        let mapping = Mapping::new(&file, bytes.len(), libc::PROT_READ | libc::PROT_WRITE)?;
        // Safety: the mapping is as long as the bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.start.cast(), bytes.len()) };
        Ok(())
    }

    pub fn read(file: File, len: usize) -> io::Result<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let mapping = Mapping::new(&file, len, libc::PROT_READ)?;
        // Safety: the segment has as many bytes as are mapped.
        Ok(unsafe { std::slice::from_raw_parts(mapping.start.cast::<u8>(), len) }.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_not_readable() {
        let bytes = vec![1u8; 3 << 20];
        let start = bytes.as_ptr() as usize;
        assert!(is_readable(start, bytes.len()).unwrap());
        assert!(is_readable(start + 5, 1).unwrap());
        for (address, len) in [(0, 4), (8, 8), (usize::MAX - 2, 8), (start, 1 << 46)] {
            assert!(!is_readable(address, len).unwrap(), "{len} at {address:#x}");
        }
    }

    #[test]
    fn segments_go_with_their_owner() {
        let segment = Segment::create(b"values", 0o600).unwrap();
        let name = segment.name().name.into_bytes();
        assert_eq!(read_segment(name.clone(), 6).unwrap(), b"values");
        assert_eq!(read_segment(name.clone(), 3).unwrap(), b"val");
        let error = read_segment(name.clone(), 1 << 20).unwrap_err();
        assert!(matches!(error, Error::SegmentSize { .. }), "{error}");
        drop(segment);
        let error = read_segment(name, 6).unwrap_err();
        assert!(matches!(error, Error::SharedMemory { .. }), "{error}");
    }

    #[test]
    fn segments_are_the_same_mapped_and_as_files() {
        let (name, file) = new_segment(0o600).unwrap();
        mapped::write(file, b"values").unwrap();
        let file = open(&name, libc::O_RDONLY, 0).unwrap();
        assert_eq!(mapped::read(file, 6).unwrap(), b"values");
        let bytes = name.clone().into_bytes();
        assert_eq!(read_segment(bytes, 6).unwrap(), b"values");
        // Safety: the name ends with NUL.
        assert_eq!(unsafe { libc::shm_unlink(name.as_ptr()) }, 0);
    }

    #[test]
    fn names_fit_everywhere() {
        let longest = format!("/mlx-{:x}-{:x}", u32::MAX, u32::MAX);
        assert!(longest.len() < 31);
    }
}
