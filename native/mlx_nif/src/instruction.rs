use mlx_core::{dtype_from_nx, ops, Attribute, Dtype, Error, Instruction, Program};
use rustler::{
    Atom, Binary, Decoder, Env, NifResult, NifTuple, NifUnitEnum, NifUntaggedEnum, Term,
};

/// `{op, operands, attributes}`.
#[derive(NifTuple)]
#[rustler(decode)]
pub struct InstructionTuple<'a> {
    op: OpName,
    operands: Vec<usize>,
    attributes: Vec<AttributeTerm<'a>>,
}

#[derive(NifUntaggedEnum)]
#[rustler(decode)]
enum AttributeTerm<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Ints(Vec<i64>),
    Type(TypeTuple),
    Bytes(Binary<'a>),
    Program(ProgramTuple<'a>),
}

/// `{number of inputs, instructions, registers of the outputs}`.
#[derive(NifTuple)]
#[rustler(decode)]
pub struct ProgramTuple<'a> {
    inputs: usize,
    instructions: Vec<InstructionTuple<'a>>,
    outputs: Vec<usize>,
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

/// The atom that names a row of the op table.
struct OpName(String);

impl<'a> Decoder<'a> for OpName {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        term.atom_to_string().map(OpName)
    }
}

impl TryFrom<AttributeTerm<'_>> for Attribute {
    type Error = Error;

    fn try_from(term: AttributeTerm) -> Result<Self, Error> {
        Ok(match term {
            AttributeTerm::Bool(value) => Attribute::Bool(value),
            AttributeTerm::Int(value) => Attribute::Int(value),
            AttributeTerm::Float(value) => Attribute::Float(value),
            AttributeTerm::Ints(values) => Attribute::Ints(values),
            AttributeTerm::Type(tuple) => Attribute::Dtype(tuple.try_into()?),
            AttributeTerm::Bytes(binary) => Attribute::Bytes(binary.as_slice().to_vec()),
            AttributeTerm::Program(tuple) => Attribute::Program(tuple.try_into()?),
        })
    }
}

impl TryFrom<InstructionTuple<'_>> for Instruction {
    type Error = Error;

    fn try_from(tuple: InstructionTuple) -> Result<Self, Error> {
        let attributes = tuple.attributes.into_iter().map(Attribute::try_from);
        Ok(Instruction {
            row: ops::row(&tuple.op.0)?,
            operands: tuple.operands,
            attributes: attributes.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<ProgramTuple<'_>> for Program {
    type Error = Error;

    fn try_from(tuple: ProgramTuple) -> Result<Self, Error> {
        let instructions = tuple.instructions.into_iter().map(Instruction::try_from);
        let instructions = instructions.collect::<Result<_, _>>()?;
        Program::new(tuple.inputs, instructions, tuple.outputs)
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
