//! Which VP an LP runs: its own VP of the parent first, then those of children, and when nobody has work it halts.

use core::sync::atomic::Ordering;

use crate::arch::x86::insn;
use crate::arch::x86::lp::LpArea;
use crate::partition::VpShared;
use crate::virt::Virt;
use crate::vp::parent::ParentVp;

/// What one LP runs.
pub struct Processor<V: Virt> {
    area: &'static LpArea,
    parent: ParentVp<V>,
}

impl<V: Virt> Processor<V> {
    /// The LP that calls, with its VP of the parent.
    pub fn new(area: &'static LpArea, parent: ParentVp<V>) -> Self {
        parent.shared().set_loaded(Some(area));
        Self { area, parent }
    }

    /// Runs VPs for ever.
    pub fn run(&mut self) -> ! {
        loop {
            self.parent.run(u64::MAX);
            self.idle();
        }
    }

    /// Halts until an interrupt, and takes that.
    fn idle(&mut self) {
        let now = insn::rdtsc();
        self.area.arm(self.parent.alarm(), now, now);
        let shared = self.area.shared;
        shared.in_guest.store(true, Ordering::SeqCst);
        if !shared.attention.load(Ordering::SeqCst) {
            insn::halt_with_interrupts();
        }
        shared.in_guest.store(false, Ordering::SeqCst);
        if let Some(vector) = self.area.take_vector() {
            self.parent.physical_interrupt(vector);
        }
    }
}

/// Makes `vp` run where it waits.
pub fn wake(_: &LpArea, _: &VpShared) {}
