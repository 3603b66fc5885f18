//! The table of ops: one row is a name, its operands, its attributes and what it does.

mod attention;
mod cached;
mod control;
mod convolution;
mod creation;
mod elementwise;
#[cfg(test)]
mod failing;
mod fast;
mod fft;
mod functions;
mod fused;
mod gelu;
mod indexing;
mod linalg;
mod narrow;
mod pad;
mod quantization;
mod reduction;
mod shape;
mod slicing;
mod sort;
mod window;

use std::collections::HashMap;
use std::fmt;

use mlx_rs::{Array, Dtype, Stream};
use once_cell::sync::Lazy;

use crate::attribute::{Attribute, FromAttribute};
use crate::error::{Error, Result};

type Run = fn(&[&Array], &[Attribute], &Stream) -> Result<Vec<Array>>;

/// An op that instructions can name.
pub struct Row {
    pub name: &'static str,
    pub doc: &'static str,
    /// `None` for an op that takes any number of arrays.
    pub operands: Option<usize>,
    pub attributes: &'static [&'static str],
    /// `None` for an op with as many results as its last program.
    pub results: Option<usize>,
    /// What it does depends on values, so it computes them.
    pub looks: bool,
    run: Run,
}

impl Row {
    /// Refuses a wrong number of operands or attributes.
    pub fn check(&self, operands: usize, attributes: usize) -> Result<()> {
        match self.operands {
            Some(expected) if expected != operands => Err(Error::OperandCount {
                op: self.name,
                expected,
                given: operands,
            }),
            _ if attributes != self.attributes.len() => Err(Error::AttributeCount {
                op: self.name,
                expected: self.attributes.len(),
                given: attributes,
            }),
            _ => Ok(()),
        }
    }

    pub fn run(
        &self,
        operands: &[&Array],
        attributes: &[Attribute],
        stream: &Stream,
    ) -> Result<Vec<Array>> {
        self.check(operands.len(), attributes.len())?;
        (self.run)(operands, attributes, stream)
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every row, family by family.
pub fn table() -> impl Iterator<Item = &'static Row> {
    [
        control::ROWS,
        convolution::ROWS,
        creation::ROWS,
        elementwise::ROWS,
        fast::ROWS,
        fft::ROWS,
        indexing::ROWS,
        linalg::ROWS,
        narrow::ROWS,
        quantization::ROWS,
        reduction::ROWS,
        shape::ROWS,
        sort::ROWS,
        window::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// The row of that name.
pub fn row(name: &str) -> Result<&'static Row> {
    static BY_NAME: Lazy<HashMap<&str, &Row>> =
        Lazy::new(|| table().map(|row| (row.name, row)).collect());
    BY_NAME.get(name).copied().ok_or_else(|| Error::UnknownOp {
        name: name.to_owned(),
    })
}

/// The row of parts that MLX compiles, which is no one else's to name.
pub(crate) fn fused_row() -> &'static Row {
    &fused::ROWS[0]
}

/// A row that builds what MLX may fail to compute.
#[cfg(test)]
pub(crate) fn failing_row() -> &'static Row {
    &failing::ROWS[0]
}

fn attribute<'a, T: FromAttribute<'a>>(
    op: &'static str,
    name: &'static str,
    attribute: &'a Attribute,
) -> Result<T> {
    T::from_attribute(attribute).ok_or(Error::Attribute {
        op,
        name,
        expected: T::EXPECTED,
    })
}

/// A scalar of that type.
fn number(value: i64, dtype: Dtype) -> Result<Array> {
    Ok(match dtype {
        // The types of which there are most need no conversion.
        Dtype::Float32 => Array::from_f32(value as f32),
        Dtype::Int32 => Array::from_int(value as i32),
        _ => Array::from_slice(&[value], &[]).as_dtype(dtype)?,
    })
}

/// Makes a family's `ROWS` from lines such as
/// `/// The sum over axes.` `sum(x) { axes: Shape } => x.sum_axes(&axes, true);`
///
/// `[xs]` in the place of `(x, y)` takes any number of operands. mlx-rs's functions
/// use the worker's stream by themselves; `|s|` names it for the C functions. `-> 2`
/// before the arrow says that the body gives an array of two arrays, `-> *` that it gives
/// a vector of as many as a program does, `looks` that it computes values to know what to do.
macro_rules! ops {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident $operands:tt $({ $($attribute:ident : $type:ty),+ $(,)? })? $(|$stream:ident|)? $(-> $results:tt)? $($looks:ident)? => $body:expr;
    )*) => {
        pub(super) const ROWS: &[$crate::ops::Row] = &[$($crate::ops::Row {
            name: stringify!($name),
            doc: concat!($($doc),+),
            operands: $crate::ops::count!($operands),
            attributes: &[$($(stringify!($attribute)),+)?],
            results: $crate::ops::results!($($results)?),
            looks: $crate::ops::looks!($($looks)?),
            run: {
                fn run(
                    operands: &[&mlx_rs::Array],
                    attributes: &[$crate::attribute::Attribute],
                    stream: &mlx_rs::Stream,
                ) -> $crate::error::Result<Vec<mlx_rs::Array>> {
                    let _ = (operands, attributes, stream);
                    $(let $stream = stream;)?
                    $crate::ops::bind!($operands, operands);
                    $(let [$($attribute),+] = attributes else { unreachable!() };
                    $(let $attribute: $type = $crate::ops::attribute(
                        stringify!($name), stringify!($attribute), $attribute,
                    )?;)+)?
                    Ok($crate::ops::collect!($($results)?, $body?))
                }
                run
            },
        }),*];
    };
}

/// The number of operands named.
macro_rules! count {
    ([$all:ident]) => { None };
    (()) => { Some(0) };
    (($($operand:ident),+)) => { Some([$(stringify!($operand)),+].len()) };
}

/// Binds the operands to their names; `Row::check` has counted them.
macro_rules! bind {
    ([$all:ident], $given:ident) => { let $all = $given; };
    (($($operand:ident),*), $given:ident) => {
        let [$($operand),*] = $given else { unreachable!() };
    };
}

/// The number of results, where it is the same for all; one if none is given.
macro_rules! results {
    () => {
        Some(1)
    };
    (*) => {
        None
    };
    ($results:literal) => {
        Some($results)
    };
}

/// Whether the row is marked.
macro_rules! looks {
    () => {
        false
    };
    (looks) => {
        true
    };
}

/// The results as a vector.
macro_rules! collect {
    (, $array:expr) => {
        vec![$array]
    };
    (*, $arrays:expr) => {
        $arrays
    };
    ($results:literal, $arrays:expr) => {{
        let arrays: [mlx_rs::Array; $results] = $arrays;
        arrays.into()
    }};
}

use {bind, collect, count, looks, ops, results};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names: Vec<_> = table().map(|row| row.name).collect();
        let rows = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows);
        assert!(table().all(|row| row.doc.trim().ends_with('.')));
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = row("frobnicate").unwrap_err();
        assert_eq!(error.to_string(), "there is no op named \"frobnicate\"");
    }
}
