//! Parts of files as arrays.
//!
//! A part is read, never mapped: a mapped file that someone cuts short ends the process.
//! No file stays open between two reads; a stamp tells whether it is still the same one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::read::DeflateDecoder;
use flate2::Crc;
use mlx_rs::Dtype;
use parking_lot::Mutex;

use crate::blocks::Blocks;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::memory;
use crate::slot::Slot;
use crate::stream::{shape_of, Answer, Request, Stream};
use crate::upload::Bytes;

/// Blocks that are read at a time.
const BLOCKS: usize = 1 << 15;

/// No stream of deflate is shorter than its contents by more than this factor.
const MOST_DEFLATED: usize = 1032;

/// What tells a file from the one that takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    pub inode: u64,
    /// In seconds.
    pub modified: i64,
}

/// Bytes of a file that are the values of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    pub path: PathBuf,
    pub stamp: Stamp,
    /// Where the values begin, or the packed bytes with the values in them.
    pub offset: u64,
    /// Bytes of the values.
    pub len: usize,
    /// The width of numbers in the other byte order; 1 for those in this one.
    pub swapped: usize,
    pub packed: Option<Packed>,
    /// The values are a field of these blocks.
    pub blocks: Option<Blocks>,
}

/// Bytes in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// How many there are in the file.
    pub len: usize,
    pub deflated: bool,
    /// Bytes of the unpacked ones before the values.
    pub skipped: usize,
    /// The checksum of the unpacked ones.
    pub crc: u32,
}

/// The values of a part, and what comes before them.
pub(crate) struct Values {
    bytes: Vec<u8>,
    skipped: usize,
}

impl AsRef<[u8]> for Values {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.skipped..]
    }
}

/// Reads a part to memory of MLX's, and remembers a failure.
pub(crate) struct Reader {
    part: FilePart,
    file: File,
    failure: Failure,
}

#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().take()
    }
}

impl Stream {
    /// Reads a part of a file into a new slot and answers on the worker.
    pub fn load_file(
        &self,
        part: FilePart,
        dims: Vec<i64>,
        dtype: Dtype,
        answer: impl Answer<Arc<Slot>>,
    ) {
        let slot = self.slot();
        let worker = slot.owner();
        let work = move |context: &mut Context| {
            let shape = shape_of(&dims, dtype, part.len)?;
            context.load_file(&slot, part, &shape, dtype)?;
            Ok(slot)
        };
        worker.request(Request { answer, work });
    }
}

impl FilePart {
    /// Whether the values can be written to an array's memory as they are read.
    pub(crate) fn is_plain(&self) -> bool {
        self.packed.is_none() && self.swapped == 1
    }

    pub(crate) fn reader(self) -> Result<(Reader, Failure)> {
        let file = self.open()?;
        let failure = Failure::default();
        let reader = Reader {
            part: self,
            file,
            failure: failure.clone(),
        };
        Ok((reader, failure))
    }

    pub(crate) fn read(&self) -> Result<Values> {
        let file = self.open()?;
        let mut values = match self.packed {
            None => {
                let mut bytes = room(self.len)?;
                bytes.resize(self.len, 0);
                self.read_values(&file, &mut bytes, 0)?;
                Values { bytes, skipped: 0 }
            }
            Some(packed) => Values {
                bytes: self.unpack(&file, packed)?,
                skipped: packed.skipped,
            },
        };
        swap(&mut values.bytes[values.skipped..], self.swapped);
        Ok(values)
    }

    /// The file, if it is the one the part was found in. One that would have to be waited
    /// for, such as a pipe, is none.
    fn open(&self) -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.path)
            .map_err(|error| self.failure(&error))?;
        let metadata = file.metadata().map_err(|error| self.failure(&error))?;
        let stamp = Stamp {
            size: metadata.size(),
            inode: metadata.ino(),
            modified: metadata.mtime(),
        };
        if stamp != self.stamp || !metadata.is_file() {
            return Err(Error::FileChanged { path: self.shown() });
        }
        Ok(file)
    }

    /// The values from one of their bytes on.
    fn read_values(&self, file: &File, target: &mut [u8], from: usize) -> Result<()> {
        let Some(blocks) = self.blocks else {
            return self.read_at(file, target, self.offset + from as u64);
        };
        let len = blocks.field.len();
        if !blocks.is_sound() || !from.is_multiple_of(len) || !target.len().is_multiple_of(len) {
            return Err(self.wrong("blocks have other fields"));
        }
        let mut offset = self.offset + (from / len * blocks.size) as u64;
        let mut buffer = room(blocks.size * BLOCKS.min(target.len() / len))?;
        for part in target.chunks_mut(len * BLOCKS) {
            buffer.resize(part.len() / len * blocks.size, 0);
            self.read_at(file, &mut buffer, offset)?;
            blocks.unpack(&buffer, part);
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    fn read_at(&self, file: &File, target: &mut [u8], offset: u64) -> Result<()> {
        file.read_exact_at(target, offset)
            .map_err(|error| self.failure(&error))
    }

    /// All unpacked bytes, of which there are as many as are expected.
    fn unpack(&self, file: &File, packed: Packed) -> Result<Vec<u8>> {
        let Some(expected) = packed.skipped.checked_add(self.len) else {
            return Err(self.wrong("their number is"));
        };
        let most = if packed.deflated { MOST_DEFLATED } else { 1 };
        if expected > packed.len.saturating_mul(most) {
            return Err(self.wrong("there are too few"));
        }
        let limited = Part {
            file,
            offset: self.offset,
            left: packed.len,
        };
        let mut bytes = room(expected.saturating_add(1))?;
        // One more than there may be, to find that there are more.
        let wanted = expected as u64 + 1;
        let read = if packed.deflated {
            DeflateDecoder::new(limited)
                .take(wanted)
                .read_to_end(&mut bytes)
        } else {
            limited.take(wanted).read_to_end(&mut bytes)
        };
        let read = read.map_err(|error| self.failure(&error))?;
        if read != expected {
            return Err(self.wrong("another number of them came out"));
        }
        let mut crc = Crc::new();
        crc.update(&bytes);
        if crc.sum() != packed.crc {
            return Err(self.wrong("their checksum is another one"));
        }
        Ok(bytes)
    }

    fn wrong(&self, message: &'static str) -> Error {
        Error::Unpack {
            path: self.shown(),
            offset: self.offset,
            len: self.packed.map_or(self.len, |packed| packed.len),
            message,
        }
    }

    fn failure(&self, error: &io::Error) -> Error {
        Error::File {
            path: self.shown(),
            message: error.to_string(),
        }
    }

    fn shown(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

impl Bytes for Reader {
    fn len(&self) -> usize {
        self.part.len
    }

    fn write_to(&self, target: &mut [u8], offset: usize) {
        if let Err(error) = self.part.read_values(&self.file, target, offset) {
            *self.failure.0.lock() = Some(error);
        }
    }
}

/// Some bytes of a file as a stream.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    left: usize,
}

impl Read for Part<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let wanted = target.len().min(self.left);
        let count = self.file.read_at(&mut target[..wanted], self.offset)?;
        self.offset += count as u64;
        self.left -= count;
        Ok(count)
    }
}

/// Empty, with room for so many bytes. Memory that is not there ends the process elsewhere.
fn room(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    memory::check(len)?;
    bytes.try_reserve_exact(len).map_err(|_| Error::Memory {
        bytes: len,
        held: memory::memory_held(),
        limit: memory::memory_limit(),
    })?;
    Ok(bytes)
}

fn swap(bytes: &mut [u8], width: usize) {
    if width > 1 {
        bytes
            .chunks_exact_mut(width)
            .for_each(|number| number.reverse());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::DeflateEncoder;
    use flate2::Compression;
    use std::io::Write;

    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = Crc::new();
        crc.update(bytes);
        crc.sum()
    }

    /// A part of a new file with the bytes: four of them, two after the start.
    fn part(name: &str, bytes: &[u8]) -> FilePart {
        // Another test changes where temporary files are.
        let folder = std::path::Path::new(env!("OUT_DIR"));
        let path = folder.join(format!("mlx-part-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        FilePart {
            path,
            stamp: Stamp {
                size: metadata.size(),
                inode: metadata.ino(),
                modified: metadata.mtime(),
            },
            offset: 2,
            len: 4,
            swapped: 1,
            packed: None,
            blocks: None,
        }
    }

    fn gone(part: FilePart) {
        std::fs::remove_file(part.path).unwrap();
    }

    #[test]
    fn values_are_those_at_the_offset() {
        let mut part = part("offset", b"xxabcdxx");
        assert_eq!(part.read().unwrap().as_ref(), b"abcd");
        part.swapped = 2;
        assert!(!part.is_plain());
        assert_eq!(part.read().unwrap().as_ref(), b"badc");
        gone(part);
    }

    #[test]
    fn parts_beyond_the_end_and_other_files_are_refused() {
        let mut part = part("end", b"xxabc");
        let error = part.read().err().unwrap();
        assert!(matches!(error, Error::File { .. }), "{error}");
        part.stamp.size = 7;
        let error = part.read().err().unwrap();
        assert!(matches!(error, Error::FileChanged { .. }), "{error}");
        gone(part.clone());
        let error = part.read().err().unwrap();
        assert!(matches!(error, Error::File { .. }), "{error}");
    }

    #[test]
    fn fields_of_blocks_are_read_part_by_part() {
        use crate::blocks::Field;
        let count = BLOCKS + 7;
        let numbers: Vec<u8> = (0..count).flat_map(|i| (i as u16).to_le_bytes()).collect();
        let mut bytes = b"xx".to_vec();
        for number in numbers.chunks(2) {
            bytes.extend(number);
            bytes.extend([0; 16]);
        }
        let mut part = part("blocks", &bytes);
        let (size, field) = (18, Field::Number(0));
        part.len = 2 * count;
        part.blocks = Some(Blocks { size, field });
        assert_eq!(part.read().unwrap().as_ref(), numbers);
        let (reader, failure) = part.clone().reader().unwrap();
        let mut target = [0; 20];
        reader.write_to(&mut target, 2 * BLOCKS - 6);
        assert_eq!(target, numbers[2 * BLOCKS - 6..][..20]);
        part.len += 2;
        assert!(matches!(part.read().err(), Some(Error::File { .. })));
        assert!(failure.take().is_none());
        reader.write_to(&mut target, 1);
        assert!(matches!(failure.take(), Some(Error::Unpack { .. })));
        gone(part);
    }

    #[test]
    fn a_reader_remembers_its_failure() {
        let part = part("reader", b"xxabc");
        let (reader, failure) = part.clone().reader().unwrap();
        let mut target = [0; 3];
        reader.write_to(&mut target, 0);
        assert_eq!(&target, b"abc");
        assert!(failure.take().is_none());
        reader.write_to(&mut target, 1);
        assert!(matches!(failure.take(), Some(Error::File { .. })));
        gone(part);
    }

    #[test]
    fn packed_values_are_unpacked_and_checked() {
        let mut encoder = DeflateEncoder::new(b"xx".to_vec(), Compression::best());
        encoder.write_all(b"headabcd").unwrap();
        let deflated = encoder.finish().unwrap();
        for (bytes, is_deflated) in [(&deflated[..], true), (b"xxheadabcd", false)] {
            let mut part = part(&format!("packed-{is_deflated}"), bytes);
            let packed = Packed {
                len: bytes.len() - 2,
                deflated: is_deflated,
                skipped: 4,
                crc: crc(b"headabcd"),
            };
            part.packed = Some(packed);
            assert_eq!(part.read().unwrap().as_ref(), b"abcd");
            part.packed = Some(Packed { crc: 7, ..packed });
            assert!(matches!(part.read().err(), Some(Error::Unpack { .. })));
            for len in [3, 5, 1 << 20, usize::MAX] {
                part.packed = Some(packed);
                part.len = len;
                let error = part.read().err().unwrap();
                assert!(matches!(error, Error::Unpack { .. }), "{error}");
            }
            gone(part);
        }
    }
}
