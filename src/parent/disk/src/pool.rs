//! The threads that requests run on.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;

/// The pool was closed: the job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// A fixed number of threads with one queue. Whoever submits bounds how much waits: a request that fits no longer stays
/// in its ring.
///
/// Dropping the pool runs what was submitted and then ends the threads.
pub struct Pool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock, so no panic leaves the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        loop {
            let mut state = self.state();
            let job = loop {
                if let Some(job) = state.jobs.pop_front() {
                    break job;
                }
                if state.is_closed {
                    return;
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            job();
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, at least one, named `name-0` and so on.
    ///
    /// # Errors
    /// A thread cannot be made; those that were end.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        let mut pool = Self {
            queue: Arc::default(),
            threads: Vec::new(),
        };
        for index in 0..threads.max(1) {
            let queue = Arc::clone(&pool.queue);
            let thread = thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || queue.serve())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues `job`. Jobs start in the order in which they were submitted.
    ///
    /// # Errors
    /// The pool was closed; `job` does not run.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Closed> {
        let mut state = self.queue.state();
        if state.is_closed {
            return Err(Closed);
        }
        state.jobs.push_back(Box::new(job));
        drop(state);
        self.queue.changed.notify_one();
        Ok(())
    }

    /// Takes no more jobs. What was submitted runs.
    pub fn close(&self) {
        self.queue.state().is_closed = true;
        self.queue.changed.notify_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
        let this_thread = thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be a job of the pool itself: its thread ends by itself.
            if thread.thread().id() != this_thread {
                // A job that panicked ended its thread; there is nothing to do about it here.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn all_that_was_submitted_runs_before_the_end() {
        let done = Arc::new(AtomicU32::new(0));
        let pool = Pool::new("test", 3).unwrap();
        for _ in 0..100 {
            let done = Arc::clone(&done);
            pool.submit(move || {
                done.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        }
        pool.close();
        assert_eq!(pool.submit(|| ()), Err(Closed));
        drop(pool);
        assert_eq!(done.load(Ordering::Relaxed), 100);
    }
}
