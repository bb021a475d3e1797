//! Building a VMCS: controls, masks, and the guest state that no register of the seam covers.
//!
//! Source: SDM vol. 3C, "VM-Execution Control Fields" and the two sections after it.
#![expect(
    unsafe_code,
    reason = "makes a VMCS on an LP whose VMX operation the caller promises"
)]

use bootinfo::Status;
use vpcore::seam::{FrameSource, Register, SegmentName, TableName};
use x86::{GpRegs, Segment, TableRegister, cr0, cr4, rflags, vector};

use super::caps::Capabilities;
use super::enable::Enabled;
use super::entry::EntryFrame;
use super::fields::{Field, secondary};
use super::slat::Translations;
use super::vmcs::Vmcs;
use super::{Shared, VmxVp, host, pending};

/// CR0 bits that the hypervisor owns.
pub(super) const CR0_OWNED: u64 = cr0::NE | cr0::CD | cr0::NW;
/// CR4 bits that the hypervisor owns.
pub(super) const CR4_OWNED: u64 = cr4::VMXE;

/// PAT after reset.
const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;
/// DR7 after INIT.
const DR7_AT_INIT: u64 = 0x400;

/// A new VP; see [`VmxVp::new`].
pub(super) fn build(
    enabled: Enabled,
    frames: &mut dyn FrameSource,
    shared: &Shared<'_>,
) -> Result<VmxVp, Status> {
    let caps = Capabilities::read()?;
    let translations = Translations::new(&caps, shared.slat_root, shared.slat_levels, shared.tag)?;
    // SAFETY: `enabled` is this LP's VMX operation and goes into the VP, which does not leave the LP.
    let mut vmcs = unsafe { Vmcs::new(frames, caps.revision) }?;

    write_controls(&mut vmcs, &caps, shared, &translations)?;
    write_masks(&mut vmcs)?;
    host::write(&mut vmcs)?;

    let mut vp = VmxVp {
        frame: EntryFrame {
            gp: GpRegs::default(),
            host_rsp: 0,
        },
        vmcs,
        rsp: 0,
        // An earlier life of this VPID or of the tables may have left translations behind.
        pending: pending::FLUSH_ALL,
        is_launched: false,
        reason: 0,
        has_interrupted: false,
        primary: caps.primary,
        translations,
        // An unrestricted guest may run without protection and paging.
        cr0: caps.cr0.without(cr0::PE | cr0::PG),
        cr4: caps.cr4,
        _enabled: enabled,
    };
    reset_guest(&mut vp)?;
    Ok(vp)
}

fn write_controls(
    vmcs: &mut Vmcs,
    caps: &Capabilities,
    shared: &Shared<'_>,
    translations: &Translations,
) -> Result<(), Status> {
    let controls = [
        (Field::PIN_CONTROLS, caps.pin),
        (Field::PRIMARY_CONTROLS, caps.primary),
        (Field::SECONDARY_CONTROLS, caps.secondary),
        (Field::EXIT_CONTROLS, caps.exit),
        (Field::ENTRY_CONTROLS, caps.entry),
        // Machine checks belong to the hypervisor; every other exception is the guest's own.
        (Field::EXCEPTION_BITMAP, 1 << vector::MC),
        (Field::PAGE_FAULT_MASK, 0),
        (Field::PAGE_FAULT_MATCH, 0),
        (Field::CR3_TARGET_COUNT, 0),
        (Field::EXIT_MSR_STORE_COUNT, 0),
        (Field::EXIT_MSR_LOAD_COUNT, 0),
        (Field::ENTRY_MSR_LOAD_COUNT, 0),
        (Field::ENTRY_EVENT, 0),
    ];
    for (field, value) in controls {
        vmcs.try_write(field, u64::from(value))?;
    }
    vmcs.try_write(Field::IO_BITMAP_A, shared.bitmaps.io_a().get())?;
    vmcs.try_write(Field::IO_BITMAP_B, shared.bitmaps.io_b().get())?;
    vmcs.try_write(Field::MSR_BITMAP, shared.bitmaps.msr().get())?;
    vmcs.try_write(Field::TSC_OFFSET, 0)?;
    vmcs.try_write(Field::EPT_POINTER, translations.eptp)?;
    if let Some(vpid) = translations.vpid {
        vmcs.try_write(Field::VPID, u64::from(vpid))?;
    }
    if caps.secondary & secondary::XSAVES != 0 {
        vmcs.try_write(Field::XSS_EXITING_BITMAP, 0)?;
    }
    Ok(())
}

fn write_masks(vmcs: &mut Vmcs) -> Result<(), Status> {
    vmcs.try_write(Field::CR0_MASK, CR0_OWNED)?;
    vmcs.try_write(Field::CR4_MASK, CR4_OWNED)
}

/// The state that INIT leaves (SDM vol. 3A, "Processor State After Reset"), RIP and CS as after a start-up IPI
/// to page 0.
fn reset_guest(vp: &mut VmxVp) -> Result<(), Status> {
    vp.vmcs.try_write(Field::LINK_POINTER, u64::MAX)?;
    vp.vmcs.try_write(Field::INTERRUPTIBILITY, 0)?;
    vp.vmcs.try_write(Field::ACTIVITY, 0)?;
    vp.vmcs.try_write(Field::PENDING_DEBUG, 0)?;
    vp.vmcs.try_write(Field::GUEST_RSP, 0)?;
    vp.vmcs.try_write(Field::GUEST_CR3, 0)?;
    vp.vmcs.try_write(Field::GUEST_EFER, 0)?;
    let registers = [
        (Register::Rip, 0),
        (Register::Rflags, rflags::FIXED_1),
        (Register::Cr0, cr0::AT_INIT),
        (Register::Cr4, 0),
        (Register::Dr7, DR7_AT_INIT),
        (Register::Pat, PAT_AT_RESET),
        (Register::SysenterCs, 0),
        (Register::SysenterEsp, 0),
        (Register::SysenterEip, 0),
        (Register::DebugCtl, 0),
    ];
    for (register, value) in registers {
        vp.set_register(register, value);
    }

    let data = Segment {
        base: 0,
        limit: 0xFFFF,
        selector: 0,
        attributes: 0x93,
    };
    let segments = [
        (SegmentName::Es, data),
        (
            SegmentName::Cs,
            Segment {
                attributes: 0x9B,
                ..data
            },
        ),
        (SegmentName::Ss, data),
        (SegmentName::Ds, data),
        (SegmentName::Fs, data),
        (SegmentName::Gs, data),
        (
            SegmentName::Ldtr,
            Segment {
                attributes: 0x82,
                ..data
            },
        ),
        (
            SegmentName::Tr,
            Segment {
                attributes: 0x8B,
                ..data
            },
        ),
    ];
    for (name, segment) in segments {
        super::segments::write(&mut vp.vmcs, name, segment);
    }
    for name in [TableName::Gdtr, TableName::Idtr] {
        super::segments::write_table(
            &mut vp.vmcs,
            name,
            TableRegister {
                base: 0,
                limit: 0xFFFF,
            },
        );
    }
    Ok(())
}
