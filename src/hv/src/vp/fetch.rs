//! The bytes of the instruction that exited, read through the guest's own page tables.

use addr::Gva;
use paging::walk::{Access, PagingState, fetch_address, translate};
use vpcore::seam::{Register, SegmentName};

use super::{AnyVp, Role};
use crate::partition::{Partition, TableMemory};

/// Longest instruction in bytes.
const INSTRUCTION_MAX: usize = insn::LENGTH_MAX;

/// Instruction bytes: as many as could be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    bytes: [u8; INSTRUCTION_MAX],
    len: usize,
    /// RIP, where they lie.
    pub(super) rip: u64,
    /// The mode that they are decoded in.
    pub(super) mode: insn::Mode,
}

impl Fetched {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// RIP behind the first `length` bytes.
    pub(super) fn end(&self, length: u8) -> u64 {
        let end = self.rip.wrapping_add(u64::from(length));
        if self.mode == insn::Mode::Bits64 {
            end
        } else {
            end & 0xFFFF_FFFF
        }
    }
}

impl<R: Role> AnyVp<R> {
    /// How the VP translates addresses now.
    pub(super) fn paging_state(&self) -> PagingState {
        let get = |register| self.backend.get(register);
        PagingState {
            cr0: get(Register::Cr0),
            cr3: get(Register::Cr3),
            cr4: get(Register::Cr4),
            efer: get(Register::Efer),
            rflags: get(Register::Rflags),
            // Protection keys do not guard fetches, and nothing else is read through this.
            pkru: 0,
            pkrs: 0,
            cpl: self.backend.cpl(),
            phys_bits: self.partition.core().physical_bits,
            has_gib_pages: self.partition.core().has_gib_pages,
        }
    }

    /// Reads the longest instruction's bytes at CS:RIP. Fewer where the second page is not there; none where the first is not,
    /// because another processor changed the tables.
    pub(super) fn fetch(&self) -> Fetched {
        let state = self.paging_state();
        let cs = self.backend.segment(SegmentName::Cs);
        let mut fetched = Fetched {
            bytes: [0; INSTRUCTION_MAX],
            len: 0,
            rip: self.backend.get(Register::Rip),
            mode: insn::Mode::of(&cs, state.cr0, state.efer),
        };
        let mut at = fetch_address(&cs, fetched.rip, state.efer);
        while fetched.len < INSTRUCTION_MAX {
            let Ok(found) = translate(&state, &TableMemory(self.partition), at, Access::Execute)
            else {
                break;
            };
            let count = (INSTRUCTION_MAX - fetched.len).min(4096 - at.page_offset());
            let Some(buffer) = fetched.bytes.get_mut(fetched.len..fetched.len + count) else {
                break;
            };
            if self.partition.read(found.gpa, buffer).is_err() {
                break;
            }
            fetched.len += count;
            let Some(next) = at.get().checked_add(count as u64) else {
                break;
            };
            at = Gva::new(next);
        }
        fetched
    }

    /// The mode that instruction bytes are decoded in.
    pub(super) fn code_mode(&self) -> insn::Mode {
        let cs = self.backend.segment(SegmentName::Cs);
        insn::Mode::of(
            &cs,
            self.backend.get(Register::Cr0),
            self.backend.get(Register::Efer),
        )
    }
}
