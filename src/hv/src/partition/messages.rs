//! Where messages for a VP come from that lie in no queue of its own.

use addr::VpIndex;
use ports::VpMessages;
use synic::MessageSource;
use tlfs::Message;

use super::Partition;
use super::ports::{FrameChunks, LockedPorts};

/// Messages at the ports of one VP. Keeps the ports of its partition locked, so that what was looked at is what is taken.
pub struct PortMessages<P: Partition> {
    partition: &'static P,
    index: VpIndex,
    ports: Option<LockedPorts<'static>>,
}

impl<P: Partition> PortMessages<P> {
    /// For VP `index` of `partition`.
    pub fn new(partition: &'static P, index: VpIndex) -> Self {
        let links = &partition.core().links;
        let ports = links.may_have_messages().then(|| links.ports().ok());
        Self {
            partition,
            index,
            ports: ports.flatten(),
        }
    }

    fn with<R>(
        &mut self,
        take: impl FnOnce(&mut VpMessages<'_, FrameChunks<'_>>) -> R,
    ) -> Option<R> {
        let ports = self.ports.as_mut()?;
        let mut chunks = self.partition.chunks();
        Some(take(&mut ports.messages(self.index, &mut chunks)))
    }
}

impl<P: Partition> MessageSource for PortMessages<P> {
    fn waiting(&mut self) -> u16 {
        self.with(|messages| messages.waiting()).unwrap_or(0)
    }

    fn first(&mut self, sint: usize) -> Option<(Message, bool)> {
        self.with(|messages| messages.first(sint)).flatten()
    }

    fn pop(&mut self, sint: usize) {
        let _ = self.with(|messages| messages.pop(sint));
    }
}

/// Messages of two sources, of which the first goes first.
pub struct Both<A, B> {
    first: A,
    second: B,
    is_second: bool,
}

impl<A, B> Both<A, B> {
    /// Both of them.
    pub const fn new(first: A, second: B) -> Self {
        Self {
            first,
            second,
            is_second: false,
        }
    }
}

impl<A: MessageSource, B: MessageSource> MessageSource for Both<A, B> {
    fn waiting(&mut self) -> u16 {
        self.first.waiting() | self.second.waiting()
    }

    fn first(&mut self, sint: usize) -> Option<(Message, bool)> {
        let first = self.first.first(sint);
        self.is_second = first.is_none();
        match first {
            Some((message, more)) => {
                let more = more || self.second.waiting() & 1 << sint != 0;
                Some((message, more))
            }
            None => self.second.first(sint),
        }
    }

    fn pop(&mut self, sint: usize) {
        if self.is_second {
            self.second.pop(sint);
        } else {
            self.first.pop(sint);
        }
    }
}
