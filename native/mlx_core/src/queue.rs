//! The inbox of a worker: a bounded list of jobs and the errands beside it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mlx_rs::Array;
use parking_lot::{Condvar, Mutex};

use crate::slot::Wanted;

/// Jobs that call a worker even if nobody waits for them.
const BATCH: usize = 32;

/// Called once when a full queue has room again.
pub type Notice = Box<dyn FnOnce() + Send>;

/// What has come for a worker since it last looked.
pub(crate) struct Mail<J> {
    /// In the order of their submission.
    pub jobs: VecDeque<J>,
    /// Arrays to free on this thread.
    pub trash: Vec<Array>,
    /// Slots that other workers wait for.
    pub wanted: Vec<Wanted>,
}

struct Inbox<J> {
    mail: Mail<J>,
    notices: Vec<Notice>,
    parked: bool,
    /// Whether the worker is to be woken for work only.
    resting: bool,
    /// Set by a worker that has settled a slot this one waits for.
    poked: bool,
}

/// In a cache line of its own, so that writing it disturbs nobody.
#[repr(align(128))]
struct Alone<T>(T);

pub(crate) struct Queue<J> {
    inbox: Mutex<Inbox<J>>,
    bell: Condvar,
    /// Let the worker look without locking.
    has_mail: AtomicBool,
    has_wanted: AtomicBool,
    stopped: AtomicBool,
    /// Set when a result is let go of before it was made.
    abandoned: AtomicBool,
    /// Jobs that were taken out and are not done, which only the worker writes.
    taken: Alone<AtomicUsize>,
    capacity: AtomicUsize,
}

impl<J> Mail<J> {
    pub fn new() -> Self {
        Mail {
            jobs: VecDeque::new(),
            trash: Vec::new(),
            wanted: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.trash.is_empty() && self.wanted.is_empty()
    }
}

impl<J> Queue<J> {
    pub fn new(capacity: usize) -> Self {
        Queue {
            inbox: Mutex::new(Inbox {
                mail: Mail::new(),
                notices: Vec::new(),
                parked: false,
                resting: false,
                poked: false,
            }),
            bell: Condvar::new(),
            has_mail: AtomicBool::new(false),
            has_wanted: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            taken: Alone(AtomicUsize::new(0)),
            capacity: AtomicUsize::new(capacity),
        }
    }

    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Writes to the inbox. A worker that is awake and not called looks by itself soon.
    fn post<T>(&self, call: bool, write: impl FnOnce(&mut Inbox<J>) -> T) -> T {
        let mut inbox = self.inbox.lock();
        let written = write(&mut inbox);
        if call || inbox.mail.jobs.len() >= BATCH {
            self.has_mail.store(true, Ordering::Release);
        }
        let parked = std::mem::take(&mut inbox.parked);
        drop(inbox);
        if parked {
            self.bell.notify_one();
        }
        written
    }

    /// Adds a job, or gives it back when the queue is full.
    pub fn try_push(&self, job: J) -> Result<(), J> {
        self.post(false, |inbox| {
            if inbox.mail.jobs.len() >= self.capacity() {
                return Err(job);
            }
            inbox.mail.jobs.push_back(job);
            Ok(())
        })
    }

    /// Adds a job whose sender waits for its answer, so that they stay few.
    pub fn push(&self, job: J) {
        self.post(true, |inbox| inbox.mail.jobs.push_back(job));
    }

    pub fn discard(&self, array: Array) {
        self.post(false, |inbox| inbox.mail.trash.push(array));
    }

    pub fn want(&self, wanted: Wanted) {
        self.post(true, |inbox| {
            inbox.mail.wanted.push(wanted);
            self.has_wanted.store(true, Ordering::Release);
        });
    }

    pub fn poke(&self) {
        self.post(true, |inbox| inbox.poked = true);
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.poke();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// True if there is room; if not, calls `notice` once there is.
    pub fn when_room(&self, notice: Notice) -> bool {
        let mut inbox = self.inbox.lock();
        let full = inbox.mail.jobs.len() >= self.capacity();
        if full {
            inbox.notices.push(notice);
        }
        !full
    }

    /// Exchanges `emptied`, whose buffers are used again, for what has come.
    pub fn exchange(&self, emptied: &mut Mail<J>) {
        debug_assert!(emptied.is_empty());
        let mut inbox = self.inbox.lock();
        self.has_mail.store(false, Ordering::Relaxed);
        self.has_wanted.store(false, Ordering::Relaxed);
        std::mem::swap(&mut inbox.mail, emptied);
        self.set_taken(emptied.jobs.len());
        let notices = std::mem::take(&mut inbox.notices);
        drop(inbox);
        notices.into_iter().for_each(|notice| notice());
    }

    /// Lets `change` look at the jobs that wait, which stay before what comes meanwhile.
    pub fn amend(&self, change: impl FnOnce(&mut VecDeque<J>)) {
        let mut jobs = std::mem::take(&mut self.inbox.lock().mail.jobs);
        change(&mut jobs);
        let mut inbox = self.inbox.lock();
        jobs.append(&mut inbox.mail.jobs);
        inbox.mail.jobs = jobs;
    }

    /// Notes how many of the jobs that were taken out are left to do.
    pub fn set_taken(&self, jobs: usize) {
        self.taken.0.store(jobs, Ordering::Relaxed);
    }

    /// Jobs that are not done.
    pub fn depth(&self) -> usize {
        self.inbox.lock().mail.jobs.len() + self.taken.0.load(Ordering::Relaxed)
    }

    /// Only what other workers wait for; jobs stay in their order.
    pub fn take_wanted(&self) -> Vec<Wanted> {
        if !self.has_wanted.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.inbox.lock().mail.wanted)
    }

    /// Only what is to be freed, for a worker in the middle of its jobs.
    pub fn take_trash(&self) -> Vec<Array> {
        std::mem::take(&mut self.inbox.lock().mail.trash)
    }

    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Whether a result was let go of since this was last asked.
    pub fn take_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) && self.abandoned.swap(false, Ordering::Acquire)
    }

    /// Waits awake until the worker is called. Yielding lets MLX's thread, which may
    /// share the processor, work meanwhile.
    pub fn spin(&self, period: Duration) {
        let start = Instant::now();
        while start.elapsed() < period {
            for _ in 0..16 {
                if self.has_mail.load(Ordering::Acquire) {
                    return;
                }
                std::hint::spin_loop();
            }
            std::thread::yield_now();
        }
    }

    /// Sleeps until something comes, or for so long: false if nothing has come.
    pub fn park(&self, patience: Option<Duration>) -> bool {
        self.sleep(patience, |mail| !mail.is_empty())
    }

    /// Sleeps until another worker wants a slot or has settled one, or for so long.
    pub fn park_for_others(&self, patience: Duration) {
        self.sleep(Some(patience), |mail| !mail.wanted.is_empty());
    }

    /// Sleeps until what is waited for has come, or the worker is called by a poke, or for so
    /// long: false if nothing has come.
    fn sleep(&self, patience: Option<Duration>, has_come: impl Fn(&Mail<J>) -> bool) -> bool {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut inbox = self.inbox.lock();
        while !(has_come(&inbox.mail) || inbox.poked || self.is_stopped()) {
            inbox.parked = true;
            match deadline {
                None => self.bell.wait(&mut inbox),
                Some(deadline) if self.bell.wait_until(&mut inbox, deadline).timed_out() => {
                    inbox.parked = false;
                    return has_come(&inbox.mail);
                }
                Some(_) => {}
            }
        }
        inbox.poked = false;
        true
    }

    /// Sleeps until there is more to do than to free arrays, which it does.
    pub fn park_for_work(&self) {
        self.inbox.lock().resting = true;
        loop {
            self.park(None);
            drop(self.take_trash());
            let mut inbox = self.inbox.lock();
            let has_work = !(inbox.mail.jobs.is_empty() && inbox.mail.wanted.is_empty());
            if self.is_stopped() || has_work {
                inbox.resting = false;
                return;
            }
        }
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.inbox.lock().mail.is_empty()
    }

    /// Whether the worker sleeps until there is work, and there is none.
    pub fn is_resting(&self) -> bool {
        let inbox = self.inbox.lock();
        inbox.resting && inbox.parked && inbox.mail.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::Arc;

    #[test]
    fn a_full_queue_gives_the_job_back_and_tells_when_there_is_room() {
        let queue = Queue::new(2);
        assert!(queue.try_push(1).is_ok());
        assert!(queue.try_push(2).is_ok());
        assert_eq!(queue.try_push(3), Err(3));

        let called = Arc::new(AtomicUsize::new(0));
        let count = called.clone();
        let room = queue.when_room(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(!room);
        assert_eq!(called.load(Ordering::SeqCst), 0);

        let mut mail = Mail::new();
        queue.exchange(&mut mail);
        assert_eq!(mail.jobs, [1, 2]);
        assert_eq!(queue.depth(), 2);
        queue.set_taken(0);
        assert_eq!(queue.depth(), 0);
        assert_eq!(called.load(Ordering::SeqCst), 1);
        assert!(queue.try_push(3).is_ok());
    }

    #[test]
    fn a_queue_with_room_says_so_and_keeps_no_notice() {
        let queue: Queue<i32> = Queue::new(1);
        assert!(queue.when_room(Box::new(|| panic!("there was room"))));
        queue.exchange(&mut Mail::new());
    }

    #[test]
    fn waiting_for_so_long_ends() {
        let queue: Queue<i32> = Queue::new(1);
        assert!(!queue.park(Some(Duration::ZERO)));
        assert!(!queue.park(Some(Duration::from_millis(2))));
        queue.push(1);
        assert!(queue.park(Some(Duration::ZERO)));
    }

    #[test]
    fn a_worker_that_rests_is_woken_by_work() {
        let queue: Arc<Queue<i32>> = Arc::new(Queue::new(1));
        let other = queue.clone();
        let worker = std::thread::spawn(move || other.park_for_work());
        let await_rest = || {
            (0..5000).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                queue.is_resting()
            })
        };
        assert!(await_rest());
        queue.poke();
        queue.discard(Array::from_int(1));
        assert!(await_rest());
        queue.push(1);
        worker.join().unwrap();
        assert!(!queue.is_resting());
    }

    #[test]
    fn pushing_wakes_a_parked_worker() {
        let queue = Arc::new(Queue::new(1));
        let other = queue.clone();
        let worker = std::thread::spawn(move || {
            let mut mail = Mail::new();
            assert!(other.park(None));
            other.exchange(&mut mail);
            mail.jobs.pop_front()
        });
        std::thread::sleep(Duration::from_millis(20));
        queue.push(7);
        assert_eq!(worker.join().unwrap(), Some(7));
    }
}
