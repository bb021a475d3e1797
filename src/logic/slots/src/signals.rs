//! The signal page, from both sides.

use slot_proto::Generation;
use slot_proto::signal::{GENERATION_WORD, SIGNAL_WORD_COUNT, SIGNAL_WORDS, SUMMARY_WORD};
use vmbus_proto::Relid;

use crate::SharedWords;
use crate::words::{leave_bit, take_bits};

/// Hypervisor: takes the channels that the worker of session `generation` signals, to be called at each signal of the
/// slot. A page of another session is not touched. At most 2,048 calls of `each`.
pub fn collect_signals(
    page: &impl SharedWords,
    generation: Generation,
    mut each: impl FnMut(Relid),
) {
    if generation != Generation::NONE && page.load(GENERATION_WORD) == u64::from(generation.0) {
        take_bits(
            page,
            SUMMARY_WORD,
            SIGNAL_WORDS,
            SIGNAL_WORD_COUNT,
            |relid| each(Relid(relid)),
        );
    }
}

/// Worker: where it leaves its signals.
#[derive(Clone, Copy, Debug)]
pub struct SignalPage<W> {
    words: W,
}

impl<W: SharedWords> SignalPage<W> {
    /// The page of session `generation`. What a worker before left in it is dropped.
    pub fn new(words: W, generation: Generation) -> Self {
        words.store(GENERATION_WORD, 0);
        words.store(SUMMARY_WORD, 0);
        (SIGNAL_WORDS..SIGNAL_WORDS + SIGNAL_WORD_COUNT).for_each(|word| words.store(word, 0));
        words.store(GENERATION_WORD, u64::from(generation.0));
        Self { words }
    }

    /// Leaves a signal of channel `relid` for the child. It is seen at the next signal of the slot.
    pub fn signal(&self, relid: Relid) {
        leave_bit(
            &self.words,
            SUMMARY_WORD,
            SIGNAL_WORDS,
            SIGNAL_WORD_COUNT,
            relid.0,
        );
    }
}
