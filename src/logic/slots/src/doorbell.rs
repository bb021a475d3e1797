//! When the worker is interrupted.

use core::sync::atomic::{AtomicBool, Ordering};

use ring::RingMem;
use ring_proto::Control;

/// A bit of the hypervisor's own, changed by several LPs.
pub trait Flag {
    /// Sets it; true when it was set before. No access passes it either way, nor a later load before it.
    fn set(&self) -> bool;
    /// Clears it, with the same order.
    fn clear(&self);
}

impl Flag for AtomicBool {
    fn set(&self) -> bool {
        self.swap(true, Ordering::SeqCst)
    }
    fn clear(&self) {
        self.swap(false, Ordering::SeqCst);
    }
}

/// The doorbell of one channel: at most one interrupt for each time that user space asks for it.
///
/// `uio_hv_generic` neither masks its interrupt nor knows why it came. User space asks for the next one with its signal
/// (`write(fd, 1)`), before which the kernel clears the mask of the downstream ring. While it is awake it says so in
/// [`Control::Attended`]: its requests are signals too, and their answers need no interrupt. Before it sleeps it clears that
/// field, signals if it has not done so since the last interrupt, and looks once more at ring and event area.
#[derive(Debug, Default)]
pub struct Doorbell<F = AtomicBool> {
    rung: F,
}

impl<F: Flag> Doorbell<F> {
    /// Over a flag that is clear.
    pub const fn new(rung: F) -> Self {
        Self { rung }
    }

    /// To be called after each change that user space may wait for: in the event area, in either ring. Whether the
    /// channel must be interrupted now. `downstream` is the ring towards user space.
    #[must_use]
    pub fn ring(&self, downstream: &impl RingMem) -> bool {
        // The change before, the mask after: user space does these in the other order.
        downstream.fence();
        downstream.control(Control::InterruptMask) == 0
            && downstream.control(Control::Attended) == 0
            && !self.rung.set()
    }

    /// User space signalled the channel, perhaps to ask for the next interrupt.
    pub fn signalled(&self, downstream: &impl RingMem) {
        if downstream.control(Control::InterruptMask) == 0 {
            self.rung.clear();
            downstream.fence();
        }
    }

    /// A session begins: the next change interrupts.
    pub fn reset(&self) {
        self.rung.clear();
    }
}
