//! Memory for both sides.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64};

use ring::{Contiguous, ControlPage};
use ring_proto::Control;
use slot_proto::event::AREA_WORDS;
use slot_proto::signal::PAGE_WORDS;
use slot_proto::{ChannelKind, MAX_PACKET_BYTES};
use slots::{Channel, Identity};

/// One ring of the size that the kernel makes, or shorter.
pub struct Ring {
    pub control: ControlPage,
    pub data: Vec<AtomicU64>,
}

impl Ring {
    pub fn new(bytes: usize) -> Self {
        let control: ControlPage = array::from_fn(|_| AtomicU32::new(0));
        control[Control::Features.word()].store(1, std::sync::atomic::Ordering::Relaxed);
        Self {
            control,
            data: (0..bytes / 8).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn mem(&self) -> Contiguous<'_> {
        Contiguous::new(&self.control, &self.data)
    }
}

/// What the two sides of one channel share.
pub struct Shared {
    pub upstream: Ring,
    pub downstream: Ring,
    pub area: Vec<AtomicU64>,
    pub signals: Vec<AtomicU64>,
}

impl Shared {
    pub fn new() -> Self {
        Self::with_rings(65536)
    }

    pub fn with_rings(bytes: usize) -> Self {
        let words = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            upstream: Ring::new(bytes),
            downstream: Ring::new(bytes),
            area: words(AREA_WORDS),
            signals: words(PAGE_WORDS),
        }
    }

    pub fn open(&self, kind: ChannelKind) -> Channel<Contiguous<'_>> {
        Channel::open(identity(kind), self.upstream.mem(), self.downstream.mem()).unwrap()
    }
}

pub fn identity(kind: ChannelKind) -> Identity {
    Identity {
        kind,
        slot: 3 * kind as u32,
        boot_id: 0xB007,
        features: 0,
    }
}

pub fn buffer() -> Box<[u8; MAX_PACKET_BYTES]> {
    Box::new([0; MAX_PACKET_BYTES])
}
