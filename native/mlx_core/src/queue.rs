//! The inbox of a worker: a bounded list of jobs and the errands beside it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlx_rs::Array;
use parking_lot::{Condvar, Mutex};

use crate::slot::Wanted;

/// Called once when a full queue has room again.
pub type Notice = Box<dyn FnOnce() + Send>;

/// What a worker finds when it looks.
pub(crate) struct Inbox<J> {
    /// In the order of their submission.
    pub jobs: VecDeque<J>,
    /// Arrays to free on this thread.
    pub trash: Vec<Array>,
    /// Slots that other workers wait for.
    pub wanted: Vec<Wanted>,
    notices: Vec<Notice>,
    parked: bool,
    /// Set by a worker that has settled a slot this one waits for.
    poked: bool,
    stopped: bool,
}

pub(crate) struct Queue<J> {
    inbox: Mutex<Inbox<J>>,
    bell: Condvar,
    /// Lets the worker look without locking while it spins.
    mail: AtomicBool,
    capacity: usize,
}

impl<J> Inbox<J> {
    fn new() -> Self {
        Inbox {
            jobs: VecDeque::new(),
            trash: Vec::new(),
            wanted: Vec::new(),
            notices: Vec::new(),
            parked: false,
            poked: false,
            stopped: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.trash.is_empty() && self.wanted.is_empty() && !self.poked
    }
}

impl<J> Queue<J> {
    pub fn new(capacity: usize) -> Self {
        Queue {
            inbox: Mutex::new(Inbox::new()),
            bell: Condvar::new(),
            mail: AtomicBool::new(false),
            capacity,
        }
    }

    fn post<T>(&self, write: impl FnOnce(&mut Inbox<J>) -> T) -> T {
        let mut inbox = self.inbox.lock();
        let written = write(&mut inbox);
        self.mail.store(true, Ordering::Release);
        let parked = std::mem::take(&mut inbox.parked);
        drop(inbox);
        if parked {
            self.bell.notify_one();
        }
        written
    }

    /// Adds a job, or gives it back when the queue is full.
    pub fn try_push(&self, job: J) -> Result<(), J> {
        self.post(|inbox| {
            if inbox.jobs.len() >= self.capacity {
                return Err(job);
            }
            inbox.jobs.push_back(job);
            Ok(())
        })
    }

    /// Adds a job whose sender waits for its answer, so that they stay few.
    pub fn push(&self, job: J) {
        self.post(|inbox| inbox.jobs.push_back(job));
    }

    pub fn discard(&self, array: Array) {
        self.post(|inbox| inbox.trash.push(array));
    }

    pub fn want(&self, wanted: Wanted) {
        self.post(|inbox| inbox.wanted.push(wanted));
    }

    pub fn poke(&self) {
        self.post(|inbox| inbox.poked = true);
    }

    pub fn stop(&self) {
        self.post(|inbox| inbox.stopped = true);
    }

    pub fn is_stopped(&self) -> bool {
        self.inbox.lock().stopped
    }

    /// True if there is room; if not, calls `notice` once there is.
    pub fn when_room(&self, notice: Notice) -> bool {
        let mut inbox = self.inbox.lock();
        let full = inbox.jobs.len() >= self.capacity;
        if full {
            inbox.notices.push(notice);
        }
        !full
    }

    /// Everything that has come; empty when nothing has.
    pub fn take(&self) -> Inbox<J> {
        let mut inbox = self.inbox.lock();
        self.mail.store(false, Ordering::Relaxed);
        let mut taken = std::mem::replace(&mut *inbox, Inbox::new());
        inbox.stopped = taken.stopped;
        drop(inbox);
        for notice in taken.notices.drain(..) {
            notice();
        }
        taken
    }

    /// Only what other workers wait for; jobs stay in their order.
    pub fn take_wanted(&self) -> Vec<Wanted> {
        std::mem::take(&mut self.inbox.lock().wanted)
    }

    pub fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Acquire)
    }

    /// Looks for mail without giving up the processor; true when there is some.
    pub fn spin(&self, period: Duration) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                if self.has_mail() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= period {
                return false;
            }
        }
    }

    /// Sleeps until something comes.
    pub fn park(&self) {
        let mut inbox = self.inbox.lock();
        while inbox.is_empty() && !inbox.stopped {
            inbox.parked = true;
            self.bell.wait(&mut inbox);
        }
    }

    /// Sleeps until another worker wants a slot or has settled one.
    pub fn park_for_others(&self) {
        let mut inbox = self.inbox.lock();
        while inbox.wanted.is_empty() && !inbox.poked && !inbox.stopped {
            inbox.parked = true;
            self.bell.wait(&mut inbox);
        }
        inbox.poked = false;
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

        assert_eq!(queue.take().jobs, [1, 2]);
        assert_eq!(called.load(Ordering::SeqCst), 1);
        assert!(queue.try_push(3).is_ok());
    }

    #[test]
    fn a_queue_with_room_says_so_and_keeps_no_notice() {
        let queue: Queue<i32> = Queue::new(1);
        assert!(queue.when_room(Box::new(|| panic!("there was room"))));
        queue.take();
    }

    #[test]
    fn pushing_wakes_a_parked_worker() {
        let queue = Arc::new(Queue::new(1));
        let other = queue.clone();
        let worker = std::thread::spawn(move || {
            other.park();
            other.take().jobs.pop_front()
        });
        std::thread::sleep(Duration::from_millis(20));
        queue.push(7);
        assert_eq!(worker.join().unwrap(), Some(7));
    }
}
