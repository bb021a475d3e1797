//! GPADLs: lists of the client's pages that a back end may map.

use addr::{Gpn, PAGE_SIZE};
use tlfs::HvError;
use tlfs::wire::{blocks, choices};
use vmbus_proto::{Answer, GpadlHandle, GpadlHeader, PageNumbers, Relid, status};

use crate::channel::{ChannelState, NoticeState};
use crate::frames::{Frames, slabs};
use crate::{Bus, Guest, Refused};

choices! {
    /// State of a GPADL.
    GpadlState: u8 {
        /// No GPADL.
        Free = 0,
        /// Page numbers are still to come.
        Assembling = 1,
        /// Complete; the back end may ask for its pages.
        Ready = 2,
        /// The client wants its pages back; the back end may still use them.
        Tearing = 3,
        /// Nobody uses it any more; the client is yet to be told.
        Torn = 4,
    }
}

blocks! {
    /// A GPADL, saved as it is but for the chain of its page numbers.
    Gpadl[27] {
        relid: Relid, handle: GpadlHandle, byte_count: u32, byte_offset: u16, /// Pages in all.
        pages: u16, /// Page numbers that have come.
        got: u16, /// Blocks of page numbers, 0 for none.
        first: u16, last: u16, link: u16, state: GpadlState, notice: NoticeState, /// The back end has asked for its pages.
        is_held: bool,
    }
}

/// Page numbers in a block.
pub(crate) const IN_BLOCK: u16 = 31;

/// Some page numbers of a GPADL.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageBlock {
    pub(crate) pages: [Gpn; IN_BLOCK as usize],
    /// The next block of the GPADL.
    link: u16,
}
slabs! { Gpadl PageBlock }
const _: () = assert!(size_of::<PageBlock>() == 256);

impl PageBlock {
    pub(crate) const fn next(&self) -> u16 {
        self.link
    }
}

impl Gpadl {
    /// Whether it holds two rings of a control page and data at least, the second from `downstream_page` on.
    pub(crate) fn has_rings(&self, downstream_page: u32) -> bool {
        let pages = u32::from(self.pages);
        self.byte_offset == 0
            && u64::from(self.byte_count) == u64::from(pages) * PAGE_SIZE
            && downstream_page >= 2
            && pages
                .checked_sub(downstream_page)
                .is_some_and(|rest| rest >= 2)
    }
}

/// What a back end learns of a GPADL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpadlPages {
    /// Page numbers written.
    pub count: u16,
    /// Pages in all.
    pub pages: u16,
    /// Length in bytes.
    pub byte_count: u32,
    /// Where in the first page it begins.
    pub byte_offset: u16,
}

impl<F: Frames> Bus<'_, F> {
    /// GPADL `handle`, and its number as a record.
    pub(crate) fn gpadl(&mut self, handle: GpadlHandle) -> Option<(u16, &mut Gpadl)> {
        let is_it = |gpadl: &Gpadl| gpadl.state != GpadlState::Free && gpadl.handle == handle;
        let number = self.server.gpadls.find(self.frames, is_it)?;
        Some((number, self.server.gpadls.get(number, self.frames)?))
    }

    /// The client describes a GPADL. Any answer is queued.
    pub(crate) fn create_gpadl(
        &mut self,
        header: &GpadlHeader,
        pages: PageNumbers<'_>,
        guest: &mut impl Guest,
    ) {
        let (relid, handle) = (header.relid, header.handle);
        let channel = self
            .channel(relid)
            .map(|(_, channel)| *channel)
            .filter(|channel| channel.is_told);
        let outcome = match channel {
            // The client does not know yet; it is not to be stopped here.
            Some(channel) if channel.state == ChannelState::Revoked => Ok(true),
            Some(channel) if channel.is_live() => self.begin_gpadl(header, pages, guest),
            _ => Err(HvError::INVALID_PARAMETER),
        };
        self.answer_created(relid, handle, outcome);
    }

    fn begin_gpadl(
        &mut self,
        header: &GpadlHeader,
        numbers: PageNumbers<'_>,
        guest: &mut impl Guest,
    ) -> Result<bool, HvError> {
        let pages = header.page_count().ok_or(HvError::INVALID_PARAMETER)?;
        let byte_offset =
            u16::try_from(header.byte_offset).map_err(|_| HvError::INVALID_PARAMETER)?;
        if header.handle.0 == 0 || self.gpadl(header.handle).is_some() {
            return Err(HvError::INVALID_PARAMETER);
        }
        let gpadl = Gpadl {
            relid: header.relid,
            handle: header.handle,
            byte_count: header.byte_count,
            byte_offset,
            pages,
            state: GpadlState::Assembling,
            ..Gpadl::default()
        };
        let server = &mut *self.server;
        let added = server.gpadls.add(gpadl, &mut server.quota, self.frames);
        self.append(added.ok_or(HvError::INSUFFICIENT_MEMORY)?, numbers, guest)
    }

    /// The client goes on with a GPADL.
    pub(crate) fn continue_gpadl(
        &mut self,
        handle: GpadlHandle,
        pages: PageNumbers<'_>,
        guest: &mut impl Guest,
    ) -> Result<(), Refused> {
        let (number, gpadl) = self.gpadl(handle).ok_or(Refused::OutOfOrder)?;
        if gpadl.state != GpadlState::Assembling {
            return Err(Refused::OutOfOrder);
        }
        let relid = gpadl.relid;
        let outcome = self.append(number, pages, guest);
        self.answer_created(relid, handle, outcome);
        Ok(())
    }

    fn answer_created(
        &mut self,
        relid: Relid,
        handle: GpadlHandle,
        outcome: Result<bool, HvError>,
    ) {
        let status = match outcome {
            Ok(false) => return,
            Ok(true) => status::SUCCESS,
            Err(_) => status::FAILURE,
        };
        self.push(Answer::gpadl_created(relid, handle, status));
    }

    /// Adds page numbers and tells whether all are there. When one is bad, or memory runs out, the GPADL is gone.
    fn append(
        &mut self,
        number: u16,
        pages: PageNumbers<'_>,
        guest: &mut impl Guest,
    ) -> Result<bool, HvError> {
        for page in pages.iter() {
            let added = if guest.is_ram(page) {
                self.add_page(number, page)
                    .ok_or(HvError::INSUFFICIENT_MEMORY)
            } else {
                Err(HvError::INVALID_PARAMETER)
            };
            if let Err(error) = added {
                self.drop_gpadl(number);
                return Err(error);
            }
        }
        let gpadl = self
            .server
            .gpadls
            .get(number, self.frames)
            .ok_or(HvError::INVALID_PARAMETER)?;
        let is_whole = gpadl.got == gpadl.pages;
        if is_whole {
            gpadl.state = GpadlState::Ready;
        }
        Ok(is_whole)
    }

    /// `None` when there are too many, or no room.
    pub(crate) fn add_page(&mut self, number: u16, page: Gpn) -> Option<()> {
        let server = &mut *self.server;
        let mut gpadl = *server.gpadls.get(number, self.frames)?;
        if gpadl.got >= gpadl.pages {
            return None;
        }
        let place = gpadl.got % IN_BLOCK;
        if place == 0 {
            let block = server
                .blocks
                .add(PageBlock::default(), &mut server.quota, self.frames)?;
            match server.blocks.get(gpadl.last, self.frames) {
                Some(last) => last.link = block,
                None => gpadl.first = block,
            }
            gpadl.last = block;
        }
        let block = server.blocks.get(gpadl.last, self.frames)?;
        *block.pages.get_mut(usize::from(place))? = page;
        gpadl.got = gpadl.got.checked_add(1)?;
        *server.gpadls.get(number, self.frames)? = gpadl;
        Some(())
    }

    /// Forgets a GPADL, in whatever state.
    pub(crate) fn drop_gpadl(&mut self, number: u16) {
        let gpadl = self.server.gpadls.get(number, self.frames).copied();
        let Some(gpadl) = gpadl.filter(|gpadl| gpadl.state != GpadlState::Free) else {
            return;
        };
        self.server
            .blocks
            .remove_chain(gpadl.first, gpadl.last, self.frames);
        self.server.gpadls.remove(number, self.frames);
    }

    /// The client wants its pages back. The handle decides; an unknown one is answered at once, because the client would
    /// wait for ever.
    pub(crate) fn tear_down(&mut self, handle: GpadlHandle) -> Result<(), Refused> {
        let Some((number, gpadl)) = self.gpadl(handle) else {
            self.push(Answer::gpadl_torndown(handle));
            return Ok(());
        };
        let relid = gpadl.relid;
        match gpadl.state {
            GpadlState::Ready => {
                gpadl.state = GpadlState::Tearing;
                self.advance_teardowns(relid);
                Ok(())
            }
            GpadlState::Assembling => {
                self.drop_gpadl(number);
                self.push(Answer::gpadl_torndown(handle));
                Ok(())
            }
            GpadlState::Free | GpadlState::Tearing | GpadlState::Torn => Err(Refused::OutOfOrder),
        }
    }

    /// Moves on every GPADL of a channel that is to be torn down and no ring in use: the back end is asked if it holds
    /// the pages.
    pub(crate) fn advance_teardowns(&mut self, relid: Relid) {
        let ring = self.channel(relid).map(|(_, channel)| channel.ring);
        for number in 1..=self.server.gpadls.room {
            self.advance_teardown(number, |gpadl| gpadl.relid == relid, |_, _| ring);
        }
    }

    /// The same for all channels, with one look at each GPADL.
    pub(crate) fn advance_all_teardowns(&mut self) {
        for number in 1..=self.server.gpadls.room {
            self.advance_teardown(
                number,
                |_| true,
                |bus, relid| bus.channel(relid).map(|(_, channel)| channel.ring),
            );
        }
    }

    fn advance_teardown(
        &mut self,
        number: u16,
        is_meant: impl Fn(&Gpadl) -> bool,
        ring_of: impl Fn(&mut Self, Relid) -> Option<GpadlHandle>,
    ) {
        let waits = |gpadl: &Gpadl| {
            gpadl.state == GpadlState::Tearing && gpadl.notice == NoticeState::Quiet
        };
        let gpadl = self.server.gpadls.get(number, self.frames).copied();
        let Some(old) = gpadl.filter(|gpadl| waits(gpadl) && is_meant(gpadl)) else {
            return;
        };
        if ring_of(self, old.relid) == Some(old.handle) {
            return;
        }
        let server = &mut *self.server;
        let Some(gpadl) = server.gpadls.get(number, self.frames) else {
            return;
        };
        if gpadl.is_held {
            gpadl.notice = NoticeState::Due;
            server.may_notify = true;
        } else {
            gpadl.state = GpadlState::Torn;
            (gpadl.first, gpadl.last) = (0, 0);
            server.blocks.remove_chain(old.first, old.last, self.frames);
            server.may_answer = true;
        }
    }

    /// The back end asks for page numbers of a GPADL of its channel, from number `first` on, as many as `room` takes. It
    /// holds the GPADL from now on.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`]: no such GPADL of this channel, it is not complete, or `first` is beyond its end.
    /// [`HvError::INVALID_PARTITION_STATE`]: the client is being reset.
    pub fn gpadl_pages(
        &mut self,
        relid: Relid,
        handle: GpadlHandle,
        first: u16,
        room: &mut [Gpn],
    ) -> Result<GpadlPages, HvError> {
        self.ready()?;
        let (_, gpadl) = self.gpadl(handle).ok_or(HvError::INVALID_PARAMETER)?;
        let has_pages = matches!(gpadl.state, GpadlState::Ready | GpadlState::Tearing);
        if gpadl.relid != relid || !has_pages || first >= gpadl.pages {
            return Err(HvError::INVALID_PARAMETER);
        }
        gpadl.is_held = true;
        let gpadl = *gpadl;
        let mut count = 0u16;
        let mut wanted = (first..gpadl.pages).zip(room).peekable();
        let (mut block, mut start) = (gpadl.first, 0u16);
        while let Some((index, _)) = wanted.peek()
            && let Some(pages) = self.server.blocks.get(block, self.frames)
        {
            if index.saturating_sub(start) >= IN_BLOCK {
                (block, start) = (pages.link, start.saturating_add(IN_BLOCK));
            } else if let Some((index, to)) = wanted.next()
                && let Some(page) = pages.pages.get(usize::from(index.saturating_sub(start)))
            {
                *to = *page;
                count = count.saturating_add(1);
            }
        }
        Ok(GpadlPages {
            count,
            pages: gpadl.pages,
            byte_count: gpadl.byte_count,
            byte_offset: gpadl.byte_offset,
        })
    }

    /// Answers [`Notice::GpadlTeardown`](crate::Notice::GpadlTeardown): mappings and I/O are off the pages.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`]: no such GPADL of this channel. [`HvError::INVALID_PARTITION_STATE`]: the back end
    /// was not asked.
    pub fn gpadl_done(&mut self, relid: Relid, handle: GpadlHandle) -> Result<(), HvError> {
        self.ready()?;
        let (_, gpadl) = self.gpadl(handle).ok_or(HvError::INVALID_PARAMETER)?;
        if gpadl.relid != relid {
            return Err(HvError::INVALID_PARAMETER);
        }
        if gpadl.notice != NoticeState::Sent {
            return Err(HvError::INVALID_PARTITION_STATE);
        }
        (gpadl.notice, gpadl.is_held) = (NoticeState::Quiet, false);
        self.advance_teardowns(relid);
        self.settle();
        Ok(())
    }
}
