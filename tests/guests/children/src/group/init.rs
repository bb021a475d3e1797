//! INIT reaches the parent's boot processor while children run: they are gone before another instruction of the parent's is
//! executed there. Another processor watches, and ends the run, for the first one does not come back.

use alloc::vec::Vec;

use machine::platform::Platform;
use machine::verdict::{check, equal, note, skip};
use machine::{apic, clock, insn, smp, trampoline, verdict};
use spin::Mutex;

use super::need;
use crate::arena;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::child::layout;
use crate::client::call;
use crate::client::partition::children;
use crate::options::Options;

const CHILDREN: usize = 8;
/// Longest time that the end of all children may take, in microseconds.
const PATIENCE: u64 = 5_000_000;
/// Long enough to be sure that nothing runs, in microseconds.
const QUIET: u64 = 20_000;
const PATTERN: u64 = 0x0123_4567_89AB_CDEF;

/// The children that the watcher looks at.
static GUESTS: Mutex<Vec<Guest>> = Mutex::new(Vec::new());

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    apic::notice_mode();
    let own = apic::id();
    let other = platform.processors().iter().find(|id| **id != own);
    let (Some(&other), page) = (other, platform.trampoline) else {
        skip("init", "the machine has one processor");
        return;
    };
    if !check("init: there is a page below 1 MiB", page != 0) {
        return;
    }
    trampoline::install(page);
    trampoline::number_from(page, 1);
    apic::command(
        other,
        apic::icr::INIT | apic::icr::LEVEL | apic::icr::ASSERT,
    );
    apic::command(other, apic::icr::INIT | apic::icr::LEVEL);
    clock::spin(10_000);
    apic::command(other, apic::icr::STARTUP | (page >> 12) as u32);
    if !check(
        "init: the watcher starts",
        clock::wait_for(PATIENCE, || smp::arrivals(1) != 0),
    ) {
        return;
    }
    for n in 0..CHILDREN {
        let Some(mut guest) = need(format_args!("init: child {n}"), Guest::new(1)) else {
            return;
        };
        need("init: start", guest.start(0, Mode::Long, code::spin, &[]));
        need("init: go", guest.resume(0));
        GUESTS.lock().push(guest);
    }
    smp::ask(1, watch, own.into());
    insn::cli();
    loop {
        insn::pause();
    }
}

fn watch(boot_processor: u64) -> u64 {
    let guests = GUESTS.lock();
    let counts = || -> u64 {
        let counters = guests.iter().map(|guest| guest.read(layout::SHARED));
        counters.fold(0, u64::wrapping_add)
    };
    let before = counts();
    check(
        "init: the children run",
        clock::wait_for(PATIENCE, || counts() != before),
    );
    equal(
        "init: all of them are there",
        children().len() as u64,
        CHILDREN as u64,
    );
    let start = clock::reference();
    apic::command(
        boot_processor as u32,
        apic::icr::INIT | apic::icr::LEVEL | apic::icr::ASSERT,
    );
    check(
        "init: no child is left",
        clock::wait_for(PATIENCE, || children().is_empty()),
    );
    note(format_args!(
        "it took {} us",
        (clock::reference() - start) / 10
    ));
    let then = counts();
    clock::spin(QUIET);
    equal("init: nothing runs any more", counts(), then);
    let frames = || {
        guests
            .iter()
            .flat_map(|guest| guest.deposited.iter().copied())
    };
    // The last of them may come back a moment after their partition has gone.
    check(
        "init: every frame of the pools comes back clean",
        clock::wait_for(PATIENCE, || {
            frames().all(|frame| arena::is_filled(frame, 0))
        }),
    );
    frames().for_each(|frame| insn::write_phys64(frame + 8, PATTERN));
    check(
        "init: and is the parent's",
        frames().all(|frame| insn::read_phys64(frame + 8) == PATTERN),
    );
    check(
        "init: the hypervisor still answers",
        call::fast(tlfs::CallCode::NOTIFY_LONG_SPIN_WAIT, 0, 0).is_ok(),
    );
    verdict::finish()
}
