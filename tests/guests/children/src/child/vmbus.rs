//! A guest of VMBus in a child: connects, opens the first channel that it is offered, signals, and takes all back.

use tlfs::msr;
use vmbus_proto::{GpadlHandle, GpadlHeader, MessageType, OpenChannel, Relid};

use super::runtime::{self as rt, Shared};
use super::{layout, runtime};
use crate::client::bus::{SINT, contact};

/// Page of the first ring in the child; the ring has four.
pub const RING: u64 = layout::DATA;
/// Pages of its rings, and where the second begins.
pub const RING_PAGES: u64 = 4;
pub const DOWNSTREAM: u32 = 2;
/// Handle of its ring.
pub const HANDLE: GpadlHandle = GpadlHandle(0x1234);
/// Vector of its interrupts, which it does not take.
const VECTOR: u64 = 0x55;

/// Argument 0: what it does after it has opened the channel.
pub mod then {
    /// Signals, waits for a signal, closes, unloads, stops.
    pub const CLOSE: u64 = 0;
    /// Counts in result [`super::out::COUNT`] for ever.
    pub const COUNT: u64 = 1;
    /// Signals and waits for a signal, as often as argument 1 says, and stops.
    pub const SIGNAL: u64 = 2;
}

/// Results.
pub mod out {
    /// Whether its version was taken.
    pub const VERSION: usize = 0;
    /// The channel that it was offered.
    pub const RELID: usize = 1;
    /// Status of its GPADL.
    pub const GPADL: usize = 2;
    /// Status of its open.
    pub const OPEN: usize = 3;
    /// Result of its signal.
    pub const SIGNAL: usize = 4;
    /// Whether it was signalled.
    pub const SIGNALLED: usize = 5;
    /// The GPADL that was torn down.
    pub const TORNDOWN: usize = 6;
    /// Whether its unload was answered.
    pub const UNLOADED: usize = 7;
    /// How far it came.
    pub const STEP: usize = 8;
    /// Counts for ever.
    pub const COUNT: usize = 9;
    /// Ticks from the first signal to the last answer.
    pub const TICKS: usize = 10;
}

/// Ticks for which it waits.
const PATIENCE: u64 = 20_000_000_000;

fn post(kind: MessageType, body: &[u8]) -> u64 {
    let len = 8 + body.len() as u64;
    rt::write(layout::CALL_INPUT, 4);
    rt::write(layout::CALL_INPUT + 8, 1 | len << 32);
    rt::write(layout::CALL_INPUT + 16, kind.0.into());
    for (at, piece) in body.chunks(8).enumerate() {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(piece) {
            *to = *from;
        }
        rt::write(
            layout::CALL_INPUT + 24 + at as u64 * 8,
            u64::from_le_bytes(word),
        );
    }
    rt::plain_call(0x5C, layout::CALL_INPUT)
}

/// Waits for a message of type `kind` and gives the words of its body; others are passed over.
fn answer(kind: MessageType) -> Option<[u32; 48]> {
    let slot = layout::MESSAGES + u64::from(SINT) * 256;
    loop {
        let has_come = rt::spin_until(PATIENCE, || machine::insn::read_mmio32(slot) != 0);
        if !has_come {
            return None;
        }
        let found = machine::insn::read_mmio32(slot + 16);
        let mut words = [0; 48];
        for (at, word) in (0_u64..).zip(&mut words) {
            *word = machine::insn::read_mmio32(slot + 24 + at * 4);
        }
        machine::insn::write_mmio32(slot, 0);
        if machine::insn::read_mmio32(slot + 4) & 0x100 != 0 {
            rt::wrmsr(msr::EOM, 0);
        }
        if found == kind.0 {
            return Some(words);
        }
    }
}

fn step(shared: &Shared, number: u64) {
    shared.set(out::STEP, number);
}

/// Makes contact and opens the first channel: its number and its connection.
fn open(shared: &Shared) -> Option<(Relid, u32)> {
    post(MessageType::INITIATE_CONTACT, &contact());
    let version = answer(MessageType::VERSION_RESPONSE)?;
    shared.set(out::VERSION, version[0].into());
    step(shared, 1);
    post(MessageType::REQUEST_OFFERS, &[]);
    let offer = answer(MessageType::OFFER_CHANNEL)?;
    // Behind type and padding: relid at byte 184 of 196, the connection at the end.
    let (relid, connection) = (Relid(offer[44]), offer[46]);
    shared.set(out::RELID, relid.0.into());
    answer(MessageType::ALL_OFFERS_DELIVERED)?;
    step(shared, 2);
    let header = GpadlHeader {
        relid,
        handle: HANDLE,
        range_bytes: 8 + 8 * RING_PAGES as u16,
        range_count: 1,
        byte_count: 4096 * RING_PAGES as u32,
        byte_offset: 0,
    };
    let mut body = [0; GpadlHeader::BYTES + 8 * RING_PAGES as usize];
    let (head, pages) = body.split_at_mut(GpadlHeader::BYTES);
    head.copy_from_slice(&header.encode());
    for (at, page) in (0_u64..).zip(pages.chunks_exact_mut(8)) {
        page.copy_from_slice(&(RING / 4096 + at).to_le_bytes());
    }
    post(MessageType::GPADL_HEADER, &body);
    shared.set(out::GPADL, answer(MessageType::GPADL_CREATED)?[2].into());
    step(shared, 3);
    let open = OpenChannel {
        relid,
        open_id: 77,
        ring: HANDLE,
        vp: 0,
        downstream_page: DOWNSTREAM,
        ..OpenChannel::default()
    };
    post(MessageType::OPEN_CHANNEL, &open.encode());
    let opened = answer(MessageType::OPEN_CHANNEL_RESULT)?;
    shared.set(out::OPEN, opened[2].into());
    step(shared, 4);
    Some((relid, connection))
}

fn signal_and_close(shared: &Shared, relid: Relid, connection: u32) -> Option<()> {
    shared.set(
        out::SIGNAL,
        rt::plain_call(0x5D | 1 << 16, connection.into()),
    );
    step(shared, 5);
    let flag = layout::EVENTS + u64::from(SINT) * 256;
    let bit = 1 << relid.0;
    let has_come = rt::spin_until(PATIENCE, || rt::read(flag) & bit != 0);
    shared.set(out::SIGNALLED, has_come.into());
    step(shared, 6);
    post(MessageType::CLOSE_CHANNEL, &relid.0.to_le_bytes());
    let mut body = [0; 8];
    body[..4].copy_from_slice(&relid.0.to_le_bytes());
    body[4..].copy_from_slice(&HANDLE.0.to_le_bytes());
    post(MessageType::GPADL_TEARDOWN, &body);
    shared.set(
        out::TORNDOWN,
        answer(MessageType::GPADL_TORNDOWN)?[0].into(),
    );
    step(shared, 7);
    post(MessageType::UNLOAD, &[]);
    answer(MessageType::UNLOAD_RESPONSE)?;
    shared.set(out::UNLOADED, 1);
    step(shared, 8);
    Some(())
}

fn signal_and_wait(shared: &Shared, relid: Relid, connection: u32) {
    let flag = layout::EVENTS + u64::from(SINT) * 256;
    let start = machine::insn::rdtsc();
    for _ in 0..shared.arg(1) {
        rt::plain_call(0x5D | 1 << 16, connection.into());
        if !rt::spin_until(PATIENCE, || rt::read(flag) & 1 << relid.0 != 0) {
            return;
        }
        rt::write(flag, 0);
    }
    shared.set(out::TICKS, machine::insn::rdtsc() - start);
}

/// The program.
pub extern "sysv64" fn client(shared: &'static Shared) -> ! {
    rt::enable_calls();
    rt::wrmsr(msr::SIMP, layout::MESSAGES | 1);
    rt::wrmsr(msr::SIEFP, layout::EVENTS | 1);
    rt::wrmsr(msr::SINT0 + u32::from(SINT), VECTOR);
    rt::wrmsr(msr::SCONTROL, 1);
    if let Some((relid, connection)) = open(shared) {
        if shared.arg(0) == then::COUNT {
            loop {
                shared.set(out::COUNT, shared.result(out::COUNT) + 1);
            }
        }
        if shared.arg(0) == then::SIGNAL {
            signal_and_wait(shared, relid, connection);
        } else {
            let _ = signal_and_close(shared, relid, connection);
        }
    }
    runtime::stop(1)
}
