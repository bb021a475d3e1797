//! Segment and descriptor-table registers of the guest.
//!
//! VMX access rights have the layout of the TLFS attributes in bits 15:0 and "unusable" in bit 16. Where the two
//! differ, this file settles it so that a state which software can be in never fails the entry check.
//!
//! Source: SDM vol. 3C, "Checks on Guest Segment Registers".

use vpcore::seam::{SegmentName, TableName};
use x86::{Segment, TableRegister};

use super::fields::Field;
use super::vmcs::Vmcs;

/// Access rights: the segment cannot be used.
const UNUSABLE: u32 = 1 << 16;
/// Access rights: bits 11:8 and 31:17 must be clear.
const RIGHTS: u32 = 0xF0FF;
/// Access rights: S, code or data.
const CODE_OR_DATA: u32 = 1 << 4;
/// Access rights: accessed, of a code or data segment.
const ACCESSED: u32 = 1 << 0;
const PRESENT: u32 = Segment::PRESENT as u32;
const GRANULARITY: u32 = 1 << 15;
const TYPE: u32 = 0xF;
const BUSY_TSS_16: u32 = 3;
const BUSY_TSS_32: u32 = 11;
const LDT: u32 = 2;

/// Present, busy, 32-bit or 64-bit TSS: what the entry check wants when TR was never loaded.
const FABRICATED_TASK: Segment = Segment {
    base: 0,
    limit: 0x67,
    selector: 0,
    attributes: 0x8B,
};

/// The four fields of a segment register.
struct Fields {
    selector: Field,
    base: Field,
    limit: Field,
    rights: Field,
}

const fn fields(name: SegmentName) -> Fields {
    let step = 2 * match name {
        SegmentName::Es => 0,
        SegmentName::Cs => 1,
        SegmentName::Ss => 2,
        SegmentName::Ds => 3,
        SegmentName::Fs => 4,
        SegmentName::Gs => 5,
        SegmentName::Ldtr => 6,
        SegmentName::Tr => 7,
    };
    Fields {
        selector: Field(Field::GUEST_ES_SELECTOR.0 + step),
        base: Field(Field::GUEST_ES_BASE.0 + step),
        limit: Field(Field::GUEST_ES_LIMIT.0 + step),
        rights: Field(Field::GUEST_ES_RIGHTS.0 + step),
    }
}

const _: () = assert!(fields(SegmentName::Tr).selector.0 == Field::GUEST_TR_SELECTOR.0);
const _: () = assert!(fields(SegmentName::Cs).rights.0 == Field::GUEST_CS_RIGHTS.0);
const _: () = assert!(fields(SegmentName::Gs).base.0 == Field::GUEST_GS_BASE.0);

/// The segment register `name`. An unusable one has P clear.
pub(super) fn read(vmcs: &Vmcs, name: SegmentName) -> Segment {
    let fields = fields(name);
    let rights = vmcs.read32(fields.rights);
    let usable = if rights & UNUSABLE == 0 {
        rights
    } else {
        rights & !PRESENT
    };
    Segment {
        base: vmcs.read(fields.base),
        limit: vmcs.read32(fields.limit),
        selector: vmcs.read(fields.selector) as u16,
        attributes: (usable & RIGHTS) as u16,
    }
}

/// Sets the segment register `name`. One without P becomes unusable; TR without P becomes a busy TSS at 0, since
/// the hardware knows no unusable TR.
pub(super) fn write(vmcs: &mut Vmcs, name: SegmentName, value: Segment) {
    let value = match name {
        SegmentName::Tr if value.attributes & Segment::PRESENT == 0 => FABRICATED_TASK,
        _ => value,
    };
    let fields = fields(name);
    vmcs.write(fields.selector, u64::from(value.selector));
    vmcs.write(fields.base, value.base);
    vmcs.write(fields.limit, u64::from(value.limit));
    vmcs.write(fields.rights, u64::from(rights(name, value)));
}

/// Access rights of `value` in register `name`.
fn rights(name: SegmentName, value: Segment) -> u32 {
    let given = u32::from(value.attributes) & RIGHTS;
    if given & PRESENT == 0 {
        // The DPL of an unusable SS is still the privilege level.
        return given | UNUSABLE;
    }
    let typed = match name {
        SegmentName::Tr => {
            let busy = if given & TYPE & !2 == BUSY_TSS_16 & !2 {
                BUSY_TSS_16
            } else {
                BUSY_TSS_32
            };
            (given & !(TYPE | CODE_OR_DATA)) | busy
        }
        SegmentName::Ldtr => (given & !(TYPE | CODE_OR_DATA)) | LDT,
        _ => given | CODE_OR_DATA | ACCESSED,
    };
    // Limits above 1 MiB are in pages, and those whose last page is not full in bytes.
    if value.limit > 0xF_FFFF {
        typed | GRANULARITY
    } else if value.limit & 0xFFF != 0xFFF {
        typed & !GRANULARITY
    } else {
        typed
    }
}

/// GDTR or IDTR.
pub(super) fn read_table(vmcs: &Vmcs, name: TableName) -> TableRegister {
    let (base, limit) = table_fields(name);
    TableRegister {
        base: vmcs.read(base),
        limit: vmcs.read(limit) as u16,
    }
}

/// Sets GDTR or IDTR.
pub(super) fn write_table(vmcs: &mut Vmcs, name: TableName, value: TableRegister) {
    let (base, limit) = table_fields(name);
    vmcs.write(base, value.base);
    vmcs.write(limit, u64::from(value.limit));
}

const fn table_fields(name: TableName) -> (Field, Field) {
    match name {
        TableName::Gdtr => (Field::GUEST_GDTR_BASE, Field::GUEST_GDTR_LIMIT),
        TableName::Idtr => (Field::GUEST_IDTR_BASE, Field::GUEST_IDTR_LIMIT),
    }
}

/// The guest's privilege level: the DPL of SS, usable or not, and 0 in real mode.
pub(super) fn cpl(vmcs: &Vmcs) -> u8 {
    (vmcs.read(Field::GUEST_SS_RIGHTS) >> 5 & 3) as u8
}
