//! Which parts of a program are fused.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mlx_rs::Dtype;

use crate::attribute::Attribute;
use crate::error::Result;
use crate::fuse::Fused;
use crate::kernels;
use crate::ops::{fused_row, row};
use crate::program::{Few, Instruction, Instructions, Program, Step, Steps};

/// Instructions of a loop's body that become one part. MLX's kernels hold fewer, but a
/// larger part costs fewer calls.
const UNROLLED: usize = 64;

impl Program {
    /// The same program with its stretches of instructions that MLX can compile each as
    /// one, in branches and loops as well.
    pub fn fused(self) -> Result<Program> {
        kernels::prepare()?;
        let mut fusion = Fusion::new(&self);
        for (at, step) in self.steps().iter().enumerate() {
            if step.instruction.looks() {
                fusion.close(at)?;
                fusion.control(step)?;
            } else {
                fusion.open.push(step);
            }
        }
        fusion.close(self.steps().len())?;
        let outputs = fusion.renamed(self.output_registers());
        Ok(Program::of_steps(
            self.inputs(),
            fusion.steps,
            outputs,
            fusion.registers,
        ))
    }
}

struct Fusion<'a> {
    steps: Steps,
    open: Vec<&'a Step>,
    /// Where the value of a register is now, if not in itself.
    names: HashMap<usize, usize>,
    registers: usize,
    /// For each register the step that reads it last; outputs are read at the end.
    last_reads: Vec<usize>,
}

impl<'a> Fusion<'a> {
    fn new(program: &'a Program) -> Fusion<'a> {
        let mut last_reads = vec![0; program.registers()];
        for (at, step) in program.steps().iter().enumerate() {
            for &register in &step.instruction.operands {
                last_reads[register] = at;
            }
        }
        for &register in program.output_registers() {
            last_reads[register] = usize::MAX;
        }
        Fusion {
            steps: Steps::new(),
            open: Vec::new(),
            names: HashMap::new(),
            registers: program.registers(),
            last_reads,
        }
    }

    /// Ends the stretch before step `at`.
    fn close(&mut self, at: usize) -> Result<()> {
        let open = std::mem::take(&mut self.open);
        if let [] | [_] = open[..] {
            open.into_iter().for_each(|step| self.push(step.clone()));
            return Ok(());
        }
        let made: BTreeSet<usize> = open.iter().flat_map(|step| step.results.clone()).collect();
        let read = open.iter().flat_map(|step| &step.instruction.operands);
        let operands: BTreeSet<usize> = read.copied().filter(|r| !made.contains(r)).collect();
        let kept: Vec<usize> = made
            .iter()
            .copied()
            .filter(|&register| self.last_reads[register] >= at)
            .collect();
        let part = part(&open, &operands, &made, &kept)?;
        let operands: Vec<usize> = operands.into_iter().collect();
        let results = self.fresh(kept.len());
        self.push(Step::new(part.run_fused(operands), results.clone()));
        self.names.extend(kept.into_iter().zip(results));
        Ok(())
    }

    /// Adds what stays as it is, such as a branch or a loop, with its programs fused.
    fn control(&mut self, step: &Step) -> Result<()> {
        let mut step = step.clone();
        if let Some((many, rest)) = unrolled(&step.instruction)? {
            let state = self.fresh(many.results());
            let fixed = step.instruction.operands[many.results()..].to_vec();
            self.push(Step::new(many, state.clone()));
            let operands = state.chain(self.renamed(&fixed)).collect();
            let instruction = Instruction { operands, ..rest };
            self.steps.push(Step::new(instruction, step.results));
            return Ok(());
        }
        for attribute in &mut step.instruction.attributes {
            if let Attribute::Program(program) = attribute {
                **program = (**program).clone().fused()?;
            }
        }
        self.push(step);
        Ok(())
    }

    fn push(&mut self, mut step: Step) {
        step.instruction.operands = self.renamed(&step.instruction.operands);
        self.steps.push(step);
    }

    fn fresh(&mut self, count: usize) -> std::ops::Range<usize> {
        let first = self.registers;
        self.registers += count;
        first..self.registers
    }

    fn renamed(&self, registers: &[usize]) -> Few<usize> {
        let name = |register| *self.names.get(register).unwrap_or(register);
        registers.iter().map(name).collect()
    }
}

/// The steps as a program of its own.
fn part(
    steps: &[&Step],
    operands: &BTreeSet<usize>,
    made: &BTreeSet<usize>,
    kept: &[usize],
) -> Result<Program> {
    let registers = operands.iter().chain(made);
    let names: HashMap<usize, usize> = registers.copied().zip(0..).collect();
    let name = |registers: &[usize]| registers.iter().map(|r| names[r]).collect::<Few<_>>();
    let code: Instructions = steps
        .iter()
        .map(|step| Instruction {
            operands: name(&step.instruction.operands),
            ..step.instruction.clone()
        })
        .collect();
    Program::new(operands.len(), code, name(kept))
}

impl Program {
    /// An instruction that runs this program as MLX compiles it.
    fn run_fused(self, operands: Vec<usize>) -> Instruction {
        Instruction {
            row: fused_row(),
            operands: operands.into(),
            attributes: [Attribute::Fused(Arc::new(Fused::new(self)))]
                .into_iter()
                .collect(),
        }
    }

    /// A program of one instruction, which runs this one as MLX compiles it.
    fn fused_whole(self) -> Result<Program> {
        let inputs = self.inputs();
        let outputs = inputs..inputs + self.outputs();
        let whole = self.run_fused((0..inputs).collect());
        Program::new(inputs, vec![whole], outputs.collect::<Few<_>>())
    }

    fn computes_nothing(&self) -> bool {
        !self.steps().iter().any(|step| step.instruction.looks())
    }
}

/// A loop that runs its body a number of times, as one that runs it several times at
/// once, and one for the times that are left.
fn unrolled(instruction: &Instruction) -> Result<Option<(Instruction, Instruction)>> {
    let [Attribute::Program(body), Attribute::Int(times), Attribute::Int(start), Attribute::Int(step), Attribute::Dtype(dtype)] =
        &instruction.attributes[..]
    else {
        return Ok(None);
    };
    let copies = (UNROLLED / body.steps().len().max(1)).min(*times as usize) as i64;
    if *times < 2 || copies < 2 || !body.computes_nothing() {
        return Ok(None);
    }
    let repeat = |body: Program, times: i64, start: i64, step: i64| {
        Ok::<_, crate::error::Error>(Instruction {
            attributes: vec![
                Attribute::Program(Box::new(body.fused_whole()?)),
                Attribute::Int(times),
                Attribute::Int(start),
                Attribute::Int(step),
                Attribute::Dtype(*dtype),
            ],
            ..instruction.clone()
        })
    };
    let done = times - times % copies;
    let many = body.repeated(copies, *step, *dtype)?;
    Ok(Some((
        repeat(many, times / copies, *start, step.wrapping_mul(copies))?,
        repeat(
            (**body).clone(),
            times % copies,
            start.wrapping_add(done.wrapping_mul(*step)),
            *step,
        )?,
    )))
}

impl Program {
    /// A loop's body several times in a row, whose last input counts in steps.
    fn repeated(&self, copies: i64, step: i64, dtype: Dtype) -> Result<Program> {
        let counter = self.inputs() - 1;
        let mut code = Vec::new();
        let mut next = self.inputs();
        let mut state: Vec<usize> = (0..self.outputs()).collect();
        for copy in 0..copies {
            let mut names: HashMap<usize, usize> = (0..).zip(state.iter().copied()).collect();
            if copy > 0 {
                code.extend(count_on(counter, next, copy.wrapping_mul(step), dtype)?);
                next += 3;
                names.insert(counter, next - 1);
            }
            for Step {
                instruction,
                results,
                ..
            } in self.steps()
            {
                let operands = &instruction.operands;
                code.push(Instruction {
                    operands: operands
                        .iter()
                        .map(|r| *names.get(r).unwrap_or(r))
                        .collect(),
                    ..instruction.clone()
                });
                names.extend(results.clone().zip(next..));
                next += results.len();
            }
            let outputs = self.output_registers().iter();
            state = outputs.map(|r| *names.get(r).unwrap_or(r)).collect();
        }
        Program::new(self.inputs(), code, state)
    }
}

/// Three instructions of which the last gives the counter and so many more.
fn count_on(counter: usize, next: usize, more: i64, dtype: Dtype) -> Result<[Instruction; 3]> {
    let instruction = |name, operands, attributes| {
        Ok::<_, crate::error::Error>(Instruction {
            row: row(name)?,
            operands: Few::from_vec(operands),
            attributes,
        })
    };
    let bytes = Attribute::Bytes(more.to_ne_bytes().to_vec());
    let scalar = vec![
        bytes,
        Attribute::Ints(Few::new()),
        Attribute::Dtype(Dtype::Int64),
    ];
    Ok([
        instruction("full", vec![], scalar)?,
        instruction("cast", vec![next], vec![Attribute::Dtype(dtype)])?,
        instruction("add", vec![counter, next + 1], vec![])?,
    ])
}
