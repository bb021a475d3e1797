//! A child's first touch of a page that its parent maps only then.

use alloc::vec::Vec;

use machine::insn;
use machine::mark::mark;
use machine::verdict::{check, note};
use tlfs::call::MapFlags;
use tlfs::register::RegisterName as N;

use crate::arena::{self, CHUNK, FRAME};
use crate::child::code::{self, Program};
use crate::child::guest::{Guest, Mode};
use crate::client::partition::RWX;
use crate::group::{destroy, need, stopped};

/// Where nothing is mapped yet.
const EMPTY: u64 = 1 << 30;
const PAGES: u64 = 256;
const LARGE_PAGES: u64 = 16;
/// Frames for the tables, so that no call asks for more.
const SPARE: usize = 16;

/// `child-fault-4k` and `child-fault-2m`: intercept, the parent's call that maps, and its call that lets the VP go on.
pub fn run() {
    let frames = arena::frames(PAGES as usize);
    fault("child-fault-4k", code::store_next, FRAME, &frames, RWX);
    frames.into_iter().for_each(arena::free);
    let chunks: Vec<u64> = (0..LARGE_PAGES).map(|_| arena::chunk()).collect();
    let large = RWX | MapFlags::LARGE;
    fault(
        "child-fault-2m",
        code::store_next_large,
        CHUNK,
        &chunks,
        large,
    );
    chunks.into_iter().for_each(arena::free_chunk);
}

fn fault(name: &str, program: Program, unit: u64, list: &[u64], flags: MapFlags) {
    let Some(mut guest) = need("bench: a child", Guest::new(1)) else {
        return;
    };
    let count = list.len() as u64;
    let registers = [(N::RAX.nth(6), EMPTY.into()), (N::RAX.nth(1), count.into())];
    need("bench: memory", guest.deposit(SPARE));
    need(
        "bench: stores",
        guest.start(0, Mode::Long, program, &registers),
    );
    let mut stop = guest.run(0);
    mark(name);
    let start = insn::rdtsc();
    let mut done = 0;
    for (gpa, page) in (EMPTY..).step_by(unit as usize).zip(list) {
        let is_there = stop
            .and_then(|stop| stop.memory())
            .is_some_and(|access| access.gpa.get() == gpa);
        if !is_there || guest.map_once(gpa, &[*page], flags).status.is_err() {
            break;
        }
        done += 1;
        stop = guest.run(0);
    }
    let ticks = insn::rdtsc() - start;
    mark(name);
    if check(
        format_args!("bench: {name}: each page faults once"),
        done == count,
    ) && stopped(format_args!("bench: {name} ends"), stop).is_some()
    {
        note(format_args!("bench {name} {}", ticks / count));
    }
    destroy(name, guest);
}
