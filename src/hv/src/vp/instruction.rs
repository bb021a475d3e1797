//! Completing the instruction that exited.

use vpcore::seam::{Register, VpBackend};
use x86::cpuid::CpuidResult;
use x86::{Gp, rflags, vector};

use super::{AnyVp, Erase, Role, Vp};

/// DR6: single step.
const DR6_BS: u64 = 1 << 14;

#[expect(
    private_bounds,
    reason = "the two forms of a VP are this module's matter"
)]
impl<B: VpBackend + ?Sized, R: Role> Vp<B, R>
where
    Self: Erase<R>,
{
    /// RIP after the instruction that exited: from the hardware, or by decoding. `None` when its bytes are gone
    /// or make no instruction: the guest then executes what is there now.
    #[inline(always)]
    pub(super) fn next_rip(&mut self) -> Option<u64> {
        self.backend
            .next_rip()
            .or_else(|| self.erased().decode_next_rip())
    }

    /// Goes on behind the instruction that exited.
    #[inline(always)]
    pub(super) fn skip(&mut self) {
        if let Some(next) = self.next_rip() {
            self.retire(next);
        }
    }

    /// The answer of CPUID into the registers.
    #[inline(always)]
    pub(super) fn finish_cpuid(&mut self, r: CpuidResult) {
        let gp = self.backend.gp_mut();
        gp.set(Gp::Rax, r.eax.into());
        gp.set(Gp::Rbx, r.ebx.into());
        gp.set(Gp::Rcx, r.ecx.into());
        gp.set(Gp::Rdx, r.edx.into());
        self.skip();
    }

    /// Goes on at `next`, with the debug exception that single-stepping asks for.
    #[inline(always)]
    pub(super) fn retire(&mut self, next: u64) {
        self.backend.retire(next);
        if self.backend.get(Register::Rflags) & rflags::TF != 0 {
            self.erased().single_step();
        }
    }
}

impl<R: Role> AnyVp<R> {
    #[cold]
    fn single_step(&mut self) {
        let dr6 = self.backend.get(Register::Dr6);
        self.backend.set(Register::Dr6, dr6 | DR6_BS);
        self.raise(vector::DB, None);
    }

    #[inline(never)]
    fn decode_next_rip(&self) -> Option<u64> {
        let fetched = self.fetch();
        let length = insn::length(fetched.bytes(), fetched.mode).ok()?;
        Some(fetched.end(length))
    }

    /// Whether RIP is at a move to a control register.
    pub(super) fn is_at_move_to_control(&self) -> bool {
        let fetched = self.fetch();
        insn::mov_to_cr(fetched.bytes(), fetched.mode).is_some()
    }
}
