//! The guest's state in words, for the record of a refused entry.

use core::fmt;

use vpcore::seam::{Register, SegmentName, TableName};

use super::VmxVp;
use super::fields::Field;
use super::segments;

/// Prints what the checks of a VM entry look at, a line per group. Reads the VMCS: on the VP's own LP only.
impl fmt::Debug for VmxVp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Register::{Cr0, Cr3, Cr4, DebugCtl, Dr7, Efer, Pat, Rflags, Rip};
        writeln!(
            f,
            "rip {:x} rflags {:x} rsp {:x}",
            self.get_register(Rip),
            self.get_register(Rflags),
            self.vmcs.read(Field::GUEST_RSP)
        )?;
        writeln!(
            f,
            "cr0 {:x} ({:x}) cr3 {:x} cr4 {:x} ({:x}) efer {:x} pat {:x} dr7 {:x} debugctl {:x}",
            self.get_register(Cr0),
            self.vmcs.read(Field::GUEST_CR0),
            self.get_register(Cr3),
            self.get_register(Cr4),
            self.vmcs.read(Field::GUEST_CR4),
            self.get_register(Efer),
            self.get_register(Pat),
            self.get_register(Dr7),
            self.get_register(DebugCtl)
        )?;
        for name in [
            SegmentName::Es,
            SegmentName::Cs,
            SegmentName::Ss,
            SegmentName::Ds,
            SegmentName::Fs,
            SegmentName::Gs,
            SegmentName::Ldtr,
            SegmentName::Tr,
        ] {
            let segment = segments::read(&self.vmcs, name);
            writeln!(
                f,
                "{name:?} {:x} base {:x} limit {:x} attributes {:x}",
                segment.selector, segment.base, segment.limit, segment.attributes
            )?;
        }
        for name in [TableName::Gdtr, TableName::Idtr] {
            let table = segments::read_table(&self.vmcs, name);
            writeln!(f, "{name:?} base {:x} limit {:x}", table.base, table.limit)?;
        }
        for (name, field) in [
            ("pin", Field::PIN_CONTROLS),
            ("primary", Field::PRIMARY_CONTROLS),
            ("secondary", Field::SECONDARY_CONTROLS),
            ("exit", Field::EXIT_CONTROLS),
            ("entry", Field::ENTRY_CONTROLS),
            ("ept", Field::EPT_POINTER),
            ("event", Field::ENTRY_EVENT),
            ("interruptibility", Field::INTERRUPTIBILITY),
            ("activity", Field::ACTIVITY),
            ("pending debug", Field::PENDING_DEBUG),
            ("host cr0", Field::HOST_CR0),
            ("host cr3", Field::HOST_CR3),
            ("host cr4", Field::HOST_CR4),
            ("host tr", Field::HOST_TR_SELECTOR),
            ("host tr base", Field::HOST_TR_BASE),
            ("exit reason", Field::EXIT_REASON),
            ("qualification", Field::EXIT_QUALIFICATION),
            ("instruction error", Field::INSTRUCTION_ERROR),
        ] {
            write!(f, "{name} {:x}; ", self.vmcs.read(field))?;
        }
        Ok(())
    }
}
