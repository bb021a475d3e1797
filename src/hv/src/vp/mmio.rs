//! Second-level faults: devices that the hypervisor emulates by their memory, and memory that it keeps.

use addr::Gpa;
use bootinfo::Status;
use insn::{MmioBus, Progress, Width};
use paging::Cleanup;
use vpcore::seam::{Register, SlatFault, VpBackend};

use super::Vp;
use super::fetch::INSTRUCTION_MAX;
use super::io::PciPorts;
use crate::diagnostics::Counter;
use crate::partition::{FaultOutcome, Slat};
use crate::shootdown;
use crate::virt::Virt;

/// What answers an emulated access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The virtual local APIC.
    Apic,
    /// The PCI configuration window.
    Ecam,
    /// Memory that the guest may read but not write: reads are carried out, writes dropped.
    ReadOnly,
    /// Nothing: reads give ones, writes are dropped.
    Nothing,
    /// The same for the hypervisor's memory; what cannot be decoded goes to a scratch page.
    Hidden,
}

impl<V: Virt> Vp<V> {
    /// Answers one fault.
    pub(super) fn slat_fault(&mut self, fault: &SlatFault) {
        let target = if self.is_apic_page(fault.gpa) {
            self.counters.add(Counter::ApicMmio);
            Target::Apic
        } else if self
            .partition
            .ecam
            .is_some_and(|window| window.contains(fault.gpa))
        {
            self.counters.add(Counter::Ecam);
            Target::Ecam
        } else {
            match self.memory_fault(fault) {
                FaultOutcome::Mapped => {
                    self.counters.add(Counter::LazyMap);
                    return;
                }
                FaultOutcome::Hidden => {
                    self.counters.add(Counter::HiddenMemory);
                    return;
                }
                FaultOutcome::HiddenWrite => {
                    self.counters.add(Counter::HiddenMemory);
                    Target::Hidden
                }
                FaultOutcome::DropWrite => Target::ReadOnly,
                FaultOutcome::Nothing => Target::Nothing,
            }
        };
        if fault.is_table_walk || fault.is_execute {
            // Page tables or code in a device's registers.
            self.note(format_args!(
                "walk or fetch at {:?}, which is no memory",
                fault.gpa
            ));
            self.raise_gp();
            return;
        }
        self.emulate(fault.gpa, target);
    }

    fn memory_fault(&mut self, fault: &SlatFault) -> FaultOutcome {
        let mut slat = self.partition.slat.lock();
        let (outcome, cleanup) = slat.fault(fault);
        if cleanup.flush_needed() {
            shootdown::all_others(self.lp, &self.local);
            self.backend.flush_tlb();
        }
        slat.finish(cleanup);
        outcome
    }

    /// Carries out an edit of the tables and makes every LP see it. False where it failed and changed nothing.
    fn edit_slat(&mut self, edit: impl FnOnce(&mut Slat<V>) -> Result<Cleanup, Status>) -> bool {
        let mut slat = self.partition.slat.lock();
        let Ok(cleanup) = edit(&mut slat) else {
            return false;
        };
        if cleanup.flush_needed() {
            shootdown::all_others(self.lp, &self.local);
            self.backend.flush_tlb();
        }
        slat.finish(cleanup);
        true
    }

    /// Carries out the instruction at RIP, whose memory operand is at `gpa`, against `target`.
    fn emulate(&mut self, gpa: Gpa, target: Target) {
        let fetched = self.fetch(INSTRUCTION_MAX);
        if fetched.bytes().is_empty() {
            // Another processor took the code away: the guest meets that itself.
            return;
        }
        let Ok(instruction) = insn::decode_mmio(fetched.bytes(), self.code_mode()) else {
            if target == Target::Hidden && self.edit_slat(|slat| slat.show_scratch(gpa)) {
                return;
            }
            self.note(format_args!(
                "cannot emulate {:02x?} at {gpa:?}",
                fetched.bytes()
            ));
            self.raise_gp();
            return;
        };
        let mut gp = *self.backend.gp();
        let mut flags = self.backend.get(Register::Rflags);
        let progress = {
            let mut bus = Bus {
                vp: self,
                gpa,
                target,
            };
            insn::execute(&instruction, &mut gp, &mut flags, &mut bus)
        };
        match progress {
            Ok(progress) => {
                *self.backend.gp_mut() = gp;
                self.backend.set(Register::Rflags, flags);
                if progress == Progress::Done {
                    let end = self
                        .backend
                        .get(Register::Rip)
                        .wrapping_add(u64::from(instruction.length));
                    let is_64 = self.code_mode() == insn::Mode::Bits64;
                    let next = if is_64 { end } else { end & 0xFFFF_FFFF };
                    self.retire(next);
                }
            }
            Err(_) => {
                if target == Target::Hidden && self.edit_slat(|slat| slat.show_scratch(gpa)) {
                    return;
                }
                self.note(format_args!(
                    "string move between memory and {gpa:?} is not emulated"
                ));
                self.raise_gp();
            }
        }
    }
}

struct Bus<'a, V: Virt> {
    vp: &'a mut Vp<V>,
    gpa: Gpa,
    target: Target,
}

impl<V: Virt> MmioBus for Bus<'_, V> {
    fn read(&mut self, width: Width) -> u64 {
        match self.target {
            Target::Apic => self.read_apic(width),
            Target::Ecam => {
                let _lock = self.vp.partition.config_address.lock();
                self.vp.partition.ecam.map_or(u64::MAX, |window| {
                    window.read(&mut PciPorts, self.gpa, width.bytes())
                })
            }
            Target::ReadOnly => {
                let mut bytes = [0; 8];
                let len = usize::from(width.bytes()).min(4096 - self.gpa.page_offset());
                let is_read = bytes
                    .get_mut(..len)
                    .is_some_and(|buffer| self.vp.partition.read(self.gpa, buffer));
                if is_read {
                    u64::from_le_bytes(bytes)
                } else {
                    u64::MAX
                }
            }
            Target::Nothing | Target::Hidden => u64::MAX,
        }
    }

    fn write(&mut self, width: Width, value: u64) {
        match self.target {
            Target::Apic => {
                // Registers are 32 bits wide at multiples of 16; other writes are undefined and have no effect.
                let offset = self.gpa.page_offset();
                if width == Width::Dword && offset.is_multiple_of(16) {
                    self.vp.write_apic_page(offset as u16, value as u32);
                }
            }
            Target::Ecam => {
                let _lock = self.vp.partition.config_address.lock();
                if let Some(window) = self.vp.partition.ecam {
                    window.write(&mut PciPorts, self.gpa, width.bytes(), value);
                }
            }
            Target::ReadOnly | Target::Nothing | Target::Hidden => {}
        }
    }
}

impl<V: Virt> Bus<'_, V> {
    /// Narrow reads, and reads inside a register, give that part of it; the bytes between two registers are zero.
    fn read_apic(&mut self, width: Width) -> u64 {
        let offset = self.gpa.page_offset();
        let register = self.vp.read_apic_page((offset & 0xFF0) as u16);
        let shift = (offset % 16) * 8;
        if shift >= 32 {
            0
        } else {
            (u64::from(register) >> shift) & width_mask(width)
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
