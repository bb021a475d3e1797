//! The channels that the parent has signalled from one of its VPs, and that are not served yet.

use slot_proto::SLOTS;
use slots::Turns;

use super::index_of;
use super::session::{STRETCHES, serve};
use crate::arch::x86::insn;
use crate::arch::x86::lp::NEVER;
use crate::partition::vmbus::parent::Channel;
use crate::vp::parent::ParentVp;

const WORDS: usize = (SLOTS as usize + 1).div_ceil(64);

/// Parts of a second for which the guest runs before it is interrupted for work that is left over.
const REST: u64 = 10_000;
/// Stretches after which no other channel has its turn before the guest has run: however many workers keep theirs
/// busy, the VP on which they do goes on.
const STRETCHES_AT_ONCE: u64 = 2;

/// Work of one VP of the parent.
#[derive(Debug)]
pub struct Work {
    channels: Turns<WORDS>,
    /// When it is to go on, in TSC ticks; [`NEVER`].
    due: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

impl Work {
    /// None.
    pub const fn new() -> Self {
        Self {
            channels: Turns::NONE,
            due: NEVER,
        }
    }

    /// `channel` was signalled.
    pub fn add(&mut self, channel: Channel) {
        self.channels.add(index_of(channel));
        self.due = 0;
    }

    /// When there is something to do, in TSC ticks; [`NEVER`].
    #[inline(always)]
    pub const fn due(&self) -> u64 {
        self.due
    }

    /// Does a stretch of it at each channel, as far as there is time.
    #[inline(never)]
    pub fn serve(&mut self, host: &mut ParentVp) {
        let tsc_hz = host.tsc_hz();
        let end = insn::rdtsc().saturating_add(tsc_hz / STRETCHES * STRETCHES_AT_ONCE);
        for _ in 0..self.channels.count() {
            let Some(index) = self.channels.turn() else {
                break;
            };
            let channel = match index.checked_sub(1) {
                None => Channel::CONTROL,
                Some(number) => Channel::slot(number as u32),
            };
            if !serve(host, channel) {
                self.channels.remove(index);
            }
            if insn::rdtsc() >= end {
                break;
            }
        }
        self.due = if self.channels.is_empty() {
            NEVER
        } else {
            insn::rdtsc().saturating_add(tsc_hz / REST)
        };
    }
}
