//! Text on COM1, and nothing else: the firmware's console is not ours once the processor is.

use core::fmt::{self, Write};

use super::insn::{in8, out8};

const COM1: u16 = 0x3F8;
const LINE_STATUS: u16 = COM1 + 5;
const HOLDING_EMPTY: u8 = 1 << 5;
const ALL_SENT: u8 = 1 << 6;

/// Looks at the line status at most this often for one byte, so that a machine without COM1 still ends.
const PATIENCE: u32 = 200_000;

/// The 16550 at COM1, as the firmware left it.
pub struct Com1;

impl Com1 {
    fn wait_for(bit: u8) {
        for _ in 0..PATIENCE {
            if in8(LINE_STATUS) & bit != 0 {
                return;
            }
        }
    }

    /// 8 data bits, 115,200 baud, FIFO on, no interrupts.
    pub fn set_up() {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            out8(COM1 + register, value);
        }
    }

    /// Returns when the last byte has left.
    pub fn flush() {
        Self::wait_for(ALL_SENT);
    }
}

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::wait_for(HOLDING_EMPTY);
                out8(COM1, b'\r');
            }
            Self::wait_for(HOLDING_EMPTY);
            out8(COM1, byte);
        }
        Ok(())
    }
}

/// Writes one line to COM1.
pub fn line(text: fmt::Arguments<'_>) {
    // Writing to a port cannot fail; only the formatting of the caller's own types could.
    let _ = Com1.write_fmt(text);
    let _ = Com1.write_str("\n");
}
