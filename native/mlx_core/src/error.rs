//! What can go wrong, as data.

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use mlx_rs::{Array, Dtype};

use crate::device::Device;
use crate::dtype::dtype_name;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The family of an [`Error`], for callers that choose by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    Shape,
    Type,
    Unsupported,
    Device,
    Memory,
    Io,
    Value,
    Native,
}

/// Shape and element type of an operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub dtype: Dtype,
    pub shape: Vec<i32>,
}

impl From<&Array> for Signature {
    fn from(array: &Array) -> Self {
        Signature {
            dtype: array.dtype(),
            shape: array.shape().to_vec(),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(dtype_name(self.dtype))?;
        self.shape.iter().try_for_each(|dim| write!(f, "[{dim}]"))
    }
}

/// An op that was in flight, and what it gives if somebody still holds that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub op: &'static str,
    pub result: Option<Signature>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op)?;
        self.result
            .iter()
            .try_for_each(|result| write!(f, " giving {result}"))
    }
}

/// Operations in flight that a message names.
const NAMED: usize = 8;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    // Programs
    #[error("there is no op named {name:?}")]
    UnknownOp { name: String },
    #[error("{op} takes {expected} operands, {given} were given")]
    OperandCount {
        op: &'static str,
        expected: usize,
        given: usize,
    },
    #[error("{op}: attribute {name} is missing or is not {expected}")]
    Attribute {
        op: &'static str,
        name: &'static str,
        expected: &'static str,
    },
    #[error("{op} takes {expected} attributes, {given} were given")]
    AttributeCount {
        op: &'static str,
        expected: usize,
        given: usize,
    },
    #[error("register {register} is read before it is written")]
    Register { register: usize },
    #[error("the program takes {expected} inputs, {given} were given")]
    InputCount { expected: usize, given: usize },
    #[error("a program has {given} registers, {limit} are the most")]
    RegisterCount { limit: usize, given: usize },
    #[error("programs lie in programs more than {limit} deep")]
    Nesting { limit: usize },

    // Data
    #[error("a tensor of {signature} has {expected} bytes, the binary has {given}")]
    ByteSize {
        signature: Signature,
        expected: usize,
        given: usize,
    },
    #[error("{dims:?} is not a shape MLX can hold: a dimension is 0 to 2147483647")]
    Dimension { dims: Vec<i64> },
    #[error("{given} dimensions are given where {expected} are needed")]
    Rank { expected: usize, given: usize },
    #[error("{given} rows on the right-hand side of a system of {expected}")]
    RightHandSide { expected: i32, given: i32 },
    #[error("{rows} rows and {columns} columns are no square matrix")]
    NotSquare { rows: i32, columns: i32 },
    #[error("there is no axis {axis} among {rank}")]
    Axis { axis: i32, rank: usize },
    #[error("axis {axis} is empty, so there is nothing at any position along it")]
    EmptyAxis { axis: i32 },
    #[error("positions are integers, not {}", dtype_name(*.dtype))]
    PositionType { dtype: Dtype },
    #[error(
        "{packed} and scales {scales} are no matrix of {bits} bits with groups of {group_size}"
    )]
    Quantized {
        packed: Signature,
        scales: Signature,
        group_size: i32,
        bits: i32,
    },
    #[error("there are no groups of {group_size} numbers of {bits} bits")]
    QuantizedFormat { group_size: i32, bits: i32 },
    #[error("type {kind}{bits} is not supported")]
    UnsupportedType { kind: &'static str, bits: u32 },
    #[error("the tensor was deallocated")]
    Deallocated,
    #[error(
        "the {what} is not in this VM: it belongs to another node, or to a VM that has ended; \
         send or store a tensor as Nx.backend_copy(tensor, Nx.BinaryBackend)"
    )]
    Elsewhere { what: &'static str },

    #[error(
        "{bytes} bytes are too many: {held} of {limit} are taken; raise `config :mlx, \
         memory_limit:` if there are more, or work on smaller parts"
    )]
    Memory {
        bytes: usize,
        held: usize,
        limit: usize,
    },

    // Values
    #[error("a matrix is not positive-definite, so it has no such factor")]
    NotPositiveDefinite,
    #[error("a matrix is singular, so there is no one solution")]
    Singular,

    // Pointers
    #[error(
        "the host can't see the memory of a {device} tensor: use mode: :ipc, which copies, \
         or Nx.to_binary/2"
    )]
    NotAddressable { device: Device },
    #[error("a tensor without elements has no memory to point to")]
    NoElements,
    #[error("this process can't read {len} bytes at address {address:#x}")]
    NotReadable { address: usize, len: usize },
    #[error("shared memory {name:?}: {message}")]
    SharedMemory { name: String, message: String },
    #[error("shared memory {name:?} has {given} bytes, {expected} are needed")]
    SegmentSize {
        name: String,
        expected: usize,
        given: usize,
    },
    #[error("{message}")]
    Io { message: String },

    // Files
    #[error("{path:?}: {message}")]
    File { path: String, message: String },
    #[error("{path:?} is not the file any more that was opened: open it again")]
    FileChanged { path: String },
    #[error("{path:?}: the {len} bytes at {offset} are not what they were packed from: {message}")]
    Unpack {
        path: String,
        offset: u64,
        len: usize,
        message: &'static str,
    },

    // Devices and workers
    #[error("there is no {device} device; available: {}", Device::list())]
    NoDevice { device: Device },
    #[error("a worker thread could not be started: {message}")]
    Spawn { message: String },
    #[error("the device has made no stream: {message}")]
    NoStream { message: String },
    #[error("there are {limit} streams, as many as may be at once: close those that have no work")]
    TooManyStreams { limit: usize },
    #[error("the stream is closed")]
    Closed,
    #[error("the stream has stopped because the system is halting")]
    Halted,
    /// Nobody is left to read it.
    #[error("nobody waits for the result")]
    Unwanted,

    #[error("the folder {folder} for compiled kernels could not be made: {message}")]
    KernelFolder { folder: String, message: String },

    // MLX
    #[error("{message}")]
    Mlx { message: String },
    #[error("{message}")]
    Evaluation { message: String },
    #[error("the worker met an internal error: {message}")]
    Panic { message: String },
    #[error("{op}({}): {source}", join(operands))]
    InOp {
        op: &'static str,
        operands: Vec<Signature>,
        source: Arc<Error>,
    },
    #[error("{source}; in flight: {}", join(operations) + &and_more(*more))]
    Among {
        /// The last ones.
        operations: Vec<Operation>,
        more: usize,
        source: Arc<Error>,
    },
}

fn join(parts: &[impl fmt::Display]) -> String {
    let names: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
    names.join(", ")
}

fn and_more(count: usize) -> String {
    match count {
        0 => String::new(),
        more => format!(" and {more} before"),
    }
}

impl Error {
    /// The family this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::ByteSize { .. }
            | Error::Dimension { .. }
            | Error::RightHandSide { .. }
            | Error::Rank { .. }
            | Error::NotSquare { .. }
            | Error::Axis { .. }
            | Error::EmptyAxis { .. }
            | Error::Quantized { .. }
            | Error::QuantizedFormat { .. }
            | Error::SegmentSize { .. } => ErrorKind::Shape,
            Error::UnsupportedType { .. } | Error::PositionType { .. } => ErrorKind::Type,
            Error::UnknownOp { .. } | Error::NotAddressable { .. } | Error::NoElements => {
                ErrorKind::Unsupported
            }
            Error::NotReadable { .. }
            | Error::SharedMemory { .. }
            | Error::Io { .. }
            | Error::File { .. }
            | Error::FileChanged { .. }
            | Error::Unpack { .. } => ErrorKind::Io,
            Error::NoDevice { .. }
            | Error::Elsewhere { .. }
            | Error::TooManyStreams { .. }
            | Error::Closed => ErrorKind::Device,
            Error::Memory { .. } => ErrorKind::Memory,
            Error::KernelFolder { .. } => ErrorKind::Io,
            Error::NotPositiveDefinite | Error::Singular => ErrorKind::Value,
            Error::InOp { source, .. } | Error::Among { source, .. } => source.kind(),
            _ => ErrorKind::Native,
        }
    }

    /// Whether MLX failed at computing, of which it tells only once.
    pub(crate) fn is_of_evaluation(&self) -> bool {
        match self {
            Error::Evaluation { .. } => true,
            Error::InOp { source, .. } => source.is_of_evaluation(),
            _ => false,
        }
    }

    /// The op that failed and its operands, where an op is to blame.
    pub fn op(&self) -> Option<(&'static str, &[Signature])> {
        match self {
            Error::InOp { op, operands, .. } => Some((op, operands)),
            Error::Among { source, .. } => source.op(),
            _ => None,
        }
    }

    /// The same, which may be of any of the operations.
    pub(crate) fn among(self, mut operations: Vec<Operation>) -> Error {
        if operations.is_empty() {
            return self;
        }
        let more = operations.len().saturating_sub(NAMED);
        operations.drain(..more);
        Error::Among {
            operations,
            more,
            source: Arc::new(self),
        }
    }

    pub(crate) fn in_op(self, op: &'static str, operands: &[&Array]) -> Error {
        Error::InOp {
            op,
            operands: operands.iter().map(|array| (*array).into()).collect(),
            source: Arc::new(self),
        }
    }
}

/// What `run` gives, or an error if it panics.
pub(crate) fn catch<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_else(|| "no message".to_owned());
        Err(Error::Panic { message })
    })
}

impl From<mlx_rs::error::Exception> for Error {
    fn from(exception: mlx_rs::error::Exception) -> Self {
        let message = crate::ffi::take_error().unwrap_or_else(|| exception.what().to_owned());
        Error::Mlx { message }
    }
}
