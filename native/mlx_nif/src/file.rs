use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use mlx_core::{Blocks, Error, Field, FilePart, Packed, Stamp, Stream};
use rustler::{Atom, Binary, Env, NifMap, NifUnitEnum, NifUntaggedEnum, Term};

use crate::device::DeviceAtom;
use crate::instruction::{List, TypeTuple};
use crate::reply::{Outcome, Reply};
use crate::stream::pending;
use crate::tensor::tensor_of;

/// A part of a file as Elixir describes it.
#[derive(NifMap)]
#[rustler(decode)]
struct PartMap<'a> {
    path: Binary<'a>,
    size: u64,
    inode: u64,
    modified: i64,
    offset: u64,
    length: usize,
    swapped: usize,
    packed: Option<PackedMap>,
    blocks: Option<BlocksMap>,
}

#[derive(NifMap)]
#[rustler(decode)]
struct BlocksMap {
    size: usize,
    field: FieldTerm,
}

/// The place of a number, or how the integers are packed.
#[derive(NifUntaggedEnum)]
#[rustler(decode)]
enum FieldTerm {
    Number(usize),
    Integers(Integers),
}

#[derive(NifUnitEnum)]
enum Integers {
    Nibbles,
    Bytes,
}

impl From<BlocksMap> for Blocks {
    fn from(blocks: BlocksMap) -> Self {
        Blocks {
            size: blocks.size,
            field: match blocks.field {
                FieldTerm::Number(at) => Field::Number(at),
                FieldTerm::Integers(Integers::Nibbles) => Field::Nibbles,
                FieldTerm::Integers(Integers::Bytes) => Field::Bytes,
            },
        }
    }
}

#[derive(NifMap)]
#[rustler(decode)]
struct PackedMap {
    length: usize,
    deflated: bool,
    skipped: usize,
    crc: u32,
}

impl From<PartMap<'_>> for FilePart {
    fn from(part: PartMap) -> Self {
        FilePart {
            path: OsStr::from_bytes(part.path.as_slice()).into(),
            stamp: Stamp {
                size: part.size,
                inode: part.inode,
                modified: part.modified,
            },
            offset: part.offset,
            len: part.length,
            swapped: part.swapped,
            packed: part.packed.map(|packed| Packed {
                len: packed.length,
                deflated: packed.deflated,
                skipped: packed.skipped,
                crc: packed.crc,
            }),
            blocks: part.blocks.map(Blocks::from),
        }
    }
}

/// Sends `{tag, outcome}` with a tensor of a part of a file.
#[rustler::nif]
fn file_load(
    env: Env,
    device: DeviceAtom,
    part: PartMap,
    dims: List<i64>,
    dtype: TypeTuple,
    tag: Term,
) -> Outcome<Atom> {
    let start = || {
        let stream = Stream::of_files(device.into())?;
        let dtype = dtype.try_into()?;
        let reply = Reply::new(env, tag, tensor_of);
        stream.load_file(part.into(), dims.0, dtype, reply);
        Ok::<_, Error>(pending())
    };
    start().into()
}
