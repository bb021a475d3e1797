//! The "no EOI required" bit of the VP assist page (TLFS, "Virtual Interrupts", "EOI Assist").
//!
//! The bit says that the interrupt in service may be ended without telling the hypervisor: the guest clears the bit
//! instead. That is only allowed while nothing waits for the end.

use crate::SynicPage;

const NO_EOI: u32 = 1;
const APIC_ASSIST: usize = 0;

/// Whether the bit is out. Used by the LP that runs the VP, while the VP is not running.
#[derive(Clone, Copy, Debug, Default)]
pub struct LazyEoi {
    is_offered: bool,
}

impl LazyEoi {
    /// An interrupt is about to be delivered; `is_edge`: it was edge-triggered; `is_only`: no other interrupt is in
    /// service or requested, and no message waits for an end of interrupt. `page` is the assist page.
    pub fn offer(&mut self, page: Option<&impl SynicPage>, is_edge: bool, is_only: bool) {
        if let Some(page) = page.filter(|_| is_edge && is_only) {
            page.store_u32(APIC_ASSIST, page.load_u32(APIC_ASSIST) | NO_EOI);
            self.is_offered = true;
        }
    }

    /// Whether the guest ended the interrupt by itself, so that the virtual APIC is to do it now. With `withdraw` the
    /// bit is taken back, if it is still there, and the guest will write EOI.
    ///
    /// To be called before anything looks at what is in service; with `withdraw` when another interrupt was requested,
    /// the guest writes EOI or TPR, moves the assist page, or the VP's state is read.
    pub fn settle(&mut self, page: Option<&impl SynicPage>, withdraw: bool) -> bool {
        if !self.is_offered {
            return false;
        }
        let assist = page.map_or(NO_EOI, |page| page.load_u32(APIC_ASSIST));
        let is_ended = assist & NO_EOI == 0;
        if let Some(page) = page.filter(|_| withdraw && !is_ended) {
            page.store_u32(APIC_ASSIST, assist & !NO_EOI);
        }
        self.is_offered = !is_ended && !withdraw;
        is_ended
    }
}
