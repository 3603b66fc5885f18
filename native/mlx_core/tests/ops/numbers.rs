//! Rust's numbers as elements of MLX's types, and the corners of each type.

use half::{bf16, f16};
use mlx_core::Dtype;

/// A Rust type that an element type stands for; `[f32; 2]` is a complex number.
pub trait Element: Copy {
    const DTYPE: Dtype;
    fn bytes(self) -> Vec<u8>;
}

pub trait Float: Element {
    /// A few units in the last place, relative.
    const CLOSE: f64;
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
}

pub trait Integer: Element {
    const MIN: Self;
    const MAX: Self;
    const BITS: u32;
    const SIGNED: bool;
    /// Wraps.
    fn of(value: i128) -> Self;
    fn wide(self) -> i128;
}

/// An element as it was read: a complex number is two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Integer(i128),
    Real(f64),
}

macro_rules! elements {
    ($($type:ty: $dtype:ident),* $(,)?) => {
        $(impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
            fn bytes(self) -> Vec<u8> {
                self.to_ne_bytes().to_vec()
            }
        })*
    };
}

macro_rules! integers {
    ($($type:ty: $signed:literal),* $(,)?) => {
        $(impl Integer for $type {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;
            const BITS: u32 = Self::BITS;
            const SIGNED: bool = $signed;
            fn of(value: i128) -> Self {
                value as Self
            }
            fn wide(self) -> i128 {
                self as i128
            }
        })*
    };
}

macro_rules! floats {
    ($($type:ty: $close:literal, $of:expr;)*) => {
        $(impl Float for $type {
            const CLOSE: f64 = $close;
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn wide(self) -> f64 {
                f64::from(self)
            }
        })*
    };
}

elements! {
    u8: Uint8, u16: Uint16, u32: Uint32, u64: Uint64,
    i8: Int8, i16: Int16, i32: Int32, i64: Int64,
    f16: Float16, bf16: Bfloat16, f32: Float32, f64: Float64,
}

integers! {
    u8: false, u16: false, u32: false, u64: false,
    i8: true, i16: true, i32: true, i64: true,
}

floats! {
    f16: 2e-3, f16::from_f64;
    bf16: 1.6e-2, bf16::from_f64;
    f32: 2e-6, |value| value as f32;
    f64: 1e-13, |value| value;
}

impl Element for bool {
    const DTYPE: Dtype = Dtype::Bool;
    fn bytes(self) -> Vec<u8> {
        vec![self.into()]
    }
}

impl Element for [f32; 2] {
    const DTYPE: Dtype = Dtype::Complex64;
    fn bytes(self) -> Vec<u8> {
        [self[0].to_ne_bytes(), self[1].to_ne_bytes()].concat()
    }
}

/// One value of a generic function for each integer type.
macro_rules! for_integers {
    ($function:ident($($argument:expr),*)) => {
        vec![
            $function::<u8>($($argument),*),
            $function::<u16>($($argument),*),
            $function::<u32>($($argument),*),
            $function::<u64>($($argument),*),
            $function::<i8>($($argument),*),
            $function::<i16>($($argument),*),
            $function::<i32>($($argument),*),
            $function::<i64>($($argument),*),
        ]
    };
}

/// One value of a generic function for each float type.
macro_rules! for_floats {
    ($function:ident($($argument:expr),*)) => {
        vec![
            $function::<half::f16>($($argument),*),
            $function::<half::bf16>($($argument),*),
            $function::<f32>($($argument),*),
            $function::<f64>($($argument),*),
        ]
    };
}

pub(crate) use {for_floats, for_integers};

pub fn floats<T: Float>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&value| T::of(value)).collect()
}

pub fn integers<T: Integer>(values: &[i128]) -> Vec<T> {
    values.iter().map(|&value| T::of(value)).collect()
}

/// Both ends of a type, zero, and small numbers of both signs or, without signs,
/// what they wrap to.
pub fn corners<T: Integer>() -> Vec<T> {
    let (low, high) = (T::MIN.wide(), T::MAX.wide());
    integers(&[
        low,
        low + 1,
        low / 2,
        -7,
        -2,
        -1,
        0,
        1,
        2,
        3,
        7,
        high / 2,
        high - 1,
        high,
    ])
}

/// Each value as the first with each as the second.
pub fn pairs<T: Copy>(values: &[T]) -> (Vec<T>, Vec<T>) {
    values
        .iter()
        .flat_map(|&a| values.iter().map(move |&b| (a, b)))
        .unzip()
}

pub fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<Number> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> Number) -> Vec<Number> {
        let chunks = bytes.chunks_exact(N);
        chunks
            .map(|chunk| read(chunk.try_into().unwrap()))
            .collect()
    }
    use Number::{Integer, Real};
    match dtype {
        Dtype::Bool | Dtype::Uint8 => each(bytes, |b: [u8; 1]| Integer(b[0].into())),
        Dtype::Uint16 => each(bytes, |b| Integer(u16::from_ne_bytes(b).into())),
        Dtype::Uint32 => each(bytes, |b| Integer(u32::from_ne_bytes(b).into())),
        Dtype::Uint64 => each(bytes, |b| Integer(u64::from_ne_bytes(b).into())),
        Dtype::Int8 => each(bytes, |b| Integer(i8::from_ne_bytes(b).into())),
        Dtype::Int16 => each(bytes, |b| Integer(i16::from_ne_bytes(b).into())),
        Dtype::Int32 => each(bytes, |b| Integer(i32::from_ne_bytes(b).into())),
        Dtype::Int64 => each(bytes, |b| Integer(i64::from_ne_bytes(b).into())),
        Dtype::Float16 => each(bytes, |b| Real(f16::from_ne_bytes(b).into())),
        Dtype::Bfloat16 => each(bytes, |b| Real(bf16::from_ne_bytes(b).into())),
        Dtype::Float64 => each(bytes, |b| Real(f64::from_ne_bytes(b))),
        Dtype::Float32 | Dtype::Complex64 => each(bytes, |b| Real(f32::from_ne_bytes(b).into())),
    }
}
