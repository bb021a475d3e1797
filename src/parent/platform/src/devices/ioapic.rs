//! The IO-APIC (Intel 82093AA; version 0x20, which adds the EOI register).
//!
//! An edge on a masked pin is lost, as in hardware. A level pin that is high sends when it is unmasked, and again after
//! each EOI while it stays high; between, its remote IRR is set.

use tlfs::call::{InterruptFlags, InterruptType};

/// What the IO-APIC asks the local APICs for: the arguments of HvCallAssertVirtualInterrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// What is delivered.
    pub kind: InterruptType,
    /// Trigger mode, and how `destination` is meant.
    pub flags: InterruptFlags,
    /// APIC id, physical or logical.
    pub destination: u64,
    /// Vector, 16 to 255 where the kind has one.
    pub vector: u32,
}

/// Takes interrupts to the child's local APICs.
pub trait InterruptSink {
    /// Asserts `interrupt`. One that cannot be delivered is lost, as on the APIC bus.
    fn assert(&mut self, interrupt: Interrupt);
}

impl<F: FnMut(Interrupt)> InterruptSink for F {
    fn assert(&mut self, interrupt: Interrupt) {
        self(interrupt);
    }
}

/// Number of pins.
pub(super) const PINS: usize = 24;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const TABLE: u8 = 0x10;

/// Bits of a redirection table entry.
mod entry {
    pub const KIND_SHIFT: u32 = 8;
    pub const LOGICAL: u64 = 1 << 11;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const DESTINATION_SHIFT: u32 = 56;
    /// Vector, kind, destination mode, polarity, trigger mode, mask, destination. Polarity means nothing to a line that
    /// is a boolean.
    pub const WRITABLE: u64 = 0xFF00_0000_0001_AFFF;
}

/// The IO-APIC.
#[derive(Clone, Debug)]
pub(super) struct IoApic {
    id: u8,
    select: u8,
    entries: [u64; PINS],
    /// Bit n: the line of pin n is asserted.
    lines: u32,
}

impl IoApic {
    /// All pins are masked.
    pub fn new(id: u8) -> Self {
        Self {
            id,
            select: 0,
            entries: [entry::MASKED; PINS],
            lines: 0,
        }
    }

    /// Reads the register at `offset` in the page; all ones are for offsets without one.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            SELECT => self.select.into(),
            WINDOW => self.selected(),
            _ => u32::MAX,
        }
    }

    fn selected(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => u32::from(self.id) << 24,
            VERSION => (PINS as u32 - 1) << 16 | 0x20,
            register => match Half::of(register) {
                Some(Half { pin, is_high }) => {
                    let entry = self.entries.get(pin).copied().unwrap_or_default();
                    (if is_high { entry >> 32 } else { entry }) as u32
                }
                None => u32::MAX,
            },
        }
    }

    /// Writes the register at `offset` in the page.
    pub fn write(&mut self, offset: u64, value: u32, sink: &mut dyn InterruptSink) {
        match offset {
            SELECT => self.select = value as u8,
            WINDOW => match (self.select, Half::of(self.select)) {
                (ID, _) => self.id = (value >> 24) as u8,
                (_, Some(half)) => self.write_entry(half, value, sink),
                _ => {}
            },
            EOI => self.eoi(value as u8, sink),
            _ => {}
        }
    }

    fn write_entry(&mut self, half: Half, value: u32, sink: &mut dyn InterruptSink) {
        let Some(entry) = self.entries.get_mut(half.pin) else {
            return;
        };
        let (shift, kept) = if half.is_high {
            (32, 0xFFFF_FFFF)
        } else {
            (0, 0xFFFF_FFFF << 32)
        };
        let written = (*entry & kept) | u64::from(value) << shift;
        let mut new = (written & entry::WRITABLE) | (*entry & entry::REMOTE_IRR);
        // Software ends an interrupt of an old IO-APIC by way of edge mode.
        if new & entry::LEVEL == 0 {
            new &= !entry::REMOTE_IRR;
        }
        *entry = new;
        self.serve_level(half.pin, sink);
    }

    /// Sets the line of `pin`. A pin that does not exist has no line.
    pub fn set_line(&mut self, pin: u8, is_high: bool, sink: &mut dyn InterruptSink) {
        let index = usize::from(pin);
        let Some(&entry) = self.entries.get(index) else {
            return;
        };
        let bit = 1 << index;
        let was_high = self.lines & bit != 0;
        if is_high {
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
        if entry & entry::LEVEL != 0 {
            self.serve_level(index, sink);
        } else if is_high && !was_high && entry & entry::MASKED == 0 {
            send(entry, sink);
        }
    }

    /// A rising edge on `pin`, and the falling one.
    pub fn pulse(&mut self, pin: u8, sink: &mut dyn InterruptSink) {
        self.set_line(pin, true, sink);
        self.set_line(pin, false, sink);
    }

    /// A local APIC, or the EOI register, ended `vector`.
    pub fn eoi(&mut self, vector: u8, sink: &mut dyn InterruptSink) {
        for pin in 0..PINS {
            let Some(entry) = self.entries.get_mut(pin) else {
                return;
            };
            if *entry as u8 == vector && *entry & entry::LEVEL != 0 {
                *entry &= !entry::REMOTE_IRR;
                self.serve_level(pin, sink);
            }
        }
    }

    /// Sends what level pin `pin` has to send now.
    fn serve_level(&mut self, pin: usize, sink: &mut dyn InterruptSink) {
        let is_high = self.lines >> pin & 1 != 0;
        let Some(entry) = self.entries.get_mut(pin) else {
            return;
        };
        let is_ready = *entry & (entry::LEVEL | entry::REMOTE_IRR | entry::MASKED) == entry::LEVEL;
        if is_high && is_ready && send(*entry, sink) {
            *entry |= entry::REMOTE_IRR;
        }
    }
}

/// Half of a redirection table entry, as the window shows it.
#[derive(Clone, Copy)]
struct Half {
    pin: usize,
    is_high: bool,
}

impl Half {
    fn of(register: u8) -> Option<Self> {
        let index = usize::from(register.checked_sub(TABLE)?);
        let pin = index / 2;
        (pin < PINS).then_some(Self {
            pin,
            is_high: index % 2 != 0,
        })
    }
}

/// Sends what `entry` describes. Returns whether an APIC will have to end it.
fn send(entry: u64, sink: &mut dyn InterruptSink) -> bool {
    let vector = entry as u8;
    let kind = match entry >> entry::KIND_SHIFT & 7 {
        0 => InterruptType::Fixed,
        1 => InterruptType::LowestPriority,
        4 => InterruptType::Nmi,
        7 => InterruptType::ExtInt,
        // SMI has no handler here, INIT by a pin would reset a VP, the others are reserved.
        _ => return false,
    };
    let is_fixed = matches!(kind, InterruptType::Fixed | InterruptType::LowestPriority);
    if is_fixed && vector < 16 {
        return false;
    }
    let mut flags = InterruptFlags::empty();
    flags.set(InterruptFlags::LEVEL, is_fixed && entry & entry::LEVEL != 0);
    flags.set(InterruptFlags::LOGICAL, entry & entry::LOGICAL != 0);
    sink.assert(Interrupt {
        kind,
        flags,
        destination: entry >> entry::DESTINATION_SHIFT,
        vector: vector.into(),
    });
    is_fixed
}

#[cfg(test)]
mod tests;
