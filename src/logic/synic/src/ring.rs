//! Event rings: port ids that the hypervisor tells a VP, one ring for each source.
//!
//! The producer puts a port id other than 0 at its cursor, the consumer puts 0 there. Each side keeps its cursor to
//! itself, over any number of times that the page goes and comes back.

use tlfs::message::SINT_COUNT;
use tlfs::state::event_ring::{BYTES, ENTRIES, ENTRY_COUNT, RING_FULL, SIGNAL_MASKED};

use crate::delivery::raised;
use crate::{Interrupt, SynicPage, VpSynic};

/// Why a port id did not go into a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The SynIC, the page or the source is off.
    Off,
    /// The ring is full and says so: the consumer will call HvCallNotifyPortRingEmpty. Ring again then.
    Full,
    /// There is no such source.
    NoSuchSint,
}

impl VpSynic<'_> {
    /// Puts `port`, which is not 0, into the ring of `sint` in `page`, the page of [`VpSynic::event_ring_page`], and
    /// tells which interrupt to raise on this VP. A source that is told of by an intercept has none: call
    /// [`VpSynic::service`], which sends a message to SINT 0.
    ///
    /// # Errors
    /// See [`RingError`].
    pub fn ring(
        &mut self,
        sint: usize,
        port: u32,
        page: Option<&impl SynicPage>,
    ) -> Result<Option<Interrupt>, RingError> {
        let source = *self.sints.get(sint).ok_or(RingError::NoSuchSint)?;
        let page = page
            .filter(|_| self.event_ring.is_enabled() && self.takes(source))
            .ok_or(RingError::Off)?;
        let cursor = self
            .ring_cursors
            .get_mut(sint)
            .ok_or(RingError::NoSuchSint)?;
        let ring = sint * BYTES;
        let entry = ring + ENTRIES + usize::from(*cursor) * 4;
        if page.load_u32(entry) != 0 {
            // The consumer may have emptied it before it could see the flag: look again.
            page.or_u8(ring + RING_FULL, 1);
            page.fence();
            if page.load_u32(entry) != 0 {
                return Err(RingError::Full);
            }
        }
        page.store_u32(entry, port);
        *cursor = ((usize::from(*cursor) + 1) % ENTRY_COUNT) as u8;
        // The consumer unmasks, then looks at the entry: one of the two sees the other.
        page.fence();
        let is_masked = page.load_u32(ring) >> (8 * SIGNAL_MASKED) & 0xFF != 0;
        if is_masked {
            Ok(None)
        } else if source.is_intercept() {
            self.rung |= 1 << sint;
            Ok(None)
        } else {
            Ok(raised(source))
        }
    }
}

const _: () = assert!(SINT_COUNT * BYTES == 4096 && ENTRY_COUNT < 256);
