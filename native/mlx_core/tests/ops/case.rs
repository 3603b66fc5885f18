//! One op on written-out operands, what it gives, and how the two are compared.

use std::iter::zip;
use std::sync::mpsc::channel;
use std::sync::Arc;

use mlx_core::{
    dtype_name, Attribute, Dtype, Instruction, Payload, Program, Signature, Slot, Stream,
};

use crate::common;
pub use crate::common::ints;
use crate::numbers::{numbers, Element, Number};

/// Values with their type and shape.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub dims: Vec<i64>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    fn elements(&self) -> usize {
        self.dims.iter().product::<i64>() as usize
    }
}

pub fn tensor<T: Element>(values: &[T], dims: &[i64]) -> Tensor {
    Tensor {
        dtype: T::DTYPE,
        dims: dims.to_vec(),
        bytes: values.iter().flat_map(|value| value.bytes()).collect(),
    }
}

pub fn vector<T: Element>(values: &[T]) -> Tensor {
    tensor(values, &[values.len() as i64])
}

pub fn scalar<T: Element>(value: T) -> Tensor {
    tensor(&[value], &[])
}

pub fn int(value: i64) -> Attribute {
    Attribute::Int(value)
}

/// The name of an op, its operands, its attributes and its result.
#[derive(Clone)]
pub struct Case {
    pub op: &'static str,
    pub operands: Vec<Tensor>,
    pub attributes: Vec<Attribute>,
    expected: Expected,
}

#[derive(Clone)]
enum Expected {
    Nothing,
    Values { of: Vec<Tensor>, close: Close },
    Failure(&'static str),
}

/// How far a float may be from what is expected.
#[derive(Clone, Copy)]
struct Close {
    relative: f64,
    absolute: f64,
}

pub fn case(op: &'static str) -> Case {
    Case {
        op,
        operands: vec![],
        attributes: vec![],
        expected: Expected::Nothing,
    }
}

impl Case {
    pub fn on<const N: usize>(mut self, operands: [Tensor; N]) -> Case {
        self.operands = operands.into();
        self
    }

    pub fn with<const N: usize>(mut self, attributes: [Attribute; N]) -> Case {
        self.attributes = attributes.into();
        self
    }

    /// The same bits, except that one NaN is as good as another.
    pub fn gives(self, result: Tensor) -> Case {
        self.gives_all([result])
    }

    /// Several results.
    pub fn gives_all<const N: usize>(mut self, results: [Tensor; N]) -> Case {
        let close = Close {
            relative: 0.0,
            absolute: 0.0,
        };
        let of = results.into();
        self.expected = Expected::Values { of, close };
        self
    }

    /// Allows an error relative to what is expected.
    pub fn within(mut self, relative: f64) -> Case {
        if let Expected::Values { close, .. } = &mut self.expected {
            close.relative = relative;
        }
        self
    }

    /// Allows an absolute error.
    pub fn near(mut self, absolute: f64) -> Case {
        if let Expected::Values { close, .. } = &mut self.expected {
            close.absolute = absolute;
        }
        self
    }

    /// An error of this op.
    pub fn refused(self) -> Case {
        self.fails("(")
    }

    /// An error of this op whose message has this part.
    pub fn fails(mut self, message: &'static str) -> Case {
        self.expected = Expected::Failure(message);
        self
    }

    /// Queues the op with other attributes than its own and returns a slot of it.
    pub fn run_with(&self, stream: &Stream, attributes: Vec<Attribute>) -> Arc<Slot> {
        self.run(stream, Way::Kept, attributes).0.remove(0)
    }

    /// The slots of the results, and those of the operands to keep.
    fn run(
        &self,
        stream: &Stream,
        way: Way,
        attributes: Vec<Attribute>,
    ) -> (Vec<Arc<Slot>>, Vec<Arc<Slot>>) {
        let mut inputs: Vec<_> = self
            .operands
            .iter()
            .map(|operand| load(stream, &way.prepare(operand)))
            .collect();
        inputs.push(load(stream, &scalar(true)));
        let mut instructions: Vec<Instruction> = Vec::new();
        let mut operands = Vec::new();
        for (i, operand) in self.operands.iter().enumerate() {
            let prelude = way.restore(operand, i, self.operands.len());
            let temporary = inputs.len() + instructions.len();
            operands.push(if prelude.is_some() { temporary } else { i });
            instructions.extend(prelude);
        }
        let first = inputs.len() + instructions.len();
        let instruction = common::instruction(self.op, &operands, attributes);
        let results: Vec<_> = (first..first + instruction.results()).collect();
        instructions.push(instruction);
        let program = Program::new(inputs.len(), instructions, results).unwrap();
        let outputs = stream.run(Arc::new(program), inputs.clone()).unwrap();
        (outputs.into_vec(), inputs)
    }

    fn check(&self, stream: &Stream, way: Way) -> Result<(), String> {
        let (slots, _kept) = self.run(stream, way, self.attributes.clone());
        let read = |slot| common::read(slot).map_err(|error| error.to_string());
        let outcome: Result<Vec<_>, _> = slots.iter().map(read).collect();
        match (outcome, &self.expected) {
            (Ok(results), Expected::Values { of, close }) => zip(zip(&slots, results), of)
                .try_for_each(|((slot, bytes), wanted)| {
                    compare(&signature(slot), &bytes, wanted, *close)
                }),
            (Err(error), Expected::Failure(part))
                if error.starts_with(self.op) && error.contains(part) =>
            {
                Ok(())
            }
            (Err(error), _) => Err(error),
            (Ok(results), _) => {
                let got = signature(&slots[0]);
                let values = numbers(got.dtype, &results[0]);
                Err(format!("gives {got}: {values:?}, not an error"))
            }
        }
        .map_err(|difference| format!("{self} on {way:?} operands: {difference}"))
    }
}

/// Where an op finds its operands. MLX has a loop of its own for each.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// In slots that outlive the op.
    Kept,
    /// In temporaries, whose buffers MLX reuses for results.
    Temporary,
    /// In every other element of an array.
    Strided,
}

impl Way {
    const ALL: [Way; 3] = [Way::Kept, Way::Temporary, Way::Strided];

    /// What to load so that `restore` makes the operand of it.
    fn prepare(self, operand: &Tensor) -> Tensor {
        let mut loaded = operand.clone();
        if let (Way::Strided, Some(last)) = (self, loaded.dims.last_mut()) {
            *last *= 2;
            let size = operand.bytes.len() / operand.elements().max(1);
            let elements = operand.bytes.chunks_exact(size.max(1));
            let spaced = elements.flat_map(|element| [element, &vec![1; size]].concat());
            loaded.bytes = spaced.collect();
        }
        loaded
    }

    /// The instruction that makes the operand of register `i`, if it takes one.
    fn restore(self, operand: &Tensor, i: usize, truth: usize) -> Option<Instruction> {
        let rank = operand.dims.len();
        match self {
            Way::Temporary => Some(common::instruction("select", &[truth, i, i], vec![])),
            Way::Strided if rank > 0 => {
                let starts = vec![0; rank];
                let (mut stops, mut strides) = (operand.dims.clone(), vec![1; rank]);
                stops[rank - 1] *= 2;
                strides[rank - 1] = 2;
                let attributes = [starts, stops, strides].map(|numbers| ints(&numbers));
                Some(common::instruction("slice", &[i], attributes.into()))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}(", self.op)?;
        for (i, operand) in self.operands.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{}{:?}", dtype_name(operand.dtype), operand.dims)?;
        }
        write!(f, ") {:?}", self.attributes)
    }
}

/// Runs all cases and names each that differs.
pub fn check(cases: Vec<Case>) {
    let stream = common::stream();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            Way::ALL
                .into_iter()
                .find_map(|way| case.check(&stream, way).err())
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn load(stream: &Stream, tensor: &Tensor) -> Arc<Slot> {
    let payload = Payload::new(tensor.bytes.clone(), &tensor.dims, tensor.dtype);
    stream.load(payload.unwrap()).unwrap()
}

fn signature(slot: &Arc<Slot>) -> Signature {
    let (sender, receiver) = channel();
    slot.signature(move |outcome| sender.send(outcome).unwrap());
    receiver.recv().unwrap().unwrap()
}

fn compare(got: &Signature, bytes: &[u8], expected: &Tensor, close: Close) -> Result<(), String> {
    let dims: Vec<i64> = got.shape.iter().map(|&dim| dim.into()).collect();
    if (got.dtype, &dims) != (expected.dtype, &expected.dims) {
        let wanted = dtype_name(expected.dtype);
        return Err(format!("gives {got}, not {wanted}{:?}", expected.dims));
    }
    let got = numbers(expected.dtype, bytes);
    let wanted = numbers(expected.dtype, &expected.bytes);
    let differing: Vec<String> = zip(&got, &wanted)
        .enumerate()
        .filter(|(_, (got, wanted))| !same(**got, **wanted, close))
        .map(|(i, (got, wanted))| format!("[{i}] is {got:?}, not {wanted:?}"))
        .collect();
    if differing.is_empty() && got.len() == wanted.len() {
        return Ok(());
    }
    let first = differing[..differing.len().min(4)].join("; ");
    Err(format!("{} differ: {first}", differing.len()))
}

fn same(got: Number, wanted: Number, close: Close) -> bool {
    match (got, wanted) {
        (Number::Real(got), Number::Real(wanted)) => {
            let allowed = close.absolute.max(close.relative * wanted.abs());
            got.to_bits() == wanted.to_bits()
                || got.is_nan() && wanted.is_nan()
                || allowed > 0.0 && (got == wanted || (got - wanted).abs() <= allowed)
        }
        (got, wanted) => got == wanted,
    }
}
