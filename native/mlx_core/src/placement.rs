//! Where a worker and MLX's own thread behind it run.
//!
//! MLX hands each operation of a CPU stream to a thread of its own. For small operations
//! most of the time goes into moving cache lines between the two processors, so both
//! threads share one while there is little to compute.

#[cfg(target_os = "linux")]
pub(crate) use linux::Placement;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::Placement;

/// Evaluations on one processor before the system may choose another one.
pub(crate) const STAY: u32 = 64;

/// Results of fewer bytes than this are little to compute.
pub(crate) const LITTLE: usize = 1 << 20;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::mem::{size_of, zeroed};

    /// The worker and the threads it started, bound to one processor or free.
    pub(crate) struct Placement {
        threads: Vec<libc::pid_t>,
        anywhere: libc::cpu_set_t,
        bound: bool,
        stayed: u32,
    }

    impl Placement {
        /// For this thread.
        pub fn new() -> Placement {
            // Safety: plain calls that fill a set of processors made here.
            let (own, anywhere) = unsafe {
                let mut set: libc::cpu_set_t = zeroed();
                libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
                (libc::gettid(), set)
            };
            Placement {
                threads: vec![own],
                anywhere,
                bound: false,
                stayed: 0,
            }
        }

        /// Takes in the threads that `start` starts.
        pub fn adopt<T>(&mut self, start: impl FnOnce() -> T) -> T {
            let before = threads();
            let value = start();
            // Threads that others start meanwhile have other names.
            let name = name_of(self.threads[0]);
            let started = threads()
                .into_iter()
                .filter(|thread| !before.contains(thread));
            self.threads
                .extend(started.filter(|&thread| name_of(thread) == name));
            value
        }

        /// Before results of so many bytes are computed.
        pub fn choose(&mut self, bytes: usize) {
            self.stayed += 1;
            if bytes >= super::LITTLE || self.stayed >= super::STAY {
                self.free();
                self.stayed = 0;
            } else if !self.bound {
                // Safety: sets a bit of a set made here.
                unsafe {
                    let mut here: libc::cpu_set_t = zeroed();
                    libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut here);
                    self.set(&here, libc::SCHED_BATCH);
                }
                self.bound = true;
            }
        }

        /// Before the worker sleeps, so that the system may choose anew.
        pub fn free(&mut self) {
            if std::mem::take(&mut self.bound) {
                self.set(&self.anywhere, libc::SCHED_OTHER);
            }
        }

        /// On one processor, a thread that is woken for each of many operations would
        /// interrupt the worker that is still handing out the next, unless it works in
        /// batches.
        fn set(&self, processors: &libc::cpu_set_t, policy: libc::c_int) {
            for (at, &thread) in self.threads.iter().enumerate() {
                // Safety: the data is valid, and refusal changes nothing but speed.
                unsafe {
                    libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), processors);
                    if at > 0 {
                        let normal: libc::sched_param = zeroed();
                        libc::sched_setscheduler(thread, policy, &normal);
                    }
                }
            }
        }
    }

    fn threads() -> Vec<libc::pid_t> {
        let entries = fs::read_dir("/proc/self/task")
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    fn name_of(thread: libc::pid_t) -> Option<String> {
        fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    /// Systems that don't bind threads to processors.
    pub(crate) struct Placement;

    impl Placement {
        pub fn new() -> Placement {
            Placement
        }

        pub fn adopt<T>(&mut self, start: impl FnOnce() -> T) -> T {
            start()
        }

        pub fn choose(&mut self, _bytes: usize) {}

        pub fn free(&mut self) {}
    }
}
