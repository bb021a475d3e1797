//! The registers of a VP after INIT and after a start-up IPI.
//!
//! Source: SDM vol. 3A, "Processor State After Reset" and "Multiple-Processor (MP) Initialization".

use x86::{Gp, GpRegs, Segment, TableRegister, cr0, rflags};

use crate::seam::{Register, SegmentName, TableName, VpBackend};

/// Attributes of a present, accessed, readable and writable data segment.
const DATA: u16 = 0x93;
/// Attributes of a present, accessed, readable code segment.
const CODE: u16 = 0x9B;
/// Attributes of a present local descriptor table.
const LDT: u16 = 0x82;
/// Attributes of a present, busy 32-bit task state segment.
const BUSY_TSS: u16 = 0x8B;

/// PAT after reset.
const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;

/// Sets the registers of `vp` as after reset, where all that [`init`] leaves alone is zero already.
pub fn reset(vp: &mut dyn VpBackend) {
    vp.set(Register::Pat, PAT_AT_RESET);
    init(vp, 0);
}

/// Resets the registers of `vp` as INIT does, and what holds its events back. CD and NW stay as they are; `signature` (CPUID leaf 1, EAX) goes into
/// EDX. Vector state, XCR0, MTRRs, machine-check banks and the time-stamp counter are not touched.
pub fn init(vp: &mut dyn VpBackend, signature: u32) {
    vp.reset_events();
    *vp.gp_mut() = GpRegs::default();
    vp.gp_mut().set(Gp::Rdx, u64::from(signature));
    let caching = vp.get(Register::Cr0) & (cr0::CD | cr0::NW);
    vp.set(Register::Cr0, cr0::ET | caching);
    vp.set(Register::Cr2, 0);
    vp.set(Register::Cr3, 0);
    vp.set(Register::Cr4, 0);
    vp.set(Register::Efer, 0);
    vp.set(Register::Rflags, rflags::FIXED_1);
    vp.set(Register::Rip, 0xFFF0);
    vp.set(Register::Dr6, 0xFFFF_0FF0);
    vp.set(Register::Dr7, 0x400);
    let data = Segment {
        base: 0,
        limit: 0xFFFF,
        selector: 0,
        attributes: DATA,
    };
    for name in [
        SegmentName::Es,
        SegmentName::Ss,
        SegmentName::Ds,
        SegmentName::Fs,
        SegmentName::Gs,
    ] {
        vp.set_segment(name, data);
    }
    vp.set_segment(
        SegmentName::Cs,
        Segment {
            base: 0xFFFF_0000,
            selector: 0xF000,
            attributes: CODE,
            ..data
        },
    );
    vp.set_segment(
        SegmentName::Ldtr,
        Segment {
            attributes: LDT,
            ..data
        },
    );
    vp.set_segment(
        SegmentName::Tr,
        Segment {
            attributes: BUSY_TSS,
            ..data
        },
    );
    let table = TableRegister {
        base: 0,
        limit: 0xFFFF,
    };
    vp.set_table(TableName::Gdtr, table);
    vp.set_table(TableName::Idtr, table);
    vp.flush_tlb();
}

/// Sets CS:IP where a start-up IPI with `vector` lets a VP begin: page `vector` of the first MiB, in real mode.
pub fn start(vp: &mut dyn VpBackend, vector: u8) {
    let base = u64::from(vector) << 12;
    vp.set_segment(
        SegmentName::Cs,
        Segment {
            base,
            limit: 0xFFFF,
            selector: u16::from(vector) << 8,
            attributes: CODE,
        },
    );
    vp.set(Register::Rip, 0);
}
