use std::sync::Arc;

use mlx_core::{dtype_name, Dtype, Error, ErrorKind, Signature};
use rustler::{NifMap, NifTuple, NifUnitEnum};

#[derive(NifUnitEnum)]
pub enum KindAtom {
    Shape,
    Type,
    Unsupported,
    Device,
    Memory,
    Io,
    Value,
    Native,
}

/// The fields of `Mlx.Error`.
#[derive(NifMap)]
#[rustler(encode)]
pub struct ErrorMap {
    kind: KindAtom,
    op: Option<&'static str>,
    operands: Vec<SignatureTuple>,
    message: String,
}

/// An array's own name of its type, and its dimensions.
#[derive(NifTuple)]
#[rustler(encode)]
pub struct SignatureTuple {
    dtype: &'static str,
    shape: Vec<i32>,
}

impl From<&Signature> for SignatureTuple {
    fn from(signature: &Signature) -> Self {
        let dtype: Dtype = signature.dtype;
        SignatureTuple {
            dtype: dtype_name(dtype),
            shape: signature.shape.clone(),
        }
    }
}

impl From<&Error> for ErrorMap {
    fn from(error: &Error) -> Self {
        let op = error.op();
        ErrorMap {
            kind: match error.kind() {
                ErrorKind::Shape => KindAtom::Shape,
                ErrorKind::Type => KindAtom::Type,
                ErrorKind::Unsupported => KindAtom::Unsupported,
                ErrorKind::Device => KindAtom::Device,
                ErrorKind::Memory => KindAtom::Memory,
                ErrorKind::Io => KindAtom::Io,
                ErrorKind::Value => KindAtom::Value,
                ErrorKind::Native => KindAtom::Native,
            },
            op: op.map(|(name, _)| name),
            operands: op.map_or_else(Vec::new, |(_, operands)| {
                operands.iter().map(SignatureTuple::from).collect()
            }),
            message: error.to_string(),
        }
    }
}

impl From<Error> for ErrorMap {
    fn from(error: Error) -> Self {
        ErrorMap::from(&error)
    }
}

impl From<Arc<Error>> for ErrorMap {
    fn from(error: Arc<Error>) -> Self {
        ErrorMap::from(&*error)
    }
}
