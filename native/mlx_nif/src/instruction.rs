use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use mlx_core::{
    dtype_from_nx, ops, Attribute, Dtype, Error, Few, Instruction, Instructions, Program,
};
use once_cell::sync::OnceCell;
use rustler::{Atom, Binary, Decoder, Env, NifResult, NifTuple, NifUnitEnum, Term, TermType};

/// Why a term is no instruction: it has another shape, or the engine refuses what it says.
pub enum Refusal {
    Term(rustler::Error),
    Engine(Error),
}

impl From<rustler::Error> for Refusal {
    fn from(error: rustler::Error) -> Self {
        Refusal::Term(error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Engine(error)
    }
}

type Row = &'static ops::Row;

/// Programs in programs in programs.
const MAX_NESTING: usize = 100;

/// Atoms last as long as the VM, so that a row is found without reading its name.
static ROWS: OnceCell<HashMap<Atom, Row, BuildHasherDefault<AtomHasher>>> = OnceCell::new();

/// An atom has a number of its own, which needs no more than spreading.
#[derive(Default)]
struct AtomHasher(u64);

impl Hasher for AtomHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Gives each row of the op table its atom.
pub fn load(env: Env) -> NifResult<()> {
    let rows = ops::table().map(|row| Ok((Atom::from_str(env, row.name)?, row)));
    ROWS.get_or_try_init(|| rows.collect::<NifResult<_>>())?;
    Ok(())
}

fn row(name: Term) -> Result<Row, Refusal> {
    let atom = name.decode::<Atom>()?;
    match ROWS.get().and_then(|rows| rows.get(&atom)) {
        Some(row) => Ok(row),
        None => Ok(ops::row(&name.atom_to_string()?)?),
    }
}

/// Checks a list of `{op, operands, attributes}`, and gives the registers of the outputs.
pub fn program(inputs: usize, instructions: Term, outputs: Term) -> Result<Program, Refusal> {
    program_at(0, inputs, instructions, outputs)
}

/// Threads of the VM have small stacks, so that programs in programs have a bound.
fn program_at(
    depth: usize,
    inputs: usize,
    instructions: Term,
    outputs: Term,
) -> Result<Program, Refusal> {
    if depth > MAX_NESTING {
        return Err(Error::Nesting { limit: MAX_NESTING }.into());
    }
    let instructions: Instructions = each(instructions, |term| instruction(depth, term))?;
    Ok(Program::new(inputs, instructions, numbers(outputs)?)?)
}

/// Checks a row on all inputs in their order, of which the first result is the output.
pub fn single(inputs: usize, name: Term, attributes: Term) -> Result<Program, Refusal> {
    let attributes = each(attributes, |term| attribute(0, term))?;
    Ok(Program::single(row(name)?, inputs, attributes)?)
}

fn instruction(depth: usize, term: Term) -> Result<Instruction, Refusal> {
    let (name, operands, attributes): (Term, Term, Term) = term.decode()?;
    Ok(Instruction {
        row: row(name)?,
        operands: numbers(operands)?,
        attributes: each(attributes, |term| attribute(depth, term))?,
    })
}

fn attribute(depth: usize, term: Term) -> Result<Attribute, Refusal> {
    Ok(match term.get_type() {
        TermType::Atom => Attribute::Bool(term.decode()?),
        TermType::Integer => Attribute::Int(term.decode()?),
        TermType::Float => Attribute::Float(term.decode()?),
        TermType::List => Attribute::Ints(numbers(term)?),
        TermType::Binary => Attribute::Bytes(term.decode::<Binary>()?.as_slice().to_vec()),
        _ => match term.decode::<TypeTuple>() {
            Ok(tuple) => Attribute::Dtype(tuple.try_into()?),
            Err(_) => Attribute::Program(Box::new(nested(depth + 1, term)?)),
        },
    })
}

/// `{number of inputs, instructions, registers of the outputs}`.
pub fn nested(depth: usize, term: Term) -> Result<Program, Refusal> {
    let (inputs, instructions, outputs) = term.decode()?;
    program_at(depth, inputs, instructions, outputs)
}

/// A list's elements, each by `decode`.
pub fn each<'a, T, L: Default + Extend<T>>(
    list: Term<'a>,
    decode: impl Fn(Term<'a>) -> Result<T, Refusal>,
) -> Result<L, Refusal> {
    let (mut elements, mut rest) = (L::default(), list);
    while let Ok((first, others)) = rest.list_get_cell() {
        elements.extend([decode(first)?]);
        rest = others;
    }
    if !rest.is_empty_list() {
        return Err(rustler::Error::BadArg.into());
    }
    Ok(elements)
}

/// A list in arguments, which may turn out to be improper.
pub struct List<T>(pub Vec<T>);

impl<'a, T: Decoder<'a>> Decoder<'a> for List<T> {
    fn decode(list: Term<'a>) -> NifResult<Self> {
        list.list_length()?;
        list.decode().map(List)
    }
}

fn numbers<'a, T: Decoder<'a>>(list: Term<'a>) -> Result<Few<T>, Refusal> {
    each(list, |term| Ok(term.decode()?))
}

/// A type of Nx's, such as `{:f, 32}`.
#[derive(NifTuple, Clone, Copy)]
pub struct TypeTuple {
    kind: TypeKind,
    bits: u32,
}

#[derive(NifUnitEnum, Clone, Copy)]
enum TypeKind {
    U,
    S,
    F,
    Bf,
    C,
}

impl TryFrom<TypeTuple> for Dtype {
    type Error = Error;

    fn try_from(tuple: TypeTuple) -> Result<Self, Error> {
        let kind = match tuple.kind {
            TypeKind::U => "u",
            TypeKind::S => "s",
            TypeKind::F => "f",
            TypeKind::Bf => "bf",
            TypeKind::C => "c",
        };
        dtype_from_nx(kind, tuple.bits)
    }
}

/// What the lowering checks its instructions against when it is compiled.
#[derive(NifTuple)]
#[rustler(encode)]
struct RowTuple {
    name: Atom,
    operands: Option<usize>,
    attributes: Vec<&'static str>,
    results: Option<usize>,
}

#[rustler::nif]
fn op_table(env: Env) -> NifResult<Vec<RowTuple>> {
    ops::table()
        .map(|row| {
            Ok(RowTuple {
                name: Atom::from_str(env, row.name)?,
                operands: row.operands,
                attributes: row.attributes.to_vec(),
                results: row.results,
            })
        })
        .collect()
}
