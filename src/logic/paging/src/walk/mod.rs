//! Walking a guest's own page tables in software: guest virtual to guest physical, in every paging mode.
//!
//! The walk reads each table entry once and writes nothing: accessed and dirty bits stay as they are. That is
//! sound for what it is used for. An instruction that caused an exit has been fetched by the processor through
//! the same entries just before, so their accessed bits are set already, and the bytes are only read again.
//! A caller that writes guest memory through a translation would have to set the dirty bit itself.
//!
//! Tables are read from guest memory, so a guest that changes them meanwhile, or relies on a stale TLB entry or
//! on PDPTE registers that differ from memory, gets the translation of its current tables. It can only mislead
//! itself: the result is a guest physical address, which is checked like any other.
//!
//! Sources: Intel SDM vol. 3A, "Paging"; AMD APM vol. 2, "Page Translation and Protection".

use addr::{Gpa, Gva};
use x86::{cr0, cr4, efer, rflags};

mod fetch;
mod legacy;
mod rights;

pub use fetch::{fetch, fetch_address};

use rights::Rights;

/// A guest's physical memory, as far as its page tables need it.
pub trait GuestPhysical {
    /// The 8 bytes at `gpa`, a multiple of 8, or `None` when no memory is there.
    fn read_u64(&self, gpa: Gpa) -> Option<u64>;
    /// The 4 bytes at `gpa`, a multiple of 4, or `None` when no memory is there.
    fn read_u32(&self, gpa: Gpa) -> Option<u32>;
}

/// The registers of a VP that decide how it translates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagingState {
    /// CR0 as the guest sees it.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// EFER as the guest sees it. LMA decides between the 32-bit and the 64-bit modes.
    pub efer: u64,
    /// RFLAGS, for AC.
    pub rflags: u64,
    /// PKRU; 0 where the guest has no protection keys.
    pub pkru: u32,
    /// IA32_PKRS; 0 where the guest has no supervisor keys.
    pub pkrs: u32,
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// Width of a guest physical address in bits, 32 to 52. Address bits above it are reserved.
    pub phys_bits: u8,
    /// Whether the guest's CPUID offers 1 GiB pages. Without them bit 7 of a PDPTE is reserved.
    pub has_gib_pages: bool,
}

/// What is done at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An instruction reads it.
    Read,
    /// An instruction writes it.
    Write,
    /// It is fetched as an instruction.
    Execute,
    /// The processor reads a system structure (GDT, IDT, TSS): a supervisor access at any CPL.
    ImplicitRead,
    /// The processor writes a system structure.
    ImplicitWrite,
}

/// The translation of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// What the address translates to.
    pub gpa: Gpa,
    /// Size in bytes of the page that holds it: 4 KiB, 2 MiB, 4 MiB or 1 GiB; 4 KiB without paging. The
    /// translation holds for the rest of that page.
    pub page_bytes: u64,
    /// User mode may use the page.
    pub user: bool,
    /// The tables allow writing.
    pub writable: bool,
    /// The tables allow execution.
    pub executable: bool,
}

/// Why an address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A page fault (#PF) with this error code. The faulting address is the one that was asked for.
    Page {
        /// Error code as the processor would push it.
        error_code: u32,
    },
    /// The address is not canonical: #GP, or #SS for a stack access.
    NonCanonical,
    /// A table lies at a guest physical address without memory.
    NoTable(Gpa),
}

/// Translates `gva` for `access`, by at most five reads of guest memory. Outside the 64-bit modes only its
/// low 32 bits count.
///
/// # Errors
/// The [`Fault`] that the processor would raise, or that a table could not be read.
pub fn translate(
    state: &PagingState,
    mem: &impl GuestPhysical,
    gva: Gva,
    access: Access,
) -> Result<Translation, Fault> {
    if state.cr0 & cr0::PG == 0 {
        return Ok(Translation {
            gpa: Gpa::new(gva.get() & 0xFFFF_FFFF),
            page_bytes: 4096,
            user: true,
            writable: true,
            executable: true,
        });
    }
    if state.efer & efer::LMA != 0 {
        long(state, mem, gva.get(), access)
    } else if state.cr4 & cr4::PAE != 0 {
        legacy::pae(state, mem, gva.get() & 0xFFFF_FFFF, access)
    } else {
        legacy::two_level(state, mem, gva.get() & 0xFFFF_FFFF, access)
    }
}

const P: u64 = 1 << 0;
const PS: u64 = 1 << 7;
const NX: u64 = 1 << 63;
/// Physical address bits 51:12.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

impl PagingState {
    fn has_nx(&self) -> bool {
        self.efer & efer::NXE != 0
    }

    /// Address bits of an entry that must be zero, with NX while it is off.
    fn reserved(&self) -> u64 {
        let width = u32::from(self.phys_bits.clamp(32, 52));
        let address = ADDRESS & !((1 << width) - 1);
        if self.has_nx() { address } else { address | NX }
    }

    fn allows_explicit_user_data(&self) -> bool {
        self.cr4 & cr4::SMAP == 0 || self.rflags & rflags::AC != 0
    }

    fn is_user(&self, access: Access) -> bool {
        self.cpl == 3 && !matches!(access, Access::ImplicitRead | Access::ImplicitWrite)
    }

    /// The page fault for `access` with `cause`, some of the bits of [`pf`].
    fn fault(&self, access: Access, cause: u32) -> Fault {
        let mut error_code = cause;
        match access {
            Access::Write | Access::ImplicitWrite => error_code |= pf::WRITE,
            // The bit is only defined where the processor can refuse a fetch.
            Access::Execute
                if self.cr4 & cr4::SMEP != 0 || (self.has_nx() && self.cr4 & cr4::PAE != 0) =>
            {
                error_code |= pf::FETCH;
            }
            _ => {}
        }
        if self.is_user(access) {
            error_code |= pf::USER;
        }
        Fault::Page { error_code }
    }
}

/// Bits of a page fault's error code.
pub mod pf {
    #![allow(missing_docs, reason = "named as in the manuals")]
    pub const PRESENT: u32 = 1 << 0;
    pub const WRITE: u32 = 1 << 1;
    pub const USER: u32 = 1 << 2;
    pub const RESERVED: u32 = 1 << 3;
    pub const FETCH: u32 = 1 << 4;
    pub const KEY: u32 = 1 << 5;
}

/// 4-level and 5-level paging.
fn long(
    state: &PagingState,
    mem: &impl GuestPhysical,
    gva: u64,
    access: Access,
) -> Result<Translation, Fault> {
    let levels: u32 = if state.cr4 & cr4::LA57 != 0 { 5 } else { 4 };
    let unused = 64 - (12 + 9 * levels);
    if ((gva << unused) as i64 >> unused) as u64 != gva {
        return Err(Fault::NonCanonical);
    }
    let reserved = state.reserved();
    let mut rights = Rights::ALL;
    let mut table = state.cr3 & ADDRESS;
    for level in (1..=levels).rev() {
        let shift = 12 + 9 * (level - 1);
        let at = Gpa::new(table | (((gva >> shift) & 511) << 3));
        let entry = mem.read_u64(at).ok_or(Fault::NoTable(at))?;
        if entry & P == 0 {
            return Err(state.fault(access, 0));
        }
        let large = level > 1 && entry & PS != 0;
        let wrong = match (large, level) {
            (false, _) => 0,
            (true, 2) => 0x001F_E000,
            (true, 3) if state.has_gib_pages => 0x3FFF_E000,
            (true, _) => PS,
        };
        if entry & (reserved | wrong) != 0 {
            return Err(state.fault(access, pf::PRESENT | pf::RESERVED));
        }
        rights.narrow(entry);
        if large || level == 1 {
            let page_bytes = 1u64 << shift;
            let offset = page_bytes - 1;
            rights.check(state, access, Some((entry >> 59) as u32 & 15))?;
            let gpa = Gpa::new((entry & ADDRESS & !offset) | (gva & offset));
            return Ok(rights.translation(gpa, page_bytes));
        }
        table = entry & ADDRESS;
    }
    // The lowest level always returns above.
    Err(state.fault(access, 0))
}
