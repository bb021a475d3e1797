//! The pool: deposits, withdrawals, refused frames, what things cost.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use machine::insn;
use machine::platform::Platform;
use machine::verdict::{check, equal, note, within};
use tlfs::HvError;
use tlfs::call::*;

use crate::arena::{self, FRAME};
use crate::client::call;
use crate::client::partition::{Child, Gone, RWX, USUAL, deposit_frames, withdraw_frames};
use crate::group::{clean, need};

const PATTERN: u64 = 0xA5A5_5A5A_C3C3_3C3C;

/// Deposits and withdrawals, exact to the frame.
pub fn pool() {
    let Some(mut child) = need("pool: create", Child::create(USUAL)) else {
        return;
    };
    let frames = arena::frames(511);
    for frame in &frames {
        arena::fill(*frame, FRAME, PATTERN);
    }
    let reply = deposit_frames(child.id, &frames);
    equal("pool: 511 frames in one call", reply.code(), 0);
    equal("pool: all of them", reply.done.into(), 511);
    child.deposited.extend(&frames);
    check(
        "pool: a deposited frame reads as zero",
        frames
            .iter()
            .all(|frame| insn::read_phys64(*frame + 8) == 0),
    );
    insn::write_phys64(frames[7] + 8, PATTERN);
    let (reply, out) = withdraw_frames(child.id, 100);
    equal("pool: 100 come out", reply.code(), 0);
    equal("pool: exactly", out.len() as u64, 100);
    let set: BTreeSet<u64> = out.iter().copied().collect();
    check(
        "pool: all different, and all deposited before",
        set.len() == 100 && set.is_subset(&child.deposited),
    );
    check(
        "pool: and scrubbed",
        out.iter().all(|frame| arena::is_filled(*frame, 0)),
    );
    insn::write_phys64(out[0], PATTERN);
    equal(
        "pool: they are the parent's again",
        insn::read_phys64(out[0]),
        PATTERN,
    );
    let twice = [out[0], out[0], out[1]];
    let reply = deposit_frames(child.id, &twice);
    check(
        "pool: the same frame twice is refused at the second",
        reply.status.is_err() && reply.done == 1,
    );
    note(format_args!("status {:#x}", reply.code()));
    let reply = deposit_frames(child.id, &[out[0]]);
    check(
        "pool: and in a call of its own",
        reply.status.is_err() && reply.done == 0,
    );
    for frame in &out[1..] {
        child.deposited.remove(frame);
        arena::free(*frame);
    }
    need("pool: initialize", child.initialize());
    need("pool: a VP", child.create_vp(0));
    let mut gone = Gone::default();
    child.withdraw_all(&mut gone);
    equal(
        "pool: a living child gives back what is free",
        gone.withdraw,
        0x1D,
    );
    equal("pool: and nothing else", gone.foreign + gone.dirty, 0);
    check("pool: but not what is used", gone.missing != 0);
    clean("pool", child.destroy());
}

/// Page numbers that are nobody's to give.
pub fn refused_frames(platform: &Platform) {
    let Some(mut child) = need("frames: create", Child::initialized(USUAL)) else {
        return;
    };
    let mut list: Vec<(&str, u64)> = alloc::vec![
        ("the local APIC", 0xFEE0_0000),
        ("an I/O APIC", 0xFEC0_0000),
        ("beyond memory", 1 << 45),
        ("beyond addresses", 0xFFFF_FFFF_FFFF_F000),
    ];
    if let Some(area) = platform.diagnostics {
        list.push(("the diagnostics area", area.start));
    }
    if let Some(block) = platform
        .reserved()
        .iter()
        .find(|range| range.start % (2 << 20) == 0 && range.len >= 2 << 20)
    {
        list.push(("the hypervisor", block.start + 0x1000));
        list.push(("the hypervisor's end", block.start + block.len - FRAME));
    }
    list.push(("the hypercall page", call::page()));
    list.push(("the message page", insn::rdmsr(tlfs::msr::SIMP) & !0xFFF));
    for (name, frame) in &list {
        let reply = deposit_frames(child.id, &[*frame]);
        check(
            format_args!("frames: {name} is not deposited ({:#x})", reply.code()),
            reply.status.is_err() && reply.done == 0,
        );
    }
    for (name, frame) in &list {
        // Devices can be mapped uncached; no other use of these is right.
        if matches!(*name, "the local APIC" | "an I/O APIC") {
            continue;
        }
        let reply = loop {
            let reply = child.map_once(0x10_0000, &[*frame], RWX);
            if reply.status != Err(HvError::INSUFFICIENT_MEMORY) || child.deposit(1).is_err() {
                break reply;
            }
        };
        let is_overlay = matches!(*name, "the hypercall page" | "the message page");
        if is_overlay {
            note(format_args!("mapping {name}: {:#x}", reply.code()));
            let _ = child.unmap(0x10_0000, 1);
            continue;
        }
        check(
            format_args!("frames: {name} is not mapped ({:#x})", reply.code()),
            reply.status.is_err() && reply.done == 0,
        );
    }
    clean("frames", child.destroy());
}

/// A whole large page in the pool.
pub fn whole_chunk() {
    let Some(mut child) = need("chunk: create", Child::create(USUAL)) else {
        return;
    };
    let chunk = arena::chunk();
    arena::fill(chunk, arena::CHUNK, PATTERN);
    let frames: Vec<u64> = (0..512).map(|n| chunk + n * FRAME).collect();
    for part in frames.chunks(256) {
        equal(
            "chunk: half of 2 MiB goes in",
            deposit_frames(child.id, part).code(),
            0,
        );
    }
    child.deposited.extend(&frames);
    let (mut out, mut order) = (BTreeSet::new(), 0);
    loop {
        let (reply, frames) = withdraw_frames(child.id, 512);
        order += frames.len();
        out.extend(frames);
        if reply.status.is_err() {
            break;
        }
    }
    check(
        "chunk: 2 MiB come back",
        order == 512 && out == child.deposited,
    );
    check(
        "chunk: empty",
        frames.iter().all(|frame| arena::is_filled(*frame, 0)),
    );
    child.deposited.clear();
    arena::free_chunk(chunk);
    clean("chunk", child.destroy());
}

/// Notes what the parts of a child cost.
pub fn costs() {
    let Some(mut child) = need("costs: create", Child::create(USUAL)) else {
        return;
    };
    need("costs: initialize", child.initialize());
    let partition = child.deposited.len() as u64;
    within("costs: frames of a partition", partition, 0, 207);
    need("costs: VP", child.create_vp(0));
    let vp = child.deposited.len() as u64 - partition;
    within("costs: frames of a VP", vp, 1, 89);
    let before = child.deposited.len() as u64;
    let chunk = arena::chunk();
    let large = child.map(0, &[chunk], RWX | MapFlags::LARGE);
    need("costs: 2 MiB", large);
    let map = child.deposited.len() as u64 - before;
    note(format_args!("bench frames-partition {partition}"));
    note(format_args!("bench frames-vp {vp}"));
    note(format_args!("bench frames-first-2MiB {map}"));
    within("costs: a child of 1 VP", (partition + vp + map) * 4, 0, 256);
    clean("costs", child.destroy());
    arena::free_chunk(chunk);
}
