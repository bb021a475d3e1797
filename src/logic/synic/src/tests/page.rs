//! A page in memory, with the guest's side of the protocol.

use core::sync::atomic::{AtomicU32, Ordering, fence};
use std::vec::Vec;

use tlfs::message::FLAG_PENDING;

use super::SynicPage;

/// 4 KiB as the guest and the hypervisor share them.
pub(super) struct Page {
    words: Vec<AtomicU32>,
}

/// What the guest took from a slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) kind: u32,
    pub(super) size: u8,
    pub(super) origin: u64,
    pub(super) first_payload_word: u32,
    /// Whether the guest has to write EOM now.
    pub(super) wants_eom: bool,
}

impl Page {
    pub(super) fn new() -> Self {
        Self {
            words: (0..1024).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert_eq!(offset % 4, 0);
        &self.words[offset / 4]
    }

    pub(super) fn peek(&self, offset: usize) -> u32 {
        self.word(offset).load(Ordering::SeqCst)
    }

    pub(super) fn poke(&self, offset: usize, value: u32) {
        self.word(offset).store(value, Ordering::SeqCst);
    }

    /// Takes the message of `sint` as Linux does: copy, exchange the type for 0, barrier, look at the flag.
    pub(super) fn take(&self, sint: usize) -> Option<Taken> {
        let slot = sint * 256;
        let kind = self.word(slot).load(Ordering::Acquire);
        if kind == 0 {
            return None;
        }
        let word = |offset| self.word(slot + offset).load(Ordering::Relaxed);
        let size = word(4) as u8;
        let origin = u64::from(word(8)) | u64::from(word(12)) << 32;
        let first_payload_word = word(16);
        self.word(slot)
            .compare_exchange(kind, 0, Ordering::SeqCst, Ordering::SeqCst)
            .unwrap();
        fence(Ordering::SeqCst);
        let flags = (word(4) >> 8) as u8;
        Some(Taken {
            kind,
            size,
            origin,
            first_payload_word,
            wants_eom: flags & FLAG_PENDING != 0,
        })
    }
}

impl SynicPage for Page {
    fn load_u32(&self, offset: usize) -> u32 {
        self.word(offset).load(Ordering::Acquire)
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.word(offset).store(value, Ordering::Release);
    }

    fn or_u8(&self, offset: usize, bits: u8) {
        let shift = offset % 4 * 8;
        self.word(offset - offset % 4)
            .fetch_or(u32::from(bits) << shift, Ordering::SeqCst);
    }

    fn or_u32(&self, offset: usize, bits: u32) -> u32 {
        self.word(offset).fetch_or(bits, Ordering::SeqCst)
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= 4096);
        let (words, rest) = bytes.as_chunks();
        for (at, word) in (offset..).step_by(4).zip(words) {
            self.word(at)
                .store(u32::from_le_bytes(*word), Ordering::Relaxed);
        }
        for (i, byte) in rest.iter().enumerate() {
            let at = offset + words.len() * 4;
            let shift = i * 8;
            let old = self.word(at).load(Ordering::Relaxed) & !(0xFF << shift);
            self.word(at)
                .store(old | u32::from(*byte) << shift, Ordering::Relaxed);
        }
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// A page whose guest takes the message of SINT 2 at one of the steps of the hypervisor.
pub(super) struct Racing {
    pub(super) page: Page,
    /// Steps until the guest comes; negative when it was there.
    pub(super) steps: core::cell::Cell<i32>,
    pub(super) taken: core::cell::RefCell<Option<Taken>>,
}

impl Racing {
    fn step(&self) {
        let steps = self.steps.get();
        if steps == 0 {
            *self.taken.borrow_mut() = self.page.take(2);
        }
        self.steps.set(steps - 1);
    }
}

impl SynicPage for Racing {
    fn load_u32(&self, offset: usize) -> u32 {
        self.step();
        self.page.load_u32(offset)
    }

    fn store_u32(&self, offset: usize, value: u32) {
        self.step();
        self.page.store_u32(offset, value);
    }

    fn or_u8(&self, offset: usize, bits: u8) {
        self.step();
        self.page.or_u8(offset, bits);
    }

    fn or_u32(&self, offset: usize, bits: u32) -> u32 {
        self.step();
        self.page.or_u32(offset, bits)
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.step();
        self.page.write(offset, bytes);
    }

    fn fence(&self) {
        self.step();
        self.page.fence();
    }
}
