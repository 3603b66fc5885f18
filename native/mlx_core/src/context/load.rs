//! Bytes from outside, as the arrays of slots.

use std::sync::Arc;

use mlx_rs::{Array, Dtype};

use super::Context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ffi;
use crate::file::FilePart;
use crate::garbage;
use crate::known;
use crate::memory;
use crate::slot::Slot;
use crate::upload;

impl Context {
    /// Fills the slot with a copy of bytes of the host, as many as it needs.
    pub(crate) fn load(
        &mut self,
        slot: &Slot,
        bytes: Box<dyn AsRef<[u8]> + Send>,
        shape: &[i32],
        dtype: Dtype,
    ) {
        let len = (*bytes).as_ref().len();
        if let Err(error) = memory::check(len) {
            return slot.fail(&Arc::new(error));
        }
        if !self.reads_to_arrays(len) {
            let bytes = (*bytes).as_ref();
            if let Some(number) = known::integer(bytes, shape, dtype) {
                slot.know(number);
            }
            slot.fill(ffi::from_bytes(bytes, shape, dtype));
            slot.settle();
            return garbage::watch();
        }
        match self.upload(Box::new(bytes), shape, dtype) {
            Ok(array) => {
                slot.fill(array);
                slot.settle();
                garbage::watch();
            }
            Err(error) => slot.fail(&error),
        }
    }

    /// Whether so many bytes are best written straight to an array's memory.
    fn reads_to_arrays(&self, len: usize) -> bool {
        len >= upload::LARGE && self.worker.device() == Device::Cpu
    }

    fn upload(
        &mut self,
        bytes: Box<dyn upload::Bytes>,
        shape: &[i32],
        dtype: Dtype,
    ) -> Result<Array, Arc<Error>> {
        self.compute(upload::load(bytes, shape, dtype, &self.stream))
    }

    /// Fills the slot with a part of a file, as many bytes as it needs.
    pub(crate) fn load_file(
        &mut self,
        slot: &Slot,
        part: FilePart,
        shape: &[i32],
        dtype: Dtype,
    ) -> Result<(), Arc<Error>> {
        memory::check(part.len)?;
        let array = if part.is_plain() && self.reads_to_arrays(part.len) {
            let (reader, failure) = part.reader()?;
            let array = self.upload(Box::new(reader), shape, dtype)?;
            match failure.take() {
                Some(error) => return Err(Arc::new(error)),
                None => array,
            }
        } else {
            ffi::from_bytes(part.read()?.as_ref(), shape, dtype)
        };
        slot.fill(array);
        slot.settle();
        garbage::watch();
        Ok(())
    }
}
