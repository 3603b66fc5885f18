//! The place where one result will be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use mlx_rs::Array;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::error::Error;
use crate::ffi;
use crate::host::HostView;
use crate::pointer::Segment;
use crate::worker::Worker;

/// Empty until the worker that owns it has run the job that fills it.
pub struct Slot {
    state: Mutex<State>,
    owner: &'static Worker,
    /// An op has read it, so that computing that op's result computes it, too.
    used: AtomicBool,
    /// Its value, if the host has given it and it is a number.
    number: OnceCell<i64>,
    /// Shared memory that holds its values.
    segments: Mutex<Vec<Segment>>,
}

enum State {
    Empty,
    Ready {
        array: Array,
        /// Evaluated and waited for: other threads may look at it.
        settled: bool,
    },
    Failed(Arc<Error>),
}

/// A slot that another worker waits for, for as long as that holds it.
pub(crate) struct Wanted {
    pub slot: Weak<Slot>,
    pub by: &'static Worker,
}

/// What a worker sees when it wants a slot's array.
pub(crate) enum Look {
    Array(Array),
    Unsettled,
    Empty,
    Failed(Arc<Error>),
}

impl Slot {
    pub(crate) fn new(owner: &'static Worker) -> Arc<Slot> {
        Arc::new(Slot {
            state: Mutex::new(State::Empty),
            owner,
            used: AtomicBool::new(false),
            number: OnceCell::new(),
            segments: Mutex::new(Vec::new()),
        })
    }

    /// Whether anybody but the job that fills it holds the slot.
    pub(crate) fn is_reachable(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }

    /// Says that a holder needs the result no more. Work for results that nobody needs
    /// is skipped.
    pub fn let_go(self: Arc<Self>) {
        let owner = self.owner;
        let is_empty = matches!(*self.state.lock(), State::Empty);
        drop(self);
        if is_empty {
            owner.queue().abandon();
        }
    }

    pub(crate) fn owner(&self) -> &'static Worker {
        self.owner
    }

    pub(crate) fn fill(&self, array: Array) {
        *self.state.lock() = State::Ready {
            array,
            settled: false,
        };
    }

    /// Poisons the slot; a slot whose values are known keeps them.
    pub(crate) fn fail(&self, error: &Arc<Error>) {
        let mut state = self.state.lock();
        if !matches!(
            *state,
            State::Ready { settled: true, .. } | State::Failed(_)
        ) {
            *state = State::Failed(error.clone());
        }
    }

    pub(crate) fn settle(&self) {
        if let State::Ready { settled, .. } = &mut *self.state.lock() {
            *settled = true;
        }
    }

    /// The array for `worker`, where that worker may use it.
    pub(crate) fn look(&self, worker: &Worker) -> Look {
        match &*self.state.lock() {
            State::Empty => Look::Empty,
            State::Failed(error) => Look::Failed(error.clone()),
            State::Ready { array, settled } => {
                if *settled || std::ptr::eq(self.owner, worker) {
                    Look::Array(ffi::share(array))
                } else {
                    Look::Unsettled
                }
            }
        }
    }

    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        match &*self.state.lock() {
            State::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    pub(crate) fn know(&self, number: i64) {
        // A slot is filled once.
        let _ = self.number.set(number);
    }

    pub(crate) fn number(&self) -> Option<i64> {
        self.number.get().copied()
    }

    pub(crate) fn segments(&self) -> &Mutex<Vec<Segment>> {
        &self.segments
    }

    pub(crate) fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// The array if nobody has waited for its values yet.
    pub(crate) fn unsettled_array(&self) -> Option<Array> {
        match &*self.state.lock() {
            State::Ready {
                array,
                settled: false,
            } => Some(ffi::share(array)),
            _ => None,
        }
    }

    /// Replaces the array by an equal one that lies in row order.
    pub(crate) fn replace(&self, array: Array) {
        if let State::Ready { array: old, .. } = &mut *self.state.lock() {
            *old = array;
        }
    }

    pub(crate) fn is_resolved(&self) -> bool {
        matches!(
            &*self.state.lock(),
            State::Ready { settled: true, .. } | State::Failed(_)
        )
    }

    /// The values, if they can be had without asking the worker.
    pub fn host_view(&self) -> Option<HostView> {
        match &*self.state.lock() {
            State::Ready {
                array,
                settled: true,
            } => HostView::of(array, self.owner),
            _ => None,
        }
    }

    /// Whether somebody has waited for its values.
    pub fn is_settled(&self) -> bool {
        matches!(&*self.state.lock(), State::Ready { settled: true, .. })
    }

    pub fn device(&self) -> crate::Device {
        self.owner.device()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let State::Ready { array, .. } = std::mem::replace(self.state.get_mut(), State::Empty) {
            self.owner.discard(array);
        }
        let segments = std::mem::take(self.segments.get_mut());
        if !segments.is_empty() {
            // The system takes its time to give back a large segment.
            self.owner.call(move |_| drop(segments));
        }
    }
}
