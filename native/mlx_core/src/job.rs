//! What a worker is asked to do, and whether anybody wants it done.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::context::Context;
use crate::program::{Few, Program};
use crate::slot::Slot;

/// Something to do on a worker that is not a program.
pub(crate) trait Task: Send {
    /// False once nobody can see what comes of it.
    fn is_wanted(&self) -> bool {
        true
    }

    fn run(self: Box<Self>, context: &mut Context);
}

impl<F: FnOnce(&mut Context) + Send> Task for F {
    fn run(self: Box<Self>, context: &mut Context) {
        self(context)
    }
}

pub(crate) enum Job {
    Run {
        program: Arc<Program>,
        inputs: Few<Arc<Slot>>,
        outputs: Few<Arc<Slot>>,
    },
    Task(Box<dyn Task>),
    Skipped,
}

impl Job {
    fn is_wanted(&self) -> bool {
        match self {
            Job::Run { outputs, .. } => outputs.iter().any(Slot::is_reachable),
            Job::Task(task) => task.is_wanted(),
            Job::Skipped => false,
        }
    }
}

/// Who has asked for something.
pub(crate) trait Awaited {
    /// Whether somebody still waits for it.
    fn is_awaited(&self) -> bool;
}

/// Drops what nobody wants done any more, the last first, because a job holds what
/// earlier ones make.
pub(crate) fn skim(jobs: &mut VecDeque<Job>) {
    for job in jobs.iter_mut().rev() {
        if !job.is_wanted() {
            *job = Job::Skipped;
        }
    }
}

thread_local! {
    /// What the worker of this thread has taken out of its queue and not begun.
    static TAKEN: RefCell<VecDeque<Job>> = RefCell::default();
    /// The results of the program that it runs.
    static RESULTS: RefCell<Few<Arc<Slot>>> = RefCell::default();
    /// Who has asked for what it does.
    static ASKER: RefCell<Option<Rc<dyn Awaited>>> = RefCell::default();
}

/// Exchanges what is taken for `jobs`.
pub(crate) fn take(jobs: &mut VecDeque<Job>) {
    TAKEN.with_borrow_mut(|taken| std::mem::swap(taken, jobs));
}

pub(crate) fn next() -> Option<Job> {
    TAKEN.with_borrow_mut(VecDeque::pop_front)
}

/// How many jobs that were taken are not begun.
pub(crate) fn left() -> usize {
    TAKEN.with_borrow(VecDeque::len)
}

pub(crate) fn skim_taken() {
    TAKEN.with_borrow_mut(skim);
}

/// Runs what makes the results.
pub(crate) fn during(results: Few<Arc<Slot>>, run: impl FnOnce(&[Arc<Slot>])) {
    RESULTS.set(results);
    RESULTS.with_borrow(|results| run(results));
    drop(RESULTS.take());
}

/// Runs what somebody has asked for.
pub(crate) fn asked<T>(asker: Rc<dyn Awaited>, run: impl FnOnce() -> T) -> T {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            ASKER.take();
        }
    }
    ASKER.set(Some(asker));
    let _end = End;
    run()
}

/// Whether somebody may see what comes of what runs.
pub(crate) fn is_wanted() -> bool {
    let has_asker =
        |asker: &Option<Rc<dyn Awaited>>| asker.as_ref().is_none_or(|asker| asker.is_awaited());
    let has_holder =
        |results: &Few<Arc<Slot>>| results.is_empty() || results.iter().any(Slot::is_reachable);
    ASKER.with_borrow(has_asker) && RESULTS.with_borrow(has_holder)
}
