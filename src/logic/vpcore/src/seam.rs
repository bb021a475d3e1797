//! One seam for VT-x and AMD-V: neutral words for what happens to a virtual processor.
//!
//! Whatever differs between the vendors stays below: encodings, which registers the hardware keeps, where an
//! instruction length comes from. A hardware code crosses in [`Exit::Unknown`] only.

use core::any::Any;

use addr::{Gpa, Gva, Spa};
use x86::{Gp, GpRegs, Segment, TableRegister};

use crate::tags::Tags;

/// Why a guest stopped. Says what happened, not what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A physical interrupt is pending on this LP. It has not been acknowledged: the hypervisor opens its
    /// interrupt window and takes it there.
    Interrupt,
    /// A physical NMI arrived. The back end has already let NMIs through again.
    Nmi,
    /// A machine check was raised while the guest ran.
    MachineCheck,
    /// The guest can take an interrupt now, as [`VpBackend::request_window`] asked.
    InterruptWindow,
    /// The guest can take an NMI now.
    NmiWindow,
    /// CPUID.
    Cpuid,
    /// HLT.
    Hlt,
    /// RDMSR of a register whose reads are intercepted.
    Rdmsr,
    /// WRMSR to a register whose writes are intercepted.
    Wrmsr,
    /// VMCALL or VMMCALL, the vendor's own of the two, at any privilege level.
    Hypercall,
    /// XSETBV.
    Xsetbv,
    /// INVD.
    Invd,
    /// WBINVD or WBNOINVD.
    Wbinvd,
    /// MONITOR or MONITORX.
    Monitor,
    /// MWAIT or MWAITX.
    Mwait,
    /// An instruction of the virtualization extension itself, or another one that is #UD for a guest.
    Undefined,
    /// RIP is at something that raises this exception in the guest, and nothing was changed by it: an exception of its
    /// own that a child's VP may not take without an exit, or that was asked for, or an instruction that faults for it.
    /// Debug registers already say what the exception handler of the guest shall read there; CR2 does not, see
    /// [`VpBackend::fault_address`].
    Exception {
        /// Vector, 0 to 31.
        vector: u8,
        /// Error code, for the vectors that have one.
        error_code: Option<u32>,
    },
    /// The guest spins on PAUSE. There is nothing to complete: it goes on where it is.
    Pause,
    /// An access to a control register that the hypervisor shares with the guest, or CR8.
    Control(ControlAccess),
    /// IN, OUT, INS or OUTS at an intercepted port.
    Io(IoAccess),
    /// The second-level tables do not allow an access.
    Slat(SlatFault),
    /// The guest shut down: triple fault, or SHUTDOWN.
    TripleFault,
    /// A physical INIT reached the LP while the guest ran. Never sent by us; firmware or a chipset did.
    Init,
    /// The hardware refuses the guest's state. `detail` is the vendor's own word for it.
    InvalidState {
        /// VM-instruction error or exit qualification; zero where the vendor gives none.
        detail: u64,
    },
    /// A reason that no other variant names.
    Unknown {
        /// The vendor's exit code.
        reason: u64,
        /// Its exit qualification or EXITINFO1.
        info: u64,
    },
}

impl Exit {
    /// [`Exit::Exception`] with these.
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Self {
        Self::Exception { vector, error_code }
    }
}

/// An access to CR0 or CR4 that touches a bit the hypervisor owns, or to CR8, which is the virtual APIC's TPR.
///
/// VT-x exits on CR8 loads and stores and names the register; AMD-V intercepts writes and may leave the register to be
/// decoded, and shows the guest what [`VpBackend::show_cr8`] said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlAccess {
    /// MOV to CR0 of this value.
    WriteCr0(u64),
    /// MOV to CR4 of this value.
    WriteCr4(u64),
    /// CLTS.
    Clts,
    /// LMSW of this value.
    Lmsw(u16),
    /// MOV to CR8 from this general register; `None` asks the caller to decode.
    WriteCr8(Option<Gp>),
    /// MOV from CR8 to this general register; `None` asks the caller to decode.
    ReadCr8(Option<Gp>),
}

/// One port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// First port.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub width: u8,
    /// IN or INS.
    pub is_in: bool,
    /// INS or OUTS.
    pub is_string: bool,
    /// REP prefix.
    pub is_rep: bool,
    /// RIP of the next instruction, where the hardware gives it.
    pub next_rip: Option<u64>,
}

/// A second-level fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlatFault {
    /// The guest physical address.
    pub gpa: Gpa,
    /// The linear address, where the hardware gives it and the access was one to memory at that address.
    pub gva: Option<Gva>,
    /// The access was a write.
    pub is_write: bool,
    /// The access was an instruction fetch.
    pub is_execute: bool,
    /// The entry was present and did not allow the access.
    pub is_protection: bool,
    /// The access was made by the processor's own walk of the guest's page tables.
    pub is_table_walk: bool,
}

/// Something to deliver to a guest through its IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// External interrupt with this vector.
    Interrupt(u8),
    /// NMI.
    Nmi,
    /// Fault or trap that hardware raises.
    Exception {
        /// Vector, 0 to 31.
        vector: u8,
        /// Error code, for the vectors that have one.
        error_code: Option<u32>,
    },
    /// INT n, INT3 or INTO interrupted half-way; only ever re-delivered.
    Software {
        /// Vector.
        vector: u8,
        /// Instruction length in bytes.
        length: u8,
        /// What it was, so that the right kind is re-delivered.
        kind: SoftwareEvent,
    },
}

/// Kinds of events that instructions raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftwareEvent {
    /// INT n.
    Interrupt,
    /// INT3 or INTO.
    Exception,
    /// INT1.
    Privileged,
}

/// What a window waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The guest can take an external interrupt.
    Interrupt,
    /// The guest can take an NMI.
    Nmi,
}

/// A register beside the general ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the manuals")]
pub enum Register {
    Rip,
    Rflags,
    /// As the guest sees it: bits that the hypervisor owns come from their shadow.
    Cr0,
    Cr2,
    Cr3,
    /// As the guest sees it.
    Cr4,
    /// As the guest sees it: SVME never shows.
    Efer,
    Dr6,
    Dr7,
    Pat,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    DebugCtl,
    /// What holds events back, as the TLFS has it: interrupt shadow in bit 0, NMIs blocked in bit 1.
    InterruptState,
    /// Difference of the guest's time-stamp counter from the LP's, wrapping.
    TscOffset,
    FsBase,
    GsBase,
    KernelGsBase,
    Star,
    Lstar,
    Cstar,
    Sfmask,
}

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the manuals")]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
}

/// A descriptor table register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the manuals")]
pub enum TableName {
    Gdtr,
    Idtr,
}

/// Which ports and MSRs of a partition exit. All VPs of the partition share it.
///
/// Made with every port passing and every MSR access exiting; MSRs that the hardware's bitmap does not cover
/// always exit.
pub trait InterceptBitmaps {
    /// Accesses that touch `port` exit.
    fn trap_port(&mut self, port: u16);
    /// Accesses to all ports exit.
    fn trap_all_ports(&mut self);
    /// RDMSR of `msr` reaches the hardware. False where the bitmap does not cover it.
    fn pass_msr_read(&mut self, msr: u32) -> bool;
    /// WRMSR to `msr` reaches the hardware. False where the bitmap does not cover it.
    fn pass_msr_write(&mut self, msr: u32) -> bool;
}

/// Whose VP it is, which decides about what exits and what the guest may do to its LP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The parent's. It never leaves the LP on which it is loaded first, and may do what harms nobody but the parent.
    Parent,
    /// A child's. It moves between LPs. It exits wherever it could keep an LP busy without an end. Its memory is always
    /// write-back: its PAT reads back as written and does nothing.
    Child,
}

/// The extension on one LP, as the VPs need it that are loaded there.
#[derive(Debug)]
pub struct Lp {
    /// Tags of translations.
    pub tags: Tags,
    /// A frame that is this LP's alone: the VMXON region; where VMSAVE keeps the hypervisor's own registers.
    pub frame: Spa,
}

/// What the fetch of an instruction depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the manuals")]
pub struct CodeState {
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    /// Privilege level.
    pub cpl: u8,
    pub cs: Segment,
}

/// One virtual processor as the vendor's extension runs it: control structure, and the registers that the
/// hardware does not keep.
///
/// A VP is *loaded* on at most one LP, and an LP has at most one VP loaded. All methods are called with interrupts off,
/// on the LP where the VP is loaded, or between [`VpBackend::attach`] and [`VpBackend::detach`]; [`VpBackend::run`] on the LP
/// where it is loaded.
/// A VP that is not loaded may be handed to another LP.
///
/// All but the way from an exit to the next entry uses it as a trait object, and is compiled once for both vendors.
pub trait VpBackend: Any + Send {
    /// Makes this the VP that runs on the calling LP, whose extension is `lp`. Its registers go where the hardware wants
    /// them. None of its translations is used that another LP may have dropped since: a VP that was somewhere else, or
    /// whose tag was lost, begins with none; else those of its last time here are still there.
    ///
    /// It is loaded nowhere, and so is any other VP on this LP.
    fn load(&mut self, lp: &mut Lp);

    /// Takes the VP off the LP. Its registers come to memory, so that any LP may load it.
    fn unload(&mut self);

    /// The frame that holds its control structure, and the guest's registers with it.
    fn frame(&self) -> Spa;

    /// Lets registers be read and set on the calling LP although the VP is not loaded there, until
    /// [`VpBackend::detach`] is called with what this gives. The VP is loaded nowhere else. Another VP that is loaded
    /// here stays so, and is not to be touched meanwhile.
    fn attach(&mut self) -> Option<Spa>;
    /// The end of [`VpBackend::attach`].
    fn detach(&mut self, before: Option<Spa>);

    /// Enters the guest and returns at the next exit. Never panics, whatever the guest did.
    ///
    /// An event whose delivery the exit interrupted is kept; see [`VpBackend::interrupted_event`].
    fn run(&mut self) -> Exit;

    /// All sixteen general registers, RSP included, wherever this vendor keeps each of them.
    fn gp(&self) -> &GpRegs;
    /// The same, to change.
    fn gp_mut(&mut self) -> &mut GpRegs;

    /// Reads a register as the guest would.
    fn get(&self, register: Register) -> u64;
    /// Sets a register. A value that the hardware refuses shows as [`Exit::InvalidState`] at the next entry.
    /// CR0, CR4 and EFER: shadows and owned bits are kept apart by the back end; EFER.LMA and the entry mode
    /// follow from the values set.
    fn set(&mut self, register: Register, value: u64);
    /// Reads a segment register with its hidden part.
    fn segment(&self, name: SegmentName) -> Segment;
    /// Sets a segment register with its hidden part.
    fn set_segment(&mut self, name: SegmentName, value: Segment);
    /// Reads GDTR or IDTR.
    fn table(&self, name: TableName) -> TableRegister;
    /// Sets GDTR or IDTR.
    fn set_table(&mut self, name: TableName, value: TableRegister);
    /// Privilege level of the guest, 0 to 3.
    fn cpl(&self) -> u8;
    /// What the fetch of an instruction depends on, at once: one call through a trait object is less than eight.
    fn code_state(&self) -> CodeState {
        CodeState {
            rip: self.get(Register::Rip),
            rflags: self.get(Register::Rflags),
            cr0: self.get(Register::Cr0),
            cr3: self.get(Register::Cr3),
            cr4: self.get(Register::Cr4),
            efer: self.get(Register::Efer),
            cpl: self.cpl(),
            cs: self.segment(SegmentName::Cs),
        }
    }
    /// Whether the guest executes 64-bit code: EFER.LMA and CS.L.
    fn is_in_64_bit_code(&self) -> bool {
        self.get(Register::Efer) & x86::efer::LMA != 0
            && self.segment(SegmentName::Cs).attributes & Segment::LONG != 0
    }

    /// RIP after the instruction that exited, where the hardware says it. `None` asks the caller to decode.
    fn next_rip(&self) -> Option<u64>;
    /// Completes the instruction that exited: RIP := `next_rip`, interrupt shadow and RF end.
    fn retire(&mut self, next_rip: u64);

    /// Makes these exceptions exit, as bits by vector, beside those that always do.
    fn trap_exceptions(&mut self, vectors: u32);
    /// The linear address of the page fault that the last exit was. CR2 does not have it.
    fn fault_address(&self) -> u64;

    /// The event whose delivery the last exit interrupted; taken out of the back end.
    fn interrupted_event(&mut self) -> Option<Event>;
    /// The external interrupt that was to be injected, where the last exit came before the processor began to deliver it;
    /// taken out of the back end.
    fn undelivered_interrupt(&mut self) -> Option<u8>;
    /// Delivers `event` at the next entry. At most one per entry: a second call replaces the first.
    fn inject(&mut self, event: Event);
    /// Whether an external interrupt could be delivered now: IF set, no shadow.
    fn can_take_interrupt(&self) -> bool;
    /// Whether an NMI could be delivered now: not blocked by an earlier one, no shadow.
    fn can_take_nmi(&self) -> bool;
    /// Forgets what holds events back and what waits, as INIT does: interrupt shadow, blocking of NMIs, a pending
    /// single step, an event to deliver.
    fn reset_events(&mut self);
    /// Exits as soon as the guest can take what `window` names, or stops asking for it.
    fn request_window(&mut self, window: Window, wanted: bool);

    /// Shows `value`, 0 to 15, where the guest reads CR8 without an exit. Nothing on back ends whose reads exit.
    fn show_cr8(&mut self, value: u8);

    /// Drops all translations of this VP before the next entry: guest tables and second-level tables.
    fn flush_tlb(&mut self);
    /// Drops what was cached of the guest's own tables before the next entry.
    fn flush_guest_tlb(&mut self);
}

/// Frames for control structures, and access to them.
pub trait FrameSource {
    /// A zeroed run of `count` contiguous frames, or `None` when the reserve is empty. Never given back.
    fn frames(&mut self, count: usize) -> Option<Spa>;
}
