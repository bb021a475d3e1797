//! Building a VMCS: controls, masks, and the guest state that no register of the seam covers.
//!
//! Source: SDM vol. 3C, "VM-Execution Control Fields" and the two sections after it.

use bootinfo::Status;
use vpcore::seam::Role;
use vpcore::startup;
use x86::{cr0, cr4};

use super::caps::Capabilities;
use super::fields::{Field, secondary};
use super::{VmxBitmaps, VmxVp};
use crate::virt::always_trapped;

/// CR0 bits that the hypervisor owns.
pub(super) const CR0_OWNED: u64 = cr0::NE | cr0::CD | cr0::NW;
/// CR4 bits that the hypervisor owns.
pub(super) const CR4_OWNED: u64 = cr4::VMXE;

/// A child's PAT as the hardware has it: every entry is write-back.
const PAT_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
/// PAUSE instructions at most this many ticks apart make a loop, and a loop of so many ticks an exit.
const PAUSE_GAP: u32 = 128;
const PAUSE_WINDOW: u32 = 4096;

/// Fills the VMCS of `vp`, which is current, with everything but the host state.
pub(super) fn build(
    vp: &mut VmxVp,
    caps: &Capabilities,
    bitmaps: &VmxBitmaps,
) -> Result<(), Status> {
    write_controls(vp, caps, bitmaps)?;
    vp.vmcs.try_write(Field::CR0_MASK, CR0_OWNED)?;
    vp.vmcs.try_write(Field::CR4_MASK, CR4_OWNED)?;
    reset_guest(vp)
}

fn write_controls(vp: &mut VmxVp, caps: &Capabilities, bitmaps: &VmxBitmaps) -> Result<(), Status> {
    let (mut secondary, mut entry) = (caps.secondary, caps.entry);
    if vp.role == Role::Child {
        secondary |= caps.child_secondary;
        entry |= caps.load_cet;
    }
    let controls = [
        (Field::PIN_CONTROLS, caps.pin),
        (Field::PRIMARY_CONTROLS, vp.primary),
        (Field::SECONDARY_CONTROLS, secondary),
        (Field::EXIT_CONTROLS, caps.exit),
        (Field::ENTRY_CONTROLS, entry),
        (Field::EXCEPTION_BITMAP, always_trapped(vp.role)),
        (Field::PAGE_FAULT_MASK, 0),
        (Field::PAGE_FAULT_MATCH, 0),
        (Field::CR3_TARGET_COUNT, 0),
        (Field::EXIT_MSR_STORE_COUNT, 0),
        (Field::EXIT_MSR_LOAD_COUNT, 0),
        (Field::ENTRY_MSR_LOAD_COUNT, 0),
        (Field::ENTRY_EVENT, 0),
    ];
    for (field, value) in controls {
        vp.vmcs.try_write(field, u64::from(value))?;
    }
    let addresses = [
        (Field::IO_BITMAP_A, bitmaps.io_a().get()),
        (Field::IO_BITMAP_B, bitmaps.io_b().get()),
        (Field::MSR_BITMAP, bitmaps.msr().get()),
        (Field::TSC_OFFSET, 0),
        (Field::EPT_POINTER, vp.translations.eptp),
    ];
    for (field, value) in addresses {
        vp.vmcs.try_write(field, value)?;
    }
    let optional = [
        // What IA32_XSS may hold is decided where it is written.
        (secondary::XSAVES, Field::XSS_EXITING_BITMAP, 0),
        (
            secondary::ENCLS_EXITING,
            Field::ENCLS_EXITING_BITMAP,
            u64::MAX,
        ),
        (
            secondary::PAUSE_LOOP_EXITING,
            Field::PAUSE_GAP,
            PAUSE_GAP.into(),
        ),
        (
            secondary::PAUSE_LOOP_EXITING,
            Field::PAUSE_WINDOW,
            PAUSE_WINDOW.into(),
        ),
    ];
    for (control, field, value) in optional {
        if secondary & control != 0 {
            vp.vmcs.try_write(field, value)?;
        }
    }
    if entry & caps.load_cet != 0 {
        for field in [
            Field::GUEST_S_CET,
            Field::GUEST_SSP,
            Field::GUEST_INTERRUPT_SSP_TABLE,
        ] {
            vp.vmcs.try_write(field, 0)?;
        }
    }
    Ok(())
}

/// The state that reset leaves (SDM vol. 3A, "Processor State After Reset").
fn reset_guest(vp: &mut VmxVp) -> Result<(), Status> {
    let fields = [
        Field::INTERRUPTIBILITY,
        Field::ACTIVITY,
        Field::PENDING_DEBUG,
        Field::GUEST_RSP,
        Field::GUEST_EFER,
        Field::GUEST_SYSENTER_CS,
        Field::GUEST_SYSENTER_ESP,
        Field::GUEST_SYSENTER_EIP,
        Field::GUEST_DEBUGCTL,
    ];
    for field in fields {
        vp.vmcs.try_write(field, 0)?;
    }
    vp.vmcs.try_write(Field::LINK_POINTER, u64::MAX)?;
    vp.vmcs.try_write(Field::GUEST_PAT, PAT_WRITE_BACK)?;
    startup::reset(vp);
    Ok(())
}
