//! The world switch as Rust sees it. The instructions are in `entry.S`.
#![expect(unsafe_code, reason = "declares and calls the world switch")]

use core::arch::global_asm;
use core::mem::offset_of;

use x86::GpRegs;

use super::fields::Field;

global_asm!(
    include_str!("entry.S"),
    GP = const offset_of!(EntryFrame, gp),
    HOST_RSP = const offset_of!(EntryFrame, host_rsp),
    HOST_RSP_FIELD = const Field::HOST_RSP.0,
);

/// What the world switch loads and stores.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct EntryFrame {
    /// General registers of the guest. RSP is a copy of the VMCS field.
    pub(super) gp: GpRegs,
    /// What the VMCS field for the host's RSP holds; 0 before the first entry.
    pub(super) host_rsp: u64,
}

const _: () = assert!(offset_of!(EntryFrame, gp) == 0);
const _: () = assert!(size_of::<GpRegs>() == 16 * 8);

unsafe extern "sysv64" {
    fn vmx_enter(frame: *mut EntryFrame, launched: u64) -> u64;
    fn vmx_exit();
}

/// How an attempt to enter the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With an exit; the VMCS says which.
    Exit,
    /// VMfailInvalid: there is no current VMCS.
    NoVmcs,
    /// VMfailValid: the VMCS holds an error number.
    Refused,
}

/// Enters the guest of the current VMCS and returns at its next exit.
///
/// # Safety
/// The current VMCS of this LP must belong to `frame`, with host state that is this LP's present state and
/// [`exit_address`] as RIP; its controls and second-level tables must keep the guest from the hypervisor's memory.
/// `is_launched` says whether the VMCS has been launched since it was cleared.
#[inline(always)]
pub(super) unsafe fn enter(frame: &mut EntryFrame, is_launched: bool) -> Outcome {
    // SAFETY: passed on to the caller.
    match unsafe { vmx_enter(frame, u64::from(is_launched)) } {
        0 => Outcome::Exit,
        1 => Outcome::NoVmcs,
        _ => Outcome::Refused,
    }
}

/// Where the processor goes on after an exit.
pub(super) fn exit_address() -> u64 {
    vmx_exit as *const () as u64
}
