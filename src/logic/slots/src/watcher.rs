//! The worker's side of the event area.

use slot_proto::event::{
    EVENT_SUMMARY_WORD, EVENT_WORD_COUNT, EVENT_WORDS, FAULT_WORD, Faults, GENERATION_WORD,
    NOTICE_COUNT, NOTICE_HEAD_WORD, NOTICE_TAIL_WORD, NOTICES_WORD, SUMMARY_WORD, Summary, VERSION,
    VERSION_WORD, VP_WORD,
};
use slot_proto::{Generation, NOTICE_WORDS, Notice};
use vmbus_proto::Relid;

use crate::SharedWords;
use crate::words::take_bits;

/// What a worker sees of its event area.
#[derive(Debug)]
pub struct Watcher<W> {
    words: W,
    head: u32,
    serial: u64,
}

/// The area is not what the hypervisor makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadArea {
    /// Another layout.
    Version(u64),
    /// Of another session.
    Generation(u64),
    /// The queue or a notice in it is broken.
    Notice,
}

/// What is to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// VPs with an intercept message, by bit.
    pub vps: u64,
    /// What befell the partition. Bits without a name are dropped.
    pub faults: Faults,
}

impl<W: SharedWords> Watcher<W> {
    /// Looks at the area of session `generation`, from its first notice on.
    ///
    /// # Errors
    /// [`BadArea::Version`], [`BadArea::Generation`].
    pub fn new(words: W, generation: Generation) -> Result<Self, BadArea> {
        let (version, actual) = (words.load(VERSION_WORD), words.load(GENERATION_WORD));
        if version != VERSION {
            return Err(BadArea::Version(version));
        }
        if actual != u64::from(generation.0) {
            return Err(BadArea::Generation(actual));
        }
        Ok(Self {
            words,
            head: 0,
            serial: 0,
        })
    }

    /// Takes the VP word and the fault word.
    pub fn take_news(&mut self) -> News {
        let summary = Summary::from_bits_truncate(self.words.take(SUMMARY_WORD));
        let mut news = News::default();
        if summary.contains(Summary::VPS) {
            news.vps = self.words.take(VP_WORD);
        }
        if summary.contains(Summary::FAULTS) {
            news.faults = Faults::from_bits_truncate(self.words.take(FAULT_WORD));
        }
        news
    }

    /// Takes the channels that the child signalled. Each call of `each` may come without any news in the ring.
    pub fn take_signals(&mut self, mut each: impl FnMut(Relid)) {
        take_bits(
            &self.words,
            EVENT_SUMMARY_WORD,
            EVENT_WORDS,
            EVENT_WORD_COUNT,
            |relid| each(Relid(relid)),
        );
    }

    /// Takes the next notice. It is to be called after [`take_news`](Self::take_news), until there is none.
    ///
    /// # Errors
    /// [`BadArea::Notice`]; nothing was taken.
    pub fn next_notice(&mut self) -> Result<Option<Notice>, BadArea> {
        let tail = self.words.load(NOTICE_TAIL_WORD) as u32;
        let waiting = tail.wrapping_sub(self.head);
        if waiting > NOTICE_COUNT {
            return Err(BadArea::Notice);
        }
        if waiting == 0 {
            return Ok(None);
        }
        let entry = NOTICES_WORD + (self.head % NOTICE_COUNT) as usize * NOTICE_WORDS;
        let mut words = [0; NOTICE_WORDS];
        for (word, index) in words.iter_mut().zip(entry..) {
            *word = self.words.load(index);
        }
        let serial = self.serial.wrapping_add(1);
        let notice = match Notice::decode(&words) {
            Ok((number, notice)) if number == serial => notice,
            _ => return Err(BadArea::Notice),
        };
        self.serial = serial;
        self.head = self.head.wrapping_add(1);
        self.words.store(NOTICE_HEAD_WORD, u64::from(self.head));
        Ok(Some(notice))
    }

    /// Whether there is anything to be taken, after a full barrier: the last look before sleep.
    pub fn has_news(&self) -> bool {
        self.words.fence();
        self.words.load(SUMMARY_WORD) != 0
            || self.words.load(EVENT_SUMMARY_WORD) != 0
            || self.words.load(NOTICE_TAIL_WORD) as u32 != self.head
    }
}
