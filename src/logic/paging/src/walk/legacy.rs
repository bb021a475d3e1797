//! 32-bit paging and PAE paging.

use addr::Gpa;
use x86::cr4;

use super::rights::Rights;
use super::{ADDRESS, Access, Fault, GuestPhysical, P, PS, PagingState, Translation, pf};

/// Bits 62:52 of an entry, which PAE paging reserves.
const PAE_RESERVED: u64 = 0x7FF0_0000_0000_0000;
/// Bits of a PDPTE that are neither P, PWT, PCD, ignored nor address. Bit 5 is reserved too, and not counted: QEMU's
/// emulated processor sets it like the accessed bit of other entries.
const PDPTE_RESERVED: u64 = 0xFFF0_0000_0000_01C6;

/// PAE paging: four PDPTEs, then two levels of 64-bit entries. The PDPTEs are read from memory; the processor
/// keeps the copy that it took when CR3 was loaded.
pub(super) fn pae(
    state: &PagingState,
    mem: &impl GuestPhysical,
    gva: u64,
    access: Access,
) -> Result<Translation, Fault> {
    let at = Gpa::new((state.cr3 & 0xFFFF_FFE0) | ((gva >> 30) << 3));
    let pdpte = mem.read_u64(at).ok_or(Fault::NoTable(at))?;
    if pdpte & P == 0 {
        return Err(state.fault(access, 0));
    }
    let reserved = state.reserved() | PAE_RESERVED;
    if pdpte & ((reserved & ADDRESS) | PDPTE_RESERVED) != 0 {
        return Err(state.fault(access, pf::PRESENT | pf::RESERVED));
    }
    // A PDPTE of this mode holds no rights.
    let mut rights = Rights::ALL;
    let mut table = pdpte & ADDRESS;
    for shift in [21, 12] {
        let at = Gpa::new(table | (((gva >> shift) & 511) << 3));
        let entry = mem.read_u64(at).ok_or(Fault::NoTable(at))?;
        if entry & P == 0 {
            return Err(state.fault(access, 0));
        }
        let large = shift == 21 && entry & PS != 0;
        if entry & reserved != 0 || (large && entry & 0x001F_E000 != 0) {
            return Err(state.fault(access, pf::PRESENT | pf::RESERVED));
        }
        rights.narrow(entry);
        if large || shift == 12 {
            let page_bytes = 1u64 << shift;
            let offset = page_bytes - 1;
            rights.check(state, access, None)?;
            return Ok(rights.translation(
                Gpa::new((entry & ADDRESS & !offset) | (gva & offset)),
                page_bytes,
            ));
        }
        table = entry & ADDRESS;
    }
    // The second level always returns above.
    Err(state.fault(access, 0))
}

/// 32-bit paging: two levels of 32-bit entries, with 4 MiB pages of up to 40 address bits (PSE-36).
pub(super) fn two_level(
    state: &PagingState,
    mem: &impl GuestPhysical,
    gva: u64,
    access: Access,
) -> Result<Translation, Fault> {
    let read = |at: u64| {
        let at = Gpa::new(at);
        let entry = mem.read_u32(at).ok_or(Fault::NoTable(at))?;
        if u64::from(entry) & P == 0 {
            Err(state.fault(access, 0))
        } else {
            Ok(u64::from(entry))
        }
    };
    let mut rights = Rights::ALL;
    let pde = read((state.cr3 & 0xFFFF_F000) | ((gva >> 22) << 2))?;
    rights.narrow(pde);
    let (base, page_bytes) = if pde & PS != 0 && state.cr4 & cr4::PSE != 0 {
        // Bits 20:13 are address bits 39:32; bit 21, and those beyond the physical width, are reserved.
        let base = (pde & 0xFFC0_0000) | ((pde & 0x001F_E000) << 19);
        if pde & (1 << 21) != 0 || base >> state.phys_bits.clamp(32, 40) != 0 {
            return Err(state.fault(access, pf::PRESENT | pf::RESERVED));
        }
        (base, 4u64 << 20)
    } else {
        let pte = read((pde & 0xFFFF_F000) | (((gva >> 12) & 1023) << 2))?;
        rights.narrow(pte);
        (pte & 0xFFFF_F000, 4096)
    };
    rights.check(state, access, None)?;
    Ok(rights.translation(Gpa::new(base | (gva & (page_bytes - 1))), page_bytes))
}
