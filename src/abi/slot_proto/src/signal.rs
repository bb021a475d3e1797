//! The signal page: a worker's signals for its child.
//!
//! The worker sets the bit of a channel, then the summary bit of its word, then signals the slot. The page is taken as
//! words of 64 bits; each constant named `_WORD` or `_WORDS` is an index in it.

/// Words of the page.
pub const PAGE_WORDS: usize = 512;
/// Offset 0: generation of the session. Another one: the page is not looked at.
pub const GENERATION_WORD: usize = 0;
/// Offset 64: bit i says that signal word i may not be 0.
pub const SUMMARY_WORD: usize = 8;
/// Offset 256: bit n, in 32 words, signals the channel with relid n.
pub const SIGNAL_WORDS: usize = 32;
/// Number of the words at [`SIGNAL_WORDS`].
pub const SIGNAL_WORD_COUNT: usize = 32;

const _: () = assert!(SUMMARY_WORD * 8 == 64 && SIGNAL_WORDS * 8 == 256);
