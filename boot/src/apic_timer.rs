//! The local APIC's timer of the boot processor, borrowed from the firmware (Intel SDM vol. 3A, "APIC Timer").
#![expect(unsafe_code, reason = "borrows the APIC timer")]

use x86::msr::{self, apic_base};

use crate::cpu::{rdmsr, wrmsr};

const LVT_TIMER: u32 = 0x320;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3E0;

const DIVIDE_BY_1: u32 = 0b1011;
const MASKED: u32 = 1 << 16;
const MODE: u32 = 0b11 << 17;
const MODE_DEADLINE: u32 = 0b10 << 17;

/// The timer and what the firmware had in its registers. Dropping it gives the firmware's timer back; its
/// current period starts anew.
pub struct ApicTimer {
    base: u64,
    lvt: u32,
    divide: u32,
    initial: u32,
    deadline: u64,
    is_running: bool,
}

impl ApicTimer {
    /// Looks at the timer and changes nothing.
    pub fn stopped() -> Self {
        // SAFETY: every processor with virtualization has this register.
        let base = unsafe { rdmsr(msr::IA32_APIC_BASE) };
        let mut timer = Self {
            base,
            lvt: 0,
            divide: 0,
            initial: 0,
            deadline: 0,
            is_running: false,
        };
        timer.lvt = timer.read(LVT_TIMER);
        timer.divide = timer.read(DIVIDE);
        timer.initial = timer.read(INITIAL_COUNT);
        timer
    }

    /// Lets it count down from its maximum, undivided and silent. Interrupts must be off until it is dropped.
    pub fn run(mut self) -> Self {
        if self.lvt & MODE == MODE_DEADLINE {
            // SAFETY: the mode can only be set where the register exists.
            self.deadline = unsafe { rdmsr(msr::IA32_TSC_DEADLINE) };
        }
        self.is_running = true;
        self.write(LVT_TIMER, self.lvt & !MODE | MASKED);
        self.write(DIVIDE, DIVIDE_BY_1);
        self.write(INITIAL_COUNT, u32::MAX);
        self
    }

    /// The current count.
    pub fn count(&self) -> u32 {
        self.read(CURRENT_COUNT)
    }

    fn is_x2apic(&self) -> bool {
        self.base & apic_base::EXTD != 0
    }

    fn address(&self, register: u32) -> *mut u32 {
        const PAGE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
        ((self.base & PAGE_ADDRESS) + u64::from(register)) as *mut u32
    }

    fn read(&self, register: u32) -> u32 {
        if self.is_x2apic() {
            // SAFETY: the timer's registers exist in x2APIC mode at these numbers.
            return unsafe { rdmsr(msr::X2APIC_FIRST + (register >> 4)) } as u32;
        }
        // SAFETY: the register page is mapped by the firmware, and reading these registers has no effect.
        unsafe { self.address(register).read_volatile() }
    }

    fn write(&self, register: u32, value: u32) {
        if self.is_x2apic() {
            // SAFETY: as in `read`; the values are a mask, a divider, a count, or what the firmware had.
            unsafe { wrmsr(msr::X2APIC_FIRST + (register >> 4), value.into()) };
        } else {
            // SAFETY: as above.
            unsafe { self.address(register).write_volatile(value) };
        }
    }
}

impl Drop for ApicTimer {
    fn drop(&mut self) {
        if !self.is_running {
            return;
        }
        self.write(DIVIDE, self.divide);
        self.write(LVT_TIMER, self.lvt);
        if self.lvt & MODE == MODE_DEADLINE {
            // SAFETY: the register exists, and this was its value; one that is past fires at once.
            unsafe { wrmsr(msr::IA32_TSC_DEADLINE, self.deadline) };
        } else {
            self.write(INITIAL_COUNT, self.initial);
        }
    }
}
