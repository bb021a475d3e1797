//! An image for the tests of those who use images.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::{Image, ImageTraits, IoVector, IoVectorMut};

/// A disk of 1 GiB whose reads and writes wait while its gate is shut. What is read tells where: each byte is the number of
/// its request's first sector. What is written is forgotten.
#[derive(Debug, Default)]
pub struct Gated {
    panics_at_flush: bool,
    is_shut: Mutex<bool>,
    changed: Condvar,
    begun: AtomicUsize,
}

impl Gated {
    /// A disk whose flush panics, as a fault in a provider's thread would. The default's does nothing.
    pub fn that_panics_at_flush() -> Self {
        Self {
            panics_at_flush: true,
            ..Self::default()
        }
    }

    /// Shuts or opens the gate.
    pub fn shut(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.changed.notify_all();
    }

    /// How many requests have come to the gate.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Returns when `count` requests in all have come to the gate; panics after 20 seconds.
    pub fn wait_for_begun(&self, count: usize) {
        for _ in 0..2000 {
            if self.begun() >= count {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("requests do not begin");
    }

    fn pass(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let gate = self.is_shut.lock().unwrap();
        drop(self.changed.wait_while(gate, |is_shut| *is_shut).unwrap());
    }
}

impl Image for Gated {
    fn size(&self) -> u64 {
        1 << 30
    }

    fn traits(&self) -> ImageTraits {
        ImageTraits {
            is_read_only: false,
            logical_block: 512,
            physical_block: 512,
            discard: None,
        }
    }

    fn read(&self, at: u64, mut into: IoVectorMut<'_>) -> io::Result<()> {
        self.pass();
        into.fill((at / 512) as u8);
        Ok(())
    }

    fn write(&self, _: u64, _: IoVector<'_>) -> io::Result<()> {
        self.pass();
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&self) -> io::Result<()> {
        assert!(!self.panics_at_flush, "a thread of the pool panics");
        Ok(())
    }

    fn resize(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
