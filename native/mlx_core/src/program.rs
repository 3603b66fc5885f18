//! Flat lists of instructions over numbered registers.

use std::ops::Range;

use mlx_rs::{Array, Stream};
use smallvec::{smallvec, SmallVec};

use crate::attribute::Attribute;
use crate::error::{catch, Error, Operation, Result, Signature};
use crate::known::{self, Numbers};
use crate::memory;
use crate::ops::Row;
use crate::profile;

/// A list of mostly one to three, which then needs no memory of its own: what is allocated on
/// one thread and freed on another is slow.
pub type Few<T> = SmallVec<[T; 3]>;

/// One op, the registers it reads and its attributes.
///
/// Its results take the next free registers.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    pub row: &'static Row,
    pub operands: Few<usize>,
    pub attributes: Vec<Attribute>,
}

/// More than any program has, and few enough that all of them can be numbered.
const MAX_REGISTERS: usize = 1 << 24;

/// Eager operations are mostly a single one.
pub type Instructions = SmallVec<[Instruction; 1]>;

/// An instruction in a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub instruction: Instruction,
    /// The registers of its results.
    pub results: Range<usize>,
    /// Registers to drop afterwards, so that MLX can reuse their buffers.
    dead: Vec<usize>,
}

pub(crate) type Steps = SmallVec<[Step; 1]>;

/// Instructions that have been checked, ready to run any number of times.
///
/// Registers `0..inputs` hold the inputs; results follow in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    inputs: usize,
    steps: Steps,
    outputs: Few<usize>,
    registers: usize,
}

impl Program {
    pub fn new(
        inputs: usize,
        instructions: impl Into<Instructions>,
        outputs: impl Into<Few<usize>>,
    ) -> Result<Program> {
        let (instructions, outputs) = (instructions.into(), outputs.into());
        let mut registers = inputs;
        let mut steps = Steps::with_capacity(instructions.len());
        for instruction in instructions {
            instruction
                .row
                .check(instruction.operands.len(), instruction.attributes.len())?;
            check_registers(&instruction.operands, registers)?;
            let results = registers..registers.saturating_add(instruction.results());
            registers = results.end;
            steps.push(Step::new(instruction, results));
        }
        check_registers(&outputs, registers)?;
        if registers > MAX_REGISTERS {
            return Err(Error::RegisterCount {
                limit: MAX_REGISTERS,
                given: registers,
            });
        }
        Ok(Program::of_steps(inputs, steps, outputs, registers))
    }

    /// A row on all inputs in their order, of which the first result is the output.
    pub fn single(row: &'static Row, inputs: usize, attributes: Vec<Attribute>) -> Result<Program> {
        row.check(inputs, attributes.len())?;
        let instruction = Instruction {
            row,
            operands: (0..inputs).collect(),
            attributes,
        };
        let results = inputs..inputs + instruction.results();
        check_registers(&[inputs], results.end)?;
        Ok(Program {
            inputs,
            registers: results.end,
            steps: smallvec![Step::new(instruction, results)],
            outputs: smallvec![inputs],
        })
    }

    /// From steps that read only what is there before them.
    pub(crate) fn of_steps(
        inputs: usize,
        mut steps: Steps,
        outputs: Few<usize>,
        registers: usize,
    ) -> Program {
        // Everything goes when a single instruction has run.
        if steps.len() > 1 {
            mark_dead(&mut steps, &outputs, registers);
        }
        Program {
            inputs,
            steps,
            outputs,
            registers,
        }
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    pub fn instructions(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn output_registers(&self) -> &[usize] {
        &self.outputs
    }

    /// Whether a register is an operand or an output.
    pub(crate) fn reads(&self, register: usize) -> bool {
        let mut operands = self
            .steps
            .iter()
            .flat_map(|step| &step.instruction.operands);
        self.outputs.contains(&register) || operands.any(|&operand| operand == register)
    }

    pub(crate) fn registers(&self) -> usize {
        self.registers
    }

    /// What it runs, the one that makes the first output with what that is.
    pub(crate) fn operations(&self, output: Option<&Array>) -> Vec<Operation> {
        let register = self.outputs.first();
        let of_step = |step: &Step| Operation {
            op: step.instruction.row.name,
            result: output
                .filter(|_| register.is_some_and(|register| step.results.contains(register)))
                .map(Signature::from),
        };
        self.steps.iter().map(of_step).collect()
    }

    /// Builds the graph of the outputs; MLX computes it when it is evaluated.
    pub fn run(&self, inputs: Vec<Array>, stream: &Stream) -> Result<Vec<Array>> {
        self.run_knowing(inputs, &Numbers::new(), stream)
    }

    /// The same, where some inputs are known.
    pub(crate) fn run_knowing(
        &self,
        inputs: Vec<Array>,
        numbers: &Numbers,
        stream: &Stream,
    ) -> Result<Vec<Array>> {
        self.run_watched(inputs, numbers, stream, &mut |_| {})
    }

    /// The same, and tells the size in bytes of each result.
    pub(crate) fn run_watched(
        &self,
        inputs: Vec<Array>,
        numbers: &Numbers,
        stream: &Stream,
        watch: &mut dyn FnMut(usize),
    ) -> Result<Vec<Array>> {
        if inputs.len() != self.inputs {
            return Err(Error::InputCount {
                expected: self.inputs,
                given: inputs.len(),
            });
        }
        let mut registers: Vec<Option<Array>> = Vec::with_capacity(self.registers);
        registers.extend(inputs.into_iter().map(Some));
        registers.resize_with(self.registers, || None);
        let recording = profile::is_recording();
        for step in &self.steps {
            let run = || step.instruction.run(&registers, numbers, stream);
            let results = if recording {
                let operands = || step.instruction.signatures(&registers);
                profile::record(step, operands, run)?
            } else {
                run()?
            };
            for (register, result) in step.results.clone().zip(results) {
                watch(result.nbytes());
                registers[register] = Some(result);
            }
            for &register in &step.dead {
                registers[register] = None;
            }
        }
        self.outputs
            .iter()
            .map(|&register| read(&registers, register).cloned())
            .collect()
    }

    /// Runs a program that has one output.
    pub(crate) fn run_for_one(&self, inputs: Vec<Array>, stream: &Stream) -> Result<Array> {
        let mut outputs = self.run(inputs, stream)?;
        outputs.pop().ok_or(Error::Register { register: 0 })
    }
}

impl Step {
    pub(crate) fn new(instruction: Instruction, results: Range<usize>) -> Step {
        Step {
            instruction,
            results,
            dead: Vec::new(),
        }
    }
}

impl Instruction {
    /// How many registers its results take.
    pub fn results(&self) -> usize {
        let of_program = || {
            let last = self.attributes.iter().rev().find_map(Attribute::results);
            last.unwrap_or(0)
        };
        self.row.results.unwrap_or_else(of_program)
    }

    /// Whether it computes to know what to do, which MLX can't learn.
    pub(crate) fn looks(&self) -> bool {
        let runs_program = |attribute: &Attribute| matches!(attribute, Attribute::Program(_));
        self.row.looks || self.attributes.iter().any(runs_program)
    }

    /// Of its operands.
    fn signatures(&self, registers: &[Option<Array>]) -> Vec<Signature> {
        let operands = self.operands.iter().copied();
        let arrays = operands.filter_map(|register| registers.get(register)?.as_ref());
        arrays.map(Signature::from).collect()
    }

    fn run(
        &self,
        registers: &[Option<Array>],
        numbers: &Numbers,
        stream: &Stream,
    ) -> Result<Vec<Array>> {
        let operands: Vec<&Array> = self
            .operands
            .iter()
            .map(|&register| read(registers, register))
            .collect::<Result<_>>()?;
        let run = || {
            let run = || self.row.run(&operands, &self.attributes, stream);
            if !self.row.looks || numbers.is_empty() {
                return run();
            }
            let named = self.operands.iter().zip(&operands);
            let known = named.filter_map(|(register, operand)| {
                let number = numbers.iter().find(|(known, _)| known == register)?;
                Some((known::handle(operand), number.1))
            });
            known::during(known, run)
        };
        catch(run)
            .and_then(|results| {
                results
                    .iter()
                    .try_for_each(|result| memory::check(result.nbytes()))?;
                Ok(results)
            })
            .map_err(|error| error.in_op(self.row.name, &operands))
    }
}

fn read(registers: &[Option<Array>], register: usize) -> Result<&Array> {
    registers
        .get(register)
        .and_then(Option::as_ref)
        .ok_or(Error::Register { register })
}

fn check_registers(reads: &[usize], written: usize) -> Result<()> {
    match reads.iter().find(|&&register| register >= written) {
        Some(&register) => Err(Error::Register { register }),
        None => Ok(()),
    }
}

/// Notes for each step the registers nothing reads after it.
fn mark_dead(steps: &mut [Step], outputs: &[usize], registers: usize) {
    let mut needed = vec![false; registers];
    outputs.iter().for_each(|&register| needed[register] = true);
    for step in steps.iter_mut().rev() {
        for register in step
            .results
            .clone()
            .chain(step.instruction.operands.iter().copied())
        {
            if !std::mem::replace(&mut needed[register], true) {
                step.dead.push(register);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::row;

    fn instruction(name: &str, operands: &[usize]) -> Instruction {
        Instruction {
            row: row(name).unwrap(),
            operands: operands.into(),
            attributes: vec![],
        }
    }

    #[test]
    fn registers_die_at_their_last_use() {
        let instructions = vec![
            instruction("add", &[0, 1]),
            instruction("negate", &[2]),
            instruction("multiply", &[3, 2]),
        ];
        let program = Program::new(2, instructions, vec![4, 1]).unwrap();
        let dead: Vec<_> = program.steps.iter().map(|step| &step.dead[..]).collect();
        assert_eq!(dead, [&[0][..], &[], &[3, 2]]);
    }

    #[test]
    fn results_that_nobody_reads_die_at_once() {
        let instructions = vec![instruction("negate", &[0]), instruction("abs", &[0])];
        let program = Program::new(1, instructions, vec![2]).unwrap();
        let dead: Vec<_> = program.steps.iter().map(|step| &step.dead[..]).collect();
        assert_eq!(dead, [[1], [0]]);
    }

    #[test]
    fn programs_that_read_the_future_are_refused() {
        let error = Program::new(1, vec![instruction("add", &[0, 1])], vec![1]).unwrap_err();
        assert!(matches!(error, Error::Register { register: 1 }));
        let error = Program::new(1, Vec::new(), vec![3]).unwrap_err();
        assert!(matches!(error, Error::Register { register: 3 }));
    }

    #[test]
    fn a_single_row_is_the_program_of_it() {
        let add = instruction("add", &[0, 1]);
        let program = Program::single(add.row, 2, vec![]).unwrap();
        assert_eq!(program, Program::new(2, vec![add], vec![2]).unwrap());

        let error = Program::single(row("add").unwrap(), 1, vec![]).unwrap_err();
        assert!(matches!(error, Error::OperandCount { given: 1, .. }));
        let nothing =
            vec![Attribute::Program(Box::new(Program::new(1, vec![], vec![]).unwrap())); 2];
        let error = Program::single(row("while").unwrap(), 1, nothing).unwrap_err();
        assert!(matches!(error, Error::Register { register: 1 }));
    }

    #[test]
    fn operands_are_counted() {
        let error = Program::new(1, vec![instruction("add", &[0])], vec![1]).unwrap_err();
        assert_eq!(error.to_string(), "add takes 2 operands, 1 were given");
    }
}
