//! Values of an instruction that are not arrays: shapes, axes, types, programs.

use std::sync::Arc;

use mlx_rs::Dtype;

use crate::fuse::Fused;
use crate::program::{Few, Program};

/// An attribute as it crosses a boundary, before an op gives it meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    Bool(bool),
    Int(i64),
    Float(f64),
    Ints(Few<i64>),
    Dtype(Dtype),
    Bytes(Vec<u8>),
    Program(Box<Program>),
    /// Made by the engine itself.
    Fused(Arc<Fused>),
}

impl Attribute {
    /// How many results running it gives, if it is a program.
    pub(crate) fn results(&self) -> Option<usize> {
        match self {
            Attribute::Program(program) => Some(program.outputs()),
            Attribute::Fused(part) => Some(part.program().outputs()),
            _ => None,
        }
    }

    pub fn program(&self) -> Option<&Program> {
        match self {
            Attribute::Program(program) => Some(program),
            _ => None,
        }
    }
}

/// Dimensions of an array; each fits MLX's 32-bit signed sizes.
pub type Shape = Vec<i32>;

/// A Rust type that an op may ask an attribute for.
pub trait FromAttribute<'a>: Sized {
    const EXPECTED: &'static str;
    fn from_attribute(attribute: &'a Attribute) -> Option<Self>;
}

impl FromAttribute<'_> for bool {
    const EXPECTED: &'static str = "a boolean";
    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

impl FromAttribute<'_> for i32 {
    const EXPECTED: &'static str = "a 32-bit integer";
    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Int(value) => i32::try_from(*value).ok(),
            _ => None,
        }
    }
}

impl FromAttribute<'_> for i64 {
    const EXPECTED: &'static str = "an integer";
    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Int(value) => Some(*value),
            _ => None,
        }
    }
}

impl FromAttribute<'_> for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Float(value) => Some(*value),
            Attribute::Int(value) => Some(*value as f64),
            _ => None,
        }
    }
}

impl FromAttribute<'_> for Shape {
    const EXPECTED: &'static str = "a list of 32-bit integers";
    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Ints(values) => values.iter().map(|v| i32::try_from(*v).ok()).collect(),
            _ => None,
        }
    }
}

impl FromAttribute<'_> for Dtype {
    const EXPECTED: &'static str = "an element type";
    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Dtype(dtype) => Some(*dtype),
            _ => None,
        }
    }
}

impl<'a> FromAttribute<'a> for &'a [u8] {
    const EXPECTED: &'static str = "bytes";
    fn from_attribute(attribute: &'a Attribute) -> Option<Self> {
        match attribute {
            Attribute::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl<'a> FromAttribute<'a> for &'a Program {
    const EXPECTED: &'static str = "a program";
    fn from_attribute(attribute: &'a Attribute) -> Option<Self> {
        attribute.program()
    }
}

impl<'a> FromAttribute<'a> for &'a Fused {
    const EXPECTED: &'static str = "a fused program";
    fn from_attribute(attribute: &'a Attribute) -> Option<Self> {
        match attribute {
            Attribute::Fused(part) => Some(part),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_beyond_32_bits_are_refused() {
        assert_eq!(i32::from_attribute(&Attribute::Int(1 << 31)), None);
        assert_eq!(
            Shape::from_attribute(&Attribute::Ints(Few::from_slice(&[2, 1 << 40]))),
            None
        );
        assert_eq!(i32::from_attribute(&Attribute::Int(-3)), Some(-3));
    }

    #[test]
    fn kinds_do_not_mix() {
        assert_eq!(bool::from_attribute(&Attribute::Int(1)), None);
        assert_eq!(f64::from_attribute(&Attribute::Int(2)), Some(2.0));
        assert_eq!(<&[u8]>::from_attribute(&Attribute::Bool(true)), None);
    }
}
