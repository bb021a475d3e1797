//! VT-x: one of the two implementors of the seam in `vpcore::seam`.
//!
//! A [`VmxVp`] is one VMCS, current on one LP from its making on, and the general registers. What the VMCS does not
//! switch stays in the LP's registers while the hypervisor runs, which therefore touches none of it: vector state,
//! XCR0, CR2, DR0 to DR3, DR6, KERNEL_GS_BASE, STAR, LSTAR, CSTAR and SFMASK.
//!
//! The guest owns CR0 and CR4 but for CR0.NE, CD and NW and CR4.VMXE, which it sees through a shadow. VMX needs NE
//! and VMXE; CD and NW are shared with the hypervisor by the hardware, so they never reach the register.
//! MOV to and from CR8 exits: it would reach the physical APIC.
//!
//! Source: SDM vol. 3C, "Introduction to Virtual Machine Extensions" and the chapters after it.

mod bitmaps;
mod caps;
mod control;
mod enable;
mod entry;
mod exit;
mod fields;
mod host;
mod inject;
mod insn;
mod registers;
mod run;
mod segments;
mod slat;
mod state;
mod vmcs;

use addr::Spa;
use bootinfo::Status;
use vpcore::seam::{Event, Exit, FrameSource, Register, SegmentName, TableName, VpBackend, Window};
use x86::{GpRegs, Segment, TableRegister};

pub use bitmaps::VmxBitmaps;
pub use enable::{capabilities, check, enable};

use caps::FixedBits;
use enable::Enabled;
use entry::EntryFrame;
use fields::Field;
use slat::Translations;
use vmcs::Vmcs;

/// What a VP shares with the others of its partition.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Ports and MSRs that exit.
    pub bitmaps: &'a VmxBitmaps,
    /// Root of the second-level tables.
    pub slat_root: Spa,
    /// Their depth, 4 or 5.
    pub slat_levels: u32,
    /// VPID, not 0 and no other VP's on the same LP.
    pub tag: u16,
}

/// Work for the next entry, as bits of [`VmxVp::pending`].
mod pending {
    /// CR0, CR3, CR4 or EFER was set: the guest's translations go, and PAE page-directory pointers are loaded.
    pub const PAGING: u8 = 1 << 0;
    /// All translations go.
    pub const FLUSH_ALL: u8 = 1 << 1;
    /// An event was written to the VMCS.
    pub const EVENT: u8 = 1 << 2;
    /// A register refused its value.
    pub const REFUSED: u8 = 1 << 3;
}

/// One VP of VT-x. Lives on the LP that made it.
pub struct VmxVp {
    frame: EntryFrame,
    vmcs: Vmcs,
    /// RSP in the VMCS; `frame.gp` may have a newer one.
    rsp: u64,
    /// Bits of [`pending`].
    pending: u8,
    is_launched: bool,
    /// Exit reason, low 16 bits.
    reason: u16,
    /// The VMCS field for the event that the last exit interrupted says something that nobody has taken yet.
    has_interrupted: bool,
    /// Primary processor-based controls as the VMCS has them.
    primary: u32,
    translations: Translations,
    /// Rules for the guest's CR0 and CR4.
    cr0: FixedBits,
    cr4: FixedBits,
    /// VMX operation lasts as long as the VP.
    _enabled: Enabled,
}

impl VmxVp {
    /// A VP in the state that INIT leaves, which runs on the calling LP. Dropping it leaves VMX operation.
    ///
    /// The host state is what the LP's registers hold now: page tables, descriptor tables, TR, segment bases, EFER,
    /// PAT. None of it may change while the VP lives.
    ///
    /// # Errors
    /// [`Status::NO_MEMORY`]; [`Status::MISSING_FEATURE`]; [`Status::ENABLE_FAILED`] when the processor refuses the
    /// VMCS. VMX operation has ended then.
    pub fn new(
        enabled: Enabled,
        frames: &mut dyn FrameSource,
        shared: &Shared<'_>,
    ) -> Result<Self, Status> {
        control::build(enabled, frames, shared)
    }
}

impl VpBackend for VmxVp {
    #[inline]
    fn run(&mut self) -> Exit {
        self.enter_and_exit()
    }

    #[inline]
    fn gp(&self) -> &GpRegs {
        &self.frame.gp
    }

    #[inline]
    fn gp_mut(&mut self) -> &mut GpRegs {
        &mut self.frame.gp
    }

    #[inline]
    fn get(&self, register: Register) -> u64 {
        self.get_register(register)
    }

    #[inline]
    fn set(&mut self, register: Register, value: u64) {
        self.set_register(register, value);
    }

    fn segment(&self, name: SegmentName) -> Segment {
        segments::read(&self.vmcs, name)
    }

    fn set_segment(&mut self, name: SegmentName, value: Segment) {
        segments::write(&mut self.vmcs, name, value);
    }

    fn table(&self, name: TableName) -> TableRegister {
        segments::read_table(&self.vmcs, name)
    }

    fn set_table(&mut self, name: TableName, value: TableRegister) {
        segments::write_table(&mut self.vmcs, name, value);
    }

    #[inline]
    fn cpl(&self) -> u8 {
        segments::cpl(&self.vmcs)
    }

    #[inline]
    fn next_rip(&self) -> Option<u64> {
        self.instruction_end()
    }

    #[inline]
    fn retire(&mut self, next_rip: u64) {
        self.retire_to(next_rip);
    }

    #[inline]
    fn interrupted_event(&mut self) -> Option<Event> {
        self.take_interrupted()
    }

    fn inject(&mut self, event: Event) {
        self.inject_event(event);
    }

    #[inline]
    fn can_take_interrupt(&self) -> bool {
        self.is_open_for_interrupts()
    }

    #[inline]
    fn can_take_nmi(&self) -> bool {
        self.is_open_for_nmis()
    }

    fn reset_events(&mut self) {
        self.has_interrupted = false;
        self.pending &= !pending::EVENT;
        for field in [
            Field::INTERRUPTIBILITY,
            Field::PENDING_DEBUG,
            Field::ENTRY_EVENT,
        ] {
            self.vmcs.write(field, 0);
        }
    }

    fn request_window(&mut self, window: Window, wanted: bool) {
        self.set_window(window, wanted);
    }

    fn show_cr8(&mut self, _: u8) {
        // Reads of CR8 exit.
    }

    fn flush_tlb(&mut self) {
        self.pending |= pending::FLUSH_ALL;
    }
}
