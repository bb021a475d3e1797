//! The physical local APIC of this LP, in xAPIC or x2APIC mode as the parent has it.
//!
//! Source: SDM vol. 3A, "Advanced Programmable Interrupt Controller (APIC)".
#![expect(unsafe_code, reason = "the owner of the physical local APIC")]

use core::sync::atomic::{AtomicBool, Ordering};

use addr::{ApicId, Hva, Spa};
use apic::Snapshot;
use x86::msr::{self as msr_number, apic_base};

use super::{insn, msr};

/// Vectors that belong to the hypervisor: 0xF0 and up, above every device vector of Linux.
pub mod own_vector {
    #![allow(missing_docs, reason = "named as in the manuals")]
    /// First of them.
    pub const FIRST: u8 = 0xF0;
    pub const TIMER: u8 = 0xF0;
    /// Ends a guest's run so that its LP looks at what others left for it.
    pub const KICK: u8 = 0xF1;
    pub const THERMAL: u8 = 0xF2;
    pub const PERFORMANCE: u8 = 0xF3;
    pub const CMCI: u8 = 0xF4;
    pub const ERROR: u8 = 0xFE;
    pub const SPURIOUS: u8 = 0xFF;
}

/// Register offsets in the xAPIC page.
pub mod register {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const VERSION: u16 = 0x30;
    pub const TPR: u16 = 0x80;
    pub const EOI: u16 = 0xB0;
    pub const LDR: u16 = 0xD0;
    pub const DFR: u16 = 0xE0;
    pub const SVR: u16 = 0xF0;
    pub const ISR: u16 = 0x100;
    pub const TMR: u16 = 0x180;
    pub const IRR: u16 = 0x200;
    pub const ESR: u16 = 0x280;
    pub const LVT_CMCI: u16 = 0x2F0;
    pub const ICR_LOW: u16 = 0x300;
    pub const ICR_HIGH: u16 = 0x310;
    pub const LVT_TIMER: u16 = 0x320;
    pub const LVT_THERMAL: u16 = 0x330;
    pub const LVT_PERFORMANCE: u16 = 0x340;
    pub const LVT_LINT0: u16 = 0x350;
    pub const LVT_LINT1: u16 = 0x360;
    pub const LVT_ERROR: u16 = 0x370;
    pub const INITIAL_COUNT: u16 = 0x380;
    pub const CURRENT_COUNT: u16 = 0x390;
    pub const DIVIDE: u16 = 0x3E0;
}

const LVT_MASKED: u32 = 1 << 16;
const LVT_DEADLINE: u32 = 0b10 << 17;

/// Where the registers of this LP's APIC lie in xAPIC mode. Firmware leaves all LPs at one address.
pub fn physical_page() -> Spa {
    const ADDRESS: u64 = ((1 << 52) - 1) & !0xFFF;
    Spa::new(msr::read(msr_number::IA32_APIC_BASE) & ADDRESS)
}

/// The local APIC of the LP that owns this value.
#[derive(Debug)]
pub struct LocalApic {
    page: Hva,
    x2apic: AtomicBool,
    /// The timer is armed by IA32_TSC_DEADLINE, and not by a one-shot count, undivided.
    has_deadline: AtomicBool,
    /// APIC ticks per TSC tick, times 2^32.
    scale: u64,
}

impl LocalApic {
    /// The APIC of an LP, which [`LocalApic::adopt`] finds as firmware left it. `page` maps the register page, uncached.
    pub fn new(page: Hva, tsc_hz: u64, apic_hz: u64) -> Self {
        let has_deadline = insn::cpuid(1, 0).ecx & x86::cpuid::leaf1_ecx::TSC_DEADLINE != 0;
        let scale = (u128::from(apic_hz) << 32) / u128::from(tsc_hz.max(1));
        Self {
            page,
            x2apic: AtomicBool::new(false),
            has_deadline: AtomicBool::new(has_deadline),
            scale: u64::try_from(scale).unwrap_or(u64::MAX),
        }
    }

    /// Finds the mode that the APIC of the LP that calls is in. Before any access to its registers.
    pub fn adopt(&self) {
        let base = msr::read(msr_number::IA32_APIC_BASE);
        self.x2apic
            .store(base & apic_base::EXTD != 0, Ordering::Relaxed);
    }

    /// Only the LP itself changes the mode, so there is no order to keep.
    #[inline]
    fn is_x2apic(&self) -> bool {
        self.x2apic.load(Ordering::Relaxed)
    }

    /// Reads the register at `offset` of the xAPIC page, in either mode.
    #[inline]
    pub fn read(&self, offset: u16) -> u32 {
        if self.is_x2apic() {
            msr::read(msr_number::X2APIC_FIRST + u32::from(offset >> 4)) as u32
        } else {
            let pointer = (self.page.get() + u64::from(offset)) as *const u32;
            // SAFETY: `page` maps the APIC's page, and every offset used is below 4096 and a multiple of 16.
            unsafe { pointer.read_volatile() }
        }
    }

    /// Writes the register at `offset`, in either mode.
    #[inline]
    pub fn write(&self, offset: u16, value: u32) {
        if self.is_x2apic() {
            // SAFETY: APIC registers hold no address that the processor would follow.
            unsafe {
                msr::write(
                    msr_number::X2APIC_FIRST + u32::from(offset >> 4),
                    u64::from(value),
                )
            };
        } else {
            let pointer = (self.page.get() + u64::from(offset)) as *mut u32;
            // SAFETY: as in `read`.
            unsafe { pointer.write_volatile(value) };
        }
    }

    /// Whether bit `vector` of the 256-bit register at `offset` is set.
    #[inline]
    pub fn bit(&self, offset: u16, vector: u8) -> bool {
        self.read(offset + u16::from(vector / 32) * 16) >> (vector % 32) & 1 != 0
    }

    /// Ends the highest interrupt in service.
    #[inline]
    pub fn eoi(&self) {
        self.write(register::EOI, 0);
    }

    /// Ends `vector` if it is in service: an interrupt of the 8259 can carry any vector and is not.
    #[inline]
    pub fn end(&self, vector: u8) {
        if self.bit(register::ISR, vector) {
            self.eoi();
        }
    }

    /// Follows the parent's `IA32_APIC_BASE` mode. The APIC is never switched off, whatever the parent does. True
    /// when it lost its state on the way.
    pub fn set_x2apic(&self, enabled: bool) -> bool {
        if self.is_x2apic() == enabled {
            return false;
        }
        let base = msr::read(msr_number::IA32_APIC_BASE) | apic_base::ENABLE;
        if enabled {
            // SAFETY: from here on the registers are MSRs, which `x2apic` says.
            unsafe { msr::write(msr_number::IA32_APIC_BASE, base | apic_base::EXTD) };
        } else {
            // x2APIC is left through the disabled state only.
            let off = base & !(apic_base::EXTD | apic_base::ENABLE);
            // SAFETY: no interrupt is expected between the two writes; the caller takes the APIC anew.
            unsafe { msr::write(msr_number::IA32_APIC_BASE, off) };
            // SAFETY: as above.
            unsafe { msr::write(msr_number::IA32_APIC_BASE, off | apic_base::ENABLE) };
        }
        self.x2apic.store(enabled, Ordering::Relaxed);
        !enabled
    }

    /// Gives every register that the hypervisor owns its value: enabled, nothing masked by priority, LVTs with
    /// vectors of our own. LINT0, LINT1 and the logical destination are the parent's, see [`Self::mirror`].
    pub fn take(&self) {
        self.write(register::SVR, 0x100 | u32::from(own_vector::SPURIOUS));
        self.write(register::TPR, 0);
        self.write(register::LVT_ERROR, u32::from(own_vector::ERROR));
        let mode = if self.has_deadline.load(Ordering::Relaxed) {
            LVT_DEADLINE
        } else {
            0
        };
        self.write(register::LVT_TIMER, mode | u32::from(own_vector::TIMER));
        // In xAPIC mode the deadline could pass the mode on its way and be dropped (SDM vol. 3A, "TSC-Deadline Mode").
        insn::mfence();
        self.write(register::INITIAL_COUNT, 0);
        self.write(register::DIVIDE, 0b1011);
        let last_lvt = self.read(register::VERSION) >> 16 & 0xFF;
        if last_lvt >= 4 {
            self.write(
                register::LVT_PERFORMANCE,
                LVT_MASKED | u32::from(own_vector::PERFORMANCE),
            );
        }
        // Firmware may handle thermal events by SMI; kernels leave that alone too.
        if last_lvt >= 5 && self.read(register::LVT_THERMAL) >> 8 & 7 != 0b010 {
            self.write(register::LVT_THERMAL, u32::from(own_vector::THERMAL));
        }
        if last_lvt >= 6 {
            self.write(register::LVT_CMCI, u32::from(own_vector::CMCI));
        }
    }

    /// Falls back to the timer's count where it fires at a deadline that is far away. Processors with old microcode do so when
    /// their TSC was changed, and Bochs after a reset, which starts its TSC anew but not what deadlines are compared with.
    /// After the first [`Self::take`], with interrupts off; an interrupt of the timer may be left to take.
    pub fn check_deadline(&self) {
        /// Milliseconds, and less than a machine ran before a reset.
        const FAR: u64 = 1 << 24;
        /// Ticks in which the interrupt shows: some microseconds at most.
        const WATCHED: u64 = 4000;
        if !self.has_deadline.load(Ordering::Relaxed) {
            return;
        }
        let start = insn::rdtsc();
        self.set_deadline(start.wrapping_add(FAR));
        while insn::rdtsc().wrapping_sub(start) < WATCHED {
            core::hint::spin_loop();
        }
        let word = register::IRR + u16::from(own_vector::TIMER >> 5) * 16;
        let has_fired = self.read(word) >> (own_vector::TIMER & 31) & 1 != 0;
        // Not where something below us, SMM or a hypervisor, kept the LP until the deadline.
        let is_early = insn::rdtsc().wrapping_sub(start) < FAR;
        self.set_deadline(0);
        if has_fired && is_early {
            log::warn!("the TSC-deadline timer fires before its time: its count is used");
            self.has_deadline.store(false, Ordering::Relaxed);
            self.write(register::LVT_TIMER, own_vector::TIMER.into());
        }
    }

    fn set_deadline(&self, tick: u64) {
        // SAFETY: a deadline raises a vector of our own.
        unsafe { msr::write(msr_number::IA32_TSC_DEADLINE, tick) };
    }

    /// Ends everything that is in service, highest first. For the launch: what firmware had in service goes on
    /// in the virtual APIC alone.
    pub fn end_all(&self) {
        // An EOI ends the highest.
        for word in (0..8).rev() {
            let bits = self.read(register::ISR + word * 16);
            for _ in 0..bits.count_ones() {
                self.eoi();
            }
        }
    }

    /// Every register, for the virtual APIC to go on from. Interrupts that are pending stay in the physical APIC and
    /// arrive by themselves; those in service are ended there by [`Self::end_all`].
    pub fn snapshot(&self, id: ApicId) -> Snapshot {
        let last_lvt = self.read(register::VERSION) >> 16 & 0xFF;
        let lvt = |offset, from| {
            if last_lvt >= from {
                self.read(offset)
            } else {
                LVT_MASKED
            }
        };
        let icr = if self.is_x2apic() {
            msr::read(msr_number::X2APIC_FIRST + u32::from(register::ICR_LOW >> 4))
        } else {
            u64::from(self.read(register::ICR_HIGH)) << 32 | u64::from(self.read(register::ICR_LOW))
        };
        let bits = |offset: u16| core::array::from_fn(|word| self.read(offset + word as u16 * 16));
        Snapshot {
            id,
            apic_base: msr::read(msr_number::IA32_APIC_BASE),
            tpr: self.read(register::TPR) as u8,
            ldr: self.read(register::LDR),
            dfr: if self.is_x2apic() {
                u32::MAX
            } else {
                self.read(register::DFR)
            },
            svr: self.read(register::SVR),
            esr: 0,
            icr,
            lvt_cmci: lvt(register::LVT_CMCI, 6),
            lvt_timer: self.read(register::LVT_TIMER),
            lvt_thermal: lvt(register::LVT_THERMAL, 5),
            lvt_perf: lvt(register::LVT_PERFORMANCE, 4),
            lvt_lint0: self.read(register::LVT_LINT0),
            lvt_lint1: self.read(register::LVT_LINT1),
            lvt_error: self.read(register::LVT_ERROR),
            divide: self.read(register::DIVIDE),
            initial_count: self.read(register::INITIAL_COUNT),
            current_count: self.read(register::CURRENT_COUNT),
            tsc_deadline: if self.read(register::LVT_TIMER) >> 17 & 3 == 0b10 {
                msr::try_read(msr_number::IA32_TSC_DEADLINE).unwrap_or(0)
            } else {
                0
            },
            irr: [0; 8],
            isr: bits(register::ISR),
            tmr: bits(register::TMR),
        }
    }

    /// Copies a register of the virtual APIC that steers what arrives here: LINT0, LINT1, LDR, DFR.
    pub fn mirror(&self, offset: u16, value: u32) {
        let is_logical = matches!(offset, register::LDR | register::DFR);
        let value = if is_logical {
            value
        } else {
            harmless_pin(value)
        };
        if !(is_logical && self.is_x2apic()) {
            self.write(offset, value);
        }
    }

    /// Interrupts this LP at `deadline` (TSC ticks); earlier where the count cannot reach so far, at once where it
    /// has passed. `None` disarms.
    pub fn arm(&self, deadline: Option<u64>, now: u64) {
        if self.has_deadline.load(Ordering::Relaxed) {
            self.set_deadline(deadline.map_or(0, |tick| tick.max(1)));
        } else {
            let count = deadline.map_or(0, |tick| {
                let ticks = (u128::from(tick.saturating_sub(now)) * u128::from(self.scale)) >> 32;
                // One more, so that the interrupt never comes before the deadline.
                u32::try_from(ticks.saturating_add(1)).unwrap_or(u32::MAX)
            });
            self.write(register::INITIAL_COUNT, count);
        }
    }

    /// Sends `vector` to the LP with identifier `target`.
    pub fn send(&self, target: ApicId, vector: u8) {
        self.send_raw(target, u32::from(vector));
    }

    /// Sends an NMI to the LP with identifier `target`.
    pub fn send_nmi(&self, target: ApicId) {
        self.send_raw(target, 0b100 << 8);
    }

    fn send_raw(&self, target: ApicId, low: u32) {
        const ASSERT: u32 = 1 << 14;
        if self.is_x2apic() {
            let value = u64::from(target.get()) << 32 | u64::from(low | ASSERT);
            // SAFETY: an interrupt with a vector of ours, or an NMI, to an LP that has our handlers.
            unsafe {
                msr::write(
                    msr_number::X2APIC_FIRST + u32::from(register::ICR_LOW >> 4),
                    value,
                )
            };
        } else {
            while self.read(register::ICR_LOW) & 1 << 12 != 0 {
                core::hint::spin_loop();
            }
            self.write(register::ICR_HIGH, target.get() << 24);
            self.write(register::ICR_LOW, low | ASSERT);
        }
    }
}

/// The LVT entry `value` of a pin as the physical APIC may have it: NMI, the 8259, or a vector of the parent's devices.
/// Anything else (INIT, SMI, vectors of exceptions or of ours) would reach the hypervisor itself, and is masked.
const fn harmless_pin(value: u32) -> u32 {
    match (value >> 8 & 7, value as u8) {
        (0b100 | 0b111, _) | (0, 0x20..=0xEF) => value,
        _ => value | LVT_MASKED,
    }
}

/// The APIC of the LP that calls, for paths that may have no [`super::lp::LpArea`].
fn unowned() -> LocalApic {
    let apic = LocalApic {
        page: crate::mm::address_space::apic_page(),
        x2apic: AtomicBool::new(false),
        has_deadline: AtomicBool::new(true),
        scale: 0,
    };
    apic.adopt();
    apic
}

/// Sends an NMI from this LP with whatever mode its APIC is in. For the panic path.
pub fn emergency_nmi(target: ApicId) {
    unowned().send_nmi(target);
}

/// Interrupts this LP with [`own_vector::KICK`], whatever mode its APIC is in. For the NMI handler, which may have come
/// between the two halves of an ICR write: the shorthand needs only the lower one.
pub fn kick_self() {
    const SHORTHAND_SELF: u32 = 1 << 18;
    let low = SHORTHAND_SELF | 1 << 14 | u32::from(own_vector::KICK);
    unowned().write(register::ICR_LOW, low);
}
