//! COM1: a 16550A whose interrupt is an edge.

use std::convert::Infallible;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};

/// The interrupt line, which the device can only raise through a shared reference.
#[derive(Debug, Default)]
struct Line(AtomicBool);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The serial port.
pub(super) struct Com {
    uart: Serial<Line, NoEvents, Box<dyn Write + Send>>,
}

impl Com {
    /// What the child sends goes to `console`, byte by byte; what that does not take is lost, as on a wire.
    pub fn new(console: Box<dyn Write + Send>) -> Self {
        Self {
            uart: Serial::new(Line::default(), console),
        }
    }

    /// Reads register `offset`, 0 to 7.
    pub fn read(&mut self, offset: u8) -> u8 {
        self.uart.read(offset)
    }

    /// Writes register `offset`, 0 to 7.
    pub fn write(&mut self, offset: u8, byte: u8) {
        // The one error is that of the console.
        let _ = self.uart.write(offset, byte);
    }

    /// How many bytes the receive FIFO takes.
    pub fn room(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// Puts `bytes` into the receive FIFO. Returns how many it took.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.uart.enqueue_raw_bytes(bytes).unwrap_or(0)
    }

    /// Whether the interrupt was raised since the last question.
    pub fn take_edge(&mut self) -> bool {
        self.uart.interrupt_evt().0.swap(false, Ordering::Relaxed)
    }
}
