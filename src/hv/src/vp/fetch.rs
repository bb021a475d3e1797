//! The bytes of the instruction that exited, read through the guest's own page tables.

use addr::Gva;
use paging::walk::{Access, PagingState, fetch_address, translate};
use vpcore::seam::CodeState;

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
    rip: u64,
    /// RFLAGS.
    pub(super) rflags: u64,
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
        self.paging(&self.backend.code_state())
    }

    fn paging(&self, code: &CodeState) -> PagingState {
        let core = self.partition.core();
        PagingState {
            cr0: code.cr0,
            cr3: code.cr3,
            cr4: code.cr4,
            efer: code.efer,
            rflags: code.rflags,
            // Protection keys do not guard fetches, and nothing else is read through this.
            pkru: 0,
            pkrs: 0,
            cpl: code.cpl,
            phys_bits: core.physical_bits,
            has_gib_pages: core.has_gib_pages,
        }
    }

    /// Reads the longest instruction's bytes at CS:RIP. Fewer where the second page is not there; none where the first is not,
    /// because another processor changed the tables.
    pub(super) fn fetch(&self) -> Fetched {
        let code = self.backend.code_state();
        let state = self.paging(&code);
        let mut fetched = Fetched {
            bytes: [0; INSTRUCTION_MAX],
            len: 0,
            rip: code.rip,
            rflags: code.rflags,
            mode: insn::Mode::of(&code.cs, code.cr0, code.efer),
        };
        let mut at = fetch_address(&code.cs, code.rip, code.efer);
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
}
