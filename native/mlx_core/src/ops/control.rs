//! Branches and loops: ops that run programs.

use mlx_rs::{Array, Dtype, Stream};

use super::{number, ops};
use crate::error::{Error, Result};
use crate::evaluation::{self, truth};
use crate::ffi;
use crate::program::Program;
use crate::worker;

ops! {
    /// What the first program makes of the operands after the predicate if that is not
    /// zero, else what the second does. The other one does not run.
    cond[operands] { on_true: &Program, on_false: &Program } |s| -> * => {
        let (predicate, operands) = split(operands, 1)?;
        let chosen = if truth(&predicate[0])? { on_true } else { on_false };
        chosen.run(operands, s)
    };

    /// The state after the body has run for as long as the condition is not zero. The
    /// first operands are the state, as many as the body gives; both programs take the
    /// others, too.
    while[operands] { condition: &Program, body: &Program } |s| -> * => {
        let (state, fixed) = split(operands, body.outputs())?;
        Loop { body, fixed, s }.run_while(condition, state)
    };

    /// The state after the body has run so many times. It takes the state, the operands
    /// that stay the same, and a counter that goes from `start` in steps.
    repeat[operands] { body: &Program, times: i64, start: i64, step: i64, dtype: Dtype } |s| -> * => {
        let (state, fixed) = split(operands, body.outputs())?;
        Loop { body, fixed, s }.run_times(&Counter { times, start, step, dtype }, state)
    };
}

/// Instructions that are built before they are started, so that the graph stays small
/// and the device works meanwhile.
const BUILT: usize = 32;

struct Loop<'a> {
    body: &'a Program,
    fixed: Vec<Array>,
    s: &'a Stream,
}

struct Counter {
    times: i64,
    start: i64,
    step: i64,
    dtype: Dtype,
}

impl Counter {
    fn at(&self, time: i64) -> Result<Array> {
        let value = self.start.wrapping_add(time.wrapping_mul(self.step));
        number(value, self.dtype)
    }
}

impl Loop<'_> {
    fn run_while(&self, condition: &Program, mut state: Vec<Array>) -> Result<Vec<Array>> {
        loop {
            let goes_on = condition.run_for_one(self.inputs(state.clone()), self.s)?;
            if !truth(&goes_on)? {
                return Ok(state);
            }
            worker::check_wanted()?;
            state = self.body.run(self.inputs(state), self.s)?;
        }
    }

    fn run_times(&self, counter: &Counter, mut state: Vec<Array>) -> Result<Vec<Array>> {
        let mut built = 0;
        let counts = self.body.reads(state.len() + self.fixed.len());
        let mut count = counter.at(0)?;
        for time in 0..counter.times {
            if counts {
                count = counter.at(time)?;
            }
            let mut inputs = self.inputs(state);
            inputs.push(ffi::share(&count));
            state = self.body.run(inputs, self.s)?;
            built += self.body.instructions().max(1);
            if built >= BUILT {
                built = 0;
                worker::check_wanted()?;
                evaluation::async_eval(&state.iter().collect::<Vec<_>>())?;
            }
        }
        Ok(state)
    }

    fn inputs(&self, mut state: Vec<Array>) -> Vec<Array> {
        state.extend(self.fixed.iter().map(ffi::share));
        state
    }
}

fn split(operands: &[&Array], at: usize) -> Result<(Vec<Array>, Vec<Array>)> {
    let share = |arrays: &[&Array]| arrays.iter().copied().map(ffi::share).collect();
    match operands.split_at_checked(at) {
        Some((first, rest)) => Ok((share(first), share(rest))),
        None => Err(Error::InputCount {
            expected: at,
            given: operands.len(),
        }),
    }
}
