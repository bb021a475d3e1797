//! The hypervisor's side of the event area.

use addr::VpIndex;
use slot_proto::event::{
    EVENT_SUMMARY_WORD, EVENT_WORD_COUNT, EVENT_WORDS, FAULT_WORD, Faults, GENERATION_WORD,
    NOTICE_COUNT, NOTICE_HEAD_WORD, NOTICE_TAIL_WORD, NOTICES_WORD, SUMMARY_WORD, Summary, VERSION,
    VERSION_WORD, VP_WORD, VPS,
};
use slot_proto::{Generation, NOTICE_WORDS, Notice};
use vmbus_proto::Relid;

use crate::SharedWords;
use crate::words::leave_bit;

/// The event area of one session. Any LP may leave events in it at any time; ring the
/// [`Doorbell`](crate::Doorbell) after each.
#[derive(Clone, Copy, Debug)]
pub struct Events<W> {
    words: W,
}

impl<W: SharedWords> Events<W> {
    /// Clears the area for a session that begins. What was in it belonged to the worker before; the caller leaves anew
    /// what is still true.
    pub fn attach(words: W, generation: Generation) -> Self {
        (0..NOTICES_WORD).for_each(|word| words.store(word, 0));
        words.store(VERSION_WORD, VERSION);
        words.store(GENERATION_WORD, u64::from(generation.0));
        Self { words }
    }

    /// The same area again, where [`attach`](Self::attach) was called before and nobody kept what it answered.
    pub const fn resume(words: W) -> Self {
        Self { words }
    }

    /// The child signalled its channel `relid`, which is open. Numbers without a bit do nothing.
    pub fn child_signalled(&self, relid: Relid) {
        leave_bit(
            &self.words,
            EVENT_SUMMARY_WORD,
            EVENT_WORDS,
            EVENT_WORD_COUNT,
            relid.0,
        );
    }

    /// An intercept message of `vp` lies in its state page. VPs without a bit do nothing.
    pub fn intercepted(&self, vp: VpIndex) {
        if vp.get() < VPS {
            self.words.set_bits(VP_WORD, 1 << vp.get());
            self.words.set_bits(SUMMARY_WORD, Summary::VPS.bits());
        }
    }

    /// Something befell the partition or the slot.
    pub fn fault(&self, faults: Faults) {
        self.words.set_bits(FAULT_WORD, faults.bits());
        self.words.set_bits(SUMMARY_WORD, Summary::FAULTS.bits());
    }
}

/// The hypervisor's place in the queue of notices.
#[derive(Debug, Default)]
pub struct NoticeQueue {
    /// Notices queued.
    tail: u32,
    /// Notices that the worker took, when it was last asked.
    head: u32,
    serial: u64,
}

/// Why a notice was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeError {
    /// There is no room. The worker signals when it has taken some: try again then.
    Full,
    /// The worker's head is none that it can have. The slot stops: [`Faults::RING_STOPPED`].
    BadHead,
}

impl NoticeQueue {
    /// The queue of a session that begins, after [`Events::attach`].
    pub const fn new() -> Self {
        Self {
            tail: 0,
            head: 0,
            serial: 0,
        }
    }

    /// Entries that are free. Ask before fetching a notice from the server, which counts it as told.
    ///
    /// # Errors
    /// [`NoticeError::BadHead`].
    pub fn room(&mut self, events: &Events<impl SharedWords>) -> Result<u32, NoticeError> {
        let head = events.words.load(NOTICE_HEAD_WORD) as u32;
        // It only moves on, and not past the tail.
        if head.wrapping_sub(self.head) > self.tail.wrapping_sub(self.head) {
            return Err(NoticeError::BadHead);
        }
        self.head = head;
        Ok(NOTICE_COUNT.saturating_sub(self.tail.wrapping_sub(head)))
    }

    /// Queues a notice.
    ///
    /// # Errors
    /// Every [`NoticeError`]; nothing was queued.
    pub fn push(
        &mut self,
        events: &Events<impl SharedWords>,
        notice: &Notice,
    ) -> Result<(), NoticeError> {
        if self.room(events)? == 0 {
            return Err(NoticeError::Full);
        }
        self.serial = self.serial.wrapping_add(1);
        let entry = NOTICES_WORD + (self.tail % NOTICE_COUNT) as usize * NOTICE_WORDS;
        for (word, value) in (entry..).zip(notice.encode(self.serial)) {
            events.words.store(word, value);
        }
        self.tail = self.tail.wrapping_add(1);
        events.words.store(NOTICE_TAIL_WORD, u64::from(self.tail));
        events.words.set_bits(SUMMARY_WORD, Summary::NOTICES.bits());
        Ok(())
    }
}
