//! The event area: what the hypervisor leaves for a worker.
//!
//! Page 0 holds state: bits that the hypervisor sets and the worker takes by an exchange with 0. The pages after it hold
//! a queue of [`Notice`](crate::Notice)s. The area is taken as words of 64 bits; each constant named `_WORD` is an index
//! in it. Where a field has 32 bits, it is the low half of its word, and the high half is 0.

use bitflags::bitflags;

/// Pages of the area.
pub const AREA_PAGES: usize = 17;
/// Words of the area.
pub const AREA_WORDS: usize = AREA_PAGES * 512;

/// Offset 0, 32 bits: [`VERSION`].
pub const VERSION_WORD: usize = 0;
/// The one layout of the area.
pub const VERSION: u64 = 1;
/// Offset 8: generation of the session that the area belongs to.
pub const GENERATION_WORD: usize = 1;
/// Offset 64: bit i says that event word i may not be 0.
pub const EVENT_SUMMARY_WORD: usize = 8;
/// Offset 72: [`Summary`].
pub const SUMMARY_WORD: usize = 9;
/// Offset 128: VP n has an intercept message in its state page (bit n).
pub const VP_WORD: usize = 16;
/// VPs that have a bit.
pub const VPS: u32 = 64;
/// Offset 136: [`Faults`].
pub const FAULT_WORD: usize = 17;
/// Offset 256: [`CHANNELS`] bits in 32 words. Bit n: the child signalled the channel with relid n.
pub const EVENT_WORDS: usize = 32;
/// Channels that have a bit.
pub const CHANNELS: u32 = 2048;
/// Number of the words at [`EVENT_WORDS`].
pub const EVENT_WORD_COUNT: usize = 32;
/// Offset 1,024, 32 bits: notices queued since ATTACH, modulo 2^32. Written by the hypervisor.
pub const NOTICE_TAIL_WORD: usize = 128;
/// Offset 1,088, 32 bits: notices taken since ATTACH, modulo 2^32. Written by the worker.
pub const NOTICE_HEAD_WORD: usize = 136;
/// Offset 4,096: notice number n is entry n modulo [`NOTICE_COUNT`].
pub const NOTICES_WORD: usize = 512;
/// Entries of the queue.
pub const NOTICE_COUNT: u32 = 256;

bitflags! {
    /// What may have news beside the event words.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Summary: u64 {
        /// The VP word.
        const VPS = 1 << 0;
        /// The fault word.
        const FAULTS = 1 << 1;
        /// The queue of notices.
        const NOTICES = 1 << 2;
    }
}

bitflags! {
    /// What befell the partition or its slot.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Faults: u64 {
        /// The child reported a crash.
        const CRASHED = 1 << 0;
        /// The child asked for a reset.
        const RESET_ASKED = 1 << 1;
        /// The partition's pool is nearly empty.
        const DEPOSIT_LOW = 1 << 2;
        /// The slot's ring or the head of the queue was broken; nothing is read any more until the next ATTACH.
        const RING_STOPPED = 1 << 3;
        /// The worker must let go of the slot.
        const MUST_LEAVE = 1 << 4;
    }
}

const _: () = assert!(EVENT_WORDS * 8 == 256 && CHANNELS as usize == EVENT_WORD_COUNT * 64);
const _: () = assert!(NOTICE_TAIL_WORD * 8 == 1024 && NOTICE_HEAD_WORD * 8 == 1088);
const _: () = assert!(NOTICES_WORD + NOTICE_COUNT as usize * crate::NOTICE_WORDS == AREA_WORDS);
