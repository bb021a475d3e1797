//! From exit codes to what happened.
//!
//! Source: AMD APM vol. 2 rev. 3.42, appendix C, "SVM Intercept Exit Codes".

use addr::Gpa;
use vpcore::seam::{ControlAccess, Exit, IoAccess, SlatFault, VpBackend};
use x86::vector;

use super::control::SvmVp;
use super::vmcb::{field, intercept_1};

mod code {
    pub const READ_CR8: u64 = 0x08;
    pub const WRITE_CR8: u64 = 0x18;
    pub const EXCEPTION_0: u64 = 0x40;
    pub const DEBUG: u64 = 0x41;
    pub const MACHINE_CHECK: u64 = 0x52;
    pub const EXCEPTION_31: u64 = 0x5F;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const INIT: u64 = 0x63;
    pub const VINTR: u64 = 0x64;
    pub const RDPMC: u64 = 0x6F;
    pub const CPUID: u64 = 0x72;
    pub const IRET: u64 = 0x74;
    pub const INVD: u64 = 0x76;
    pub const PAUSE: u64 = 0x77;
    pub const HLT: u64 = 0x78;
    pub const INVLPGA: u64 = 0x7A;
    pub const IO: u64 = 0x7B;
    pub const MSR: u64 = 0x7C;
    pub const SHUTDOWN: u64 = 0x7F;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const SKINIT: u64 = 0x86;
    pub const WBINVD: u64 = 0x89;
    pub const MONITOR: u64 = 0x8A;
    pub const MWAIT: u64 = 0x8B;
    pub const MWAIT_ARMED: u64 = 0x8C;
    pub const XSETBV: u64 = 0x8D;
    pub const NESTED_PAGE_FAULT: u64 = 0x400;
    pub const INVALID: u64 = u64::MAX;
    /// The field is 64 bits wide; a processor that fills 32 of them gives this for [`INVALID`].
    pub const INVALID_32: u64 = u32::MAX as u64;
}

/// What the last exit of `vp` means.
#[inline(always)]
pub fn decode(vp: &mut SvmVp) -> Exit {
    let reason = vp.vmcb.read_u64(field::EXIT_CODE);
    match reason {
        code::INTR => Exit::Interrupt,
        code::CPUID => Exit::Cpuid,
        code::MSR if vp.vmcb.read_u64(field::EXIT_INFO_1) & 1 == 0 => Exit::Rdmsr,
        code::MSR => Exit::Wrmsr,
        code::VMMCALL => Exit::Hypercall,
        code::HLT => Exit::Hlt,
        code::VINTR => Exit::InterruptWindow,
        code::IO => Exit::Io(io(vp)),
        code::NESTED_PAGE_FAULT => Exit::Slat(nested_page_fault(vp)),
        code::NMI => Exit::Nmi,
        code::MACHINE_CHECK => Exit::MachineCheck,
        code::IRET => {
            // The guest is at its IRET, not past it: NMIs stay blocked until RIP has moved.
            vp.vmcb
                .set_bits(field::INTERCEPT_1, intercept_1::IRET, false);
            vp.iret_at = Some(vp.vmcb.read_u64(field::RIP));
            Exit::NmiWindow
        }
        code::XSETBV => Exit::Xsetbv,
        code::INVD => Exit::Invd,
        code::WBINVD => Exit::Wbinvd,
        code::MONITOR => Exit::Monitor,
        code::MWAIT | code::MWAIT_ARMED => Exit::Mwait,
        code::INVLPGA | code::VMRUN | code::VMLOAD..=code::SKINIT => Exit::Undefined,
        code::READ_CR8 => Exit::Control(ControlAccess::ReadCr8(None)),
        code::WRITE_CR8 => Exit::Control(ControlAccess::WriteCr8(None)),
        code::DEBUG => debug_exception(vp),
        code::EXCEPTION_0..=code::EXCEPTION_31 => exception(vp),
        // No counter exists for a guest.
        code::RDPMC => Exit::exception(vector::GP, Some(0)),
        code::PAUSE => Exit::Pause,
        code::SHUTDOWN => Exit::TripleFault,
        code::INIT => Exit::Init,
        code::INVALID | code::INVALID_32 => {
            // A flush that this entry was to do may not have been done.
            vp.flush_tlb();
            Exit::InvalidState { detail: 0 }
        }
        _ => Exit::Unknown {
            reason,
            info: vp.vmcb.read_u64(field::EXIT_INFO_1),
        },
    }
}

/// An exception that somebody asked for, or #AC.
#[cold]
fn exception(vp: &SvmVp) -> Exit {
    let number = (vp.vmcb.read_u64(field::EXIT_CODE) - code::EXCEPTION_0) as u8;
    let has_code = vector::WITH_ERROR_CODE >> number & 1 != 0;
    let code = has_code.then(|| vp.vmcb.read_u64(field::EXIT_INFO_1) as u32);
    Exit::exception(number, code)
}

/// The processor has updated DR6 before the exit; what is left is to switch general detection off.
#[cold]
fn debug_exception(vp: &mut SvmVp) -> Exit {
    const GENERAL_DETECT: u64 = 1 << 13;
    let dr7 = vp.vmcb.read_u64(field::DR7);
    vp.vmcb.write_u64(field::DR7, dr7 & !GENERAL_DETECT);
    Exit::exception(vector::DB, None)
}

/// EXITINFO1 of an IOIO exit; EXITINFO2 is the next RIP on every processor.
fn io(vp: &SvmVp) -> IoAccess {
    let info = vp.vmcb.read_u64(field::EXIT_INFO_1);
    IoAccess {
        port: (info >> 16) as u16,
        width: (info >> 4 & 7) as u8,
        is_in: info & 1 != 0,
        is_string: info & 1 << 2 != 0,
        is_rep: info & 1 << 3 != 0,
        next_rip: Some(vp.vmcb.read_u64(field::EXIT_INFO_2)),
    }
}

fn nested_page_fault(vp: &SvmVp) -> SlatFault {
    let info = vp.vmcb.read_u64(field::EXIT_INFO_1);
    SlatFault {
        gpa: Gpa::new(vp.vmcb.read_u64(field::EXIT_INFO_2)),
        gva: None,
        is_protection: info & 1 != 0,
        is_write: info & 1 << 1 != 0,
        is_execute: info & 1 << 4 != 0,
        is_table_walk: info & 1 << 33 != 0,
    }
}
