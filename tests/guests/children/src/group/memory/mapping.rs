//! Maps and unmaps of each size, and over what is there.

use alloc::vec::Vec;

use machine::insn;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::{HvError, MessageType};

use super::{BASE, holds, kind_of, peek};
use crate::arena::{self, CHUNK, FRAME};
use crate::child::guest::Guest;
use crate::client::partition::{RWX, deposit_frames};
use crate::group::{fails, need};

/// Leaves of each size, split and mapped over.
pub fn sizes(guest: &mut Guest) {
    let (first, second) = (arena::chunk(), arena::chunk());
    for n in 0..512 {
        insn::write_phys64(first + n * FRAME, 0x1000 + n);
        insn::write_phys64(second + n * FRAME, 0x2000 + n);
    }
    let large = RWX | MapFlags::LARGE;
    need("sizes: 2 MiB", guest.map(BASE, &[first], large));
    holds("sizes: first page", guest, BASE, 0x1000);
    holds("sizes: last page", guest, BASE + 511 * FRAME, 0x11FF);
    // Split: one page of another frame in the middle.
    need(
        "sizes: one page over a large leaf",
        guest.map(BASE + 5 * FRAME, &[second + 5 * FRAME], RWX),
    );
    holds("sizes: the page before", guest, BASE + 4 * FRAME, 0x1004);
    holds("sizes: the new page", guest, BASE + 5 * FRAME, 0x2005);
    holds("sizes: the page after", guest, BASE + 6 * FRAME, 0x1006);
    // 2 MiB over 512 pages.
    need("sizes: 2 MiB over pages", guest.map(BASE, &[second], large));
    holds("sizes: all new", guest, BASE + 4 * FRAME, 0x2004);
    need(
        "sizes: 512 pages over 2 MiB",
        guest.map_range(BASE, first, 512, RWX),
    );
    holds("sizes: all new again", guest, BASE + 9 * FRAME, 0x1009);
    need("sizes: 2 MiB of the same", guest.map(BASE, &[first], large));
    holds("sizes: still the same", guest, BASE + 9 * FRAME, 0x1009);
    // No use of the first chunk may be left once it is unmapped.
    need(
        "sizes: no access over 2 MiB",
        guest.map_no_access(BASE, 512),
    );
    let pages: Vec<u64> = (0..500).map(|n| first + n * FRAME).collect();
    let reply = deposit_frames(guest.id, &pages);
    equal("sizes: its frames are free again", reply.code(), 0);
    guest
        .deposited
        .extend(pages.iter().take(usize::from(reply.done)));
    for n in 500..512 {
        let reply = deposit_frames(guest.id, &[first + n * FRAME]);
        if reply.status.is_ok() {
            guest.deposited.insert(first + n * FRAME);
        }
    }
    check(
        "sizes: without access it stops as mapped",
        kind_of(guest, BASE + 3 * FRAME) == Some(MessageType::GPA_INTERCEPT),
    );
    need("sizes: unmap", guest.unmap(BASE, 512));
    check(
        "sizes: then as unmapped",
        kind_of(guest, BASE + 3 * FRAME) == Some(MessageType::UNMAPPED_GPA),
    );
    arena::free_chunk(second);
}

/// Pages that go, one by one and many.
pub fn unmapping(guest: &mut Guest) {
    let chunk = arena::chunk();
    need(
        "unmap: 2 MiB",
        guest.map(BASE, &[chunk], RWX | MapFlags::LARGE),
    );
    need(
        "unmap: 3 pages from the middle",
        guest.unmap(BASE + 7 * FRAME, 3),
    );
    for (page, there) in [(6, true), (7, false), (9, false), (10, true)] {
        let got = peek(guest, BASE + page * FRAME).is_some();
        equal(format_args!("unmap: page {page}"), got.into(), there.into());
    }
    need(
        "unmap: pages that are not there, too",
        guest.unmap(BASE, 512),
    );
    check("unmap: nothing is left", peek(guest, BASE).is_none());
    need(
        "unmap: 2 MiB again",
        guest.map(BASE, &[chunk], RWX | MapFlags::LARGE),
    );
    let reply = guest.unmap_once(BASE, 1, UnmapFlags::LARGE);
    equal("unmap: as one unit of 2 MiB", reply.code(), 0);
    check("unmap: nothing is left again", peek(guest, BASE).is_none());
    arena::free_chunk(chunk);
}

/// Bases, counts and flags that cannot be.
pub fn ranges(guest: &mut Guest) {
    let frame = arena::frame();
    let large = RWX | MapFlags::LARGE;
    for (name, reply) in [
        (
            "2 MiB at an odd base",
            guest.map_once(BASE + FRAME, &[frame & !(CHUNK - 1)], large),
        ),
        (
            "2 MiB of an odd frame",
            guest.map_once(BASE, &[(frame & !(CHUNK - 1)) + FRAME], large),
        ),
        ("beyond addresses", guest.map_once(1 << 52, &[frame], RWX)),
        (
            "the end of all numbers",
            guest.map_once(!0xFFF_u64, &[frame], RWX),
        ),
        (
            "an unknown flag",
            guest.map_once(BASE, &[frame], MapFlags::from_bits_retain(0xF | 1 << 20)),
        ),
        (
            "write without read",
            guest.map_once(BASE, &[frame], MapFlags::WRITE),
        ),
    ] {
        fails(format_args!("ranges: {name} is refused"), reply.status);
        check(
            format_args!("ranges: {name}: nothing done"),
            reply.done == 0,
        );
    }
    check(
        "ranges: and nothing is there",
        kind_of(guest, BASE) == Some(MessageType::UNMAPPED_GPA),
    );
    // The good elements before a bad one stay.
    let list = [frame, 1 << 45];
    let reply = loop {
        let reply = guest.map_once(BASE, &list, RWX);
        if reply.status != Err(HvError::INSUFFICIENT_MEMORY) || guest.deposit(1).is_err() {
            break reply;
        }
    };
    check(
        "ranges: good elements before a bad one are done",
        reply.status.is_err() && reply.done == 1,
    );
    check("ranges: and are there", peek(guest, BASE).is_some());
    need("ranges: unmap", guest.unmap(BASE, 1));
    // The whole space without access costs little.
    let before = guest.deposited.len();
    let mut result = Ok(());
    for part in 0..16 {
        result = result.and(guest.map_no_access((4 << 30) + part * 509 * FRAME, 509));
    }
    need("ranges: 8144 pages without access", result);
    let cost = guest.deposited.len() - before;
    check(format_args!("ranges: they cost {cost} frames"), cost <= 20);
    for part in 0..16 {
        result = result.and(guest.unmap((4 << 30) + part * 509 * FRAME, 509));
    }
    need("ranges: and are unmapped", result);
    arena::free(frame);
}
