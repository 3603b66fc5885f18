use std::sync::Arc;
use std::time::Duration;

use mlx_core::{Event, Few, Line, Profile, Slot, Timing};
use rustler::{Atom, Env, NifMap, NifResult, NifTuple, ResourceArc, Term};

use crate::error::SignatureTuple;
use crate::instruction::{each, Refusal};
use crate::program::Compiled;
use crate::reply::{outcome, Outcome, Reply};
use crate::stream::{pending, slot, Target};
use crate::tensor::Tensor;

#[derive(NifMap)]
#[rustler(encode)]
struct LineMap {
    op: &'static str,
    depth: usize,
    part: Option<&'static str>,
    fused: Vec<&'static str>,
}

/// Times are nanoseconds.
#[derive(NifMap)]
#[rustler(encode)]
struct TimingMap {
    operands: Vec<SignatureTuple>,
    results: Vec<SignatureTuple>,
    bytes: usize,
    calls: u64,
    time: u64,
    own: u64,
}

/// The line, the start and the duration.
#[derive(NifTuple)]
#[rustler(encode)]
struct EventTuple(usize, u64, u64);

#[derive(NifMap)]
#[rustler(encode)]
struct ProfileMap {
    timings: Vec<TimingMap>,
    events: Vec<EventTuple>,
    dropped: u64,
    duration: u64,
}

impl From<Line> for LineMap {
    fn from(line: Line) -> Self {
        LineMap {
            op: line.row,
            depth: line.depth,
            part: line.part,
            fused: line.fused,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<Timing> for TimingMap {
    fn from(timing: Timing) -> Self {
        TimingMap {
            operands: timing.operands.iter().map(SignatureTuple::from).collect(),
            results: timing.results.iter().map(SignatureTuple::from).collect(),
            bytes: timing.bytes,
            calls: timing.calls,
            time: nanoseconds(timing.time),
            own: nanoseconds(timing.own),
        }
    }
}

impl From<Event> for EventTuple {
    fn from(event: Event) -> Self {
        EventTuple(
            event.line,
            nanoseconds(event.start),
            nanoseconds(event.duration),
        )
    }
}

impl From<Profile> for ProfileMap {
    fn from(profile: Profile) -> Self {
        ProfileMap {
            timings: profile.timings.into_iter().map(TimingMap::from).collect(),
            events: profile.events.into_iter().map(EventTuple::from).collect(),
            dropped: profile.dropped,
            duration: nanoseconds(profile.duration),
        }
    }
}

/// The instructions of a program, each before those of the programs inside it.
#[rustler::nif(schedule = "DirtyCpu")]
fn profile_listing(compiled: ResourceArc<Compiled>) -> Vec<LineMap> {
    let listing = compiled.program().listing();
    listing.into_iter().map(LineMap::from).collect()
}

/// Runs a program instruction by instruction, and sends `{tag, outcome}` with its outputs
/// and what each line of its listing took.
#[rustler::nif]
fn profile_run(
    env: Env,
    target: Target,
    compiled: ResourceArc<Compiled>,
    inputs: Term,
    tag: Term,
) -> NifResult<Outcome<Atom>> {
    let start = || {
        let mut inputs: Few<Arc<Slot>> = each(inputs, slot)?;
        inputs.extend(compiled.constants().iter().cloned());
        let stream = target.stream()?;
        let reply = Reply::new(env, tag, |env, done: Result<(Few<_>, Profile), _>| {
            outcome(env, done, |(slots, profile)| {
                let tensors: Vec<_> = slots.into_iter().map(Tensor::new).collect();
                (tensors, ProfileMap::from(profile))
            })
        });
        stream.profile(compiled.program().clone(), inputs, reply);
        Ok(pending())
    };
    match start() {
        Ok(pending) => Ok(Outcome::Ok(pending)),
        Err(Refusal::Engine(error)) => Ok(Outcome::Error(error.into())),
        Err(Refusal::Term(error)) => Err(error),
    }
}
