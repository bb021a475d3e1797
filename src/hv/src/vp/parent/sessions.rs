//! The parent's VP as the one for whom requests of channels are carried out.

use hypercall::{Body, CALLS, Call, Handler, Outcome, Progress};
use tlfs::{Control, HvError};

use super::ParentVp;
use crate::arch::x86::insn;
use crate::arch::x86::lp::{LpArea, NEVER};
use crate::partition::ParentPartition;

impl ParentVp {
    /// Goes on with the work in channels that is due.
    #[inline(always)]
    pub(super) fn serve_sessions(&mut self) {
        let due = self.role.work.due();
        if due != NEVER && due <= insn::rdtsc() {
            // Nothing is added meanwhile: it is this VP that signals.
            let mut work = core::mem::take(&mut self.role.work);
            work.serve(self);
            self.role.work = work;
        }
    }

    /// Its LP.
    pub fn lp(&self) -> &'static LpArea {
        self.lp
    }

    /// The parent.
    pub fn parent(&self) -> &'static ParentPartition {
        self.partition
    }

    /// Carries out a piece of a hypercall, as if the VP had made it.
    pub fn carry_out_request(
        &mut self,
        control: Control,
        input: &[u8],
        output: &mut [u8],
    ) -> (Outcome, usize) {
        let privileges = self.identity.privileges;
        hypercall::dispatch_buffers(&CALLS, privileges, control, input, output, &mut Calls(self))
    }
}

/// The calls about children; those that a guest makes about itself mean the VP that makes them.
struct Calls<'a>(&'a mut ParentVp);

impl Handler<Call> for Calls<'_> {
    fn handle(&mut self, call: Call, body: &mut Body<'_>) -> Result<Progress, HvError> {
        self.0.parent_call(call, body)
    }
}
