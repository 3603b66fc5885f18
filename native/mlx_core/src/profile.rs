//! Times of a program's instructions, each computed and waited for before the next.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlx_rs::Array;

use crate::attribute::Attribute;
use crate::error::{Error, Result, Signature};
use crate::evaluation;
use crate::program::{Program, Step};

/// Events that are kept; a long loop has more.
const MOST_EVENTS: usize = 100_000;

/// An instruction as a listing of its program shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub row: &'static str,
    /// How many programs it is inside.
    pub depth: usize,
    /// What the program that it belongs to is to the instruction around it.
    pub part: Option<&'static str>,
    /// The rows that MLX compiled to one, if that is what the instruction runs.
    pub fused: Vec<&'static str>,
}

/// What an instruction took, over all the times that it ran.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    pub operands: Vec<Signature>,
    pub results: Vec<Signature>,
    /// Of the results of one time.
    pub bytes: usize,
    pub calls: u64,
    /// With the programs inside it.
    pub time: Duration,
    /// Without them.
    pub own: Duration,
}

/// One time that an instruction ran, since the program started.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub line: usize,
    pub start: Duration,
    pub duration: Duration,
}

/// What became of each line of a program's listing when it ran once.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    pub timings: Vec<Timing>,
    /// In the order in which they ended.
    pub events: Vec<Event>,
    /// Events beyond those that are kept; the timings have them.
    pub dropped: u64,
    pub duration: Duration,
}

struct Recorder {
    began: Instant,
    /// Steps are known by where they are, which is one place while a program runs.
    lines: HashMap<*const Step, usize>,
    /// For each instruction that is running, the time of those inside it.
    running: Vec<Duration>,
    profile: Profile,
}

thread_local! {
    static IS_RECORDING: Cell<bool> = const { Cell::new(false) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

impl Program {
    /// All instructions, each before those of its programs.
    pub fn listing(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        self.walk(0, None, &mut |step, depth, part| {
            lines.push(Line {
                row: step.instruction.row.name,
                depth,
                part,
                fused: fused_rows(&step.instruction.attributes),
            });
        });
        lines
    }

    fn walk(
        &self,
        depth: usize,
        part: Option<&'static str>,
        visit: &mut dyn FnMut(&Step, usize, Option<&'static str>),
    ) {
        for step in self.steps() {
            visit(step, depth, part);
            let names = step.instruction.row.attributes;
            for (name, attribute) in names.iter().zip(&step.instruction.attributes) {
                if let Some(program) = attribute.program() {
                    program.walk(depth + 1, Some(name), visit);
                }
            }
        }
    }
}

fn fused_rows(attributes: &[Attribute]) -> Vec<&'static str> {
    let programs = attributes.iter().filter_map(|attribute| match attribute {
        Attribute::Fused(part) => Some(part.program()),
        _ => None,
    });
    programs
        .flat_map(|program| program.steps())
        .map(|step| step.instruction.row.name)
        .collect()
}

/// Runs the program by `run`, and says what its instructions took.
pub(crate) fn of<T>(program: &Program, run: impl FnOnce() -> T) -> (T, Profile) {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            IS_RECORDING.set(false);
            RECORDER.set(None);
        }
    }
    let recorder = Recorder::new(program);
    let began = recorder.began;
    RECORDER.set(Some(recorder));
    IS_RECORDING.set(true);
    let end = End;
    let outcome = run();
    let duration = began.elapsed();
    let recorder = RECORDER.take();
    drop(end);
    let profile = recorder.map(|recorder| recorder.profile);
    let profile = Profile {
        duration,
        ..profile.unwrap_or_default()
    };
    (outcome, profile)
}

/// Whether the instructions that this thread runs are to be recorded. What MLX learns a
/// graph from has no values to wait for.
pub(crate) fn is_recording() -> bool {
    IS_RECORDING.get() && !evaluation::is_tracing()
}

/// Runs a step, waits for its results and notes what it took.
pub(crate) fn record(
    step: &Step,
    operands: impl FnOnce() -> Vec<Signature>,
    run: impl FnOnce() -> Result<Vec<Array>>,
) -> Result<Vec<Array>> {
    let Some(line) = RECORDER.with_borrow_mut(|recorder| recorder.as_mut()?.begin(step)) else {
        return run();
    };
    let operands = operands();
    let began = Instant::now();
    let results = run().and_then(|results| {
        let computed = evaluation::eval(&results.iter().collect::<Vec<_>>());
        computed.map(|()| results).map_err(|error| Error::InOp {
            op: step.instruction.row.name,
            operands: operands.clone(),
            source: Arc::new(error),
        })
    })?;
    let duration = began.elapsed();
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.end(line, began, duration, operands, &results);
        }
    });
    Ok(results)
}

impl Recorder {
    fn new(program: &Program) -> Recorder {
        let mut lines = HashMap::new();
        program.walk(0, None, &mut |step, _, _| {
            lines.insert(std::ptr::from_ref(step), lines.len());
        });
        let timings = vec![Timing::default(); lines.len()];
        Recorder {
            began: Instant::now(),
            lines,
            running: Vec::new(),
            profile: Profile {
                timings,
                ..Profile::default()
            },
        }
    }

    fn begin(&mut self, step: &Step) -> Option<usize> {
        let line = *self.lines.get(&std::ptr::from_ref(step))?;
        self.running.push(Duration::ZERO);
        Some(line)
    }

    fn end(
        &mut self,
        line: usize,
        began: Instant,
        duration: Duration,
        operands: Vec<Signature>,
        results: &[Array],
    ) {
        let inside = self.running.pop().unwrap_or_default();
        if let Some(around) = self.running.last_mut() {
            *around += duration;
        }
        let timing = &mut self.profile.timings[line];
        timing.operands = operands;
        timing.results = results.iter().map(Signature::from).collect();
        timing.bytes = results.iter().map(Array::nbytes).sum();
        timing.calls += 1;
        timing.time += duration;
        timing.own += duration.saturating_sub(inside);
        if self.profile.events.len() == MOST_EVENTS {
            self.profile.dropped += 1;
            return;
        }
        self.profile.events.push(Event {
            line,
            start: began - self.began,
            duration,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::row;
    use crate::program::{Few, Instruction};

    fn instruction(name: &str, operands: &[usize], attributes: Vec<Attribute>) -> Instruction {
        Instruction {
            row: row(name).unwrap(),
            operands: Few::from_slice(operands),
            attributes,
        }
    }

    #[test]
    fn a_listing_has_the_programs_inside() {
        let negate = Program::new(1, vec![instruction("negate", &[0], vec![])], vec![1]).unwrap();
        let same = Program::new(1, Vec::new(), vec![0]).unwrap();
        let branches = [negate, same].map(|program| Attribute::Program(Box::new(program)));
        let steps = vec![
            instruction("cond", &[0, 1], branches.into()),
            instruction("abs", &[2], vec![]),
        ];
        let program = Program::new(2, steps, vec![3]).unwrap();
        let listing = program.listing();
        let seen: Vec<_> = listing.iter().map(|l| (l.row, l.depth, l.part)).collect();
        let inside = ("negate", 1, Some("on_true"));
        assert_eq!(seen, [("cond", 0, None), inside, ("abs", 0, None)]);
    }

    #[test]
    fn nothing_is_recorded_outside() {
        let program = Program::new(0, Vec::new(), Vec::new()).unwrap();
        assert!(!is_recording());
        let (recorded, profile) = of(&program, is_recording);
        assert!(recorded && !is_recording());
        assert!(profile.timings.is_empty() && profile.events.is_empty());
    }
}
