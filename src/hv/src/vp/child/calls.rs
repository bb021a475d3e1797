//! Hypercalls that only a child makes.

use hypercall::{Body, Call, Progress};
use tlfs::HvError;
use tlfs::call::{PARTITION_SELF, StartVp};
use tlfs::register::RegisterName as N;
use vpstate::registers::encode_segment;
use x86::TableRegister;

use super::ChildCore;
use crate::partition::Partition;

impl ChildCore {
    /// Apart from the calls that every guest makes often.
    #[inline(never)]
    pub(super) fn child_call(
        &mut self,
        call: Call,
        body: &mut Body<'_>,
    ) -> Result<Progress, HvError> {
        match call {
            Call::StartVirtualProcessor => self.start_vp(&StartVp::decode(body.header())?),
            _ => Err(HvError::INVALID_HYPERCALL_CODE),
        }
    }

    /// Sets the registers of another VP of the partition, which waits for a SIPI, and lets it go.
    fn start_vp(&mut self, start: &StartVp) -> Result<Progress, HvError> {
        let own = self.partition.core().id;
        if start.partition != PARTITION_SELF && start.partition != own {
            return Err(HvError::INVALID_PARTITION_ID);
        }
        let target = self.partition.vp(start.vp);
        let target = target.ok_or(HvError::INVALID_VP_INDEX)?;
        if start.vp == self.index || !target.shared.inbox.is_held() {
            return Err(HvError::INVALID_VP_STATE);
        }
        // Never waits for another VP's core while it has its own: two could wait for each other.
        let Some(mut core) = target.try_core() else {
            return Ok(Progress::Yield);
        };
        // Another VP may have been first.
        if !target.shared.inbox.is_held() {
            return Err(HvError::INVALID_VP_STATE);
        }
        core.attached(self.lp, |core| {
            let c = &start.context;
            let registers = [
                (N::RIP, u128::from(c.rip)),
                (N::RSP, c.rsp.into()),
                (N::RFLAGS, c.rflags.into()),
                (N::CS, encode_segment(&c.cs)),
                (N::DS, encode_segment(&c.ds)),
                (N::ES, encode_segment(&c.es)),
                (N::FS, encode_segment(&c.fs)),
                (N::GS, encode_segment(&c.gs)),
                (N::SS, encode_segment(&c.ss)),
                (N::TR, encode_segment(&c.tr)),
                (N::LDTR, encode_segment(&c.ldtr)),
                (N::IDTR, encode_table(&c.idtr)),
                (N::GDTR, encode_table(&c.gdtr)),
                (N::EFER, c.efer.into()),
                (N::CR0, c.cr0.into()),
                (N::CR3, c.cr3.into()),
                (N::CR4, c.cr4.into()),
                (N::PAT, c.pat.into()),
                (N::INTERNAL_ACTIVITY_STATE, 0),
            ];
            for (name, value) in registers {
                // It waits for its start: whatever the register asks for is done when it is woken below.
                let _ = core.set_register(name, value)?;
            }
            Ok::<(), HvError>(())
        })?;
        drop(core);
        target.shared.inbox.set_waiting(false);
        self.call(&target.shared);
        Ok(Progress::Done)
    }
}

/// A descriptor table register as the value of its name.
fn encode_table(table: &TableRegister) -> u128 {
    u128::from(table.limit) << 48 | u128::from(table.base) << 64
}
