//! What other processors write for a VP: interrupts, NMI, INIT and SIPI; and what they read of it.
//!
//! # Memory ordering
//!
//! Two things must hold.
//!
//! 1. *What the sender did before the IPI is seen by the target's handler.* Posting is a
//!    read-modify-write that releases, taking is one that acquires, on the same word.
//! 2. *No post is slept through.* A sender that skips the physical kick because the target looks as if
//!    it were in the hypervisor, and a target that enters its guest because the inbox looks empty, must
//!    not both be right. That is the store-then-load pattern on two words, for which release and acquire
//!    are too weak. So all accesses here are `SeqCst`, and the caller's "in guest" word has to be, too:
//!    the sender posts, then reads that word; the target writes that word, then looks here. On x86 this
//!    costs nothing more, since the read-modify-writes are locked anyway and the loads are plain.
//!
//! Every transition of the start-up state is one read-modify-write of one word. So the order in which
//! INIT, SIPI and the target's consumption happen is the order of that word's values, and nothing
//! between two instructions can be lost.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::base::Mode;
use crate::destination::Addressee;
use crate::icr::Ipi;

/// What a target has to do about INIT and SIPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartEvent {
    /// Reset yourself, then wait: nothing runs before the next [`StartEvent::Start`].
    Init,
    /// Start in real mode at page `vector` below 1 MiB.
    Start(u8),
}

/// The shared part of a VP's APIC; what every exit looks at is one cache line. Any processor may use it at any time.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Inbox {
    /// Interrupts posted, 64 vectors a word.
    vectors: [AtomicU64; 4],
    /// How the owner is addressed, packed by `pack`.
    mirror: AtomicU64,
    /// The start-up state, see `start`.
    start: AtomicU32,
    /// What the 8259 last said: nothing, or [`EXTINT`] and a vector, or [`EXTINT_CLEARED`].
    extint: AtomicU32,
    nmi: AtomicBool,
    /// Vectors that were last posted as level interrupts. Written before `vectors`, and not cleared when those are
    /// taken: the next post of the vector says what it is.
    levels: [AtomicU64; 4],
}

/// The 8259 answers with the vector in bits 7:0.
const EXTINT: u32 = 1 << 8;
/// The 8259 took its request back.
const EXTINT_CLEARED: u32 = 1 << 9;

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// The inbox of a VP that runs, as a boot processor does from power-up. Until the owner publishes,
    /// no IPI finds it.
    pub const fn new() -> Self {
        Self::in_state(start::RUNNING)
    }

    /// The inbox of a VP that waits for its first SIPI.
    pub const fn waiting() -> Self {
        Self::in_state(start::WAITING)
    }

    const fn in_state(state: u32) -> Self {
        Self {
            vectors: [const { AtomicU64::new(0) }; 4],
            mirror: AtomicU64::new(0),
            start: AtomicU32::new(state),
            extint: AtomicU32::new(0),
            nmi: AtomicBool::new(false),
            levels: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// Posts an edge interrupt. True when `vector` was not posted already: the target must be kicked.
    /// When it was, whoever posted it first does that.
    #[inline]
    pub fn post(&self, vector: u8) -> bool {
        let (level, bit) = word(&self.levels, vector);
        // Of the vectors of a machine without an I/O APIC none ever was one.
        if level.load(SeqCst) & bit != 0 {
            level.fetch_and(!bit, SeqCst);
        }
        let (posted, bit) = word(&self.vectors, vector);
        posted.fetch_or(bit, SeqCst) & bit == 0
    }

    /// Posts a level interrupt: its EOI will be [`Effect::Eoi`](crate::Effect::Eoi) with `level`. As for
    /// [`Inbox::post`] otherwise.
    pub fn post_level(&self, vector: u8) -> bool {
        let (level, bit) = word(&self.levels, vector);
        level.fetch_or(bit, SeqCst);
        let (posted, bit) = word(&self.vectors, vector);
        posted.fetch_or(bit, SeqCst) & bit == 0
    }

    /// The 8259 requests an interrupt and will answer with `vector`; replaces what it requested before. The target
    /// must be kicked.
    pub fn post_extint(&self, vector: u8) {
        self.extint.store(EXTINT | u32::from(vector), SeqCst);
    }

    /// The 8259 requests nothing any more.
    pub fn clear_extint(&self) {
        self.extint.store(EXTINT_CLEARED, SeqCst);
    }

    /// Makes the VP one that waits for a SIPI, or one that runs, whatever was posted. For a parent that sets the
    /// state of a VP which does not run.
    pub fn set_waiting(&self, is_waiting: bool) {
        let state = if is_waiting {
            start::WAITING
        } else {
            start::RUNNING
        };
        self.start.store(state, SeqCst);
    }

    /// Posts an NMI. True when none was posted already.
    pub fn post_nmi(&self) -> bool {
        !self.nmi.swap(true, SeqCst)
    }

    /// Posts an INIT. True when it changed the target's state: it must be kicked.
    pub fn post_init(&self) -> bool {
        self.start
            .fetch_update(SeqCst, SeqCst, start::after_init)
            .is_ok()
    }

    /// Posts a SIPI. True when it starts the target; false when the target was not waiting for one, and
    /// it is ignored.
    pub fn post_sipi(&self, vector: u8) -> bool {
        self.start
            .fetch_update(SeqCst, SeqCst, |word| start::after_sipi(word, vector))
            .is_ok()
    }

    /// Takes the next thing to do about INIT and SIPI. Of the owner only.
    ///
    /// After INIT and SIPI in close succession this gives [`StartEvent::Init`], then, at the next call,
    /// [`StartEvent::Start`]. Call it once before each entry of the guest, not in a loop: a sender can
    /// always make more. Interrupts and NMIs posted before the event is taken are dropped, as an APIC
    /// that INIT disabled drops them.
    pub fn take_start(&self) -> Option<StartEvent> {
        start::after_take(self.start.load(SeqCst))?;
        // Before the transition: from then on senders may count on a processor that runs.
        self.take_vectors();
        self.take_nmi();
        let before = self
            .start
            .fetch_update(SeqCst, SeqCst, |word| {
                start::after_take(word).map(|(after, _)| after)
            })
            .ok()?;
        start::after_take(before).map(|(_, event)| event)
    }

    /// Whether the VP runs no instruction because it waits for a SIPI, or because an event of
    /// [`Inbox::take_start`] comes first.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.start.load(SeqCst) != start::RUNNING
    }

    /// Whether [`Inbox::take_start`] has something to give: a halted or waiting VP must wake for it.
    #[inline]
    pub fn has_start(&self) -> bool {
        start::after_take(self.start.load(SeqCst)).is_some()
    }

    /// Whether neither interrupts nor an NMI are posted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.vectors.iter().all(|word| word.load(SeqCst) == 0)
            && !self.nmi.load(SeqCst)
            && self.extint.load(SeqCst) == 0
    }

    /// Whether `ipi` is for this VP. A VP whose owner has not published matches nothing.
    ///
    /// The mirror can be older than a register write of the target that is not published yet; so it is
    /// on the hardware for a message in flight.
    pub fn matches(&self, ipi: &Ipi) -> bool {
        unpack(self.mirror.load(SeqCst)).is_named_by(ipi.destination, ipi.sender.get(), ipi.x2apic)
    }

    /// Whether the owner takes fixed interrupts now, as last published: the one to choose for lowest
    /// priority.
    pub fn is_accepting(&self) -> bool {
        let owner = unpack(self.mirror.load(SeqCst));
        owner.enabled && owner.mode != Mode::Disabled
    }

    pub(crate) fn show(&self, owner: Addressee) {
        self.mirror.store(pack(owner), SeqCst);
    }

    pub(crate) fn take_nmi(&self) -> bool {
        // A look first: a locked write to a shared line on every exit would cost.
        self.nmi.load(SeqCst) && self.nmi.swap(false, SeqCst)
    }

    /// What the 8259 said last: a vector, or `Some(None)` when it took its request back.
    pub(crate) fn take_extint(&self) -> Option<Option<u8>> {
        if self.extint.load(SeqCst) == 0 {
            return None;
        }
        let said = self.extint.swap(0, SeqCst);
        (said != 0).then_some((said & EXTINT != 0).then_some(said as u8))
    }

    /// The vectors of word `index` that were last posted as level interrupts.
    pub(crate) fn levels(&self, index: usize) -> u64 {
        self.levels.get(index).map_or(0, |word| word.load(SeqCst))
    }

    pub(crate) fn take_vectors(&self) -> [u64; 4] {
        let take = |word: &AtomicU64| {
            if word.load(SeqCst) == 0 {
                0
            } else {
                word.swap(0, SeqCst)
            }
        };
        let [a, b, c, d] = &self.vectors;
        [take(a), take(b), take(c), take(d)]
    }
}

/// The word and the bit of `vector`.
fn word(words: &[AtomicU64; 4], vector: u8) -> (&AtomicU64, u64) {
    let [a, b, c, d] = words;
    let word = match vector >> 6 {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    };
    (word, 1 << (vector & 63))
}

/// One word: ID in bits 31:0, mode in 33:32, enabled in 34, model in 39:36, logical ID in 47:40.
const fn pack(owner: Addressee) -> u64 {
    owner.id as u64
        | ((owner.mode as u64) << 32)
        | ((owner.enabled as u64) << 34)
        | (((owner.model & 0xF) as u64) << 36)
        | ((owner.logical_id as u64) << 40)
}

const fn unpack(word: u64) -> Addressee {
    let mode = match (word >> 32) & 3 {
        1 => Mode::XApic,
        2 => Mode::X2Apic,
        _ => Mode::Disabled,
    };
    Addressee {
        id: word as u32,
        mode,
        enabled: word & (1 << 34) != 0,
        model: ((word >> 36) & 0xF) as u8,
        logical_id: (word >> 40) as u8,
    }
}

/// The start-up state as a word, and its transitions: pure functions, `None` for "no change".
///
/// | state | INIT | SIPI v | taken by the owner |
/// |---|---|---|---|
/// | running | reset, waiting | - | - |
/// | reset, waiting | - | reset, start v | `Init`: waiting |
/// | waiting | - | start v | - |
/// | reset, start v | reset, waiting | - | `Init`: start v |
/// | start v | reset, waiting | - | `Start(v)`: running |
mod start {
    use super::StartEvent;

    /// The state, in bits 9:8.
    const STATE: u32 = 3 << 8;
    pub(super) const RUNNING: u32 = 0;
    pub(super) const WAITING: u32 = 1 << 8;
    /// Started by the SIPI whose vector is in bits 7:0.
    const STARTING: u32 = 2 << 8;
    /// An INIT was received that the owner has not acted on.
    const RESET: u32 = 1 << 10;

    pub(super) fn after_init(word: u32) -> Option<u32> {
        (word & STATE != WAITING).then_some(WAITING | RESET)
    }

    pub(super) fn after_sipi(word: u32, vector: u8) -> Option<u32> {
        (word & STATE == WAITING).then_some((word & RESET) | STARTING | u32::from(vector))
    }

    pub(super) fn after_take(word: u32) -> Option<(u32, StartEvent)> {
        if word & RESET != 0 {
            Some((word & !RESET, StartEvent::Init))
        } else if word & STATE == STARTING {
            Some((RUNNING, StartEvent::Start(word as u8)))
        } else {
            None
        }
    }
}
