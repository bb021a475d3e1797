//! The devices around a child's processors.

mod ioapic;
mod power;
mod rtc;
mod serial;

use std::io::Write;

pub use ioapic::{Interrupt, InterruptSink};
pub(crate) use power::SOFT_OFF;
pub(crate) use rtc::CENTURY;
pub use rtc::WallClock;

use crate::map;
use ioapic::IoApic;
use power::Power;
use rtc::Rtc;
use serial::Com;

/// What an access asks of whoever runs the child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// To go on.
    #[default]
    Nothing,
    /// To switch the machine off.
    PowerOff,
    /// To reset the machine.
    Reset,
}

const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xFE;
const COM1_END: u16 = map::COM1 + 7;
const PM1_END: u16 = map::PM1_EVENT + power::BLOCK_BYTES - 1;
const RTC_DATA: u16 = map::RTC + 1;

/// All devices of one child.
///
/// Ports and addresses without a device read all ones and drop what is written: the 8259s, the PIT, PCI configuration,
/// the other serial ports. Accesses of several bytes are taken apart, as a bus of bytes does it.
pub struct Devices {
    interrupts: Box<dyn InterruptSink + Send>,
    io_apic: IoApic,
    com1: Com,
    power: Power,
    rtc: Rtc,
}

impl Devices {
    /// Devices for a child of `vps` VPs, at most [`map::MAX_VPS`], as they are after a reset.
    ///
    /// What the child writes to COM1 goes to `console` byte by byte; what an error keeps from getting there is lost.
    pub fn new(
        vps: u32,
        console: Box<dyn Write + Send>,
        interrupts: Box<dyn InterruptSink + Send>,
        clock: Box<dyn WallClock + Send>,
    ) -> Self {
        Self {
            interrupts,
            io_apic: IoApic::new(map::io_apic_id(vps)),
            com1: Com::new(console),
            power: Power::default(),
            rtc: Rtc::new(clock),
        }
    }

    /// Reads `width` bytes, 1, 2 or 4, from `port` on. Bits above the width are 0.
    pub fn io_read(&mut self, port: u16, width: u8) -> u32 {
        let mut bytes = [0; 4];
        for (offset, byte) in bytes.iter_mut().enumerate().take(width.into()) {
            *byte = match port.checked_add(offset as u16) {
                Some(port) => self.read_port(port),
                None => 0xFF,
            };
        }
        self.settle();
        u32::from_le_bytes(bytes)
    }

    /// Writes the low `width` bytes, 1, 2 or 4, of `value` from `port` on.
    pub fn io_write(&mut self, port: u16, width: u8, value: u32) -> Outcome {
        let mut outcome = Outcome::Nothing;
        for (offset, byte) in value.to_le_bytes().into_iter().enumerate() {
            if offset >= width.into() {
                break;
            }
            let Some(port) = port.checked_add(offset as u16) else {
                break;
            };
            let asked = self.write_port(port, byte);
            if outcome == Outcome::Nothing {
                outcome = asked;
            }
        }
        self.settle();
        outcome
    }

    fn read_port(&mut self, port: u16) -> u8 {
        match port {
            map::COM1..=COM1_END => self.com1.read((port - map::COM1) as u8),
            map::PM1_EVENT..=PM1_END => self.power.read(port - map::PM1_EVENT),
            RTC_DATA => self.rtc.read(),
            _ => 0xFF,
        }
    }

    fn write_port(&mut self, port: u16, byte: u8) -> Outcome {
        match port {
            map::COM1..=COM1_END => self.com1.write((port - map::COM1) as u8, byte),
            map::PM1_EVENT..=PM1_END => return self.power.write(port - map::PM1_EVENT, byte),
            map::RTC => self.rtc.select(byte),
            RTC_DATA => self.rtc.write(byte),
            map::RESET if byte == map::RESET_VALUE => return Outcome::Reset,
            // There is no keyboard controller, but this is how kernels without ACPI reset a PC.
            KEYBOARD_COMMAND if byte == KEYBOARD_RESET => return Outcome::Reset,
            _ => {}
        }
        Outcome::Nothing
    }

    /// Reads the bytes at `gpa`.
    pub fn mmio_read(&mut self, gpa: u64, bytes: &mut [u8]) {
        bytes.fill(0xFF);
        let Some(offset) = register_offset(gpa) else {
            return;
        };
        let value = self.io_apic.read(offset).to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(value) {
            *to = from;
        }
    }

    /// Writes `bytes` at `gpa`. A register takes the first four; what fewer bytes leave out is zero.
    pub fn mmio_write(&mut self, gpa: u64, bytes: &[u8]) {
        let Some(offset) = register_offset(gpa) else {
            return;
        };
        let mut value = [0; 4];
        for (to, &from) in value.iter_mut().zip(bytes) {
            *to = from;
        }
        let value = u32::from_le_bytes(value);
        self.io_apic.write(offset, value, &mut *self.interrupts);
    }

    /// A local APIC ended the level interrupt `vector`.
    pub fn eoi(&mut self, vector: u8) {
        self.io_apic.eoi(vector, &mut *self.interrupts);
    }

    /// How many bytes COM1 can receive now. After the child has read some, there is room again.
    pub fn console_room(&self) -> usize {
        self.com1.room()
    }

    /// COM1 receives `bytes`. Returns how many of them it took; the others are to be tried again.
    pub fn console_input(&mut self, bytes: &[u8]) -> usize {
        let taken = self.com1.receive(bytes);
        self.settle();
        taken
    }

    /// Somebody presses the power button: a request to the child to shut itself down.
    pub fn press_power_button(&mut self) {
        self.power.press_button();
        self.settle();
    }

    /// Brings the interrupt lines to where the devices want them.
    fn settle(&mut self) {
        if self.com1.take_edge() {
            self.io_apic.pulse(map::COM1_PIN, &mut *self.interrupts);
        }
        let sci = self.power.sci();
        self.io_apic
            .set_line(map::SCI_PIN, sci, &mut *self.interrupts);
    }
}

/// Offset in the IO-APIC's page, if it is there and aligned as a register is.
fn register_offset(gpa: u64) -> Option<u64> {
    let offset = gpa.checked_sub(map::IO_APIC)?;
    (offset < 0x1000 && offset.is_multiple_of(4)).then_some(offset)
}

#[cfg(test)]
mod tests;
