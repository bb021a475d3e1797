//! Exit reasons of VMX as the seam's words.
//!
//! Source: SDM vol. 3D, "VMX Basic Exit Reasons"; vol. 3C, "Exit Qualification".

use addr::{Gpa, Gva};
use vpcore::seam::{ControlAccess, Exit, IoAccess, Role, SlatFault};
use x86::{Gp, GpRegs, vector};

use super::VmxVp;
use super::fields::Field;
use super::inject::{self, ExitEventKind};
use super::insn;

/// Bit of the exit reason: the entry failed, the guest did not run.
pub(super) const ENTRY_FAILED: u32 = 1 << 31;
/// Reason of an entry that failed at the guest's state.
pub(super) const INVALID_GUEST_STATE: u16 = 33;
/// Reason of an entry that failed for a machine check.
pub(super) const ENTRY_MACHINE_CHECK: u16 = 41;
/// Detail of [`Exit::InvalidState`] when a register of the LP refused the guest's value: no VMX error has it.
pub(super) const REFUSED_REGISTER: u64 = u64::MAX;

/// Reasons whose exits an instruction caused that somebody may want to complete: bit n is reason n. Those from 64 on
/// are of instructions that do not exist for a guest.
const INSTRUCTIONS: u64 = {
    let reasons = [
        9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
        32, 36, 39, 40, 46, 47, 50, 51, 53, 54, 55, 57, 58, 59, 60, 61, 63,
    ];
    let mut bits = 0;
    let mut i = 0;
    while i < reasons.len() {
        bits |= 1 << reasons[i];
        i += 1;
    }
    bits
};

/// Whether the VMCS has the length of the instruction that caused an exit for `reason`.
#[inline(always)]
pub(super) fn has_instruction_length(reason: u16) -> bool {
    reason < 64 && INSTRUCTIONS >> reason & 1 != 0
}

impl VmxVp {
    /// The last exit. The reason has been read, the qualification is read where it says something.
    #[inline(always)]
    pub(super) fn decode_exit(&mut self) -> Exit {
        match self.reason {
            0 => self.exception(),
            1 => Exit::Interrupt,
            2 => Exit::TripleFault,
            // Nobody carries out a task switch by hand; it ends a child, which can do no harm by one.
            9 if self.role == Role::Child => Exit::TripleFault,
            3 => Exit::Init,
            7 => Exit::InterruptWindow,
            8 => Exit::NmiWindow,
            10 => Exit::Cpuid,
            12 => Exit::Hlt,
            13 => Exit::Invd,
            // No counter exists for a guest.
            15 => Exit::exception(vector::GP, Some(0)),
            18 => Exit::Hypercall,
            28 => self.control_access(),
            30 => self.io_access(),
            31 => Exit::Rdmsr,
            32 => Exit::Wrmsr,
            36 => Exit::Mwait,
            39 => Exit::Monitor,
            40 => Exit::Pause,
            48 => self.slat_fault(),
            54 => Exit::Wbinvd,
            55 => Exit::Xsetbv,
            // GETSEC; VMCLEAR to VMXON; INVEPT; INVVPID; VMFUNC; ENCLS; PCONFIG; UMWAIT; TPAUSE; LOADIWKEY; ENCLV;
            // SEAMCALL; TDCALL.
            11 | 19..=27 | 50 | 53 | 59 | 60 | 65 | 67..=70 | 76 | 77 => Exit::Undefined,
            _ => self.unknown(),
        }
    }

    fn exception(&mut self) -> Exit {
        let event = inject::exit_event(&self.vmcs);
        if event.iret_unblocked_nmi {
            self.restore_nmi_blocking();
        }
        match event.kind {
            ExitEventKind::Nmi => {
                insn::unblock_nmis();
                Exit::Nmi
            }
            ExitEventKind::MachineCheck => Exit::MachineCheck,
            ExitEventKind::Debug(is_instruction) => self.debug_exception(is_instruction),
            ExitEventKind::Other(vector, code) => Exit::exception(vector, code),
        }
    }

    #[cold]
    fn unknown(&self) -> Exit {
        Exit::Unknown {
            reason: u64::from(self.reason),
            info: self.vmcs.read(Field::EXIT_QUALIFICATION),
        }
    }

    fn io_access(&self) -> Exit {
        let qualification = self.vmcs.read(Field::EXIT_QUALIFICATION);
        Exit::Io(io_access(qualification, self.instruction_end()))
    }

    fn control_access(&self) -> Exit {
        let qualification = self.vmcs.read(Field::EXIT_QUALIFICATION);
        // Outside 64-bit mode the upper halves of the registers are what 64-bit code left there.
        let operand = if self.is_64_bit() {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        match control_access(qualification, &self.frame.gp, operand) {
            Some(access) => Exit::Control(access),
            None => self.unknown(),
        }
    }

    fn slat_fault(&mut self) -> Exit {
        let qualification = self.vmcs.read(Field::EXIT_QUALIFICATION);
        if qualification & fault::IRET_UNBLOCKED_NMI != 0 {
            self.restore_nmi_blocking();
        }
        Exit::Slat(slat_fault(
            qualification,
            Gpa::new(self.vmcs.read(Field::GUEST_PHYSICAL_ADDRESS)),
            Gva::new(self.vmcs.read(Field::GUEST_LINEAR_ADDRESS)),
        ))
    }
}

/// Exit qualification of an EPT violation.
mod fault {
    pub const WRITE: u64 = 1 << 1;
    pub const EXECUTE: u64 = 1 << 2;
    /// What the entries on the way allow: read, write, execute.
    pub const ALLOWED: u64 = 7 << 3;
    /// The guest's linear address is known.
    pub const HAS_LINEAR_ADDRESS: u64 = 1 << 7;
    /// The access was to the translation of the linear address, not to a table on the way.
    pub const FINAL: u64 = 1 << 8;
    pub const IRET_UNBLOCKED_NMI: u64 = 1 << 12;
}

fn slat_fault(qualification: u64, gpa: Gpa, gva: Gva) -> SlatFault {
    let has = |bits| qualification & bits == bits;
    SlatFault {
        gpa,
        gva: has(fault::HAS_LINEAR_ADDRESS | fault::FINAL).then_some(gva),
        is_write: has(fault::WRITE),
        is_execute: has(fault::EXECUTE),
        is_protection: qualification & fault::ALLOWED != 0,
        // Without a linear address it was MOV to a control register, loading page-directory pointers.
        is_table_walk: !has(fault::HAS_LINEAR_ADDRESS | fault::FINAL),
    }
}

/// Exit qualification of an I/O instruction: size less one 2:0, IN 3, string 4, REP 5, port 31:16.
fn io_access(qualification: u64, next_rip: Option<u64>) -> IoAccess {
    IoAccess {
        port: (qualification >> 16) as u16,
        width: (qualification & 7) as u8 + 1,
        is_in: qualification & 1 << 3 != 0,
        is_string: qualification & 1 << 4 != 0,
        is_rep: qualification & 1 << 5 != 0,
        next_rip,
    }
}

/// Exit qualification of a control-register access: register 3:0, kind 5:4, general register 11:8, source of LMSW
/// 31:16. `operand` masks the bits that MOV takes. `None` for an access that the controls let pass.
fn control_access(qualification: u64, gp: &GpRegs, operand: u64) -> Option<ControlAccess> {
    let register = *GENERAL.get((qualification >> 8 & 0xF) as usize)?;
    let value = gp.get(register) & operand;
    match (qualification >> 4 & 3, qualification & 0xF) {
        (0, 0) => Some(ControlAccess::WriteCr0(value)),
        (0, 4) => Some(ControlAccess::WriteCr4(value)),
        (0, 8) => Some(ControlAccess::WriteCr8(Some(register))),
        (1, 8) => Some(ControlAccess::ReadCr8(Some(register))),
        (2, _) => Some(ControlAccess::Clts),
        (3, _) => Some(ControlAccess::Lmsw((qualification >> 16) as u16)),
        _ => None,
    }
}

/// The general registers by their number.
const GENERAL: [Gp; 16] = [
    Gp::Rax,
    Gp::Rcx,
    Gp::Rdx,
    Gp::Rbx,
    Gp::Rsp,
    Gp::Rbp,
    Gp::Rsi,
    Gp::Rdi,
    Gp::R8,
    Gp::R9,
    Gp::R10,
    Gp::R11,
    Gp::R12,
    Gp::R13,
    Gp::R14,
    Gp::R15,
];
