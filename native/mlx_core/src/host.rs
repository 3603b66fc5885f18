//! A view of an array's values from the host, without a copy where the host can see them.

use mlx_rs::Array;

use crate::device::Device;
use crate::ffi;
use crate::worker::Worker;

/// Keeps the values of an evaluated array for as long as its bytes are looked at.
pub struct HostView {
    kept: Kept,
    data: *const u8,
    len: usize,
    owner: &'static Worker,
}

enum Kept {
    Array(Array),
    Copy {
        _bytes: Vec<u8>,
    },
    /// What was there has gone back to its worker.
    Nothing,
}

// Safety: the bytes are a copy or those of an evaluated array; MLX does not write to a
// buffer that another handle holds, and the handle goes back to its worker.
unsafe impl Send for HostView {}
unsafe impl Sync for HostView {}

impl HostView {
    /// A view of an evaluated array, if the host can read it in place.
    pub(crate) fn of(array: &Array, owner: &'static Worker) -> Option<HostView> {
        if array.size() > 0 && !(readable_in_place(owner.device()) && ffi::is_row_contiguous(array))
        {
            return None;
        }
        Some(HostView::new(ffi::share(array), owner))
    }

    /// A view of an evaluated array in row order.
    pub(crate) fn new(array: Array, owner: &'static Worker) -> HostView {
        let len = array.nbytes();
        let data = if len == 0 {
            std::ptr::null()
        } else {
            ffi::data(&array)
        };
        HostView {
            kept: Kept::Array(array),
            data,
            len,
            owner,
        }
    }

    /// A view of the values where they have been copied to.
    pub(crate) fn of_copy(bytes: Vec<u8>, owner: &'static Worker) -> HostView {
        HostView {
            data: bytes.as_ptr(),
            len: bytes.len(),
            kept: Kept::Copy { _bytes: bytes },
            owner,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // Safety: the copy, or the array, evaluated and in row order, lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// A discrete GPU's buffer moves to the host for good when MLX is asked for its data,
/// so there the worker copies it.
pub(crate) fn readable_in_place(device: Device) -> bool {
    device == Device::Cpu || cfg!(target_os = "macos")
}

impl Drop for HostView {
    fn drop(&mut self) {
        if let Kept::Array(array) = std::mem::replace(&mut self.kept, Kept::Nothing) {
            self.owner.discard(array);
        }
    }
}
