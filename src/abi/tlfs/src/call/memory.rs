//! Guest physical memory (TLFS, "Guest Physical Address Spaces", "Virtual MMU and Caching").

use addr::{Gpa, Gpn, Gva, Gvn, PartitionId, VpIndex};
use bitflags::bitflags;

use crate::wire::{Field, Pad, Vtl, Writer, Zero, blocks, choices, flag_fields};
use crate::{HvError, Reader};

/// Pages in one unit of a large map or unmap.
pub const LARGE_PAGES: u64 = 512;

bitflags! {
    /// How pages are mapped (`HV_MAP_GPA_FLAGS`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MapFlags: u32 {
        /// Reads.
        const READ = 1 << 0;
        /// Writes.
        const WRITE = 1 << 1;
        /// Instruction fetches in kernel mode.
        const KERNEL_EXECUTE = 1 << 2;
        /// Instruction fetches in user mode.
        const USER_EXECUTE = 1 << 3;
        /// The mapping may be changed later. No effect: every mapping may.
        const ADJUSTABLE = 1 << 15;
        /// Declared, but without any access: the list is zeros, and the access bits do not count.
        const NO_ACCESS = 1 << 16;
        /// Uncached.
        const NOT_CACHED = 1 << 21;
        /// Units of [`LARGE_PAGES`]: one element of the list each.
        const LARGE = 1 << 31;
    }
}

bitflags! {
    /// How pages are unmapped.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct UnmapFlags: u32 {
        /// Units of [`LARGE_PAGES`].
        const LARGE = 1 << 1;
    }
}

bitflags! {
    /// What to do to the access states after they were read (`HV_GPA_PAGE_ACCESS_STATE_FLAGS`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AccessStateFlags: u64 {
        /// Clear accessed.
        const CLEAR_ACCESSED = 1 << 0;
        /// Set accessed.
        const SET_ACCESSED = 1 << 1;
        /// Clear dirty.
        const CLEAR_DIRTY = 1 << 2;
        /// Set dirty.
        const SET_DIRTY = 1 << 3;
    }
}

bitflags! {
    /// State of a page, one byte (`HV_GPA_PAGE_ACCESS_STATE`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AccessState: u8 {
        /// Read or written.
        const ACCESSED = 1 << 0;
        /// Written.
        const DIRTY = 1 << 1;
    }
}

bitflags! {
    /// How an address is translated (`HV_TRANSLATE_GVA_CONTROL_FLAGS`, without its VTL).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TranslateFlags: u64 {
        /// A read must be possible.
        const READ = 1 << 0;
        /// A write must be possible.
        const WRITE = 1 << 1;
        /// An instruction fetch must be possible.
        const EXECUTE = 1 << 2;
        /// No checks of user and supervisor.
        const PRIVILEGE_EXEMPT = 1 << 3;
        /// Set accessed and dirty in the guest's tables.
        const SET_PAGE_TABLE_BITS = 1 << 4;
        /// Keep the translation until told otherwise.
        const TLB_FLUSH_INHIBIT = 1 << 5;
        /// As a supervisor access, whatever the VP's mode.
        const SUPERVISOR = 1 << 6;
        /// As a user access, whatever the VP's mode.
        const USER = 1 << 7;
        /// With SMAP in force, whatever RFLAGS.AC.
        const ENFORCE_SMAP = 1 << 8;
        /// Without SMAP.
        const OVERRIDE_SMAP = 1 << 9;
        /// As a shadow stack access.
        const SHADOW_STACK = 1 << 10;
    }
}

flag_fields! { MapFlags: u32; UnmapFlags: u32; AccessStateFlags: u64; AccessState: u8; TranslateFlags: u64; }

choices! {
    /// Outcome of a translation (`HV_TRANSLATE_GVA_RESULT_CODE`).
    TranslateCode: u32 {
        /// Translated.
        Success = 0,
        /// An entry is not present.
        NotPresent = 1,
        /// The access is not allowed.
        PrivilegeViolation = 2,
        /// An entry has reserved bits set.
        InvalidFlags = 3,
        /// The page, or a table's, is not mapped.
        Unmapped = 4,
        /// The page, or a table's, cannot be read.
        NoRead = 5,
        /// The page, or a table's, cannot be written.
        NoWrite = 6,
        /// An overlay page does not allow the access.
        IllegalOverlay = 7,
    }

    /// Outcome of reading or writing guest memory (`HV_ACCESS_GPA_RESULT_CODE`).
    AccessGpaCode: u32 {
        /// Done.
        Success = 0,
        /// Not mapped.
        Unmapped = 1,
        /// Mapped without read access.
        ReadIntercept = 2,
        /// Mapped without write access.
        WriteIntercept = 3,
        /// An overlay page does not allow the access.
        IllegalOverlay = 4,
    }
}

blocks! {
    /// Header of `HvCallMapGpaPages`; list: page numbers of the caller (u64 each).
    MapGpaPages[24] {
        partition: PartitionId,
        /// First page, counted in 4 KiB whatever the unit.
        base: Gpn,
        flags: MapFlags, padding: Pad<4>,
    }

    /// Header of `HvCallUnmapGpaPages`, a rep call without list.
    UnmapGpaPages[24] {
        partition: PartitionId,
        /// First page, counted in 4 KiB whatever the unit.
        base: Gpn,
        flags: UnmapFlags, padding: Pad<4>,
    }

    /// Header of `HvCallGetGpaPagesAccessStates`; output list: [`AccessState`].
    GetAccessStates[24] {
        partition: PartitionId, flags: AccessStateFlags, base: Gpn,
    }

    /// `HvCallTranslateVirtualAddress`; output [`Translation`].
    Translate[32] {
        partition: PartitionId, vp: VpIndex, padding: Zero<4>, flags: TranslateControl, page: Gvn,
    }

    /// Output of `HvCallTranslateVirtualAddress`.
    Translation[16] {
        code: TranslateCode,
        /// See the constants in [`intercept`](crate::intercept).
        cache_type: u8,
        /// The page is an overlay page.
        is_overlay: bool,
        reserved: Zero<2>, page: Gpn,
    }

    /// `HvCallReadGpa`; output [`ReadGpaOutput`]. Also the head of `HvCallWriteGpa`.
    ReadGpa[32] {
        partition: PartitionId, vp: VpIndex, bytes: AccessBytes, gpa: Gpa, cache_type: u8, reserved: Zero<7>,
    }

    /// `HvCallWriteGpa`; output [`AccessGpaOutput`].
    WriteGpa[48] {
        to: ReadGpa,
        /// The first bytes of it are written.
        data: [u8; 16],
    }

    /// Output of `HvCallWriteGpa`.
    AccessGpaOutput[8] {
        code: AccessGpaCode, reserved: Zero<4>,
    }

    /// Output of `HvCallReadGpa`.
    ReadGpaOutput[24] {
        result: AccessGpaOutput, data: [u8; 16],
    }
}

/// Bytes of an access through `HvCallReadGpa` or `HvCallWriteGpa`, 0 to 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessBytes(u8);

impl AccessBytes {
    /// `bytes`, or 16 when there are more.
    pub const fn new(bytes: u8) -> Self {
        Self(if bytes > 16 { 16 } else { bytes })
    }

    /// How many.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl Field for AccessBytes {
    const BYTES: usize = 4;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        match u32::read(r)? {
            bytes @ 0..=16 => Ok(Self(bytes as u8)),
            _ => Err(HvError::INVALID_PARAMETER),
        }
    }
    fn write(self, w: &mut Writer<'_>) {
        u32::from(self.0).write(w);
    }
}

/// [`TranslateFlags`] in bits 55:0 and the VTL in the last byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TranslateControl(pub TranslateFlags);

impl Field for TranslateControl {
    const BYTES: usize = 8;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        let word = r.u64()?;
        Vtl::read(&mut Reader::new(&[(word >> 56) as u8]))?;
        TranslateFlags::from_bits(word & (u64::MAX >> 8))
            .map(Self)
            .ok_or(HvError::INVALID_PARAMETER)
    }
    fn write(self, w: &mut Writer<'_>) {
        self.0.write(w);
    }
}

/// One element of a flush list: a page and how many follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GvaRange(pub u64);

impl GvaRange {
    /// First address.
    pub const fn start(self) -> Gva {
        Gva::new(self.0 & !0xFFF)
    }

    /// Pages, 1 to 4096.
    pub const fn pages(self) -> u64 {
        (self.0 & 0xFFF) + 1
    }
}
