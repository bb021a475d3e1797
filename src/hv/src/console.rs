//! The log: to the hypervisor's UART and to a ring that the parent can read.
//!
//! `log` calls come from any LP; one lock keeps lines whole. Nothing logs between an exit and the next entry on a
//! path that a guest takes often.

use core::fmt::{self, Write};

use bootinfo::Console;
use log::{LevelFilter, Log, Metadata, Record};
use spin::{Mutex, Once};

use crate::arch::x86::{insn, lp};
use crate::diagnostics;

/// Times that the line status register is read before a byte is written regardless. A UART that is not there must
/// not hold the hypervisor.
const TRANSMIT_ATTEMPTS: u32 = 100_000;

/// A 16550 in polled mode, transmitting only.
///
/// Its own few lines instead of the `uart_16550` crate's driver: the panic path writes through it without taking its
/// lock, and every wait is bounded.
struct Uart {
    port: u16,
}

impl Uart {
    fn init(&self, divisor: u16) {
        const LINE_8N1: u8 = 3;
        const DIVISOR_ACCESS: u8 = 0x80;
        insn::outb(self.port + 1, 0);
        insn::outb(self.port + 3, DIVISOR_ACCESS);
        insn::outb(self.port, divisor as u8);
        insn::outb(self.port + 1, (divisor >> 8) as u8);
        insn::outb(self.port + 3, LINE_8N1);
        insn::outb(self.port + 2, 0x07);
        insn::outb(self.port + 4, 0x03);
    }

    fn send(&self, byte: u8) {
        const HOLDING_EMPTY: u8 = 1 << 5;
        for _ in 0..TRANSMIT_ATTEMPTS {
            if insn::inb(self.port + 5) & HOLDING_EMPTY != 0 {
                break;
            }
        }
        insn::outb(self.port, byte);
    }
}

/// Writes to the UART, if there is one, and to the ring.
pub struct Sink {
    uart: Option<Uart>,
}

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            diagnostics::log_byte(byte);
            if let Some(uart) = &self.uart {
                if byte == b'\n' {
                    uart.send(b'\r');
                }
                uart.send(byte);
            }
        }
        Ok(())
    }
}

struct Logger;

static LOGGER: Logger = Logger;
static SINK: Mutex<Sink> = Mutex::new(Sink { uart: None });
static PORT: Once<u16> = Once::new();

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut sink = SINK.lock();
        let index = lp::index_or_boot();
        let now = diagnostics::microseconds();
        // A sink never fails.
        let _ = writeln!(
            sink,
            "[{:>5}.{:06}] lp{index} {:<5} {}",
            now / 1_000_000,
            now % 1_000_000,
            record.level(),
            record.args()
        );
    }

    fn flush(&self) {}
}

/// Starts the log as the record says. Called once, on the boot processor.
pub fn init(console: &Console) {
    if console.port != 0 {
        let uart = Uart { port: console.port };
        uart.init(console.divisor.max(1));
        SINK.lock().uart = Some(uart);
        PORT.call_once(|| console.port);
    }
    let level = match console.level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    // Fails only when a logger is set already, which `init`'s caller excludes.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

/// First port of the UART that the hypervisor owns.
pub fn port() -> Option<u16> {
    PORT.get().copied()
}

/// A sink that takes no lock: for the panic record, when the others are stopped or stopping.
pub fn emergency() -> Sink {
    Sink {
        uart: port().map(|port| Uart { port }),
    }
}
