//! What it costs that there are children: to make and unmake one, and to have many that sleep.

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
/// How many large pages the memory of a child has here.
const GIB: usize = 512;
/// Interrupts of a child's timer in a second.
const TICKS: u64 = 10;
/// Numbers of children that sleep.
const CROWDS: [usize; 3] = [1, 8, 64];

/// Runs all.
pub fn run() {
    make_and_unmake("");
    crowds();
}

/// `child-make`, `child-unmake`, with `suffix` behind: create, initialize, a VP with its pages, a large page; and their end.
fn make_and_unmake(suffix: &str) {
    let chunk = arena::chunk();
    let make = || {
        let mut child = Child::create(USUAL)?;
        child.deposit(FRAMES)?;
        let start = insn::rdtsc();
        child.initialize()?;
        child.create_vp(0)?;
        child.map(0, &[chunk], RWX | MapFlags::LARGE)?;
        Ok((child, insn::rdtsc() - start))
    };
    // The first one gives the hypervisor what it wants to keep.
    if let Some((child, _)) = need("bench: make", make()) {
        child.destroy();
    }
    let Some((mut child, ticks)) = need("bench: make", make()) else {
        return;
    };
    note(format_args!("bench child-make{suffix} {ticks}"));
    let start = insn::rdtsc();
    let large = RWX | MapFlags::LARGE;
    let same: Vec<u64> = (0..GIB).map(|_| chunk).collect();
    if suffix.is_empty() && need("bench: a GiB", child.map(1 << 30, &same, large)).is_some() {
        let ticks = insn::rdtsc() - start;
        note(format_args!("bench child-map-gib {ticks}"));
    }
    let start = insn::rdtsc();
    let gone = child.destroy();
    let ticks = insn::rdtsc() - start;
    check("bench: unmake", gone == Gone::CLEAN);
    note(format_args!("bench child-unmake{suffix} {ticks}"));
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
    make_and_unmake("-64");
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
