//! When a level interrupt taken from the physical APIC may be retired there.

use crate::vectors::VectorSet;

/// The level vectors that one logical processor's physical APIC holds in service, and which of them
/// their virtual owners have finished.
///
/// A physical EOI retires the highest vector in service, not the one somebody means. So a vector
/// that was finished out of order waits here until everything above it is finished. A set is enough
/// to know the top: the hardware, too, orders by vector and not by time. For the same reason the
/// structure is bounded, whatever guests do.
///
/// Edge vectors and the hypervisor's own are no entries: they are EOI'd when taken, and are then the
/// highest in service, because the hardware delivers only what is above everything in service.
/// Vectors found in service at launch are entries, edge or level: their guest will EOI them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EoiStack {
    open: VectorSet,
    ready: VectorSet,
}

impl EoiStack {
    /// No vector in service.
    pub const fn new() -> Self {
        Self {
            open: VectorSet::EMPTY,
            ready: VectorSet::EMPTY,
        }
    }

    /// Records that `vector` was taken from the physical APIC as a level interrupt and is in service
    /// there. Recording it again before it was retired makes it unready again.
    pub const fn push(&mut self, vector: u8) {
        self.open.insert(vector);
        self.ready.remove(vector);
    }

    /// Records that the virtual owner of `vector` is done with it. False, and no effect, when it is
    /// not in service here: call it for every virtual EOI, whatever the virtual TMR says, since an
    /// IPI with the same vector can have cleared that bit.
    pub const fn mark_ready(&mut self, vector: u8) -> bool {
        let open = self.open.contains(vector);
        if open {
            self.ready.insert(vector);
        }
        open
    }

    /// Records that every virtual owner is done: INIT, reset of a VP, software-enable of an APIC that
    /// dropped level interrupts.
    pub const fn mark_all_ready(&mut self) {
        self.ready = self.open;
    }

    /// The number of physical EOIs to issue now. They are recorded as issued.
    pub const fn retire(&mut self) -> usize {
        let mut count = 0_usize;
        // At most one round for each vector.
        while let Some(top) = self.open.highest() {
            if !self.ready.contains(top) {
                break;
            }
            self.open.remove(top);
            self.ready.remove(top);
            count = count.saturating_add(1);
        }
        count
    }

    /// Whether nothing recorded is in service.
    pub const fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether `vector` is recorded as in service.
    pub const fn contains(&self, vector: u8) -> bool {
        self.open.contains(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_finished_early_waits_for_those_above_it() {
        let mut stack = EoiStack::new();
        stack.push(0x31);
        stack.push(0x61);
        assert!(stack.mark_ready(0x31));
        assert_eq!(stack.retire(), 0);
        assert!(stack.mark_ready(0x61));
        assert_eq!(stack.retire(), 2);
        assert!(stack.is_empty());
        assert_eq!(stack.retire(), 0);
    }

    #[test]
    fn an_eoi_for_something_else_marks_nothing() {
        let mut stack = EoiStack::new();
        stack.push(0x31);
        assert!(!stack.mark_ready(0x32));
        assert_eq!(stack.retire(), 0);
        assert!(stack.contains(0x31));
    }

    #[test]
    fn a_retired_vector_can_come_again_and_is_not_ready() {
        let mut stack = EoiStack::new();
        stack.push(0x31);
        stack.mark_ready(0x31);
        assert_eq!(stack.retire(), 1);
        stack.push(0x31);
        assert_eq!(stack.retire(), 0);
        stack.mark_all_ready();
        assert_eq!(stack.retire(), 1);
    }

    #[test]
    fn a_vector_recorded_again_is_not_ready() {
        let mut stack = EoiStack::new();
        stack.push(0x31);
        stack.push(0x61);
        stack.mark_ready(0x31);
        stack.push(0x31);
        stack.mark_ready(0x61);
        assert_eq!(stack.retire(), 1);
        assert!(stack.contains(0x31));
    }

    #[test]
    fn all_vectors_at_once_fit_and_leave() {
        let mut stack = EoiStack::new();
        for vector in 16..=255 {
            stack.push(vector);
        }
        stack.mark_all_ready();
        assert_eq!(stack.retire(), 240);
    }
}
