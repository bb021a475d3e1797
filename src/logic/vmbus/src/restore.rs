//! The state out of bytes that somebody else kept.

use addr::Gpn;
use tlfs::wire::Field;
use tlfs::{HvError, Reader};
use vmbus_proto::{Answer, NO_VP, OfferFlags, Relid};

use crate::channel::{Channel, ChannelState, NoticeState};
use crate::connection::{Connection, ConnectionState};
use crate::frames::Frames;
use crate::gpadl::{Gpadl, GpadlState, IN_BLOCK};
use crate::save::{HEAD_BYTES, VERSION, kind};
use crate::{Bus, Guest};

/// Bytes of the longest record.
const RECORD_BYTES: usize = HEAD_BYTES + Channel::BYTES;

/// How far a restore has come.
#[derive(Debug)]
pub(crate) struct Restoring {
    /// Bytes in all, 0 while there is no restore.
    total: u32,
    /// Bytes that came.
    at: u32,
    /// The kind of the last record.
    last: u16,
    /// The GPADL that page numbers belong to, and how many are to come.
    gpadl: u16,
    to_come: u16,
    /// The beginning of the next record.
    filled: u16,
    record: [u8; RECORD_BYTES],
}

impl Restoring {
    pub(crate) const NOTHING: Self = Self {
        total: 0,
        at: 0,
        last: 0,
        gpadl: 0,
        to_come: 0,
        filled: 0,
        record: [0; RECORD_BYTES],
    };

    pub(crate) const fn is_begun(&self) -> bool {
        self.total != 0
    }

    /// Takes bytes until a record is whole. `Err` when it is longer than any.
    fn fill(
        &mut self,
        bytes: &mut &[u8],
    ) -> Result<Option<(u16, u32, [u8; RECORD_BYTES])>, HvError> {
        loop {
            let [k0, k1, l0, l1, n0, n1, n2, n3, ..] = self.record;
            let len = usize::from(u16::from_le_bytes([l0, l1]));
            let filled = usize::from(self.filled);
            let wanted = HEAD_BYTES + if filled < HEAD_BYTES { 0 } else { len };
            if filled >= HEAD_BYTES && filled == wanted {
                self.filled = 0;
                let number = u32::from_le_bytes([n0, n1, n2, n3]);
                return Ok(Some((u16::from_le_bytes([k0, k1]), number, self.record)));
            }
            let room = self
                .record
                .get_mut(filled..wanted)
                .ok_or(HvError::INVALID_PARAMETER)?;
            let count = room.len().min(bytes.len());
            if count == 0 {
                return Ok(None);
            }
            let (head, rest) = bytes
                .split_at_checked(count)
                .ok_or(HvError::INVALID_PARAMETER)?;
            room.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
            *bytes = rest;
            self.filled = u16::try_from(filled.saturating_add(count))
                .map_err(|_| HvError::INVALID_PARAMETER)?;
        }
    }
}

impl<F: Frames> Bus<'_, F> {
    /// Takes the next part of a saved state of `total` bytes, from byte `offset` on, and tells whether it was the last:
    /// then the server goes on where the other stopped, with a back end that has just been attached. The client has never
    /// run.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARTITION_STATE`]: something was offered or said before. [`HvError::INVALID_PARAMETER`]: not the
    /// next part, or not a state that a server can be in; a server that was being restored is as new. [`HvError::INSUFFICIENT_MEMORY`]: beyond
    /// the quota; the same.
    pub fn restore(
        &mut self,
        total: u32,
        offset: u32,
        bytes: &[u8],
        guest: &mut impl Guest,
    ) -> Result<bool, HvError> {
        if offset == 0 {
            self.begin_restore(total)?;
        } else if !self.server.restoring.is_begun() {
            // A server at work is left as it is.
            return Err(HvError::INVALID_PARAMETER);
        }
        let outcome = self.continue_restore(total, offset, bytes, guest);
        match outcome {
            Ok(false) => {}
            Ok(true) => self.server.restoring = Restoring::NOTHING,
            Err(_) => self.forget(),
        }
        if outcome == Ok(true) {
            self.settle();
        }
        outcome
    }

    fn begin_restore(&mut self, total: u32) -> Result<(), HvError> {
        if !self.server.restoring.is_begun() {
            let is_used = |channel: &Channel| channel.state != ChannelState::Free;
            let has_channels = self.server.channels.find(self.frames, is_used).is_some();
            if has_channels || self.server.connection != Connection::NONE {
                return Err(HvError::INVALID_PARTITION_STATE);
            }
        } else {
            self.forget();
        }
        self.server.restoring.total = total;
        Ok(())
    }

    /// Back to the beginning, but for the frames.
    fn forget(&mut self) {
        // Their page numbers go with them, whose table is the longest.
        for number in 1..=self.server.gpadls.room {
            self.drop_gpadl(number);
        }
        let server = &mut *self.server;
        server.connection = Connection::NONE;
        server.channels.clear(self.frames);
        server.answers.clear();
        server.restoring = Restoring::NOTHING;
    }

    fn continue_restore(
        &mut self,
        total: u32,
        offset: u32,
        mut bytes: &[u8],
        guest: &mut impl Guest,
    ) -> Result<bool, HvError> {
        let bad = HvError::INVALID_PARAMETER;
        let restoring = &mut self.server.restoring;
        let len = u32::try_from(bytes.len()).map_err(|_| bad)?;
        let at = offset
            .checked_add(len)
            .filter(|at| *at <= total)
            .ok_or(bad)?;
        if (restoring.total, restoring.at) != (total, offset) || total == 0 {
            return Err(bad);
        }
        restoring.at = at;
        while let Some((kind, number, record)) = self.server.restoring.fill(&mut bytes)? {
            let last = core::mem::replace(&mut self.server.restoring.last, kind);
            let mut r = Reader::new(record.get(HEAD_BYTES..).unwrap_or(&[]));
            let [_, _, l0, l1, ..] = record;
            let len = usize::from(u16::from_le_bytes([l0, l1]));
            let is_next = match kind {
                kind::START => last == 0 && number == VERSION && len == 0,
                kind::CONNECTION => last == kind::START && len == Connection::BYTES,
                kind::CHANNEL => (kind::CONNECTION..=kind).contains(&last) && len == Channel::BYTES,
                kind::GPADL => {
                    (kind::CONNECTION..=kind::PAGES).contains(&last) && len == Gpadl::BYTES
                }
                kind::PAGES => {
                    (kind::GPADL..=kind).contains(&last) && len == crate::save::PAGES_BYTES
                }
                kind::ANSWER => (kind::CONNECTION..=kind).contains(&last) && len == Answer::BYTES,
                kind::END => (kind::CONNECTION..kind).contains(&last) && len == 0,
                _ => false,
            };
            if !is_next {
                return Err(bad);
            }
            match kind {
                kind::CONNECTION => self.restore_connection(Field::read(&mut r)?, guest)?,
                kind::CHANNEL => self.restore_channel(number, Field::read(&mut r)?, guest)?,
                kind::GPADL => self.restore_gpadl(Field::read(&mut r)?)?,
                kind::PAGES => self.restore_pages(Field::read(&mut r)?, guest)?,
                kind::ANSWER => self.restore_answer(Field::read(&mut r)?)?,
                _ => {}
            }
        }
        let restoring = &self.server.restoring;
        if at != total {
            return Ok(false);
        }
        if restoring.last != kind::END || restoring.filled != 0 {
            return Err(bad);
        }
        self.finish_restore()
    }

    fn restore_connection(
        &mut self,
        mut connection: Connection,
        guest: &mut impl Guest,
    ) -> Result<(), HvError> {
        let is_resetting = connection.state == ConnectionState::Resetting;
        let contact = connection.contact;
        let is_answerable =
            contact.vtl() == 0 && (1..16).contains(&contact.sint()) && guest.has_vp(contact.vp);
        if !guest.has_vp(connection.vp) || (is_resetting && !is_answerable) {
            return Err(HvError::INVALID_PARAMETER);
        }
        if is_resetting {
            connection.notice = NoticeState::Due;
        }
        let server = &mut *self.server;
        server.connection = connection;
        // What the back end says may have to be answered first.
        let has_room =
            connection.sint == 0 || server.answers.reserve(&mut server.quota, self.frames);
        if has_room {
            Ok(())
        } else {
            Err(HvError::INSUFFICIENT_MEMORY)
        }
    }

    fn restore_channel(
        &mut self,
        number: u32,
        mut channel: Channel,
        guest: &mut impl Guest,
    ) -> Result<(), HvError> {
        let relid = Relid(number);
        let number = u16::try_from(number)
            .ok()
            .filter(|number| *number != 0)
            .ok_or(HvError::INVALID_PARAMETER)?;
        let is_known = self.channel(relid).is_some();
        let has_vp =
            channel.open.vp == NO_VP || guest.has_vp(channel.open.target().unwrap_or_default());
        let is_offerable = OfferFlags::OFFERABLE.contains(channel.offer.flags);
        let is_free = channel.state == ChannelState::Free;
        if is_known
            || is_free
            || !has_vp
            || !is_offerable
            || (channel.is_in_use() && channel.open.relid != relid)
        {
            return Err(HvError::INVALID_PARAMETER);
        }
        channel.notice = match channel.state {
            ChannelState::Released => NoticeState::Due,
            _ if self.server.connection.state == ConnectionState::Resetting => NoticeState::Quiet,
            ChannelState::Closed | ChannelState::Revoked | ChannelState::Free => NoticeState::Quiet,
            ChannelState::Abandoned => {
                channel.state = ChannelState::Closing;
                NoticeState::Due
            }
            ChannelState::Opening | ChannelState::Open | ChannelState::Closing => NoticeState::Due,
        };
        channel.link = 0;
        let server = &mut *self.server;
        let put = server
            .channels
            .put(number, channel, &mut server.quota, self.frames);
        put.ok_or(HvError::INSUFFICIENT_MEMORY)
    }

    /// The new back end holds no GPADL.
    fn restore_gpadl(&mut self, gpadl: Gpadl) -> Result<(), HvError> {
        if self.gpadl(gpadl.handle).is_some() || gpadl.state == GpadlState::Free {
            return Err(HvError::INVALID_PARAMETER);
        }
        let new = Gpadl {
            got: if gpadl.state == GpadlState::Torn {
                gpadl.got
            } else {
                0
            },
            first: 0,
            last: 0,
            link: 0,
            notice: NoticeState::Quiet,
            is_held: false,
            ..gpadl
        };
        let server = &mut *self.server;
        let number = server.gpadls.add(new, &mut server.quota, self.frames);
        server.restoring.gpadl = number.ok_or(HvError::INSUFFICIENT_MEMORY)?;
        server.restoring.to_come = gpadl.got.saturating_sub(new.got);
        Ok(())
    }

    fn restore_pages(
        &mut self,
        pages: [Gpn; IN_BLOCK as usize],
        guest: &mut impl Guest,
    ) -> Result<(), HvError> {
        let (gpadl, to_come) = (self.server.restoring.gpadl, self.server.restoring.to_come);
        for page in pages.into_iter().take(to_come.into()) {
            if !guest.is_ram(page) {
                return Err(HvError::INVALID_PARAMETER);
            }
            self.add_page(gpadl, page)
                .ok_or(HvError::INSUFFICIENT_MEMORY)?;
        }
        self.server.restoring.to_come = to_come.saturating_sub(IN_BLOCK);
        Ok(())
    }

    fn restore_answer(&mut self, answer: Answer) -> Result<(), HvError> {
        if self.server.answers.is_full() {
            return Err(HvError::INVALID_PARAMETER);
        }
        self.push(answer);
        Ok(())
    }

    fn finish_restore(&mut self) -> Result<bool, HvError> {
        let server = &mut *self.server;
        server.channels.chain(1, self.frames, |channel| {
            channel.state == ChannelState::Free
        });
        (server.may_notify, server.may_answer) = (true, true);
        if server.connection.state != ConnectionState::Resetting {
            self.advance_all_teardowns();
        }
        self.check().map_err(|_| HvError::INVALID_PARAMETER)?;
        Ok(true)
    }
}
