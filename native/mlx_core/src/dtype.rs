//! Element types: Nx's names for MLX's.

use mlx_rs::Dtype;

use crate::error::{Error, Result};

/// The storage type of an Nx type such as `{:f, 32}`.
pub fn dtype_from_nx(kind: &'static str, bits: u32) -> Result<Dtype> {
    Ok(match (kind, bits) {
        ("u", 8) => Dtype::Uint8,
        ("u", 16) => Dtype::Uint16,
        ("u", 32) => Dtype::Uint32,
        ("u", 64) => Dtype::Uint64,
        ("s", 8) => Dtype::Int8,
        ("s", 16) => Dtype::Int16,
        ("s", 32) => Dtype::Int32,
        ("s", 64) => Dtype::Int64,
        ("f", 16) => Dtype::Float16,
        ("f", 32) => Dtype::Float32,
        ("f", 64) => Dtype::Float64,
        ("bf", 16) => Dtype::Bfloat16,
        ("c", 64) => Dtype::Complex64,
        _ => return Err(Error::UnsupportedType { kind, bits }),
    })
}

/// MLX's name of an element type, in Nx's spelling.
pub fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "bool",
        Dtype::Uint8 => "u8",
        Dtype::Uint16 => "u16",
        Dtype::Uint32 => "u32",
        Dtype::Uint64 => "u64",
        Dtype::Int8 => "s8",
        Dtype::Int16 => "s16",
        Dtype::Int32 => "s32",
        Dtype::Int64 => "s64",
        Dtype::Float16 => "f16",
        Dtype::Float32 => "f32",
        Dtype::Float64 => "f64",
        Dtype::Bfloat16 => "bf16",
        Dtype::Complex64 => "c64",
    }
}

/// Bytes of one element.
pub(crate) fn dtype_size(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => 1,
        Dtype::Uint16 | Dtype::Int16 | Dtype::Float16 | Dtype::Bfloat16 => 2,
        Dtype::Uint32 | Dtype::Int32 | Dtype::Float32 => 4,
        Dtype::Uint64 | Dtype::Int64 | Dtype::Float64 | Dtype::Complex64 => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nx_types_round_trip() {
        for (kind, bits) in [("u", 8), ("s", 64), ("f", 16), ("bf", 16), ("c", 64)] {
            let dtype = dtype_from_nx(kind, bits).unwrap();
            assert_eq!(dtype_name(dtype), format!("{kind}{bits}"));
            assert_eq!(dtype_size(dtype) * 8, bits as usize);
        }
    }

    #[test]
    fn unknown_types_are_named() {
        let error = dtype_from_nx("c", 128).unwrap_err();
        assert_eq!(error.to_string(), "type c128 is not supported");
    }
}
