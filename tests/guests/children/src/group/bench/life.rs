//! What it costs that there are children: to make and unmake one, and to have many that sleep.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use machine::verdict::{check, note};
use machine::{clock, insn};
use tlfs::call::MapFlags;
use tlfs::msr;

use super::{VECTOR, x2apic};
use crate::arena;
use crate::child::guest::Guest;
use crate::child::runtime::{self, Shared};
use crate::client::partition::{Child, Gone, RWX, USUAL};
use crate::group::{destroy, need};

/// Frames for everything that a child of this kind needs.
const FRAMES: usize = 64;
/// What memory of a child is measured, in large pages.
const SIZES: [(&str, usize); 3] = [("256mib", 128), ("gib", 512), ("4gib", 2048)];
/// Where it lies: above the page of the local APICs, which no memory covers.
const ABOVE: u64 = 4 << 30;
/// What numbers of VPs beside one.
const VPS: [u32; 2] = [2, 4];
const LARGE: MapFlags = RWX.union(MapFlags::LARGE);
/// Interrupts of a child's timer in a second.
const TICKS: u64 = 10;
/// Numbers of children that sleep.
const CROWDS: [usize; 3] = [1, 8, 64];

/// Runs all.
pub fn run() {
    make_and_unmake("", 1);
    for vps in VPS {
        make_and_unmake(&format!("-{vps}-vps"), vps);
    }
    for (name, pages) in SIZES {
        memory(name, pages);
    }
    crowds();
}

/// `child-make`, `child-unmake`, with `suffix` behind: create, initialize, VPs with their pages, a large page; and their
/// end.
fn make_and_unmake(suffix: &str, vps: u32) {
    let chunk = arena::chunk();
    let make = || {
        let mut child = Child::create(USUAL)?;
        child.deposit(FRAMES)?;
        let start = insn::rdtsc();
        child.initialize()?;
        for vp in 0..vps {
            child.create_vp(vp)?;
        }
        child.map(0, &[chunk], LARGE)?;
        Ok((child, insn::rdtsc() - start))
    };
    // The first one gives the hypervisor what it wants to keep.
    if let Some((child, _)) = need("bench: make", make()) {
        child.destroy();
    }
    let Some((child, ticks)) = need("bench: make", make()) else {
        return;
    };
    note(format_args!("bench child-make{suffix} {ticks}"));
    unmake(suffix, child);
    arena::free_chunk(chunk);
}

/// `child-unmake`, with `suffix` behind.
fn unmake(suffix: &str, child: Child) {
    let start = insn::rdtsc();
    let gone = child.destroy();
    let ticks = insn::rdtsc() - start;
    check("bench: unmake", gone == Gone::CLEAN);
    note(format_args!("bench child-unmake{suffix} {ticks}"));
}

/// `frames-NAME`, `child-map-NAME`, `child-unmake-NAME`: what so many large pages take of the child's pool, and cost. All
/// are the same one of the parent's.
fn memory(name: &str, pages: usize) {
    let chunk = arena::chunk();
    let same = vec![chunk; pages];
    let of_pool = || {
        let mut child = Child::initialized(USUAL)?;
        let before = child.deposited.len();
        child.map(ABOVE, &same, LARGE)?;
        Ok((child.deposited.len() - before, child))
    };
    if let Some((frames, child)) = need("bench: pool of memory", of_pool()) {
        note(format_args!("bench frames-{name} {frames}"));
        child.destroy();
    }
    let map = || {
        let mut child = Child::initialized(USUAL)?;
        child.deposit(FRAMES)?;
        let start = insn::rdtsc();
        child.map(ABOVE, &same, LARGE)?;
        Ok((child, insn::rdtsc() - start))
    };
    if let Some((child, ticks)) = need("bench: memory", map()) {
        note(format_args!("bench child-map-{name} {ticks}"));
        unmake(&format!("-{name}"), child);
    }
    arena::free_chunk(chunk);
}

/// `idle-N`: what N sleeping children take of the processor in a second, each; `child-make-64`, beside so many.
fn crowds() {
    let alone = turns();
    let mut crowd = Vec::new();
    for count in CROWDS {
        while crowd.len() < count {
            let Some(mut guest) = need("bench: an idle child", Guest::new(1)) else {
                return;
            };
            need("bench: idle", guest.start_entry(0, idle, &[]));
            need("bench: idle goes", guest.resume(0));
            crowd.push(guest);
        }
        let work = turns();
        let ticks = clock::tsc_hz() - clock::tsc_hz() * work.min(alone) / alone.max(1);
        note(format_args!("bench idle-{count} {}", ticks / count as u64));
    }
    let woken = crowd
        .iter()
        .all(|guest| guest.shared(0).count(VECTOR as u8) != 0);
    check("bench: all were woken", woken);
    make_and_unmake("-64", 1);
    for guest in crowd {
        need("bench: idle stands", guest.suspend(0));
        destroy("bench: idle", guest);
    }
}

/// Turns of a loop in a second.
fn turns() -> u64 {
    let end = insn::rdtsc() + clock::tsc_hz();
    let mut turns = 0;
    while insn::rdtsc() < end {
        turns += 1;
    }
    turns
}

/// Sleeps, woken by its timer.
extern "sysv64" fn idle(shared: &'static Shared) -> ! {
    x2apic(shared);
    runtime::wrmsr(msr::SCONTROL, 1);
    // Periodic, armed by its count, direct mode.
    runtime::wrmsr(msr::STIMER0_CONFIG, 0b1010 | VECTOR << 4 | 1 << 12);
    runtime::wrmsr(msr::STIMER0_COUNT, 10_000_000 / TICKS);
    loop {
        insn::halt_once();
    }
}
