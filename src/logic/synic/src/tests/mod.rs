//! Behaviour of the registers and of what they control, seen from outside.

mod concurrent;
mod delivery;
mod page;
mod registers;
mod sources;

use addr::{Gpn, VpIndex};
use tlfs::{Features, Message, MessageType, Privileges, msr};

use crate::*;
use page::Page;

const CONFIG: PartitionConfig = PartitionConfig {
    privileges: Privileges::all().difference(Privileges::APIC_MSRS),
    features: Features::all(),
    tsc_hz: 2_400_000_000,
    apic_hz: 200_000_000,
};

/// Vector that Linux gives to SINT 2.
const VECTOR: u8 = 0xF3;

/// Pages 1 to 99 are the partition's.
fn at(now: u64) -> WriteContext<'static> {
    WriteContext {
        now: RefTime(now),
        is_page: &|page: Gpn| (1..100).contains(&page.get()),
    }
}

fn vp(room: &mut [QueueEntry]) -> VpSynic<'_> {
    VpSynic::new(&CONFIG, VpIndex::new(3), room)
}

/// A VP that Linux has set up: both pages, SINT 2, the SynIC on.
fn linux_vp(room: &mut [QueueEntry]) -> VpSynic<'_> {
    let mut vp = vp(room);
    for (number, value) in [
        (msr::SIMP, 0x5001),
        (msr::SIEFP, 0x6001),
        (msr::SINT0 + 2, VECTOR.into()),
        (msr::SCONTROL, 1),
    ] {
        write(&mut vp, number, value);
    }
    vp
}

fn write(vp: &mut VpSynic<'_>, number: u32, value: u64) {
    let _ = vp.write(number, value, &at(0)).unwrap();
}

fn message(id: u64) -> Message {
    Message::new(MessageType(1), id, &id.to_le_bytes()).unwrap()
}

fn vectors(interrupts: Interrupts) -> std::vec::Vec<u8> {
    interrupts.map(|interrupt| interrupt.vector).collect()
}

const NO_PAGE: Option<&Page> = None;
