//! The channels that the parent has signalled from one of its VPs, and that are not served yet.

use super::host::Host;
use super::session::serve;
use super::{SLOTS, index_of};
use crate::arch::x86::insn;
use crate::partition::vmbus::parent::Channel;

const WORDS: usize = (SLOTS as usize + 1).div_ceil(64);

/// Parts of a second for which the guest runs before it is interrupted for work that is left over.
const REST: u64 = 10_000;

/// Work of one VP of the parent.
#[derive(Debug, Default)]
pub struct Work {
    channels: [u64; WORDS],
    /// When it is to go on, in TSC ticks.
    due: Option<u64>,
}

impl Work {
    /// None.
    pub const fn new() -> Self {
        Self {
            channels: [0; WORDS],
            due: None,
        }
    }

    /// `channel` was signalled.
    pub fn add(&mut self, channel: Channel) {
        let index = index_of(channel);
        if let Some(word) = self.channels.get_mut(index / 64) {
            *word |= 1 << (index % 64);
            self.due = Some(0);
        }
    }

    /// When there is something to do, in TSC ticks; `None` for nothing.
    #[inline(always)]
    pub const fn due(&self) -> Option<u64> {
        self.due
    }

    /// Does a stretch of it at each channel.
    #[inline(never)]
    pub fn serve(&mut self, host: &mut dyn Host) {
        let mut is_left = false;
        for (at, word) in self.channels.iter_mut().enumerate() {
            for bit in 0..64 {
                if *word >> bit & 1 == 0 {
                    continue;
                }
                let channel = match at * 64 + bit {
                    0 => Channel::CONTROL,
                    index => Channel::slot(index as u32 - 1),
                };
                if serve(host, channel) {
                    is_left = true;
                } else {
                    *word &= !(1 << bit);
                }
            }
        }
        let rest = host.parent().core().tsc_hz / REST;
        self.due = is_left.then(|| insn::rdtsc().saturating_add(rest));
    }
}
