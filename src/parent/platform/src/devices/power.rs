//! Power: the PM1 block and the reset register ("ACPI Hardware Specification", "Fixed Hardware Features").
//!
//! ACPI mode is always on: there is no SMI command. The power button is a fixed feature. There is no PM timer: a
//! child has better clocks.

use super::Outcome;

/// Bits of the status and enable registers.
mod event {
    pub const POWER_BUTTON: u16 = 1 << 8;
    /// What is kept in the enable register: timer, global lock, power button, sleep button, clock.
    pub const ALL: u16 = 1 | 1 << 5 | POWER_BUTTON | 1 << 9 | 1 << 10;
}

/// Bits of the control register.
mod control {
    pub const SCI_ENABLE: u16 = 1;
    pub const BUS_MASTER_RELOAD: u16 = 1 << 1;
    pub const SLEEP_TYPE_SHIFT: u32 = 10;
    pub const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;
    pub const SLEEP_ENABLE: u16 = 1 << 13;
}

/// SLP_TYP of soft off: what `\_S5` says.
pub(crate) const SOFT_OFF: u8 = 0;

/// Bytes from the start of the block to its end.
pub(super) const BLOCK_BYTES: u16 = 6;

/// The PM1 block.
#[derive(Clone, Debug, Default)]
pub(super) struct Power {
    status: u16,
    enable: u16,
    control: u16,
}

impl Power {
    /// The byte at `offset` in the block.
    pub fn read(&self, offset: u16) -> u8 {
        let register = match offset / 2 {
            0 => self.status,
            1 => self.enable,
            2 => self.control | control::SCI_ENABLE,
            _ => u16::MAX,
        };
        (register >> (offset % 2 * 8)) as u8
    }

    /// Writes the byte at `offset` in the block.
    pub fn write(&mut self, offset: u16, byte: u8) -> Outcome {
        let shift = offset % 2 * 8;
        let (bits, kept) = (u16::from(byte) << shift, !(0xFF << shift));
        match offset / 2 {
            0 => self.status &= !bits,
            1 => self.enable = ((self.enable & kept) | bits) & event::ALL,
            2 => {
                let new = (self.control & kept) | bits;
                self.control = new & (control::BUS_MASTER_RELOAD | control::SLEEP_TYPE);
                let kind = new & control::SLEEP_TYPE;
                let is_off = kind == u16::from(SOFT_OFF) << control::SLEEP_TYPE_SHIFT;
                if new & control::SLEEP_ENABLE != 0 && is_off {
                    return Outcome::PowerOff;
                }
            }
            _ => {}
        }
        Outcome::Nothing
    }

    /// Somebody presses the power button.
    pub fn press_button(&mut self) {
        self.status |= event::POWER_BUTTON;
    }

    /// Level of the system control interrupt.
    pub fn sci(&self) -> bool {
        self.status & self.enable != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write16(power: &mut Power, offset: u16, value: u16) -> Outcome {
        let [low, high] = value.to_le_bytes();
        let first = power.write(offset, low);
        assert_eq!(first, Outcome::Nothing);
        power.write(offset + 1, high)
    }

    fn read16(power: &Power, offset: u16) -> u16 {
        u16::from_le_bytes([power.read(offset), power.read(offset + 1)])
    }

    #[test]
    fn the_button_interrupts_when_enabled_until_it_is_acknowledged() {
        let mut power = Power::default();
        power.press_button();
        assert!(!power.sci(), "not enabled yet");
        let _ = write16(&mut power, 2, event::POWER_BUTTON);
        assert!(power.sci());
        assert_eq!(read16(&power, 0), event::POWER_BUTTON);
        let _ = write16(&mut power, 0, 1);
        assert!(power.sci(), "another bit was acknowledged");
        let _ = write16(&mut power, 0, event::POWER_BUTTON);
        assert!(!power.sci());
        assert_eq!(read16(&power, 2), event::POWER_BUTTON);
    }

    #[test]
    fn acpi_mode_is_on_and_stays_on() {
        let mut power = Power::default();
        assert_eq!(read16(&power, 4), control::SCI_ENABLE);
        assert_eq!(write16(&mut power, 4, 0), Outcome::Nothing);
        assert_eq!(read16(&power, 4), control::SCI_ENABLE);
    }

    #[test]
    fn soft_off_needs_type_and_enable() {
        let mut power = Power::default();
        let off = u16::from(SOFT_OFF) << control::SLEEP_TYPE_SHIFT;
        // Linux sets the type first, then the same with the enable bit.
        assert_eq!(write16(&mut power, 4, off | 1), Outcome::Nothing);
        let hibernate = 1 << control::SLEEP_TYPE_SHIFT | control::SLEEP_ENABLE;
        assert_eq!(write16(&mut power, 4, hibernate), Outcome::Nothing);
        assert_eq!(
            write16(&mut power, 4, off | control::SLEEP_ENABLE),
            Outcome::PowerOff
        );
        assert_eq!(read16(&power, 4) & control::SLEEP_ENABLE, 0, "reads 0");
    }
}
