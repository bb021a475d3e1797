//! The state as bytes.
//!
//! A sequence of records: kind u16, length u16, number u32, then as many bytes as the length says. The first is
//! [`kind::START`] with the version of the format. Records of later versions differ in their kind or in that version;
//! a reader refuses what it does not know.

use tlfs::Writer;
use tlfs::wire::Field;

use crate::Bus;
use crate::channel::{Channel, ChannelState};
use crate::connection::Connection;
use crate::frames::Frames;
use crate::gpadl::{Gpadl, GpadlState, IN_BLOCK, PageBlock};
use vmbus_proto::Answer;

/// Version of the format.
pub(crate) const VERSION: u32 = 1;

/// Bytes before the contents of a record.
pub(crate) const HEAD_BYTES: usize = 8;

/// Kinds of records, in the order in which they come.
pub(crate) mod kind {
    /// Number: version.
    pub const START: u16 = 0x4256;
    pub const CONNECTION: u16 = 1;
    /// Number: relid.
    pub const CHANNEL: u16 = 2;
    pub const GPADL: u16 = 3;
    /// Page numbers of the GPADL before it.
    pub const PAGES: u16 = 4;
    pub const ANSWER: u16 = 5;
    pub const END: u16 = 6;
}

/// Bytes of a block of page numbers.
pub(crate) const PAGES_BYTES: usize = IN_BLOCK as usize * 8;
const EMPTY: [u8; 0] = [];

/// The part of the sequence that is wanted.
struct Window<'a> {
    /// Where in the sequence the part begins.
    start: usize,
    room: &'a mut [u8],
    /// Bytes that came so far.
    at: usize,
}

impl Window<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        let skipped = self.start.saturating_sub(self.at);
        let room = self.room.get_mut(self.at.saturating_sub(self.start)..);
        if let (Some(room), Some(bytes)) = (room, bytes.get(skipped..)) {
            room.iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
        }
        self.at = end;
    }

    /// Puts a record, whose bytes are made only if some are wanted.
    fn record<const N: usize>(&mut self, kind: u16, number: u32, bytes: impl FnOnce() -> [u8; N]) {
        let end = self.at.saturating_add(HEAD_BYTES + N);
        if end <= self.start || self.at >= self.start.saturating_add(self.room.len()) {
            self.at = end;
            return;
        }
        let mut head = [0; HEAD_BYTES];
        let mut w = Writer::new(&mut head);
        [kind, N as u16].write(&mut w);
        number.write(&mut w);
        self.put(&head);
        self.put(&bytes());
    }
}

impl<F: Frames> Bus<'_, F> {
    /// Writes the part of the state's bytes that begins at `offset` and gives the length of the whole. The client's VPs
    /// and the back end are stopped; the bytes are those of one state only as long as nothing else is called.
    pub fn save(&mut self, offset: u32, room: &mut [u8]) -> u32 {
        let start = offset as usize;
        let mut window = Window { start, room, at: 0 };
        let w = &mut window;
        let server = &*self.server;
        w.record(kind::START, VERSION, || EMPTY);
        w.record(kind::CONNECTION, 0, || {
            Connection::encode(&server.connection)
        });
        for number in 1..=server.channels.room {
            if let Some(channel) = server.channels.get(number, self.frames)
                && channel.state != ChannelState::Free
            {
                w.record(kind::CHANNEL, number.into(), || Channel::encode(channel));
            }
        }
        for number in 1..=server.gpadls.room {
            let Some(gpadl) = server.gpadls.get(number, self.frames).copied() else {
                continue;
            };
            if gpadl.state == GpadlState::Free {
                continue;
            }
            w.record(kind::GPADL, 0, || Gpadl::encode(&gpadl));
            let mut block = gpadl.first;
            while let Some(pages) = server.blocks.get(block, self.frames) {
                w.record(kind::PAGES, 0, || pages.bytes());
                block = pages.next();
            }
        }
        for index in 0..server.answers.len {
            if let Some(answer) = server.answers.at(index, self.frames) {
                w.record(kind::ANSWER, 0, || Answer::encode(answer));
            }
        }
        w.record(kind::END, 0, || EMPTY);
        u32::try_from(window.at).unwrap_or(u32::MAX)
    }
}

impl PageBlock {
    fn bytes(&self) -> [u8; PAGES_BYTES] {
        let mut bytes = [0; PAGES_BYTES];
        self.pages.write(&mut Writer::new(&mut bytes));
        bytes
    }
}
