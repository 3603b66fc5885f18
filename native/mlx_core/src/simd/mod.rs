//! Functions that MLX computes one element at a time on x86-64 CPUs, as loops that the
//! Rust compiler makes vector instructions of.
//!
//! A function is a formula in double precision ([`functions`]), which a loop ([`map`])
//! applies to a type's values ([`number`]), compiled for each set of instructions that
//! processors may have ([`level`]). MLX calls it through a primitive ([`primitive`]).

#[cfg(test)]
mod accuracy;
mod attention;
mod chunk;
mod functions;
mod level;
mod map;
mod number;
mod primitive;
mod product;
mod rows;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod transposed;

pub(crate) use attention::attention;
pub(crate) use functions::{
    Cos, Erf, Erfc, Exp, Expm1, Gelu, GeluSigmoid, GeluTanh, Log, Log1p, Rsqrt, Sigmoid, Sin, Sqrt,
    Tanh,
};
pub(crate) use map::{map, Function};
pub(crate) use product::product;
pub(crate) use rows::{layer_norm, rms_norm, swiglu};
pub(crate) use softmax::{softmax, Scores};
