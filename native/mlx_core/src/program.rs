//! Flat lists of instructions over numbered registers.

use mlx_rs::{Array, Stream};
use smallvec::SmallVec;

use crate::attribute::Attribute;
use crate::error::{Error, Result};
use crate::memory;
use crate::ops::Row;

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

/// Eager operations are mostly a single one.
pub type Instructions = SmallVec<[Instruction; 1]>;

/// Instructions that have been checked, ready to run any number of times.
///
/// Registers `0..inputs` hold the inputs; results follow in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    inputs: usize,
    instructions: Instructions,
    outputs: Few<usize>,
    /// Registers to drop after each instruction, so that MLX can reuse their buffers.
    last_uses: Vec<Vec<usize>>,
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
        for instruction in &instructions {
            instruction
                .row
                .check(instruction.operands.len(), instruction.attributes.len())?;
            check_registers(&instruction.operands, registers)?;
            registers += instruction.row.results;
        }
        check_registers(&outputs, registers)?;
        let last_uses = last_uses(&instructions, &outputs, registers);
        Ok(Program {
            inputs,
            instructions,
            outputs,
            last_uses,
            registers,
        })
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    pub fn instructions(&self) -> usize {
        self.instructions.len()
    }

    /// Builds the graph of the outputs; MLX computes it when it is evaluated.
    pub fn run(&self, inputs: Vec<Array>, stream: &Stream) -> Result<Vec<Array>> {
        if inputs.len() != self.inputs {
            return Err(Error::InputCount {
                expected: self.inputs,
                given: inputs.len(),
            });
        }
        let mut registers: Vec<Option<Array>> = Vec::with_capacity(self.registers);
        registers.extend(inputs.into_iter().map(Some));
        for (at, instruction) in self.instructions.iter().enumerate() {
            instruction.run(&mut registers, stream)?;
            for &register in self.last_uses.get(at).into_iter().flatten() {
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

impl Instruction {
    fn run(&self, registers: &mut Vec<Option<Array>>, stream: &Stream) -> Result<()> {
        let operands: Vec<&Array> = self
            .operands
            .iter()
            .map(|&register| read(registers, register))
            .collect::<Result<_>>()?;
        let results = self
            .row
            .run(&operands, &self.attributes, stream)
            .and_then(|results| {
                results
                    .iter()
                    .try_for_each(|result| memory::check(result.nbytes()))?;
                Ok(results)
            })
            .map_err(|error| error.in_op(self.row.name, &operands))?;
        registers.extend(results.into_iter().map(Some));
        Ok(())
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

/// For each instruction, the registers nothing reads after it.
fn last_uses(instructions: &[Instruction], outputs: &[usize], registers: usize) -> Vec<Vec<usize>> {
    // Everything goes when a single instruction has run.
    if instructions.len() == 1 {
        return Vec::new();
    }
    let mut needed = vec![false; registers];
    outputs.iter().for_each(|&register| needed[register] = true);
    let mut next = registers;
    let mut dead: Vec<Vec<usize>> = instructions
        .iter()
        .rev()
        .map(|instruction| {
            next -= instruction.row.results;
            let results = next..next + instruction.row.results;
            let mut dead = Vec::new();
            for register in results.chain(instruction.operands.iter().copied()) {
                if !std::mem::replace(&mut needed[register], true) {
                    dead.push(register);
                }
            }
            dead
        })
        .collect();
    dead.reverse();
    dead
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
        assert_eq!(program.last_uses, [vec![0], vec![], vec![3, 2]]);
    }

    #[test]
    fn results_that_nobody_reads_die_at_once() {
        let instructions = vec![instruction("negate", &[0]), instruction("abs", &[0])];
        let program = Program::new(1, instructions, vec![2]).unwrap();
        assert_eq!(program.last_uses, [vec![1], vec![0]]);
    }

    #[test]
    fn programs_that_read_the_future_are_refused() {
        let error = Program::new(1, vec![instruction("add", &[0, 1])], vec![1]).unwrap_err();
        assert!(matches!(error, Error::Register { register: 1 }));
        let error = Program::new(1, Vec::new(), vec![3]).unwrap_err();
        assert!(matches!(error, Error::Register { register: 3 }));
    }

    #[test]
    fn operands_are_counted() {
        let error = Program::new(1, vec![instruction("add", &[0])], vec![1]).unwrap_err();
        assert_eq!(error.to_string(), "add takes 2 operands, 1 were given");
    }
}
