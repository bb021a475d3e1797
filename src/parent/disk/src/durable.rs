//! Flushes that run at the same time.
//!
//! The kernel tells of a write that it lost once for each open file (Linux, `Documentation/filesystems/vfs.rst`, "Handling
//! errors during writeback"): of two `fdatasync` at the same time, one fails and the other one succeeds. Both came after
//! the lost write, so both must fail.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One flush at a time, and the news of its failure for those who wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    turn: Mutex<()>,
    failures: AtomicU64,
}

impl Flushes {
    /// Makes everything durable by `flush`.
    ///
    /// # Errors
    /// That of `flush`, or that another one failed since this was called: what was written before may be lost.
    pub(crate) fn run(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let before = self.failures.load(Ordering::SeqCst);
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = flush();
        if flushed.is_err() {
            self.failures.fetch_add(1, Ordering::SeqCst);
        } else if self.failures.load(Ordering::SeqCst) != before {
            drop(turn);
            return Err(io::Error::other("a flush at the same time failed"));
        }
        flushed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_loss_is_told_to_all_who_flush_at_that_time() {
        let flushes = Arc::new(Flushes::default());
        let (begun, has_begun) = channel();
        let first = Arc::clone(&flushes);
        let first = thread::spawn(move || {
            first.run(|| {
                begun.send(()).unwrap();
                thread::sleep(Duration::from_millis(300));
                Err(io::ErrorKind::Other.into())
            })
        });
        has_begun.recv().unwrap();
        // The kernel has told somebody, and tells nobody else.
        assert!(flushes.run(|| Ok(())).is_err());
        assert!(first.join().unwrap().is_err());
        assert!(flushes.run(|| Ok(())).is_ok());
    }
}
