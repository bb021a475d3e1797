//! What a server sends to its partition.

use core::sync::atomic::Ordering;

use addr::VpIndex;
use spin::MutexGuard;
use synic::MessageSource;
use tlfs::Message;
use vmbus::{Bus, Server};

use crate::partition::Partition;
use crate::partition::ports::FrameChunks;

/// Messages of the server for one VP. Keeps the server locked, so that what was looked at is what is taken.
pub struct BusMessages {
    partition: &'static dyn Partition,
    index: VpIndex,
    server: Option<MutexGuard<'static, Option<&'static mut Server>>>,
}

impl BusMessages {
    /// For VP `index` of `partition`.
    pub fn new(partition: &'static dyn Partition, index: VpIndex) -> Self {
        let vmbus = &partition.core().vmbus;
        let server = vmbus.may_have_messages().then(|| vmbus.lock());
        Self {
            partition,
            index,
            server: server.flatten(),
        }
    }

    fn with<R>(&mut self, then: impl FnOnce(&mut Bus<'_, FrameChunks<'_>>) -> R) -> Option<R> {
        let server = self.server.as_mut()?.as_mut()?;
        let mut frames = self.partition.server_frames();
        Some(then(&mut server.with(&mut frames)))
    }
}

impl MessageSource for BusMessages {
    fn waiting(&mut self) -> u16 {
        let index = self.index;
        self.with(|bus| bus.outgoing(index).waiting()).unwrap_or(0)
    }

    fn first(&mut self, sint: usize) -> Option<(Message, bool)> {
        let index = self.index;
        self.with(|bus| bus.outgoing(index).first(sint)).flatten()
    }

    fn pop(&mut self, sint: usize) {
        let index = self.index;
        let left = self.with(|bus| {
            bus.outgoing(index).pop(sint);
            bus.has_message()
        });
        let flag = &self.partition.core().vmbus.has_message;
        flag.store(left.unwrap_or(false), Ordering::SeqCst);
    }
}
