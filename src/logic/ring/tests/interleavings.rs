//! Every order in which the accesses of the two ends can take effect, by `loom`: no packet is lost or torn, and no end
//! sleeps for ever.
//!
//! A signal is a [`Notify`]. An end that sleeps without one coming is a deadlock, which `loom` reports. The control page
//! is made of `loom`'s atomics; each word of data carries a cell that finds accesses without an order between them.
#![cfg(not(miri))]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicU32, fence};
use loom::thread;
use ring::{Outgoing, Reader, RingMem, WriteError, Writer};
use ring_proto::{Control, PacketType};

/// A ring of `WORDS` words of data. Without `FENCE`, its barrier is none.
struct Memory<const WORDS: usize, const FENCE: bool> {
    control: [AtomicU32; 5],
    data: [(UnsafeCell<()>, AtomicU64); WORDS],
    /// Interrupt of the reader and of the writer.
    packets: Notify,
    space: Notify,
}

impl<const WORDS: usize, const FENCE: bool> Memory<WORDS, FENCE> {
    fn new() -> Arc<Self> {
        let memory = Self {
            control: std::array::from_fn(|_| AtomicU32::new(0)),
            data: std::array::from_fn(|_| (UnsafeCell::new(()), AtomicU64::new(0))),
            packets: Notify::new(),
            space: Notify::new(),
        };
        memory.field(Control::Features).store(1, Ordering::Relaxed);
        #[expect(
            clippy::arc_with_non_send_sync,
            reason = "loom runs its threads on one"
        )]
        Arc::new(memory)
    }

    fn field(&self, field: Control) -> &AtomicU32 {
        &self.control[field.word().min(4)]
    }
}

impl<const WORDS: usize, const FENCE: bool> RingMem for Memory<WORDS, FENCE> {
    fn data_bytes(&self) -> u32 {
        WORDS as u32 * 8
    }
    fn control(&self, field: Control) -> u32 {
        self.field(field).load(Ordering::Acquire)
    }
    fn set_control(&self, field: Control, value: u32) {
        self.field(field).store(value, Ordering::Release);
    }
    fn word(&self, at: u32) -> u64 {
        let (cell, word) = &self.data[at as usize / 8];
        cell.with(|_| ());
        word.load(Ordering::Relaxed)
    }
    fn set_word(&self, at: u32, value: u64) {
        let (cell, word) = &self.data[at as usize / 8];
        cell.with_mut(|_| ());
        word.store(value, Ordering::Relaxed);
    }
    fn fence(&self) {
        if FENCE {
            fence(Ordering::SeqCst);
        }
    }
}

fn write<const W: usize, const F: bool>(memory: &Memory<W, F>, packets: u64) {
    let mut writer = Writer::new(memory).unwrap();
    for id in 1..=packets {
        let packet = Outgoing {
            kind: PacketType::IN_BAND,
            transaction: id,
            ..Outgoing::default()
        };
        while let Err(error) = writer.put(&packet) {
            assert_eq!(error, WriteError::Full);
            let space = writer.wait_for_space(24).unwrap();
            if space.signal.is_needed() {
                memory.packets.notify();
            }
            if !space.is_there {
                memory.space.wait();
            }
        }
        if writer.commit().is_needed() {
            memory.packets.notify();
        }
    }
}

/// Reads until `packets` came, with the mask set while it is awake.
fn read<const W: usize, const F: bool>(memory: &Memory<W, F>, packets: u64, uses_mask: bool) {
    let mut reader = Reader::new(memory).unwrap();
    let mut seen = 0;
    loop {
        while let Some(packet) = reader.next(&mut [0; 16]).unwrap() {
            seen += 1;
            assert_eq!(packet.descriptor.transaction, seen);
        }
        let has_more = if uses_mask {
            let armed = reader.arm().unwrap();
            if armed.signal.is_needed() {
                memory.space.notify();
            }
            armed.has_more
        } else {
            if reader.publish().is_needed() {
                memory.space.notify();
            }
            reader.has_more().unwrap()
        };
        if seen == packets {
            return;
        }
        if !has_more {
            memory.packets.wait();
        }
        if uses_mask {
            reader.mask();
        }
    }
}

fn explore<const W: usize, const F: bool>(
    packets: u64,
    uses_mask: bool,
    preemptions: Option<usize>,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(move || {
        let memory = Memory::<W, F>::new();
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || write(&memory, packets))
        };
        read(&memory, packets, uses_mask);
        writer.join().unwrap();
    });
}

/// One packet, every order of accesses.
#[test]
fn one_packet_is_never_missed() {
    explore::<16, true>(1, true, None);
    explore::<16, true>(1, false, None);
}

#[test]
fn a_reader_that_masks_misses_no_packet() {
    explore::<16, true>(2, true, Some(4));
}

#[test]
fn a_reader_that_never_masks_misses_no_packet() {
    explore::<16, true>(2, false, Some(4));
}

/// The ring holds one packet: each but the first waits for space.
#[test]
fn a_blocked_writer_misses_no_space() {
    explore::<5, true>(2, false, Some(4));
}

#[test]
fn both_ends_sleep_and_wake() {
    explore::<5, true>(3, true, Some(2));
    explore::<8, true>(4, true, Some(1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_barrier_a_packet_is_missed() {
    explore::<16, false>(1, true, None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_barrier_space_is_missed() {
    explore::<5, false>(2, false, Some(2));
}
