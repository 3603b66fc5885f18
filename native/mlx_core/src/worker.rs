//! One OS thread that owns one MLX stream, and the pool of them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mlx_rs::Array;
use once_cell::sync::Lazy;
use parking_lot::Mutex;

use crate::context::Context;
use crate::device::Device;
use crate::error::{catch, Error, Result};
use crate::job::{self, Job, Task};
use crate::memory;
use crate::queue::{Mail, Notice, Queue};
use crate::rest;

/// Jobs a queue holds before it is full.
static QUEUE_LIMIT: AtomicUsize = AtomicUsize::new(4096);

/// A read soon after the last job then costs no wake-up of the thread.
fn patience(device: Device) -> Duration {
    match device {
        Device::Cpu => Duration::from_micros(50),
        // Hosts of GPUs have processors to spare, and wake their threads slowly.
        Device::Gpu => Duration::from_millis(1),
    }
}

/// Streams that there may be at once: threads never end.
pub const MAX_STREAMS: usize = 1024;

/// Workers that may wait in the pool with work left over, before a new stream gets one of
/// them instead of a new thread.
const BUSY_SPARES: usize = 4;

/// Jobs nobody waits for are fetched several at a time.
const LINGER: Duration = Duration::from_micros(8);

/// How long work goes on that nobody wants any more.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// The part of a worker that every thread may touch. Workers live as long as
/// the process: MLX's streams do, too.
pub struct Worker {
    device: Device,
    queue: Queue<Job>,
    /// Streams that were let go of and whose work is not done.
    leftovers: AtomicUsize,
    /// Whether it serves a stream that somebody holds.
    held: AtomicBool,
}

#[derive(Default)]
struct Pool {
    idle: VecDeque<&'static Worker>,
    threads: Vec<(&'static Worker, JoinHandle<()>)>,
    /// Whether the process ends.
    closed: bool,
}

static POOL: Lazy<Mutex<Pool>> = Lazy::new(Mutex::default);

/// A worker for the device: one that has nothing to do, else a new one.
pub(crate) fn acquire(device: Device) -> Result<&'static Worker> {
    device.check()?;
    memory::prepare();
    let mut pool = POOL.lock();
    if pool.closed {
        return Err(Error::Halted);
    }
    if let Some(worker) = pool.take(device) {
        return Ok(worker);
    }
    if pool.threads.len() >= MAX_STREAMS {
        return Err(Error::TooManyStreams { limit: MAX_STREAMS });
    }
    let worker: &'static Worker = Box::leak(Box::new(Worker::new(device)));
    let thread = std::thread::Builder::new()
        .name(format!("mlx-{device}-{}", pool.threads.len()))
        .spawn(move || worker.work())
        .map_err(|error| Error::Spawn {
            message: error.to_string(),
        })?;
    pool.threads.push((worker, thread));
    Ok(worker)
}

/// Puts a worker back for the next stream.
pub(crate) fn release(worker: &'static Worker) {
    worker.held.store(false, Ordering::Relaxed);
    if !worker.queue.is_resting() {
        worker.leftovers.fetch_add(1, Ordering::Relaxed);
        worker.call(move |context| {
            if context.has_work() {
                // A failure stands in the slots.
                let _ = context.synchronize();
            }
            worker.leftovers.fetch_sub(1, Ordering::Relaxed);
        });
    }
    POOL.lock().idle.push_back(worker);
}

impl Pool {
    /// Of the workers that serve no stream the first that is done, or the one that was
    /// let go of first if too many are not.
    fn take(&mut self, device: Device) -> Option<&'static Worker> {
        let of_device = |at: &usize| self.idle[*at].device == device;
        let spares: Vec<usize> = (0..self.idle.len()).filter(of_device).collect();
        let is_done = |at: &&usize| self.idle[**at].leftovers.load(Ordering::Relaxed) == 0;
        let chosen = match spares.iter().find(is_done) {
            None if spares.len() >= BUSY_SPARES || self.threads.len() >= MAX_STREAMS => {
                spares.first()
            }
            done => done,
        };
        let worker = self.idle.remove(*chosen?)?;
        worker.held.store(true, Ordering::Relaxed);
        Some(worker)
    }
}

thread_local! {
    /// The worker that this thread is.
    static CURRENT: Cell<Option<&'static Worker>> = const { Cell::new(None) };
    /// When it was last looked whether what this thread runs is wanted.
    static LOOKED: Cell<Instant> = Cell::new(Instant::now());
}

/// The worker that this thread is, if it is one.
pub(crate) fn current() -> Option<&'static Worker> {
    CURRENT.get()
}

/// Long work asks this now and then, because neither the process waits for it to end nor
/// those who have let go of its results.
pub(crate) fn check_wanted() -> Result<()> {
    match current() {
        Some(worker) if worker.queue.is_stopped() => Err(Error::Halted),
        Some(worker) if !worker.is_wanted() => Err(Error::Unwanted),
        _ => Ok(()),
    }
}

/// Frees the arrays that wait for this worker's thread, if it is one.
pub(crate) fn free_trash() {
    if let Some(worker) = current() {
        drop(worker.queue.take_trash());
    }
}

/// Waits until the workers have freed what they have to free, but for those that are
/// busy for longer than the patience.
pub(crate) fn tidy(patience: Duration) {
    let deadline = Instant::now() + patience;
    let (sender, receiver) = channel();
    let pool = POOL.lock();
    let is_awake = |(worker, _): &&(&Worker, JoinHandle<()>)| !worker.queue.is_resting();
    let awake = pool.threads.iter().filter(is_awake);
    let mut left = 0;
    for (worker, _) in awake {
        left += 1;
        let sender = sender.clone();
        worker.call(move |context| {
            // What is being computed holds its operands. A failure stands in the slots.
            if context.has_work() {
                let _ = context.synchronize();
            }
            // Nobody listens to a worker that is late.
            let _ = sender.send(());
        });
    }
    drop(pool);
    drop(sender);
    while left > 0 {
        let patience = deadline.saturating_duration_since(Instant::now());
        if receiver.recv_timeout(patience).is_err() {
            return;
        }
        left -= 1;
    }
}

/// How many jobs the queue of a worker holds before it is full.
pub fn queue_limit() -> usize {
    QUEUE_LIMIT.load(Ordering::Relaxed)
}

/// Sets how many jobs the queue of each worker holds.
pub fn set_queue_limit(jobs: usize) {
    QUEUE_LIMIT.store(jobs.max(1), Ordering::Relaxed);
    for (worker, _) in &POOL.lock().threads {
        worker.queue.set_capacity(jobs.max(1));
    }
}

/// Threads started so far.
pub fn worker_count() -> usize {
    POOL.lock().threads.len()
}

/// How much work a stream has.
#[derive(Debug, Clone)]
pub struct QueueDepth {
    /// The name of its thread.
    pub stream: String,
    pub device: Device,
    /// Jobs that wait or are being run.
    pub jobs: usize,
}

/// Of each stream that someone holds.
pub fn queue_depths() -> Vec<QueueDepth> {
    let pool = POOL.lock();
    let is_idle = |worker: &Worker| pool.idle.iter().any(|idle| std::ptr::eq(*idle, worker));
    let held = pool.threads.iter().filter(|(worker, _)| !is_idle(worker));
    held.map(|(worker, thread)| QueueDepth {
        stream: thread.thread().name().unwrap_or_default().to_owned(),
        device: worker.device,
        jobs: worker.queue.depth(),
    })
    .collect()
}

/// Ends every worker after the job it is at; false if one is still busy at the deadline.
pub(crate) fn stop_all(deadline: Instant) -> bool {
    let mut pool = POOL.lock();
    pool.closed = true;
    let threads = std::mem::take(&mut pool.threads);
    drop(pool);
    threads.iter().for_each(|(worker, _)| worker.queue.stop());
    let mut busy = threads;
    loop {
        let (done, rest) = busy
            .into_iter()
            .partition(|(_, thread)| thread.is_finished());
        busy = rest;
        let done: Vec<(&Worker, JoinHandle<()>)> = done;
        // A panic of the thread is of no consequence any more.
        done.into_iter().for_each(|(_, thread)| drop(thread.join()));
        if busy.is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            // Whoever asks again must learn of them, too.
            POOL.lock().threads.append(&mut busy);
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Worker {
    fn new(device: Device) -> Worker {
        Worker {
            device,
            queue: Queue::new(queue_limit()),
            leftovers: AtomicUsize::new(0),
            held: AtomicBool::new(true),
        }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub(crate) fn queue(&self) -> &Queue<Job> {
        &self.queue
    }

    /// Frees an array of this worker, here if this is its thread.
    pub(crate) fn discard(&self, array: Array) {
        match current() {
            Some(worker) if std::ptr::eq(worker, self) => drop(array),
            _ => self.queue.discard(array),
        }
    }

    /// Runs `call` on the worker after the jobs before it. The caller waits for
    /// its answer, so these are few and not counted against the bound.
    pub(crate) fn call(&self, call: impl FnOnce(&mut Context) + Send + 'static) {
        self.request(call);
    }

    /// The same for a task, which is skipped once it is not wanted any more.
    pub(crate) fn request(&self, task: impl Task + 'static) {
        self.queue.push(Job::Task(Box::new(task)));
    }

    pub(crate) fn when_room(&self, notice: Notice) -> bool {
        self.queue.when_room(notice)
    }

    fn work(&'static self) {
        CURRENT.set(Some(self));
        loop {
            self.queue.park_for_work();
            if self.queue.is_stopped() {
                return;
            }
            self.serve_with_stream();
        }
    }

    /// Serves until the process ends, or the stream has idled for so long that it goes.
    fn serve_with_stream(&'static self) {
        let mut context = Context::new(self);
        if !context.has_stream() {
            return self.serve(&mut context);
        }
        let stream = context.stream().clone();
        mlx_rs::with_stream(&stream, || loop {
            self.serve(&mut context);
            if self.queue.is_stopped() {
                return context.finish();
            }
            if context.complete() && self.queue.is_empty() {
                return rest::let_go();
            }
        });
    }

    /// How long the thread waits for work before its stream goes, if not for ever.
    fn patience(&self, context: &Context) -> Option<Duration> {
        match context.has_stream() {
            // The next job may get one.
            false => Some(Duration::ZERO),
            true if context.has_failed() => None,
            true => rest::patience(self.device, self.held.load(Ordering::Relaxed)),
        }
    }

    /// Whether anybody wants what runs, as far as that has been looked at.
    fn is_wanted(&self) -> bool {
        if LOOKED.get().elapsed() < LOOK {
            return true;
        }
        LOOKED.set(Instant::now());
        // Jobs that wait hold what this one makes.
        self.queue.amend(job::skim);
        job::skim_taken();
        job::is_wanted()
    }

    fn serve(&self, context: &mut Context) {
        let mut mail = Mail::new();
        let mut idle_since = Instant::now();
        // Whether jobs still in the queue may have been abandoned.
        let mut abandoned = false;
        while !self.queue.is_stopped() {
            self.queue.exchange(&mut mail);
            let idle = mail.jobs.is_empty() && mail.wanted.is_empty();
            mail.trash.clear();
            context.settle_wanted(std::mem::take(&mut mail.wanted));
            if std::mem::take(&mut abandoned) {
                job::skim(&mut mail.jobs);
            }
            job::take(&mut mail.jobs);
            while !self.queue.is_stopped() {
                if self.queue.take_abandoned() {
                    abandoned = true;
                    job::skim_taken();
                }
                let Some(job) = job::next() else { break };
                self.execute(job, context);
                self.queue.set_taken(job::left());
                context.settle_wanted(self.queue.take_wanted());
            }
            if !idle {
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= patience(self.device) {
                context.rest();
                if !self.queue.park(self.patience(context)) {
                    return;
                }
                idle_since = Instant::now();
            }
            self.queue.spin(LINGER);
        }
        // What was not begun goes while there is a stream.
        job::take(&mut mail.jobs);
    }

    fn execute(&self, job: Job, context: &mut Context) {
        match job {
            Job::Run {
                program,
                inputs,
                outputs,
            } => job::during(outputs, |outputs| {
                let run = || Ok(context.run(program, inputs, outputs));
                if let Err(error) = catch(run).unwrap_or_else(|panic| Err(Arc::new(panic))) {
                    outputs.iter().for_each(|slot| slot.fail(&error));
                }
            }),
            Job::Task(task) if task.is_wanted() => {
                // The caller learns of a panic because its answer is dropped.
                let _ = catch_unwind(AssertUnwindSafe(|| task.run(context)));
            }
            Job::Task(_) | Job::Skipped => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::ops;
    use crate::program::{Instruction, Program};
    use crate::slot::Slot;

    fn negated(worker: &'static Worker) -> Arc<Slot> {
        let negate = Instruction {
            row: ops::row("negate").unwrap(),
            operands: [0].as_slice().into(),
            attributes: vec![],
        };
        let x = Slot::new(worker);
        x.fill(Array::from_slice(&[1f32, 2.0], &[2]));
        let output = Slot::new(worker);
        let job = Job::Run {
            program: Arc::new(Program::new(1, vec![negate], vec![1]).unwrap()),
            inputs: vec![x].into(),
            outputs: vec![output.clone()].into(),
        };
        assert!(worker.queue.try_push(job).is_ok());
        output
    }

    #[test]
    fn a_stream_that_is_not_made_is_told_of_each_time() {
        crate::init();
        // A device that is there makes one.
        if Device::Gpu.check().is_ok() {
            return;
        }
        let worker: &'static Worker = Box::leak(Box::new(Worker::new(Device::Gpu)));
        let thread = std::thread::spawn(move || worker.work());
        for _ in 0..3 {
            let output = negated(worker);
            let (sender, receiver) = channel();
            worker.call(move |_| sender.send(()).unwrap());
            receiver.recv().unwrap();
            let error = output.failure().unwrap();
            assert!(matches!(*error, Error::NoStream { .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Native);
            std::thread::sleep(5 * patience(Device::Gpu));
        }
        worker.queue.stop();
        thread.join().unwrap();
    }
}
