//! Instructions whose memory operand is a register of an emulated device.

use addr::Gpa;
use apic::Mode;
use insn::{MmioBus, Progress, Width};
use vpcore::seam::{Register, SlatFault};

use super::{AnyVp, Role};
use crate::arch::x86::insn::rdtsc;
use crate::diagnostics::Counter;

/// How [`Vp::emulate`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emulated {
    /// Carried out, or to be tried again by the guest.
    Done,
    /// The instruction is none that we know, or that the device takes. Nothing changed.
    Unknown,
}

/// A device behind one page.
pub(super) trait Device<R: Role> {
    /// Reads `width` at `gpa`.
    fn read(&mut self, vp: &mut AnyVp<R>, gpa: Gpa, width: Width) -> u64;
    /// Writes `width` at `gpa`.
    fn write(&mut self, vp: &mut AnyVp<R>, gpa: Gpa, width: Width, value: u64);
    /// Whether the instruction that did so is to be completed. If not, the device has changed nothing.
    fn accepts(&mut self, _: &mut AnyVp<R>, _: Progress) -> bool {
        true
    }
}

struct Bus<'a, R: Role, D> {
    vp: &'a mut AnyVp<R>,
    gpa: Gpa,
    device: D,
}

impl<R: Role, D: Device<R>> MmioBus for Bus<'_, R, D> {
    fn read(&mut self, width: Width) -> u64 {
        self.device.read(self.vp, self.gpa, width)
    }

    fn write(&mut self, width: Width, value: u64) {
        self.device.write(self.vp, self.gpa, width, value);
    }
}

impl<R: Role> AnyVp<R> {
    /// Carries out the instruction at RIP, whose memory operand is at `gpa`, against `device`.
    pub(super) fn emulate(&mut self, gpa: Gpa, device: impl Device<R>) -> Emulated {
        let fetched = self.fetch();
        if fetched.bytes().is_empty() {
            // Another processor took the code away: the guest meets that itself.
            return Emulated::Done;
        }
        let Ok(instruction) = insn::decode_mmio(fetched.bytes(), fetched.mode) else {
            return Emulated::Unknown;
        };
        let mut gp = *self.backend.gp();
        let mut flags = fetched.rflags;
        let mut bus = Bus {
            vp: self,
            gpa,
            device,
        };
        let Ok(progress) = insn::execute(&instruction, &mut gp, &mut flags, &mut bus) else {
            return Emulated::Unknown;
        };
        let Bus { vp, mut device, .. } = bus;
        if !device.accepts(vp, progress) {
            return Emulated::Unknown;
        }
        *self.backend.gp_mut() = gp;
        self.backend.set(Register::Rflags, flags);
        if progress == Progress::Done {
            self.retire(fetched.end(instruction.length));
        }
        Emulated::Done
    }

    /// An access to the page of the virtual local APIC.
    pub(super) fn apic_page(&mut self, fault: &SlatFault) {
        self.counters.add(Counter::ApicMmio);
        self.settle_eoi(true);
        let is_data = !fault.is_table_walk && !fault.is_execute;
        if !is_data || self.emulate(fault.gpa, ApicPage) == Emulated::Unknown {
            self.note(format_args!(
                "an access to the local APIC at {:?} that is not emulated",
                fault.gpa
            ));
            self.raise_gp();
        }
    }
}

/// The registers of the virtual local APIC. Outside xAPIC mode there is nothing behind them.
struct ApicPage;

impl<R: Role> Device<R> for ApicPage {
    /// Narrow reads, and reads inside a register, give that part of it; the bytes between two registers are zero.
    fn read(&mut self, vp: &mut AnyVp<R>, gpa: Gpa, width: Width) -> u64 {
        let offset = gpa.page_offset();
        let register = if vp.apic.mode() == Mode::XApic {
            vp.apic.read((offset & 0xFF0) as u16, rdtsc())
        } else {
            u32::MAX
        };
        let shift = (offset % 16) * 8;
        if shift >= 32 {
            0
        } else {
            (u64::from(register) >> shift) & width_mask(width)
        }
    }

    /// Registers are 32 bits wide at multiples of 16; other writes are undefined and have no effect.
    fn write(&mut self, vp: &mut AnyVp<R>, gpa: Gpa, width: Width, value: u64) {
        let offset = gpa.page_offset();
        if width == Width::Dword && offset.is_multiple_of(16) && vp.apic.mode() == Mode::XApic {
            let effect = vp.apic.write(offset as u16, value as u32, rdtsc());
            vp.apply(effect);
        }
    }
}

const fn width_mask(width: Width) -> u64 {
    match width.bytes() {
        1 => 0xFF,
        2 => 0xFFFF,
        4 => 0xFFFF_FFFF,
        _ => u64::MAX,
    }
}
