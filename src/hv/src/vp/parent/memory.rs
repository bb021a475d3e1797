//! Second-level faults: devices that the hypervisor emulates by their memory, and memory that it keeps.

use addr::Gpa;
use bootinfo::Status;
use insn::Width;
use paging::Cleanup;
use vpcore::seam::SlatFault;

use super::io::PciPorts;
use super::{Parent, ParentVp};
use crate::diagnostics::Counter;
use crate::partition::{FaultOutcome, Partition, Slat};
use crate::shootdown;
use crate::vp::mmio::{Device, Emulated};

/// What answers an emulated access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The PCI configuration window.
    Ecam,
    /// Memory that the guest may read but not write: reads are carried out, writes dropped.
    ReadOnly,
    /// Nothing: reads give ones, writes are dropped.
    Nothing,
    /// The same for the hypervisor's memory; what cannot be decoded goes to a scratch page.
    Hidden,
}

impl ParentVp {
    /// Answers one fault.
    pub(super) fn slat_fault(&mut self, fault: &SlatFault) {
        let target = if self
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
        if self.emulate(fault.gpa, target) == Emulated::Unknown
            && !(target == Target::Hidden
                && self.edit_slat(|slat| slat.show_scratch(fault.gpa)).is_ok())
        {
            self.note(format_args!("cannot emulate an access to {:?}", fault.gpa));
            self.raise_gp();
        }
    }

    fn memory_fault(&mut self, fault: &SlatFault) -> FaultOutcome {
        let mut outcome = FaultOutcome::Nothing;
        let _ = self.edit_slat(|slat| {
            let cleanup;
            (outcome, cleanup) = slat.fault(fault);
            Ok(cleanup)
        });
        outcome
    }

    /// Carries out an edit of the tables and makes every LP see it. An edit that fails changed nothing.
    pub(super) fn edit_slat(
        &mut self,
        edit: impl FnOnce(&mut Slat) -> Result<Cleanup, Status>,
    ) -> Result<(), Status> {
        let mut slat = self.partition.slat.lock();
        let cleanup = edit(&mut slat)?;
        if cleanup.flush_needed() {
            shootdown::all_others(self.lp, self.partition.core());
            self.backend.flush_tlb();
        }
        slat.finish(cleanup);
        Ok(())
    }
}

impl Device<Parent> for Target {
    fn read(&mut self, vp: &mut ParentVp, gpa: Gpa, width: Width) -> u64 {
        match self {
            Self::Ecam => {
                let _lock = vp.partition.config_address.lock();
                vp.partition.ecam.map_or(u64::MAX, |window| {
                    window.read(&mut PciPorts, gpa, width.bytes())
                })
            }
            Self::ReadOnly => {
                let mut bytes = [0; 8];
                let len = usize::from(width.bytes()).min(4096 - gpa.page_offset());
                let is_read = bytes
                    .get_mut(..len)
                    .is_some_and(|buffer| vp.partition.read(gpa, buffer).is_ok());
                if is_read {
                    u64::from_le_bytes(bytes)
                } else {
                    u64::MAX
                }
            }
            Self::Nothing | Self::Hidden => u64::MAX,
        }
    }

    fn write(&mut self, vp: &mut ParentVp, gpa: Gpa, width: Width, value: u64) {
        if *self == Self::Ecam {
            let _lock = vp.partition.config_address.lock();
            if let Some(window) = vp.partition.ecam {
                window.write(&mut PciPorts, gpa, width.bytes(), value);
            }
        }
    }
}
